"""Networks of other programs: packages made with torch.onnx and judged by the official library, used by us."""

from __future__ import annotations

import copy
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn

from napari_unet.engine import foreign
from napari_unet.engine.annotation import Annotation, TrainingSet
from napari_unet.engine.batch import BatchDone, plan_batch, run_batch, with_times
from napari_unet.engine.card import ForeignSpec, ModelCard, UNetSpec
from napari_unet.engine.click import ClickSegmenter
from napari_unet.engine.errors import InvalidModel, InvalidSettings, LibraryError, ModelNotFound
from napari_unet.engine.exchange import export_model, import_model
from napari_unet.engine.image import Image
from napari_unet.engine.inference import segment
from napari_unet.engine.lesson import Lesson, teach
from napari_unet.engine.library import Library
from napari_unet.engine.model import Model, new_model
from napari_unet.engine.settings import BatchSettings, SegmentSettings
from napari_unet.engine.tiling import halo
from napari_unet.engine.training import fine_tune
from napari_unet.engine.transfer import start_model

from . import zoo

onnx = pytest.importorskip("onnx", reason='needs the extra "onnx"')
pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
official = pytest.mark.filterwarnings("ignore")  # what the official library warns of is its own affair
PROBABILITIES = SegmentSettings(probabilities=True)


@pytest.fixture(scope="module")
def cells() -> dict[str, bytes]:
    """The files of a package, but for its description."""
    return zoo.cells()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models")


@pytest.fixture
def pixels(rng) -> np.ndarray:
    return rng.integers(0, 255, (144, 176)).astype(np.float32)


def taken_in(library: Library, path: Path) -> Model:
    return library.load(import_model(library, path).card.name)


def maps(model: Model, pixels: np.ndarray, axes: str = "yx", **settings: Any) -> np.ndarray:
    *_, result = segment(Image(pixels, axes), model, SegmentSettings(probabilities=True, **settings))
    return result.probabilities


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a description with another value at a place such as ``inputs/0/axes``."""
    record = copy.deepcopy(record)
    *way, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    inside: Any = record
    for key in way:
        inside = inside[key]
    inside[last] = value
    return record


def predicted(path: Path, pixels: np.ndarray, monkeypatch, tmp_path: Path, blocks: int = 1) -> np.ndarray:
    """Return what the official library makes of an image, tile by tile; the package passes its tests."""
    monkeypatch.setenv("BIOIMAGEIO_CACHE_PATH", str(tmp_path / "cache"))
    core = pytest.importorskip("bioimageio.core")
    summary = core.test_description(path, devices=["cpu"])
    assert summary.status == "passed", [
        (d.name, [e.msg for e in d.errors]) for d in summary.details if d.status == "failed"
    ]
    (output,) = core.predict(model=str(path), inputs=pixels, blocksize_parameter=blocks).members.values()
    return np.asarray(output.data)[0]


# ---------------------------------------------------------------- what it gives


@official
def test_tiles_of_a_package_give_what_the_official_library_predicts(
    cells, library: Library, pixels, tmp_path: Path, monkeypatch
) -> None:
    path = zoo.package(tmp_path / "cells.zip", cells)
    theirs = predicted(path, pixels[None, None], monkeypatch, tmp_path)
    model = taken_in(library, path)
    ours = maps(model, pixels, tile=48)
    np.testing.assert_allclose(ours[1:], theirs, atol=1e-4)
    *_, result = segment(Image(pixels, "yx"), model, SegmentSettings(tile=48))
    np.testing.assert_array_equal(result.labels, theirs[0] > 0.5)


def test_tiles_meet_where_the_halo_suffices_and_not_where_it_does_not(
    cells, library: Library, pixels, tmp_path: Path
) -> None:
    model = taken_in(library, zoo.package(tmp_path / "cells.zip", cells))
    whole = maps(model, pixels)
    for tile in (16, 48, 96):
        np.testing.assert_allclose(maps(model, pixels, tile=tile), whole, atol=1e-6)
    without = zoo.record(cells)
    for axis in without["outputs"][0]["axes"][2:]:
        axis["halo"] = 0
    bad = taken_in(library, zoo.package(tmp_path / "bad.zip", cells, without | {"name": "bad"}))
    assert bad.card.description.endswith("reach 4 pixels far, its halo is 0: tiles may show at their edges.")
    assert model.card.description == "Finds cells."
    assert np.abs(maps(bad, pixels, tile=48) - maps(bad, pixels)).max() > 1e-3


@official
def test_channels_classes_and_every_step_are_as_in_the_official_library(
    library: Library, tmp_path: Path, rng, monkeypatch
) -> None:
    network = zoo.net(channels=2, outputs=3, gain=3.0)
    before = [
        {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        {"id": "scale_linear", "kwargs": {"gain": [0.5, 2.0], "offset": [1.0, -1.0], "axis": "channel"}},
        {"id": "scale_range", "kwargs": {"axes": ["y", "x"], "min_percentile": 2, "max_percentile": 97}},
        {"id": "clip", "kwargs": {"min": -0.5, "max": 1.5}},
        {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": [0.4, 0.5], "std": [0.2, 0.3], "axis": "channel"}},
    ]

    def prepared(image: np.ndarray) -> np.ndarray:
        column = (1, 2, 1, 1)
        x = image * np.reshape([0.5, 2.0], column) + np.reshape([1.0, -1.0], column)
        low, high = np.percentile(image, [2, 97], axis=(2, 3), keepdims=True)  # of the image, not of x
        x = ((x - low) / (high - low + 1e-6)).clip(-0.5, 1.5)
        return (x - np.reshape([0.4, 0.5], column)) / (np.reshape([0.2, 0.3], column) + 1e-6)

    files = zoo.cells(network, (1, 2, 64, 64))
    answer = np.exp(zoo.answer(network, prepared(np.load(zoo.io.BytesIO(files["in.npy"])))))
    files["out.npy"] = zoo.npy((answer / answer.sum(axis=1, keepdims=True)).astype(np.float32))
    record = changed(zoo.record(files), "inputs/0/preprocessing", before)
    record = changed(record, "inputs/0/axes/1/channel_names", ["red", "green"])
    record = changed(record, "outputs/0/axes/1/channel_names", ["background", "cell", "wall"])
    record = changed(record, "outputs/0/postprocessing", [{"id": "softmax", "kwargs": {"axis": "channel"}}])
    path = zoo.package(tmp_path / "steps.zip", files, record)
    pixels = rng.integers(0, 255, (2, 96, 112)).astype(np.float32)
    theirs = predicted(path, pixels[None], monkeypatch, tmp_path)
    model = taken_in(library, path)
    assert model.card.classes == ("background", "cell", "wall")
    np.testing.assert_allclose(maps(model, pixels, "cyx", tile=48), theirs, atol=1e-4)


@official
def test_a_description_of_format_0_4_is_read_too(library: Library, tmp_path: Path, pixels, monkeypatch) -> None:
    network = zoo.net(eaten=8)
    files = zoo.cells(network)
    record = {
        "type": "model",
        "format_version": "0.4.10",
        "name": "Old cells",
        **zoo.ABOUT,
        "timestamp": "2023-01-01T00:00:00",
        "documentation": "README.md",
        "inputs": [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"min": [1, 1, 32, 32], "step": [0, 0, 16, 16]},
                "preprocessing": [
                    {"name": "zero_mean_unit_variance", "kwargs": {"mode": "per_sample", "axes": "cyx", "eps": 1e-6}}
                ],
            }
        ],
        "outputs": [
            {
                "name": "prediction",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"reference_tensor": "raw", "scale": [1, 1, 1, 1], "offset": [0, 0, -8, -8]},
                "postprocessing": [{"name": "sigmoid"}],
            }
        ],
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
        "weights": {"onnx": {**zoo.entry(files, "weights.onnx"), "opset_version": 17}},
    }
    path = zoo.package(tmp_path / "old.zip", files, record)
    model = taken_in(library, path)
    assert isinstance(model.card.spec, ForeignSpec)
    assert (model.card.spec.eaten, model.card.spec.step) == ((8, 8), (16, 16))
    monkeypatch.setenv("BIOIMAGEIO_CACHE_PATH", str(tmp_path / "cache"))
    core = pytest.importorskip("bioimageio.core")
    (whole,) = core.predict(model=str(path), inputs=pixels[None, None]).members.values()
    ours = maps(model, pixels, tile=48)
    np.testing.assert_allclose(ours[1, 8:-8, 8:-8], np.asarray(whole.data)[0, 0], atol=1e-4)


def test_a_network_of_one_size_sees_tiles_of_that_size_and_they_meet(library: Library, tmp_path: Path, pixels) -> None:
    network = zoo.net()
    files = zoo.cells(network) | {"weights.onnx": zoo.onnx_bytes(network, (1, 1, 64, 64), free=False)}
    record = zoo.record(files)
    for axis in (*record["inputs"][0]["axes"][2:], *record["outputs"][0]["axes"][2:]):
        axis["size"] = 64
    model = taken_in(library, zoo.package(tmp_path / "fixed.zip", files, record))
    free = taken_in(library, zoo.package(tmp_path / "free.zip", zoo.cells(network)))
    np.testing.assert_allclose(maps(model, pixels), maps(free, pixels), atol=1e-6)
    np.testing.assert_allclose(maps(model, pixels[:20, :30]), maps(free, pixels[:20, :30]), atol=1e-6)


def test_volumes_with_channels_last(library: Library, tmp_path: Path, rng) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = zoo.net(dims=3, outputs=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inside(x.permute(0, 4, 1, 2, 3)).sigmoid().permute(0, 2, 3, 4, 1)

    network = Last().eval()
    image = rng.random((1, 16, 16, 16, 1), dtype=np.float32)
    files = {
        "weights.onnx": zoo.onnx_bytes(network, image.shape, free=False),
        "README.md": b"#",
        "in.npy": zoo.npy(image),
        "out.npy": zoo.npy(zoo.answer(network, image)),
    }
    record = zoo.record(files)
    for tensor, names in ((record["inputs"][0], ["grey"]), (record["outputs"][0], ["cell", "wall"])):
        space = [{"type": "space", "id": a, "size": 16} for a in "zyx"]
        tensor["axes"] = [{"type": "batch"}, *space, {"type": "channel", "channel_names": names}]
        tensor.pop("preprocessing", None)
        tensor.pop("postprocessing", None)
    for axis in record["outputs"][0]["axes"][1:4]:
        axis["halo"] = 4
    model = taken_in(library, zoo.package(tmp_path / "volume.zip", files, record))
    assert model.card.classes == ("background", "cell", "wall")
    volume = rng.random((20, 24, 24), dtype=np.float32)
    found = maps(model, volume, "zyx")
    inner = zoo.answer(network, volume[None, :16, :16, :16, None])[0]
    np.testing.assert_allclose(found[1:, 4:8, 4:8, 4:8], inner.transpose(3, 0, 1, 2)[:, 4:8, 4:8, 4:8], atol=1e-5)
    np.testing.assert_allclose(found[0], 1 - found[1:].max(axis=0), atol=1e-6)


@official
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_package_of_ours_without_our_own_file_is_another_programs_and_gives_the_same(
    library: Library, tmp_path: Path, pixels, padding: str
) -> None:
    model = new_model(ModelCard("paper", "semantic", UNetSpec(channels=(4, 8, 16), padding=padding, norm="none")))
    package = export_model(library, library.add(model), tmp_path / "ours.zip")
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != "model.safetensors"}
    record = json.loads(files["rdf.yaml"])
    record["attachments"] = []
    twin = taken_in(library, zoo.package(tmp_path / "theirs.zip", files, record))
    assert twin.card.is_foreign
    rim = (
        slice(None),
        *(slice(n, -n) for n in halo(model.card.spec) if padding == "same"),
    )  # mirrored beyond, not zeros
    np.testing.assert_allclose(maps(twin, pixels, tile=64)[rim], maps(model, pixels)[rim], atol=1e-4)


def test_an_onnx_file_alone_is_measured(cells, library: Library, tmp_path: Path, pixels) -> None:
    path = tmp_path / "alone.onnx"
    path.write_bytes(cells["weights.onnx"])
    model = taken_in(library, path)
    assert isinstance(model.card.spec, ForeignSpec)
    assert model.card.spec.halo == (
        4,
        4,
    )  # by hand: 1 + 2 * 1 of the convolutions, and 1 for the odd pixel of the pooling
    low, high = np.percentile(pixels, [1, 99.8])
    logits = zoo.answer(zoo.net(), ((pixels - low) / (high - low)).clip(-1, 4)[None, None])[0, 0]
    found = maps(model, pixels, tile=64)[1]
    np.testing.assert_allclose(found[8:-8, 8:-8], (1 / (1 + np.exp(-logits)))[8:-8, 8:-8], atol=1e-5)


# ---------------------------------------------------------------- where it lives, and what cannot be done with it


def test_it_lives_in_the_library_like_any_model(cells, library: Library, tmp_path: Path) -> None:
    path = zoo.package(tmp_path / "cells.zip", cells)
    entry = import_model(library, path)
    assert import_model(library, path).path == entry.path  # not taken in twice
    card = library.find("Cells of somebody").card
    assert (card.licence, card.cite) == ("MIT", "Body: Cells (2024) 10.1000/182")
    assert card.source == "cells.zip (bioimage.io package) by A. Body"
    assert library.rename("Cells of somebody", "theirs").card.content_hash == card.content_hash
    exported = export_model(library, library.find("theirs"), tmp_path / "again.onnx")
    assert exported.read_bytes() == cells["weights.onnx"]
    copied = export_model(library, library.find("theirs"), tmp_path / "again.safetensors")
    assert Library(tmp_path / "other").import_file(copied).card.content_hash == card.content_hash
    with pytest.raises(LibraryError, match="came from another program: pass its own package on"):
        export_model(library, library.find("theirs"), tmp_path / "again.zip")


def covered(tmp_path: Path, cells: dict[str, bytes], cover: bytes) -> Path:
    files = cells | {"cover.png": cover}
    return zoo.package(tmp_path / "cells.zip", files, zoo.record(files, covers=[zoo.entry(files, "cover.png")]))


def png(*size: int) -> bytes:
    file = zoo.io.BytesIO()
    Picture.new("RGB", size, (250, 20, 30)).save(file, "PNG")
    return file.getvalue()


def test_its_cover_becomes_its_picture(cells, library: Library, tmp_path: Path) -> None:
    import_model(library, covered(tmp_path, cells, png(640, 320)))
    entry = library.rename("Cells of somebody", "theirs")
    with Picture.open(zoo.io.BytesIO(library.picture(entry))) as picture:
        assert (picture.size, picture.getpixel((80, 40))) == ((160, 80), (250, 20, 30))


@pytest.mark.parametrize("cover", [b"no picture", png(64, 64)[:60], png(5000, 2)])
def test_a_cover_that_cannot_be_read_is_no_picture(cells, library: Library, tmp_path: Path, cover: bytes) -> None:
    assert library.picture(import_model(library, covered(tmp_path, cells, cover))) == b""


def test_pixels_that_are_no_picture_are_not_shown(cells, library: Library, tmp_path: Path) -> None:
    model = taken_in(library, zoo.package(tmp_path / "cells.zip", cells))
    for name, pixels in (("large", np.zeros((200, 9, 3), np.uint8)), ("flat", np.zeros((9, 9), np.uint8))):
        forged = foreign.Foreign(model.network.spec, model.network.onnx, pixels)
        assert library.picture(library.add(Model(model.card.with_(name=name), forged))) == b""


def test_the_shipped_models_have_pictures_and_others_have_none(library: Library, tiny: Model) -> None:
    for name in ("nuclei", "click"):
        with Picture.open(zoo.io.BytesIO(library.picture(library.find(name)))) as picture:
            assert picture.size == (160, 160)
    assert library.picture(library.add(tiny)) == b""


def test_it_never_takes_the_name_of_a_model_of_ours(cells, library: Library, tmp_path: Path) -> None:
    path = zoo.package(tmp_path / "cells.zip", cells, zoo.record(cells, name="nuclei"))
    assert import_model(library, path).card.name == "nuclei imported"
    assert library.find("nuclei").shipped


@pytest.mark.parametrize("name", ["../../etc/passwd", "\x1b[31mred", "  ", "x" * 500])
def test_its_name_is_made_safe(cells, library: Library, tmp_path: Path, name: str) -> None:
    entry = import_model(library, zoo.package(tmp_path / "cells.zip", cells, zoo.record(cells, name=name)))
    assert entry.path.parent == library.folder
    assert entry.card.name.isprintable()
    assert library.find(entry.card.name).path == entry.path


def test_a_folder_and_its_description_are_packages_too(cells, library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(zoo.package(tmp_path / "cells.zip", cells)) as archive:
        archive.extractall(folder)
    first = import_model(library, folder)
    assert import_model(library, folder / "rdf.yaml").path == first.path


def test_a_batch_by_regions_gives_the_same(cells, library: Library, tmp_path: Path, pixels, monkeypatch) -> None:
    monkeypatch.setattr("napari_unet.engine.batch.LARGE", 100)
    model = taken_in(library, zoo.package(tmp_path / "cells.zip", cells))
    settings = BatchSettings(segment=SegmentSettings(device="cpu"), ending=".zarr", block=64)
    plan = with_times(plan_batch([Image(pixels, "yx")], tmp_path / "out", model, settings), model)
    assert plan.items[0].by_regions
    *_, done = run_batch(plan, model)
    assert isinstance(done, BatchDone)
    from napari_unet.engine.files import open_image

    *_, result = segment(Image(pixels, "yx"), model)
    written = np.asarray(open_image(plan.items[0].target).array[...]).squeeze()
    np.testing.assert_array_equal(written, result.labels)


def test_a_worker_can_be_given_it(cells, library: Library, tmp_path: Path, pixels) -> None:
    model = taken_in(library, zoo.package(tmp_path / "cells.zip", cells))
    twin = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own, as dask does
    np.testing.assert_array_equal(maps(twin, pixels), maps(model, pixels))


def test_it_cannot_learn_nor_answer_clicks(cells, library: Library, tmp_path: Path, pixels) -> None:
    model = taken_in(library, zoo.package(tmp_path / "cells.zip", cells))
    labels = np.ones(pixels.shape, dtype=np.uint8)
    annotation = Annotation(pixels[None], labels)
    with pytest.raises(InvalidModel, match="came from another program: it segments, but cannot be trained"):
        list(fine_tune(model, TrainingSet((annotation,))))
    with pytest.raises(InvalidModel, match="cannot be trained"):
        list(teach(model, [Lesson(Image(pixels, "yx"), labels)]))
    with pytest.raises(InvalidModel, match="cannot be trained"):
        start_model("mine", "semantic", ("background", "cell"), 2, 1, model)
    with pytest.raises(InvalidModel, match="does not answer clicks"):
        ClickSegmenter(model)


def test_percentiles_are_not_ours_to_choose(cells, library: Library, tmp_path: Path, pixels) -> None:
    model = taken_in(library, zoo.package(tmp_path / "cells.zip", cells))
    with pytest.raises(InvalidSettings, match="brings its own pre-processing"):
        maps(model, pixels, percentiles=(0, 100))


# ---------------------------------------------------------------- bad input


def refused(library: Library, path: Path) -> str:
    """Return why a package is refused, in one sentence; nothing is in the library then."""
    with pytest.raises(InvalidModel) as caught:
        import_model(library, path)
    assert not library.folder.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("inputs/0/axes/2/type", "time", "its axis 'y' is not understood"),
        ("inputs/0/axes/2/id", "lateral", "its axis 'lateral' is not understood"),
        ("inputs/0/axes/2/size/min", 10**9, "that is no image"),
        ("inputs/0/axes/2/size/min", -4, "do not fit its axes"),
        ("inputs/0/axes/2/size", "all", "its description is not understood"),
        ("inputs/0/preprocessing/0/id", "custom", "its pre-processing 'custom'"),
        ("inputs/0/preprocessing/0/kwargs/axes", ["x"], "looks at each y by itself"),
        ("inputs/0/preprocessing/0/kwargs/blur", 3, "with blur is not one that napari-unet knows"),
        ("inputs/0/preprocessing", [{"id": "scale_linear", "kwargs": {"gain": [1, 2]}}], "does not fit its 1 channels"),
        ("inputs/0/preprocessing", [{"id": "clip", "kwargs": {"max": 1.0}}], "answers its own test image"),
        ("outputs/0/postprocessing/0/id", "stardist_postprocessing", "post-processing 'stardist_postprocessing'"),
        ("outputs/0/postprocessing/0/id", "scale_range", "post-processing 'scale_range'"),
        ("outputs/0/axes/2/size/offset", 16, "another size along y"),
        ("outputs/0/axes/2/size", {"min": 1}, "another size along y"),
        ("outputs/0/axes/2/scale", 2.0, "another size along y"),
        ("outputs/0/axes/2/halo", 10**12, "that is no image"),
        ("inputs/0/axes/2/size", {"min": 32, "step": 10**6}, "that is no image"),
        ("inputs/0/axes/2/size", {"tensor_id": "raw", "axis_id": "y"}, "its description is not understood"),
        ("inputs/0/preprocessing/0/kwargs/eps", 0, "pre-processing .* is not known"),
        ("inputs", [], "it takes 0 images and gives 1"),
        ("inputs", 3, "its description is not understood"),
        ("weights/onnx/sha256", "0" * 64, "has another checksum"),
        ("weights/onnx/source", "other.onnx", "'other.onnx' is missing"),
        ("weights/onnx/source", "../weights.onnx", "outside of itself"),
        ("weights/onnx/source", "/etc/passwd", "outside of itself"),
        ("weights/onnx/source", "https://example.org/weights.onnx", "downloads nothing"),
        ("weights/onnx/external_data", {"source": "weights.data"}, "beside the ONNX file"),
        ("inputs/0/test_tensor/source", "README.md", "'README.md' has another checksum"),
        ("weights", {"torchscript": {"source": "weights.pt"}}, "its weights are TorchScript, a program"),
        ("weights", {"keras_hdf5": {"source": "w.h5"}}, r"for other programs \(keras_hdf5\), not ONNX"),
        ("weights", {"pytorch_state_dict": {}}, "need Python code that comes with it"),
        ("weights", None, "not ONNX"),
    ],
)
def test_what_is_not_understood_is_named(
    cells, library: Library, tmp_path: Path, place: str, value: Any, sentence: str
) -> None:
    path = zoo.package(tmp_path / "bad.zip", cells, changed(zoo.record(cells), place, value))
    with pytest.raises(InvalidModel, match=sentence):
        import_model(library, path)
    assert not library.folder.exists()


LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))


@pytest.mark.parametrize("text", ["type: model\na0: &a0 [ha]\n" + LAUGHS, "type: model\na: &a [*a]\n"])
def test_a_description_that_grows_without_an_end_is_refused(library: Library, tmp_path: Path, text: str) -> None:
    path = zoo.zipped(tmp_path / "bad.zip", {"rdf.yaml": text.encode()})
    assert "repeats itself without an end" in refused(library, path)


def test_a_test_image_that_claims_more_than_it_holds_is_damage(cells, library: Library, tmp_path: Path) -> None:
    claim = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    file = zoo.io.BytesIO()
    np.lib.format.write_array_header_1_0(file, claim)
    files = cells | {"in.npy": file.getvalue()}
    assert "'in.npy' cannot be read" in refused(library, zoo.package(tmp_path / "bad.zip", files))


def test_a_pickled_test_image_is_not_unpickled(cells, library: Library, tmp_path: Path) -> None:
    file = zoo.io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    files = cells | {"in.npy": file.getvalue()}
    assert "'in.npy' cannot be read" in refused(library, zoo.package(tmp_path / "bad.zip", files))


def test_more_numbers_than_maps_are_refused(cells, library: Library, tmp_path: Path) -> None:
    files = zoo.cells(zoo.net(outputs=3))
    record = changed(zoo.record(files), "outputs/0/axes/1/channel_names", ["cell", "wall"])
    record = changed(
        record, "outputs/0/postprocessing", [{"id": "scale_linear", "kwargs": {"gain": [1, 2], "axis": "channel"}}]
    )
    assert "makes 3 maps" in refused(library, zoo.package(tmp_path / "bad.zip", files, record))


def test_a_link_out_of_a_folder_is_not_followed(cells, library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, content in {**cells, "rdf.yaml": json.dumps(zoo.record(cells)).encode()}.items():
        (folder / name).write_bytes(content)
    (folder / "weights.onnx").rename(tmp_path / "weights.onnx")
    try:
        os.symlink(tmp_path / "weights.onnx", folder / "weights.onnx")
    except OSError:
        pytest.skip("this system makes no links")
    assert "outside of itself" in refused(library, folder)


def test_no_folder_there_is_said(library: Library, tmp_path: Path) -> None:
    for name in ("none/rdf.yaml", "none.onnx"):
        with pytest.raises(ModelNotFound, match="There is no model file"):
            import_model(library, tmp_path / name)


# ---------------------------------------------------------------- what ONNX could be besides arithmetic


def edited(cells: dict[str, bytes], change) -> dict[str, bytes]:
    model = onnx.ModelProto.FromString(cells["weights.onnx"])
    change(model)
    return cells | {"weights.onnx": model.SerializeToString()}


def outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def outside_in_a_node(model: Any) -> None:
    tensor = onnx.TensorProto(data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))


def strange(model: Any) -> None:
    model.graph.node[0].domain = "com.example"


def endless(model: Any) -> None:
    inside = onnx.helper.make_graph([onnx.helper.make_node("Loop", [], ["x"])], "inside", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["raw"], ["c"], then_branch=inside, else_branch=inside))


def second_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", 1, [1]))


def of_words(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING


def torn(model: Any) -> None:
    del model.graph.node[3]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (outside, "keeps its weights in another file"),
        (outside_in_a_node, "keeps its weights in another file"),
        (strange, "needs the operator 'Conv' of 'com.example'"),
        (endless, "holds a loop"),
        (second_input, "takes 2 arrays and gives 1"),
        (of_words, "cannot be used"),
        (torn, "cannot be used"),
    ],
)
def test_onnx_is_arithmetic_alone(cells, library: Library, tmp_path: Path, change, sentence: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(edited(cells, change)["weights.onnx"])
    assert sentence in refused(library, path)
    files = edited(cells, change)
    assert sentence in refused(library, zoo.package(tmp_path / "bad.zip", files))


def test_a_damaged_network_is_said_and_nothing_is_printed(cells, library: Library, tmp_path: Path, capfd) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"\xff" + cells["weights.onnx"][:300])
    assert "is damaged" in refused(library, path)
    path.write_bytes(cells["weights.onnx"].replace(b"/Relu_output_0", b"/Relu_outpu\xff_0", 1))
    assert "cannot be used" in refused(library, path)
    assert capfd.readouterr() == ("", "")


def test_a_file_of_ours_that_hides_such_a_network_is_refused(cells, library: Library, tmp_path: Path) -> None:
    model = taken_in(library, zoo.package(tmp_path / "cells.zip", cells))
    bad = foreign.Foreign(model.network.spec, edited(cells, outside)["weights.onnx"])
    library.add(Model(model.card.with_(name="trap"), bad))
    with pytest.raises(InvalidModel, match="keeps its weights in another file"):
        library.load("trap")


def test_without_onnxruntime_the_remedy_is_named(cells, library: Library, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(foreign, "find_spec", lambda name: None)
    path = zoo.package(tmp_path / "cells.zip", cells)
    assert "pip install onnx onnxruntime" in refused(library, path)
