"""The walls of the house that import-linter cannot see."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

import napari_unet

PACKAGE = Path(napari_unet.__file__).parent
REPOSITORY = Path(__file__).parent.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("module", ["napari_unet", "napari_unet.cli", "napari_unet.engine.settings"])
def test_importing_it_loads_neither_torch_nor_a_window(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'napari', 'qtpy', 'skimage'}} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


@pytest.mark.parametrize("module", ["api", "engine.inference", "engine.training", "engine.library"])
def test_the_engine_runs_without_napari_and_qt(module: str) -> None:
    code = f"import sys; sys.modules.update(napari=None, qtpy=None, PyQt6=None); import napari_unet.{module}"
    subprocess.run([sys.executable, "-c", code], check=True)


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    named = [] if handler.type is None else ast.walk(handler.type)
    return handler.type is None or any(
        isinstance(node, ast.Name) and node.id in {"Exception", "BaseException"} for node in named
    )


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_only_the_job_runner_catches_everything(path: Path) -> None:
    handlers = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ExceptHandler)]
    lines = [handler.lineno for handler in handlers if _catches_everything(handler)]
    assert _name(path) == "plugin/jobs.py" or lines == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_is_named_after_its_noun(path: Path) -> None:
    vague = ("util", "helper", "manager", "misc", "common", "stuff")
    assert not any(word in path.stem for word in vague)


def test_the_manifest_is_valid_and_all_it_names_can_be_imported() -> None:
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_distribution("napari-unet")
    manifest.validate_imports()
    assert manifest.name == "napari-unet"


def test_the_manifest_at_the_top_is_the_one_in_the_package() -> None:
    link = REPOSITORY / "napari.yaml"
    if not link.is_symlink():
        pytest.skip("this checkout has no symbolic links")
    assert link.resolve() == (PACKAGE / "napari.yaml").resolve()


def test_the_changelog_knows_this_version() -> None:
    version = distribution("napari-unet").version
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    assert f"## [{version}]" in changelog
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text("utf-8")


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = (REPOSITORY / "conda" / "meta.yaml").read_text("utf-8")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    names = {"torch": "pytorch", "dask[array]": "dask-core"}
    for line in (*project["dependencies"], *project["optional-dependencies"]["napari"]):
        name, rest = re.fullmatch(r"([\w\[\]-]+)(.*)", line).groups()
        assert f"- {names.get(name, name)} {rest}\n" in recipe
    assert f'version = "{project["version"]}"' in recipe
