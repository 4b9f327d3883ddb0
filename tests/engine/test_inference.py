"""segment(): events, normalisation, tasks, memory, cancelling, bad input."""

import itertools
import os
import threading

import dask.array as da
import numpy as np
import pytest
import torch
import zarr

from napari_unet.engine import inference
from napari_unet.engine.errors import DeviceError, InvalidImage, InvalidSettings, OutOfMemory
from napari_unet.engine.execution import Executor, pick_device
from napari_unet.engine.image import Image
from napari_unet.engine.inference import ItemDone, Segmented, Started, TileDone, normalisation, relabel, segment
from napari_unet.engine.levels import Map, size
from napari_unet.engine.model import Model
from napari_unet.engine.settings import ObjectSettings, SegmentSettings

from .conftest import make_model

CPU = SegmentSettings(device="cpu", tile=32)


def run(image: Image, model: Model, settings: SegmentSettings = CPU) -> Segmented:
    *_, last = segment(image, model, settings)
    assert isinstance(last, Segmented)
    return last


def test_events_tell_the_whole_story(tiny: Model, rng: np.random.Generator) -> None:
    image = Image(rng.random((2, 70, 40)), "tyx")
    first, *middle, last = segment(image, tiny, CPU)
    assert isinstance(first, Started)
    tiles = [e for e in middle if isinstance(e, TileDone)]
    assert [e.done for e in tiles] == list(range(1, first.tiles + 1))
    assert first.tiles == 2 * 3 * 2
    pasted = np.full(image.label_shape, 99, dtype=first.label_dtype)
    for event in tiles:
        pasted[event.region] = event.labels
    assert (pasted == last.labels).all()
    assert [e.region[0] for e in middle if isinstance(e, ItemDone)] == [slice(0, 1), slice(1, 2)]


def test_what_is_in_view_comes_first(tiny: Model, rng: np.random.Generator) -> None:
    image = Image(rng.random((3, 96, 96)), "tyx")
    events = segment(image, tiny, CPU, in_view=(slice(2, 3), slice(64, 96), slice(64, 96)))
    first = next(e for e in events if isinstance(e, TileDone))
    assert first.region == (slice(2, 3), slice(64, 96), slice(64, 96))


def test_level_by_level_what_is_in_view_comes_first(
    tiny: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "PREVIEW", 32)
    image = Image(rng.random((3, 96, 96)), "tyx")
    settings = SegmentSettings(device="cpu")
    first, *middle, last = segment(image, tiny, settings, in_view=(slice(2, 3), slice(64, 96), slice(64, 96)))
    assert isinstance(first, Started)
    assert isinstance(last, Segmented)
    tiles = [e for e in middle if isinstance(e, TileDone)]
    assert [e.done for e in tiles] == list(range(1, first.tiles + 1))
    assert next(e for e in tiles if e.labels.size).region == (slice(2, 3), slice(64, 96), slice(64, 96))
    assert (last.labels != run(image, tiny).labels).mean() < 1e-4  # ties within rounding


def test_level_by_level_memory_that_runs_out_is_answered_with_smaller_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = make_model(task="objects"), Image(rng.random((2, 200, 200)), "tyx")
    settings = SegmentSettings(device="cpu", probabilities=True)
    expected = run(image, model, settings)
    original = Map.__init__

    def limited(self, channels, box):
        if size(box) > 150 * 150:
            raise MemoryError
        original(self, channels, box)

    monkeypatch.setattr(Map, "__init__", limited)
    result = run(image, model, settings)
    assert max(result.record["tile"]) <= 100 < max(expected.record["tile"])
    np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-5)


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_dask_and_zarr_give_the_same_labels_as_numpy(kind: str, tiny: Model, rng: np.random.Generator) -> None:
    array = (rng.random((61, 83)) * 1000).astype(np.uint16)
    lazy = da.from_array(array, chunks=20) if kind == "dask" else zarr.array(array, chunks=(20, 20))
    assert (run(Image(lazy, "yx"), tiny).labels == run(Image(array, "yx"), tiny).labels).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.float16, np.float32, np.float64, bool])
def test_every_type_of_pixel(dtype: type, tiny: Model, rng: np.random.Generator) -> None:
    result = run(Image(rng.integers(0, 2, (40, 40)).astype(dtype), "yx"), tiny)
    assert result.labels.shape == (40, 40)


def test_scale_and_offset_of_the_intensities_do_not_matter(tiny: Model, rng: np.random.Generator) -> None:
    array = rng.integers(0, 200, (64, 64))
    a, b = (run(Image(x, "yx"), tiny).labels for x in (array.astype(np.uint8), array.astype(np.float64) * 300 + 1000))
    assert (a != b).mean() < 1e-3


def test_semantic_probabilities_are_those_of_the_labels(rng: np.random.Generator) -> None:
    model = make_model(classes=("background", "a", "b"))
    result = run(Image(rng.random((50, 30)), "yx"), model, SegmentSettings(device="cpu", tile=32, probabilities=True))
    assert result.probabilities is not None
    assert result.probabilities.sum(0) == pytest.approx(1, abs=1e-5)
    assert (result.probabilities.argmax(0) == result.labels).all()
    assert result.labels.dtype == np.uint8


def test_objects_can_be_relabelled_without_the_network(rng: np.random.Generator) -> None:
    model = make_model(task="objects")
    image = Image(rng.random((2, 64, 64)), "zyx")
    result = run(image, model)
    assert (relabel(result, model.card.objects) == result.labels).all()
    other = ObjectSettings(foreground_threshold=0.3, seed_threshold=0.2, minimal_size=0)
    again = run(image, model, SegmentSettings(device="cpu", tile=32, objects=other))
    assert (relabel(result, other) == again.labels).all()


def test_3d(rng: np.random.Generator) -> None:
    model = make_model(dims=3)
    result = run(Image(rng.random((2, 9, 33, 20)), "tzyx"), model, SegmentSettings(device="cpu", tile=16))
    assert result.labels.shape == (2, 9, 33, 20)


def test_tile_size_does_not_matter(tiny: Model, rng: np.random.Generator) -> None:
    image = Image(rng.random((150, 90)), "yx")
    small, large = (run(image, tiny, SegmentSettings(device="cpu", tile=t)).labels for t in (16, 512))
    assert (small != large).mean() < 1e-4  # ties within rounding


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_number_of_threads_does_not_matter(dims: int, tile: int | None, rng: np.random.Generator) -> None:
    """Bit for bit: the window leaves a core free, a terminal does not. Torch's own last convolution fails this."""
    shape = (90, 120) if dims == 2 else (8, 40, 48)
    image, model = Image(rng.random(shape), "zyx"[-dims:]), make_model(dims, "objects", channels=(16, 32))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(image, model, SegmentSettings(device="cpu", tile=tile, probabilities=True)).probabilities)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("ends", ["itself", "by a cancel"])
def test_nothing_of_the_program_is_changed_afterwards(ends: str, tile: int | None, rng: np.random.Generator) -> None:
    def state() -> list[object]:
        torchs = (torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        flags = (torch.backends.mkldnn.enabled, torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision())
        return [torchs, flags, torch.get_rng_state().tolist(), np.geterr(), dict(os.environ), threading.active_count()]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = state()
        settings = SegmentSettings(device="cpu", tile=tile)
        events = segment(Image(rng.random((150, 90)), "yx"), make_model(channels=(4, 8)), settings)
        if ends == "itself":
            list(events)
        else:
            assert [type(event) for event in itertools.islice(events, 3)] == [Started, TileDone, TileDone]
            events.close()
        assert state() == expected
    finally:
        torch.set_num_threads(before)


def test_the_record_makes_the_result_again(tiny: Model, rng: np.random.Generator) -> None:
    image = Image(rng.random((40, 40)), "yx", name="cells")
    result = run(image, tiny)
    assert result.record["model"] == tiny.card.identity
    assert result.record["image"] == "cells"
    assert result.record["normalisation"]["low"] == pytest.approx([np.percentile(image.array, 1)])
    again = run(image, tiny, SegmentSettings(**(result.record["settings"] | {"objects": None})))
    assert (again.labels == result.labels).all()


def test_normalisation_of_a_huge_image_comes_from_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SAMPLE", 1000)
    ramp = np.tile(np.arange(200.0), (200, 1))
    scale = normalisation(list(Image(ramp, "yx").items(2)), (0, 100), "ramp")
    assert scale.sample < 1500
    assert scale.low == (0,)
    assert scale.high[0] >= 190


def test_a_rare_bright_pixel_in_darkness_is_no_constant_image(tiny: Model) -> None:
    array = np.zeros((100, 100))
    array[50, 50] = 7
    assert run(Image(array, "yx"), tiny).record["normalisation"]["high"] == [7]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((20, 20), 5), "Every pixel of 'image' is 5"),
        (np.ones((1, 1)), "Every pixel of 'image' is 1"),
        (np.where(np.eye(20) > 0, np.nan, 1.0), "holds 20 NaN or infinite values"),
        (np.where(np.eye(20) > 0, np.inf, 1.0), "holds 20 NaN or infinite values"),
    ],
)
def test_bad_pixels_are_told_in_one_sentence(array: np.ndarray, words: str, tiny: Model) -> None:
    with pytest.raises(InvalidImage, match=words):
        run(Image(array, "yx"), tiny)


def test_nan_outside_the_sample_is_still_found(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SAMPLE", 100)
    array = np.random.default_rng(0).random((64, 64))
    array[33, 31] = np.nan
    with pytest.raises(InvalidImage, match="NaN or infinite"):
        run(Image(array, "yx"), tiny)


def test_a_click_model_cannot_segment_alone() -> None:
    with pytest.raises(InvalidImage, match="answers clicks"):
        run(Image(np.eye(40), "yx"), make_model(task="click"))


@pytest.mark.parametrize(
    "settings",
    [{"device": "tpu"}, {"tile": 3}, {"channel": -1}, {"percentiles": (60, 40)}],
)
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(InvalidSettings):
        SegmentSettings(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_told() -> None:
    with pytest.raises(DeviceError, match="'cuda' is not available on this machine: choose auto or one of"):
        pick_device("cuda")


def test_the_memory_given_changes_the_tiles_not_the_labels(tiny: Model, rng: np.random.Generator) -> None:
    image = Image(rng.random((300, 300)), "yx")
    usual, little = (run(image, tiny, SegmentSettings(device="cpu", memory=gb)) for gb in (None, 0.0005))
    assert little.record["tile"] < usual.record["tile"]
    np.testing.assert_array_equal(little.labels, usual.labels)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried"), torch.OutOfMemoryError()])
def test_out_of_memory_is_answered_with_smaller_tiles(
    error: Exception, tiny: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(rng.random((200, 200)), "yx")
    expected = run(image, tiny).labels
    limited(monkeypatch, error, 140 * 140)
    result = run(image, tiny, SegmentSettings(device="cpu", tile=128))
    assert (result.labels != expected).mean() < 1e-4  # ties within rounding
    assert max(result.record["tile"]) < 100


def test_out_of_memory_with_the_smallest_tiles_is_told(
    tiny: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, MemoryError(), 10)
    with pytest.raises(OutOfMemory, match="close other programs, or choose smaller tiles"):
        run(Image(rng.random((200, 200)), "yx"), tiny)


def limited(monkeypatch: pytest.MonkeyPatch, error: Exception, pixels: int) -> None:
    """Let every network fail that is given more pixels."""
    original = Executor.__init__

    def init(self, network, device):
        original(self, network, device)
        forward = self._network.network.forward

        def limit(x):
            if x[0, 0].numel() > pixels:
                raise error
            return forward(x)

        self._network.network.forward = limit

    monkeypatch.setattr(Executor, "__init__", init)


def test_closing_the_generator_ends_the_run(tiny: Model, rng: np.random.Generator) -> None:
    events = segment(Image(rng.random((200, 200)), "yx"), tiny, CPU)
    next(events), next(events)
    events.close()
    assert next(events, None) is None
