"""Larger than memory: the labels of the whole image, block by block; killed and resumed; memory is not asked for twice."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr

from napari_unet.engine import files, inference, regions
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.errors import FileError, InvalidImage
from napari_unet.engine.files import open_image
from napari_unet.engine.image import Image
from napari_unet.engine.inference import Segmented, segment
from napari_unet.engine.model import Model, new_model
from napari_unet.engine.regions import RegionsDone, segment_by_regions, work_folder
from napari_unet.engine.settings import BatchSettings, ObjectSettings, SegmentSettings

from .conftest import make_model

CPU = SegmentSettings(device="cpu", tile=32, objects=ObjectSettings(seed_threshold=0.4))


def landscape_model(dims: int = 2) -> Model:
    """Return a model that finds objects where it is bright, and takes the brightness for the distance."""
    spec = UNetSpec(dims=dims, out_channels=3, channels=(2, 2), norm="none")
    model = new_model(ModelCard("bright", "objects", spec, ("background", "object"), percentiles=(0, 100)))
    middle = (1,) * dims
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        for first, second in ((model.network.encoder[0][0], model.network.encoder[0][2]),):
            first.weight[(0, 0, *middle)] = second.weight[(0, 0, *middle)] = 1
        convolutions = [m for m in model.network.decoder.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d))]
        convolutions[0].weight[(0, 0, *middle)] = convolutions[1].weight[(0, 0, *middle)] = 1
        model.network.head.weight[0, 0], model.network.head.bias[0] = 40, -8
        model.network.head.weight[1, 0], model.network.head.bias[1] = 6, -4
        model.network.head.bias[2] = -10
    return model


def hills(shape: tuple[int, ...], count: int, seed: int = 0) -> np.ndarray:
    """Return an image of touching hills of many sizes, and one ridge that runs through all of it."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).astype(np.float32)
    image = np.zeros(shape, np.float32)
    for _ in range(count):
        middle, width = rng.uniform(0, shape), rng.uniform(3, 9)
        away = sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True))
        image = np.maximum(image, rng.uniform(0.4, 1) * np.exp(-away / (2 * width**2)))
    ridge = np.exp(-((grid[-2] - shape[-2] / 2 - 8 * np.sin(grid[-1] / 20)) ** 2) / 18)
    return np.maximum(image, 0.9 * ridge) + rng.normal(0, 0.003, shape).astype(np.float32)


def differing(first: np.ndarray, second: np.ndarray) -> float:
    """Return the part of the pixels that differ when each object is named after its best partner."""
    codes, counts = np.unique(first.astype(np.int64) << 32 | second.astype(np.int64), return_counts=True)
    taken: set[tuple[str, int]] = set()
    same = 0
    for i in np.argsort(-counts):
        a, b = int(codes[i]) >> 32, int(codes[i]) & 0xFFFFFFFF
        if (a == 0) == (b == 0) and ("a", a) not in taken and ("b", b) not in taken:
            taken |= {("a", a), ("b", b)}
            same += int(counts[i])
    return 1 - same / first.size


def by_regions(image: Image, model: Model, settings: BatchSettings, target: Path) -> np.ndarray:
    *_, last = segment_by_regions(image, model, settings, target, {})
    assert isinstance(last, RegionsDone)
    return np.asarray(open_image(target).array[...])


def in_memory(image: Image, model: Model, settings: SegmentSettings = CPU) -> np.ndarray:
    *_, last = segment(image, model, settings)
    assert isinstance(last, Segmented)
    return last.labels


@pytest.mark.parametrize("block", [32, 48, 100])
def test_objects_are_those_of_the_whole_image(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MARGIN", {2: 8})
    image, model = Image(hills((170, 230), 60), "yx"), landscape_model()
    whole = in_memory(image, model)
    ridge = max(np.ptp(np.nonzero(whole == label)[1]) for label in range(1, whole.max() + 1))
    assert ridge > 100, "an object larger than a block"
    found = by_regions(image, model, BatchSettings(CPU, block=block), tmp_path / "l.zarr")
    assert found.max() == whole.max() > 20
    assert differing(found, whole) <= 1e-4


def test_objects_in_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MARGIN", {3: 4})
    image, model = Image(hills((20, 40, 50), 30), "zyx"), landscape_model(3)
    whole = in_memory(image, model)
    found = by_regions(image, model, BatchSettings(CPU, block=16), tmp_path / "l.zarr")
    assert found.max() == whole.max() > 3
    assert differing(found, whole) <= 1e-4


def test_without_the_unknown_flood_objects_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a block and its margin alone are not enough."""
    monkeypatch.setattr(regions, "MARGIN", {2: 8})
    monkeypatch.setattr(regions, "_mark_rim", lambda *arguments: None)
    image, model = Image(hills((170, 230), 60), "yx"), landscape_model()
    found = by_regions(image, model, BatchSettings(CPU, block=48), tmp_path / "l.zarr")
    assert differing(found, in_memory(image, model)) > 1e-4


@pytest.mark.parametrize("tile", [32, None])
def test_a_random_network_on_noise(tile: int | None, tmp_path: Path, rng: np.random.Generator) -> None:
    image, model = Image(rng.random((90, 130)), "yx"), make_model(task="objects")
    settings = SegmentSettings(device="cpu", tile=tile, objects=ObjectSettings(0.42, 0.24, 3))
    found = by_regions(image, model, BatchSettings(settings, block=32), tmp_path / "l.zarr")
    assert found.max() > 10
    assert differing(found, in_memory(image, model, settings)) <= 1e-4


def test_classes_of_a_stack_are_the_same(tiny: Model, tmp_path: Path, rng: np.random.Generator) -> None:
    image = Image(zarr.array(rng.random((2, 3, 60, 50)), chunks=(1, 1, 20, 20)), "ctyx", (1, 1, 0.5, 0.5), "micrometer")
    settings = BatchSettings(SegmentSettings(device="cpu", channel=1), block=32)
    *_, whole = segment(image, tiny, settings.segment)
    found = by_regions(image, tiny, settings, tmp_path / "l.zarr")
    np.testing.assert_array_equal(found, whole.labels)
    written = open_image(tmp_path / "l.zarr")
    assert (written.axes, written.spacing, written.unit) == ("tyx", (1, 0.5, 0.5), "micrometer")


def test_what_is_done_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, model, target = Image(hills((100, 140), 20), "yx"), landscape_model(), tmp_path / "l.zarr"
    whole = by_regions(image, model, BatchSettings(CPU, block=48), tmp_path / "whole.zarr")
    events = segment_by_regions(image, model, BatchSettings(CPU, block=48), target, {})
    for _ in range(12):  # of 9 blocks in 4 stages
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert not target.exists()
    monkeypatch.setattr(inference, "run_tiles", lambda *arguments: pytest.fail("the network ran again"))
    np.testing.assert_array_equal(by_regions(image, model, BatchSettings(CPU, block=48), target), whole)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_kill_after_the_labels_took_their_place_loses_nothing(tmp_path: Path) -> None:
    image, model, target = Image(hills((100, 140), 20), "yx"), landscape_model(), tmp_path / "l.zarr"
    events = segment_by_regions(image, model, BatchSettings(CPU, block=48), target, {})
    next(event for event in events if isinstance(event, RegionsDone))
    events.close()  # type: ignore[attr-defined]
    labels = np.asarray(open_image(target).array[...])
    assert labels.max() > 3
    np.testing.assert_array_equal(by_regions(image, model, BatchSettings(CPU, block=48), target), labels)
    assert not work_folder(target).exists()


def test_another_threshold_begins_anew(tmp_path: Path) -> None:
    image, model, target = Image(hills((100, 140), 20), "yx"), landscape_model(), tmp_path / "l.zarr"
    events = segment_by_regions(image, model, BatchSettings(CPU, block=48), target, {})
    for _ in range(20):
        next(events)
    events.close()  # type: ignore[attr-defined]
    other = BatchSettings(SegmentSettings(device="cpu", objects=ObjectSettings(minimal_size=10_000)), block=48)
    assert by_regions(image, model, other, target).max() == 0


def test_planes_are_linked(tmp_path: Path) -> None:
    plane = hills((60, 80), 6)
    image, model = Image(np.stack([plane, plane, plane[::-1]]), "zyx"), landscape_model()
    found = by_regions(image, model, BatchSettings(CPU, block=32, link="z"), tmp_path / "l.zarr")
    np.testing.assert_array_equal(found[1], found[0])
    assert found[2].max() > found[0].max()


def test_the_pyramid_takes_every_second_pixel(tmp_path: Path, tiny: Model, rng: np.random.Generator) -> None:
    target = tmp_path / "l.zarr"
    found = by_regions(
        Image(rng.random((530, 515)), "yx"), tiny, BatchSettings(SegmentSettings(device="cpu"), block=128), target
    )
    group = zarr.open_group(str(target), mode="r")
    np.testing.assert_array_equal(group["s1"][...], found[::2, ::2])
    assert [d["path"] for d in group.attrs["ome"]["multiscales"][0]["datasets"]] == ["s0", "s1"]
    assert json.dumps(group.attrs["napari-unet"])
    pytest.importorskip("ome_zarr_models.v05").ImageLabel.from_zarr(group)  # raises what NGFF 0.5 does not allow


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_is_written_in_tiles(big: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TILE", 64)
    monkeypatch.setattr(files, "BIG", 100 if big else 1 << 31)
    stack = np.stack([hills((100, 140), 20, seed) for seed in range(2)])
    image = Image(stack, "zyx", (2.0, 0.5, 0.5), "micrometer", "stack")
    found = by_regions(image, landscape_model(), BatchSettings(CPU, block=48), tmp_path / "l.tif")
    np.testing.assert_array_equal(
        found, by_regions(image, landscape_model(), BatchSettings(CPU, block=48), tmp_path / "l.zarr")
    )
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        page = file.pages.first
        assert (file.is_bigtiff, file.is_ome, page.tile, page.dtype) == (big, True, (64, 64), np.uint8)
    written = open_image(tmp_path / "l.tif")
    assert (written.axes, written.spacing, written.unit) == ("zyx", (2.0, 0.5, 0.5), "micrometer")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_tile_is_read_while_the_one_before_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    read, compute = inference.read_normalised, regions.Executor.begin
    monkeypatch.setattr(inference, "read_normalised", lambda *given: (begun.append("read"), read(*given))[1])

    def computed(self, tile, *how):
        deadline = time.monotonic() + 20
        wanted = min(2 + begun.count("compute"), 4)  # of four tiles: the one computed and the next
        while begun.count("read") < wanted and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        begun.append("compute")
        return compute(self, tile, *how)

    monkeypatch.setattr(regions.Executor, "begin", computed)
    by_regions(Image(hills((64, 64), 5), "yx"), landscape_model(), BatchSettings(CPU, block=64), tmp_path / "l.zarr")
    assert begun == ["read", "read", "compute", "read", "compute", "read", "compute", "compute"]


def test_an_image_that_cannot_be_segmented_leaves_nothing_behind(tmp_path: Path, tiny: Model) -> None:
    with pytest.raises(InvalidImage, match="Every pixel"):
        by_regions(Image(np.ones((40, 40)), "yx"), tiny, BatchSettings(), tmp_path / "l.zarr")
    assert not work_folder(tmp_path / "l.zarr").exists()


def test_a_disk_that_cannot_be_written_is_one_sentence(tmp_path: Path, tiny: Model, rng: np.random.Generator) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        by_regions(Image(rng.random((40, 40)), "yx"), tiny, BatchSettings(), tmp_path / "file" / "l.zarr")
