"""The geometry of tiles: halos by hand, and every pixel contributed once."""

import numpy as np
import pytest

from napari_unet.engine.card import UNetSpec
from napari_unet.engine.errors import InvalidSettings
from napari_unet.engine.image import mirrored
from napari_unet.engine.tiling import TilePlan, block_around, dependency, halo, valid_output


@pytest.mark.parametrize(
    ("poolings", "reach", "rounded"), [(1, 8, 8), (2, 22, 24), (3, 46, 48), (4, 94, 96), (5, 190, 192), (6, 382, 384)]
)
def test_halo_of_two_convolutions_a_level(poolings: int, reach: int, rounded: int) -> None:
    spec = UNetSpec(channels=(4,) * (poolings + 1))
    block = 64 * 2**poolings
    assert dependency(spec, 0, 0, block) == (-reach, block + reach)
    assert halo(spec) == (rounded, rounded)


def test_halo_is_per_axis() -> None:
    spec = UNetSpec(
        dims=3, channels=(4, 4, 4), strides=((1, 2, 2), (1, 2, 2)), kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3))
    )
    assert halo(spec) == (2, 24, 24)


def test_halo_of_the_paper_is_what_its_convolutions_eat() -> None:
    assert halo(UNetSpec.paper()) == (92, 92)
    assert valid_output(UNetSpec.paper(), 0, 572) == 388
    assert valid_output(UNetSpec.paper(), 0, 573) is None


def test_paper_tiles_start_on_multiples_of_16_although_388_is_none() -> None:
    plan = TilePlan.make(UNetSpec.paper(), (1000, 1000), (388, 388))
    assert all(tile.inner[0].start % 16 == 0 for tile in plan)
    assert (plan.outer[0] - 12) % 16 == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (17, 16), (100, 33), (5, 9, 31)])
@pytest.mark.parametrize("tile", [4, 13, 64])
def test_tiles_cover_every_pixel_once(shape: tuple[int, ...], tile: int) -> None:
    spec = UNetSpec(dims=len(shape), channels=(2, 2, 2))
    plan = TilePlan.make(spec, shape, (tile,) * len(shape))
    covered = np.zeros(shape, dtype=int)
    for t in plan:
        covered[t.inner] += 1
        assert tuple(b - a for a, b in zip(t.start, t.stop, strict=True)) == plan.outer
        assert all(n % 4 == 0 for n in plan.outer)
    assert (covered == 1).all()
    assert len(list(plan)) == len(plan)


def test_tiles_nearest_to_the_view_come_first() -> None:
    plan = TilePlan.make(UNetSpec(channels=(2, 2)), (100, 100), (20, 20))
    first = plan.nearest_first((slice(70, 90), slice(0, 20)))[0]
    assert first.inner == (slice(80, 100), slice(0, 20)) or first.inner == (slice(60, 80), slice(0, 20))


def test_a_tile_below_the_stride_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="8 pixels is too small for this model: use 16"):
        TilePlan.make(UNetSpec(), (100, 100), (8, 8))


@pytest.mark.parametrize(("start", "stop", "size"), [(-5, 9, 4), (0, 3, 3), (-7, 12, 2), (-2, 3, 1), (3, 30, 7)])
def test_mirroring_is_that_of_numpy(start: int, stop: int, size: int) -> None:
    low, high = max(0, -start), max(0, stop - size)
    padded = np.pad(np.arange(size), (low, high), mode="reflect" if size > 1 else "edge")
    assert mirrored(start, stop, size).tolist() == padded[start + low : stop + low].tolist()


@pytest.mark.parametrize(
    ("region", "block"),
    [
        ((slice(50, 60), slice(70, 90)), (slice(44, 64), slice(68, 88))),
        ((slice(0, 10), slice(95, 101)), (slice(0, 20), slice(80, 100))),
    ],
)
def test_a_block_in_the_middle_of_the_view(region: tuple[slice, ...], block: tuple[slice, ...]) -> None:
    spec = UNetSpec(channels=(2, 2, 2))
    assert block_around(spec, (100, 101), region, 20) == block
