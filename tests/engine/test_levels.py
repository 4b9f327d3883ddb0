"""Levels: what a block depends on, its memory, its tiles and their order. That it is exact stands in test_exactness."""

import itertools
import logging

import numpy as np
import pytest

from napari_unet.engine import execution, levels
from napari_unet.engine.card import UNetSpec
from napari_unet.engine.errors import OutOfMemory
from napari_unet.engine.execution import Executor
from napari_unet.engine.image import Image
from napari_unet.engine.inference import network_for
from napari_unet.engine.levels import Extents, Levels, Need, cut, placed
from napari_unet.engine.model import Model
from napari_unet.engine.tiling import canvas
from napari_unet.engine.unet import UNet

from .conftest import make_model

ONE_POOLING = UNetSpec(channels=(2, 4))
BLOCK = (slice(0, 8), slice(8, 16))
FAR = (None, None)
"""The ends of a canvas that are far away."""


def test_what_a_block_depends_on_by_hand() -> None:
    extents = Extents.of(ONE_POOLING, BLOCK, FAR)
    assert extents.outputs == (((0, 8), (8, 16)), ((-1, 5), (3, 9)))  # -2 to 10, halved
    assert extents.inputs == (
        ((-8, 16), (0, 24)),
        ((-3, 7), (1, 11)),
    )  # two convolutions more; then doubled, and two more
    assert extents.encoded == (((-6, 14), (2, 22)), ((-1, 5), (3, 9)))
    assert extents.skips == (((-2, 10), (6, 18)), ((-1, 5), (3, 9)))  # what the two convolutions of the block see


def test_what_a_block_depends_on_ends_with_the_canvas() -> None:
    extents = Extents.of(ONE_POOLING, BLOCK, (12, 100))
    assert extents.ends == ((12, 100), (6, 50))
    assert extents.outputs == (((0, 8), (8, 16)), ((0, 5), (3, 9)))
    assert extents.inputs == (((0, 12), (0, 24)), ((0, 6), (1, 11)))
    assert extents.encoded == (((0, 12), (2, 22)), ((0, 5), (3, 9)))
    assert extents.skips == (((0, 10), (6, 18)), ((0, 5), (3, 9)))


def test_memory_by_hand() -> None:
    image, pooled, skip = 24 * 24, 2 * 10 * 10, 2 * 12 * 12
    assert Extents.of(ONE_POOLING, BLOCK, FAR).values(ONE_POOLING) == image + pooled + skip  # while level 0 contracts


SPECS = [
    UNetSpec(channels=(16, 32, 64, 128, 256)),
    UNetSpec(channels=(4, 8, 8), in_channels=3),
    UNetSpec(dims=3, channels=(4, 8, 16, 16), strides=((1, 2, 2), (2, 2, 2), (2, 2, 2))),
    ONE_POOLING,
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.channels))
@pytest.mark.parametrize("is_whole", [True, False])
def test_no_map_covers_another_that_is_needed_with_it(spec: UNetSpec, is_whole: bool) -> None:
    shape = (32, 64, 64)[-spec.dims :]
    needs = Extents.of(spec, tuple(slice(0, n) for n in shape), shape if is_whole else (None,) * spec.dims).maps(spec)
    places, total = placed(needs)
    assert places.keys() == needs.keys()
    most = 0
    for step in range(2 * len(spec.channels)):
        there = sorted((places[n], need.size) for n, need in needs.items() if need.first <= step <= need.last)
        for (start, size), (following, _) in itertools.pairwise([*there, (total, 0)]):
            assert start + size <= following
        most = max(most, sum(size for _, size in there))
    assert total == most  # not more than what is needed at once


def test_places_by_hand() -> None:
    needs = {("a", 0): Need(0, 1, 10), ("b", 0): Need(1, 2, 6), ("c", 0): Need(2, 3, 12), ("d", 0): Need(3, 3, 5)}
    assert placed(needs) == ({("c", 0): 0, ("a", 0): 0, ("b", 0): 12, ("d", 0): 12}, 18)


def memory_of(network: Levels) -> int | None:
    return None if network._memory is None else network._memory.data_ptr()


def test_the_next_block_takes_the_memory_of_the_last() -> None:
    network, read = blank((64, 96))
    whole, half = (slice(0, 64), slice(0, 96)), (slice(0, 64), slice(0, 48))
    list(network.run(read, whole, (64, 96)))
    kept = memory_of(network)
    list(network.run(read, half, (64, 96)))
    assert memory_of(network) == kept is not None
    network.free()
    assert memory_of(network) is None


def test_two_blocks_under_way_have_memory_of_their_own(rng: np.random.Generator) -> None:
    image = rng.random((64, 96)).astype(np.float32)
    model = make_model()
    item = next(Image(image, "yx").items(2))
    network = Levels(model.unet)
    block = (slice(0, 64), slice(0, 96))

    def runs(count: int) -> list[list[np.ndarray]]:
        under_way = [network.run(item.read_mirrored, block, (64, 96)) for _ in range(count)]
        together = zip(*under_way, strict=True)
        return [[part[1] for part in one if part is not None] for one in zip(*together, strict=True)]

    (expected,) = runs(1)
    for found in runs(2):
        for part, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(part, wanted)


def test_memory_of_a_run_that_is_stopped_is_let_go() -> None:
    network, read = blank((64, 96))
    run = network.run(read, (slice(0, 64), slice(0, 96)), (64, 96))
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert memory_of(network) is None


def in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor stand in for a device, which it does by the name "cpu:0"."""
    monkeypatch.setattr(execution, "PRECISE", set())
    monkeypatch.setattr(levels, "DEVICE_VALUES", 1 << 12)


@pytest.mark.parametrize("model", [make_model(), make_model(dims=3, in_channels=2)], ids=["2D", "3D"])
def test_a_device_keeps_its_maps_in_half_precision(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shape = (64, 96) if model.card.spec.dims == 2 else (16, 32, 32)
    single = Levels(model.unet).memory(shape, shape)
    in_half_precision(monkeypatch)
    network = Levels.checked(model.unet, "cpu:0")
    assert network
    assert network.memory(shape, shape) == single // 2
    assert not caplog.records


def test_whole_tiles_where_a_device_fails_level_by_level(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_half_precision(monkeypatch)
    monkeypatch.setattr(levels.Map, "__setitem__", lambda self, box, values: self._values.fill_(0.5))
    network = make_model().unet
    with caplog.at_level(logging.WARNING):
        assert isinstance(network_for(make_model(), None, "cpu:0"), Executor)
    assert [r.message for r in caplog.records] == [
        "cpu:0 computes something else level by level: whole tiles are used."
    ]
    assert Levels.checked(network, "cpu"), "the processor is not compared with itself"


def test_tiles_are_even_and_start_on_the_stride() -> None:
    assert [box[0] for box in cut(((-6, 14),), 8, (2,))] == [(-6, 2), (2, 10), (10, 14)]
    assert [box[0] for box in cut(((0, 3),), 8, (2,))] == [(0, 3)]


def blank(shape: tuple[int, ...]) -> tuple[Levels, levels.Read]:
    image = Image(np.zeros(shape, dtype=np.float32), "zyx"[-len(shape) :])
    network = UNet(UNetSpec(dims=len(shape), channels=(4, 8, 8)))
    return Levels(network), next(image.items(len(shape))).read_mirrored


@pytest.mark.parametrize("shape", [(70, 200), (20, 30, 20)], ids=str)
def test_there_are_as_many_steps_as_announced(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(levels.VALUES, len(shape), 1 << 12)
    network, read = blank(shape)
    block = tuple(slice(0, n) for n in shape)
    end = canvas(network.spec, shape)
    parts = list(network.run(read, block, end))
    assert len(parts) == network.steps(block, end) > 10
    covered = np.zeros(shape, dtype=int)
    for part in parts:
        if part is not None:
            covered[part[0]] += 1
    assert (covered == 1).all()


def test_the_finest_tiles_in_view_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(levels.VALUES, 2, 1 << 12)  # tiles of 32 pixels
    network, read = blank((128, 128))
    view = (slice(70, 90), slice(0, 20))
    first = next(filter(None, network.run(read, (slice(0, 128),) * 2, (128, 128), view)))
    assert first[0] == (slice(64, 96), slice(0, 32))


@pytest.mark.parametrize("block", [(100, 60), (52, 60), (52, 32), (4, 4)])
def test_blocks_are_halved_until_they_fit(block: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = blank((100, 57))
    monkeypatch.setattr(levels, "MOST_MEMORY", network.memory(block, (100, 60)))
    assert network.largest_block((100, 57), (100, 60)) == block


def test_a_budget_too_small_for_any_block_gives_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = blank((100, 57))
    monkeypatch.setattr(levels, "MOST_MEMORY", 1)
    assert network.largest_block((100, 57), (100, 60)) == (4, 4)


@pytest.mark.parametrize("block", [(52, 60), (4, 4)])
def test_a_given_budget_decides_the_size_of_blocks(block: tuple[int, int]) -> None:
    network, _ = blank((100, 57))
    assert network.largest_block((100, 57), (100, 60), network.memory(block, (100, 60))) == block


@pytest.mark.parametrize("level", [0, 1, 2])
def test_memory_that_runs_out_at_any_level_is_told(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Levels._convolve

    def full(self: Levels, convolutions: object, here: int, *rest: object) -> object:
        if here == level:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(self, convolutions, here, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Levels, "_convolve", full)
    network, read = blank((64, 64))
    with pytest.raises(OutOfMemory, match="close other programs"):
        list(network.run(read, (slice(0, 64),) * 2, (64, 64)))
    assert memory_of(network) is None


def test_an_image_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "READ", 50 * 50)
    network, read = blank((64, 64))
    parts: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def record(start: tuple[int, ...], stop: tuple[int, ...]) -> np.ndarray:
        parts.append((start, stop))
        return read(start, stop)

    list(network.run(record, (slice(0, 64),) * 2, (64, 64)))
    assert parts == [((y, x), (y + 32, x + 32)) for y in (0, 32) for x in (0, 32)]  # nothing beyond the image


def test_valid_networks_are_left_to_the_simple_way() -> None:
    assert Levels.can_run(UNetSpec())
    assert not Levels.can_run(UNetSpec.paper())
    assert not Levels.can_run(UNetSpec(channels=(4,)))
