"""The way to a device and back, with streams that stand in for CUDA's, and the pipeline on the CPU in a device's place.

The name "cpu:0" is the processor to torch, but another device than "cpu" to us: pixels go to it as they are, and the next
tile is sent before the last one is asked for.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_unet.engine import conveyor, inference, levels
from napari_unet.engine.conveyor import RAW, Conveyor
from napari_unet.engine.execution import Executor, run_tiles
from napari_unet.engine.image import Image
from napari_unet.engine.inference import Normalisation, Segmented, segment
from napari_unet.engine.model import Model
from napari_unet.engine.settings import ObjectSettings, SegmentSettings
from napari_unet.engine.tiling import TilePlan

from .conftest import make_model


class Stream:
    def wait_stream(self, other: object) -> None: ...


class Event:
    def record(self, stream: Stream) -> None: ...
    def synchronize(self) -> None: ...


@pytest.fixture
def allocated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand in for CUDA; returns the bytes of each pinned memory that is asked for."""
    sizes: list[int] = []

    def memory(size: int) -> torch.Tensor:
        sizes.append(size)
        return torch.zeros(size, dtype=torch.uint8)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    monkeypatch.setattr(conveyor, "pinned", memory)
    return sizes


@pytest.mark.parametrize("pins", [False, True])
@pytest.mark.parametrize("dtype", [*sorted(map(str, RAW)), "float32", "float64", "int32", ">u2", "bool"])
def test_values_arrive_as_they_went(dtype: str, pins: bool, allocated: list[int]) -> None:
    carrier = Conveyor("cpu", pins=pins)
    array = np.array([[0, 1, 100], [127, 5, 77]]).astype(dtype)
    if dtype == "uint16":
        array[0, 0] = 65535
    array.flags.writeable = False
    there = carrier.up(array)
    assert there.is_floating_point() == (np.dtype(dtype) not in RAW)
    np.testing.assert_array_equal(carrier.down(there)(), array.astype(np.float64))
    assert bool(allocated) == pins


def test_pinned_memory_is_used_again_and_what_came_back_is_ones_own(allocated: list[int]) -> None:
    carrier = Conveyor("cpu", pins=True)
    allocated.clear()
    back = [carrier.down(carrier.up(np.full(1000, n, dtype=np.float32)))() for n in range(6)]
    assert allocated == [4000] * 4
    assert [set(array) for array in back] == [{n} for n in range(6)]


def test_two_are_under_way_at_once(allocated: list[int]) -> None:
    carrier = Conveyor("cpu", pins=True)
    coming = [carrier.down(carrier.up(np.full(9, n, dtype=np.uint8))) for n in (3, 8)]
    assert [arrived()[0] for arrived in coming] == [3, 8]
    assert allocated


@pytest.mark.parametrize("fault", ["none to be had", "something else arrives"])
def test_plain_copies_where_pinned_memory_fails(
    fault: str, allocated: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(size: int) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    memory = torch.zeros(100, dtype=torch.uint8)

    def shared(size: int) -> torch.Tensor:
        return memory[:size]  # so each array is written over the one before

    monkeypatch.setattr(conveyor, "pinned", refused if fault == "none to be had" else shared)
    with caplog.at_level(logging.WARNING):
        carrier = Conveyor("cpu", pins=True)
    assert [r.message for r in caplog.records] == ["Pinned memory of cpu cannot be used: plain copies are made."]
    np.testing.assert_array_equal(carrier.down(carrier.up(np.arange(5, dtype=np.int16)))(), np.arange(5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize(
    "model",
    [
        make_model(classes=("background", "cell", "rim")),
        make_model(task="objects", objects=ObjectSettings(0.3, 0.2, 0)),
        make_model(dims=3, in_channels=2),
    ],
    ids=["classes", "objects", "3D, two channels"],
)
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("tile", [None, 32], ids=["level by level", "whole tiles"])
def test_a_device_finds_what_the_processor_finds(
    model: Model,
    dtype: type,
    probabilities: bool,
    tile: int | None,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(levels, "DEVICE_VALUES", 1 << 12)
    spec = model.card.spec
    shape = (70, 90) if spec.dims == 2 else (2, 12, 40, 36)
    pixels = (rng.random(shape) * 250 + 5 * (np.dtype(dtype) == np.uint16) * 250).astype(dtype)
    image = Image(pixels, "yx" if spec.dims == 2 else "czyx")

    def found(device: str) -> Segmented:
        monkeypatch.setattr(inference, "pick_device", lambda name: device)
        *_, last = segment(image, model, SegmentSettings(tile=tile, probabilities=probabilities))
        assert isinstance(last, Segmented)
        return last

    here, there = found("cpu"), found("cpu:0")
    np.testing.assert_array_equal(here.labels, there.labels)
    assert len(np.unique(here.labels)) > 1
    if probabilities:
        np.testing.assert_allclose(here.probabilities, there.probabilities, atol=2e-5)
    assert there.record["device"] == "cpu:0"


@pytest.mark.parametrize(("tile", "sent"), [(32, 4), (None, 1)], ids=["whole tiles", "level by level"])
def test_integers_are_normalised_on_the_device(
    tile: int | None, sent: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    on_device = Normalisation.on_device
    monkeypatch.setattr(
        inference.Normalisation, "on_device", lambda self, x: (seen.append(x.dtype), on_device(self, x))[1]
    )
    monkeypatch.setattr(inference, "pick_device", lambda name: "cpu:0")
    pixels = rng.integers(0, 60000, (64, 64)).astype(np.uint16)
    for given in (pixels, pixels.astype(np.float32)):
        *_, _ = segment(Image(given, "yx"), make_model(), SegmentSettings(tile=tile))
    assert seen == [torch.int32] * sent


def test_the_next_tile_is_sent_before_the_last_is_asked_for() -> None:
    model, order = make_model(), []
    executor = Executor(model.network, "cpu:0")
    begin = executor.begin

    def begun(*given: object) -> object:
        number = len([what for what, _ in order if what == "sent"])
        order.append(("sent", number))
        arrived = begin(*given)  # type: ignore[arg-type]
        return lambda: (order.append(("asked for", number)), arrived())[1]

    executor.begin = begun  # type: ignore[method-assign, assignment]
    plan = TilePlan.make(model.card.spec, (96, 32), (32, 32))
    image = SimpleNamespace(read=lambda start, stop: np.zeros((1, *np.subtract(stop, start)), np.float32))
    shapes = [found.shape for _, found in run_tiles(executor, image.read, plan, classes=True)]
    assert shapes == [(1, 32, 32)] * 3
    expected = [("sent", 0), ("sent", 1), ("asked for", 0), ("sent", 2), ("asked for", 1), ("asked for", 2)]
    assert order == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_carries_and_computes_what_the_processor_does(rng: np.random.Generator) -> None:
    assert Conveyor("cuda")._pins
    pixels = (rng.random((300, 300)) * 250).astype(np.uint8)
    for tile in (None, 64):
        found = [
            list(segment(Image(pixels, "yx"), make_model(), SegmentSettings(device=d, tile=tile)))[-1]
            for d in ("cpu", "cuda")
        ]
        assert np.mean(found[0].labels != found[1].labels) < 0.02  # type: ignore[union-attr]
