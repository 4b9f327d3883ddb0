"""Images of any shape, type and content: labels of the right shape, or an error of ours; and image files from strangers."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image as Picture

import napari_unet
from napari_unet.engine.batch import BY_REGIONS, BatchDone, plan_batch, run_batch
from napari_unet.engine.card import UNetSpec
from napari_unet.engine.errors import FileError, NapariUnetError
from napari_unet.engine.files import open_image, write_labels
from napari_unet.engine.image import Image
from napari_unet.engine.inference import relabel, segment
from napari_unet.engine.model import Model
from napari_unet.engine.objects import labels_from_maps
from napari_unet.engine.settings import ENDINGS, BatchSettings, ObjectSettings, SegmentSettings
from napari_unet.engine.tiling import TilePlan

from ..engine.conftest import make_model

MODELS = {
    (2, "semantic"): make_model(channels=(2, 3)),
    (2, "objects"): make_model(channels=(2, 3), task="objects", diameter=9.0),
    (2, "two channels"): make_model(channels=(2, 3), task="objects", in_channels=2, diameter=9.0),
    (3, "objects"): make_model(channels=(2, 2), task="objects", dims=3, diameter=9.0),
}
DIAMETERS = st.sampled_from([None, None, 5, 11, 40, 10_000])
DTYPES = ["bool", "u1", "i1", "<u2", ">u2", "<i4", "<u8", "<f2", "<f4", ">f4", "<f8"]


@st.composite
def pixels(draw: st.DrawFn, axes: str) -> NDArray[np.generic]:
    """Arrays as microscopes, programs and accidents make them: noise, constants, few odd values, NaN, the largest numbers."""
    shape = tuple(draw(st.integers(1, 40 if a in "yx" else 3)) for a in axes)
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    if dtype.kind == "f":
        odd = st.sampled_from([0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, float(np.finfo(dtype).max), 1e-30])
        scale = draw(st.sampled_from([0.0, 1e-6, 1.0, 1e4]))
        array = (rng.standard_normal(shape) * scale + draw(st.sampled_from([0.0, 1e4]))).astype(dtype)
    elif dtype.kind == "b":
        odd, array = st.booleans(), rng.random(shape) > 0.5
    else:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        odd = st.sampled_from([low, high, 0, 1])
        span = draw(st.sampled_from([1, 2, 100, high]))
        array = (rng.integers(0, span, shape, dtype=np.uint64) + (high - span if draw(st.booleans()) else 0)).astype(
            dtype
        )
    if draw(st.booleans()):
        array[tuple(draw(st.integers(0, n - 1)) for n in shape)] = draw(odd)
    return array


@given(
    axes=st.sampled_from(["yx", "xy", "yxc", "cyx", "zyx", "tyx", "tzyx", "czyx", "yx"]),
    model=st.sampled_from(sorted(MODELS)),
    tile=st.sampled_from([None, 16, 17, 32]),
    probabilities=st.booleans(),
    data=st.data(),
)
def test_segment(axes: str, model: tuple[int, str], tile: int | None, probabilities: bool, data: st.DataObject) -> None:
    array = data.draw(pixels(axes))
    chosen = MODELS[model]
    channel, diameter = data.draw(st.sampled_from([None, 0])), data.draw(DIAMETERS)
    settings = SegmentSettings(channel, tile=tile, probabilities=probabilities, device="cpu", diameter=diameter)
    try:
        image = Image(array, axes)
        events = list(segment(image, chosen, settings))
    except NapariUnetError:
        return
    result = events[-1]
    assert result.labels.shape == image.label_shape
    assert result.labels.min() >= 0
    if probabilities:
        assert np.isfinite(result.probabilities).all()
        assert result.probabilities.min() >= 0
        assert result.probabilities.max() <= 1
    if result.maps is not None:
        np.testing.assert_array_equal(relabel(result, chosen.card.objects), result.labels)


@given(
    array=st.one_of(
        pixels("yx"),
        arrays.arrays(arrays.scalar_dtypes() | st.just(np.dtype(object)), arrays.array_shapes(min_dims=0, max_dims=5)),
    ),
    axes=st.one_of(st.none(), st.text("tczyxq", max_size=5)),
    model=st.sampled_from(sorted(MODELS)),
)
def test_any_array_from_python(array: NDArray[np.generic], axes: str | None, model: tuple[int, str]) -> None:
    try:
        labels = napari_unet.segment(array, MODELS[model], axes=axes, device="cpu")
    except NapariUnetError:
        return
    assert labels.size <= array.size


@given(array=pixels("yx"), tiles=st.tuples(st.sampled_from([16, 18, 24]), st.sampled_from([32, 64])))
def test_the_size_of_tiles_changes_nothing(array: NDArray[np.generic], tiles: tuple[int, int]) -> None:
    """The probabilities, to the accuracy of float32: labels may differ where two classes are equally likely."""
    found = []
    for tile in tiles:
        settings = SegmentSettings(tile=tile, device="cpu", probabilities=True)
        try:
            *_, result = segment(Image(array, "yx"), MODELS[2, "semantic"], settings)
        except NapariUnetError:
            return
        found.append(result.probabilities)
    np.testing.assert_allclose(*found, atol=1e-4)


@given(
    dims=st.sampled_from([2, 3]),
    depth=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid"]),
    data=st.data(),
)
def test_tiles_cover_every_pixel_once(dims: int, depth: int, stride: int, padding, data: st.DataObject) -> None:
    spec = UNetSpec(dims=dims, channels=(1,) * depth, strides=((stride,) * dims,) * (depth - 1), padding=padding)
    assume(max(spec.total_stride) <= 16)
    shape = data.draw(st.tuples(*[st.integers(1, 60)] * dims))
    tile = data.draw(st.tuples(*[st.integers(max(spec.total_stride), 64)] * dims))
    plan = TilePlan.make(spec, shape, tile)
    times = np.zeros(shape, dtype=int)
    tiles = list(plan)
    for one in tiles:
        times[one.inner] += 1
        assert all(s.start % n == 0 for s, n in zip(one.inner, spec.total_stride, strict=True))
    assert (times == 1).all()
    assert len(plan) == len(tiles)


@given(
    maps=arrays.arrays(
        np.float16,
        st.tuples(st.just(3), st.integers(1, 20), st.integers(1, 20)),
        elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    ),
    foreground=st.sampled_from([0.01, 0.5, 0.99]),
    seed=st.sampled_from([0.01, 0.5, 0.99]),
    size=st.integers(0, 500),
)
def test_objects(maps: NDArray[np.float16], foreground: float, seed: float, size: int) -> None:
    """Numbered without gaps, none too small, and never outside the foreground."""
    labels = labels_from_maps(maps, ObjectSettings(foreground, seed, size))
    numbers = np.unique(labels)
    np.testing.assert_array_equal(numbers[numbers > 0], np.arange(1, labels.max() + 1))
    assert (np.bincount(labels.ravel())[1:] >= size).all()
    assert not labels[maps[0] <= foreground].any()


def test_values_that_float32_would_make_equal_are_told_apart() -> None:
    """Found: at two thousand million, float32 knows only every 128th number, and the image became 0 / 0."""
    array = np.full((20, 20), 2_000_000_000, dtype=np.int32)
    array[5:15, 5:15] += 3
    model = make_model(channels=(2,))
    results = []
    for image in (array, array - 2_000_000_000):
        *_, result = segment(Image(image, "yx"), model, SegmentSettings(device="cpu", probabilities=True))
        results.append(result.probabilities)
    np.testing.assert_allclose(*results, atol=1e-6)


def test_a_value_far_out_of_the_range_of_the_others_is_cut() -> None:
    """Found: 3e38 among numbers of 1e-6 became infinite on the way, and the image was said to hold infinite values."""
    array = 1e-6 * np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    array[3, 4] = np.finfo(np.float32).max
    *_, result = segment(
        Image(array, "yx"), make_model(channels=(2,)), SegmentSettings(device="cpu", percentiles=(1, 98))
    )
    assert result.labels.shape == (40, 40)


# --- files


def files() -> dict[str, bytes]:
    """Small whole files of every kind, from a fixed image."""
    array = np.random.default_rng(0).integers(0, 255, (3, 24, 20), dtype=np.uint8)
    made = {}
    for name, options in {
        "plain.tif": {},
        "imagej.tif": {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2.0, "unit": "um"}},
        "ome.tif": {"ome": True, "compression": "zlib", "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.5}},
    }.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, photometric="minisblack", **options)
        made[name] = buffer.getvalue()
    for ending, kind in ((".png", "png"), (".jpg", "jpeg"), (".bmp", "bmp")):
        buffer = io.BytesIO()
        Picture.fromarray(array[0]).save(buffer, format=kind)
        made["picture" + ending] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, array)
    made["numbers.npy"] = buffer.getvalue()
    return made


FILES = files()


def reads(path: Path) -> None:
    """Open and read a file; what is not ours to raise is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = open_image(path)
        except NapariUnetError:
            return
        assert np.asarray(image.array[...]).shape == image.shape


@given(name=st.sampled_from(sorted(FILES)), data=st.data())
def test_damaged_files(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name])
    start = data.draw(st.sampled_from([200, len(content) - 1]))  # headers are short and matter most
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(start, len(content) - 1)))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content))
    reads(path)


def test_pages_that_run_in_a_circle_are_refused(tmp_path: Path) -> None:
    """Found: tifffile follows them for ever."""
    content = bytearray(FILES["plain.tif"])
    first = struct.unpack_from("<I", content, 4)[0]
    tags = struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, first + 2 + 12 * tags, first)
    (tmp_path / "circle.tif").write_bytes(content)
    with pytest.raises(FileError, match="its pages run in a circle"):
        open_image(tmp_path / "circle.tif")


@given(ending=st.sampled_from([".tif", ".png", ".jpg", ".bmp", ".npy", ".lsm"]), content=st.binary(max_size=300))
def test_any_bytes_under_any_ending(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / ("any" + ending)
    path.write_bytes(content)
    reads(path)


@given(data=st.data())
def test_damaged_zarr(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("zarr") / "labels.zarr"
    image = Image(np.zeros((2, 24, 20), np.uint8), "zyx")
    write_labels(folder, np.arange(960, dtype=np.int32).reshape(2, 24, 20), image, {})
    inside = sorted(p for p in folder.rglob("*") if p.is_file())
    damaged = data.draw(st.sampled_from(inside))
    content = bytearray(damaged.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            opened = open_image(folder)
        except NapariUnetError:
            return
        try:
            list(segment(opened, MODELS[2, "semantic"], SegmentSettings(device="cpu")))
        except NapariUnetError:
            return


@given(data=st.data())
def test_a_batch_of_good_and_bad_files_ends_and_accounts_for_each(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("batch")
    names = data.draw(st.lists(st.sampled_from(sorted(FILES)), min_size=1, max_size=3, unique=True))
    for name in names:
        content = FILES[name]
        whole = data.draw(st.booleans())
        (folder / name).write_bytes(content if whole else content[: data.draw(st.integers(0, len(content) - 1))])
    model: Model = MODELS[2, "objects"]
    try:
        plan = plan_batch([folder], folder / "out", model, BatchSettings(SegmentSettings(device="cpu")))
    except NapariUnetError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        *_, last = run_batch(plan, model)
    assert isinstance(last, BatchDone)
    for outcome in last.report.outcomes:
        assert (outcome.state == "done") == Path(outcome.target).exists()
        assert outcome.state == "done" or outcome.sentence


@given(
    axes=st.sampled_from(["yx", "yxc", "zyx", "tyx", "tzyx"]),
    model=st.sampled_from(sorted(MODELS)),
    ending=st.sampled_from(ENDINGS),
    link=st.sampled_from(["none", "z", "t"]),
    regions=st.booleans(),
    probabilities=st.booleans(),
    data=st.data(),
)
def test_a_batch_of_any_image(
    tmp_path_factory: pytest.TempPathFactory,
    axes: str,
    model: tuple[int, str],
    ending: str,
    link: str,
    regions: bool,
    probabilities: bool,
    data: st.DataObject,
) -> None:
    """What is done is on disk in the right shape, what is not says why, and a second run has nothing left to do."""
    folder = tmp_path_factory.mktemp("batch")
    tile, diameter = data.draw(st.sampled_from([None, 16])), data.draw(DIAMETERS)
    one = SegmentSettings(device="cpu", tile=tile, probabilities=probabilities, diameter=diameter)
    try:
        image = Image(data.draw(pixels(axes)), axes, name="image")
        settings = BatchSettings(one, ending=ending, link=link, block=16)
        plan = plan_batch([image], f"{folder / 'out'}/", MODELS[model], settings)
    except NapariUnetError:
        return
    if regions and ending in BY_REGIONS and not probabilities:  # as of large images
        plan = replace(plan, items=tuple(replace(item, by_regions=True) for item in plan.items))
    *_, last = run_batch(plan, MODELS[model])
    assert isinstance(last, BatchDone)
    (outcome,) = last.report.outcomes
    assert outcome.state in ("done", "failed")
    if outcome.state == "failed":
        assert outcome.sentence
        assert not Path(outcome.target).exists()
        return
    written = np.asarray(open_image(outcome.target).array[...])
    assert written.squeeze().shape == np.zeros(image.label_shape).squeeze().shape
    again = plan_batch([image], f"{folder / 'out'}/", MODELS[model], settings)
    assert again.items[0].finished or again.items[0].note


def test_a_pickled_zarr_or_npy_runs_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(NapariUnetError):
        open_image(tmp_path / "objects.npy")
    folder = tmp_path / "pickled.zarr"
    zarr.create_array(str(folder), shape=(4, 4), dtype="u1")
    text = (folder / "zarr.json").read_text().replace('"zstd"', '"pickle"')
    (folder / "zarr.json").write_text(text)
    with pytest.raises(NapariUnetError):
        open_image(folder)
