"""What every test gets: folders of its own, so that no test reads or writes the user's models and settings."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

HEADLESS = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

# napari and Qt read these once, when they are imported: a fixture would come too late.
_napari_home = tempfile.TemporaryDirectory(prefix="napari-unet-tests-", ignore_cleanup_errors=True)
os.environ["NAPARI_CONFIG"] = str(Path(_napari_home.name) / "settings.yaml")
if HEADLESS:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

# What hypothesis tries. In the suite few and always the same; many and others with --hypothesis-profile=long.
_calm = hypothesis.settings(
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.register_profile("suite", _calm, max_examples=20, derandomize=True)
hypothesis.settings.register_profile("long", _calm, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the models and journals of this test alone."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NAPARI_UNET_HOME", str(folder))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not HEADLESS:
        return
    skip = pytest.mark.skip(reason="needs a display: run make test, or xvfb-run pytest")
    for item in items:
        if item.get_closest_marker("gui"):
            item.add_marker(skip)
