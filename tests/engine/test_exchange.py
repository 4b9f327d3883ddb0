"""Packages for the bioimage.io, judged by its own library, and what comes back from them."""

from __future__ import annotations

import ast
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_unet.engine import architecture, exchange
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.errors import InvalidModel, LibraryError, ModelNotFound
from napari_unet.engine.image import Image
from napari_unet.engine.inference import segment
from napari_unet.engine.library import Library
from napari_unet.engine.model import Model, new_model
from napari_unet.engine.settings import SegmentSettings
from napari_unet.engine.tiling import halo

from .conftest import make_model

# What the official library warns of is its own affair.
official = pytest.mark.filterwarnings("ignore")


def valid_model() -> Model:
    return new_model(ModelCard("paper", "semantic", UNetSpec(channels=(4, 8, 16), padding="valid", norm="none")))


MODELS = {
    "semantic": lambda: make_model(classes=("background", "cell", "wall"), spacing=(0.5, 0.5)),
    "objects": lambda: make_model(task="objects", in_channels=2),
    "volume": lambda: make_model(dims=3, channels=(2, 4)),
    "valid": valid_model,
    "click": lambda: make_model(task="click", in_channels=4),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOIMAGEIO_CACHE_PATH", str(tmp_path / "cache"))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models")


def exported(library: Library, model: Model, tmp_path: Path) -> Path:
    return exchange.export_model(library, library.add(model), tmp_path / "model.zip")


def changed(path: Path, **files: bytes | None) -> Path:
    """Return a copy of a package with some files replaced, or left out."""
    names = {name.replace(".", "_"): name for name in zipfile.ZipFile(path).namelist()}
    copy = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for key, name in names.items():
            content = files.get(key, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return copy


@official
@pytest.mark.parametrize("name", ["volume", "valid", "click"])
def test_a_package_passes_the_official_test(library: Library, tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxruntime")
    core = pytest.importorskip("bioimageio.core")
    path = exported(library, MODELS[name](), tmp_path)
    summary = core.test_description(path, devices=["cpu"])
    assert summary.status == "passed", summary.format()
    assert {d.name for d in summary.details if d.status == "passed"} >= {
        "Reproduce test outputs from test inputs (onnx)",
        "Reproduce test outputs from test inputs (pytorch_state_dict)",
    }


@official
def test_what_the_official_library_predicts_tile_by_tile_is_what_we_predict(
    library: Library, tmp_path: Path, rng
) -> None:
    core = pytest.importorskip("bioimageio.core")
    model = make_model(classes=("background", "cell"))
    path = exported(library, model, tmp_path)
    pixels = rng.integers(0, 255, (96, 128)).astype(np.float32)
    *_, ours = segment(Image(pixels, "yx"), model, SegmentSettings(device="cpu", probabilities=True))
    theirs = core.predict(model=str(path), inputs=pixels[None, None], blocksize_parameter=1)
    (output,) = theirs.members.values()
    inside = (slice(None), *(slice(n, -n) for n in halo(model.card.spec)))  # it mirrors what we leave to the network
    np.testing.assert_allclose(np.asarray(output.data)[0][inside], ours.probabilities[inside], atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_architecture_that_travels_is_the_network(name: str) -> None:
    model = MODELS[name]()
    twin = architecture.UNet(**exchange.architecture(model.card.spec)).eval()
    twin.load_state_dict(model.network.state_dict())
    x = torch.rand(1, model.card.spec.in_channels, *exchange.input_shape(model.card.spec))
    with torch.no_grad():
        assert torch.equal(twin(x), model.network(x))


def test_the_architecture_needs_only_torch() -> None:
    tree = ast.parse(Path(architecture.__file__).read_text("utf-8"))
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imports = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert froms | imports == {"typing", "torch", "torch.nn"}


@pytest.mark.parametrize("name", ["objects", "volume", "valid"])
def test_the_onnx_file_alone_gives_the_same_logits_for_other_sizes(
    library: Library, tmp_path: Path, rng, name: str
) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = MODELS[name]()
    path = exchange.export_model(library, library.add(model), tmp_path / "model.onnx")
    sizes = zip(exchange.input_shape(model.card.spec), model.card.spec.total_stride, strict=True)
    x = rng.random((2, model.card.spec.in_channels, *(n + 2 * s for n, s in sizes)), dtype=np.float32)
    (logits,) = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model.network(torch.from_numpy(x)).numpy(), atol=1e-4)


@official
def test_without_onnx_a_package_has_the_state_dict_alone(library: Library, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(exchange, "find_spec", lambda name: None)
    path = exported(library, make_model(), tmp_path)
    assert "weights.onnx" not in zipfile.ZipFile(path).namelist()
    with pytest.raises(LibraryError, match="pip install onnx"):
        exchange.export_model(library, library.find("tiny"), tmp_path / "model.onnx")


def test_a_package_of_ours_comes_back_bit_by_bit(library: Library, tmp_path: Path) -> None:
    model = make_model(classes=("background", "cell"))
    path = exported(library, model, tmp_path)
    entry = exchange.import_model(Library(tmp_path / "other"), path)
    assert entry.card.content_hash == library.find("tiny").card.content_hash
    assert exchange.import_model(library, path).path == library.find("tiny").path  # not taken in twice


@official
def test_a_package_that_the_official_library_wrote_anew_comes_back_too(library: Library, tmp_path: Path) -> None:
    spec = pytest.importorskip("bioimageio.spec")
    path = exported(library, make_model(), tmp_path)
    again = spec.save_bioimageio_package(path, output_path=tmp_path / "again.zip")
    entry = exchange.import_model(Library(tmp_path / "other"), again)
    assert entry.card.content_hash == library.find("tiny").card.content_hash


def test_a_package_with_code_is_refused_with_the_reason(library: Library, tmp_path: Path) -> None:
    path = exported(library, make_model(), tmp_path)
    record = json.loads(zipfile.ZipFile(path).read("rdf.yaml"))
    record["weights"].pop("onnx", None)
    foreign = changed(path, rdf_yaml=json.dumps(record).encode(), model_safetensors=None)
    with pytest.raises(InvalidModel, match="need Python code that comes with it, and napari-unet runs no code"):
        exchange.import_model(library, foreign)


def test_a_wrong_checksum_is_named(library: Library, tmp_path: Path) -> None:
    path = changed(exported(library, make_model(), tmp_path), architecture_py=b"import os")
    with pytest.raises(InvalidModel, match=r"'architecture.py' has another checksum"):
        exchange.import_model(library, path)


def test_a_missing_file_is_named(library: Library, tmp_path: Path) -> None:
    path = changed(exported(library, make_model(), tmp_path), weights_pt=None)
    with pytest.raises(InvalidModel, match=r"its file 'weights.pt' is missing"):
        exchange.import_model(library, path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"[1, 2", "cannot be read"), (b"type: dataset", "not of a model"), (None, "holds no rdf.yaml")],
)
def test_a_description_that_is_none_is_said(library: Library, tmp_path: Path, content, sentence: str) -> None:
    path = changed(exported(library, make_model(), tmp_path), rdf_yaml=content)
    with pytest.raises(InvalidModel, match=sentence):
        exchange.import_model(library, path)


def test_a_cut_off_package_is_damaged(library: Library, tmp_path: Path) -> None:
    path = exported(library, make_model(), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidModel, match=r"model.zip is no zip file, or it is damaged"):
        exchange.import_model(library, path)


def test_a_flipped_bit_inside_is_damage(library: Library, tmp_path: Path) -> None:
    path = exported(library, make_model(), tmp_path)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match="damaged"):
        exchange.import_model(library, path)


def test_no_package_there_is_said(library: Library, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model file"):
        exchange.import_model(library, tmp_path / "none.zip")
