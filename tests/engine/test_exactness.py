"""Tiles without seams: the tiled result is that of one pass over the whole image, and each condition for it is needed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet.engine import levels, tiling
from napari_unet.engine.card import UNetSpec
from napari_unet.engine.execution import Executor, run_tiles
from napari_unet.engine.image import Image
from napari_unet.engine.kernels import Winograd, is_wide
from napari_unet.engine.levels import Levels
from napari_unet.engine.library import SHIPPED
from napari_unet.engine.model import load_model_file
from napari_unet.engine.tiling import TilePlan, canvas
from napari_unet.engine.unet import UNet

from .conftest import with_statistics

TOLERANCE = 1e-5
"""Largest difference of the logits, relative to the largest logit."""
TIES = 1e-5
"""Largest part of the pixels whose label may change (a tie within rounding)."""


def textured(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return an image whose contrast varies from place to place, so that local statistics would show."""
    rng = np.random.default_rng(seed)
    image = rng.random(shape, dtype=np.float32)
    return image * np.linspace(0.1, 1.5, shape[-1], dtype=np.float32)


def logits(executor: Executor, image: np.ndarray, plan: TilePlan) -> np.ndarray:
    axes = "zyx"[-image.ndim :]
    item = next(Image(image, axes).items(image.ndim))
    result = np.full((executor.spec.out_channels, *image.shape), np.nan, dtype=np.float32)
    for tile, values in run_tiles(executor, item.read_mirrored, plan):
        result[(slice(None), *tile.inner)] = values
    return result


def in_one_pass(executor: Executor, image: np.ndarray) -> np.ndarray:
    """Return what a network says of a whole image; what rounds it up to the poolings is mirrored."""
    end = canvas(executor.spec, image.shape)
    if None in end:  # a network that shrinks what it sees is given more, mirrored
        return logits(executor, image, TilePlan.make(executor.spec, image.shape, image.shape))
    seen = next(Image(image, "zyx"[-image.ndim :]).items(image.ndim)).read_mirrored((0,) * image.ndim, end)
    return executor(seen[None])[0][(slice(None), *(slice(0, n) for n in image.shape))]


def difference(
    executor: Executor, image: np.ndarray, tile: tuple[int, ...], plan: TilePlan | None = None
) -> tuple[float, float]:
    """Return the largest relative difference of the logits, and the part of the labels that changes."""
    whole = in_one_pass(executor, image)
    tiled = logits(executor, image, plan or TilePlan.make(executor.spec, image.shape, tile))
    decided = np.concatenate([whole, np.zeros_like(whole[:1])]).argmax(0) != np.concatenate(
        [tiled, np.zeros_like(tiled[:1])]
    ).argmax(0)
    return float(np.abs(tiled - whole).max() / np.abs(whole).max()), float(decided.mean())


def random_network(spec: UNetSpec) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return with_statistics(UNet(spec))


def random_executor(spec: UNetSpec) -> Executor:
    return Executor(random_network(spec), "cpu")


@pytest.fixture(scope="module")
def trained() -> Executor:
    return Executor(load_model_file(SHIPPED / "nuclei.safetensors").network, "cpu")


SIZES = np.random.default_rng(11)
SHAPES_2D = [(1, 1), (1, 700), (1500, 3), *(tuple(SIZES.integers(1, 1500, 2).tolist()) for _ in range(4))]


@pytest.mark.parametrize("shape", SHAPES_2D, ids=str)
@pytest.mark.parametrize("tile", [(128, 128), (400, 272)], ids=str)
def test_trained_2d(trained: Executor, shape: tuple[int, int], tile: tuple[int, int]) -> None:
    largest, changed = difference(trained, textured(shape, 1), tile)
    assert largest <= TOLERANCE
    assert changed <= TIES


@pytest.mark.parametrize("shape", [(1, 5, 7), (9, 33, 41), (21, 50, 18)], ids=str)
@pytest.mark.parametrize("tile", [(8, 16, 16), (4, 24, 40)], ids=str)
def test_3d(shape: tuple[int, ...], tile: tuple[int, ...]) -> None:
    largest, changed = difference(random_executor(UNetSpec(dims=3, channels=(4, 8, 16))), textured(shape, 2), tile)
    assert largest <= TOLERANCE
    assert changed <= TIES


def test_anisotropic_3d() -> None:
    spec = UNetSpec(
        dims=3, channels=(4, 8, 8), strides=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3))
    )
    largest, changed = difference(random_executor(spec), textured((11, 37, 53), 4), (4, 16, 20))
    assert largest <= TOLERANCE
    assert changed <= TIES


def test_the_papers_valid_network() -> None:
    spec = UNetSpec(channels=(4, 8, 16, 16, 16), padding="valid", norm="none")
    largest, changed = difference(random_executor(spec), textured((333, 410), 5), (128, 96))
    assert largest <= TOLERANCE
    assert changed <= TIES


# Level by level: the same result, without a rim of the whole network's context around each tile.


def by_level(
    network: UNet, image: np.ndarray, block: tuple[int, ...], kind: type[Levels] = Levels
) -> tuple[float, float]:
    """Return the largest relative difference of the logits to one whole pass, and the part of the labels that changes."""
    spec = network.spec
    whole = in_one_pass(Executor(network, "cpu"), image)
    read = next(Image(image, "zyx"[-image.ndim :]).items(image.ndim)).read_mirrored
    found, network_by_level = np.full_like(whole, np.nan), kind(network)
    plan = TilePlan.make(spec, image.shape, block)
    for tile in plan:
        for part in network_by_level.run(read, tile.inner, plan.canvas):
            if part is not None:
                found[(slice(None), *part[0])] = part[1]
    changed = np.concatenate([whole, 0 * whole[:1]]).argmax(0) != np.concatenate([found, 0 * whole[:1]]).argmax(0)
    return float(np.abs(found - whole).max() / np.abs(whole).max()), float(changed.mean())


def winograd_everywhere(network: UNet) -> UNet:
    """Use it on this processor, whatever it is."""
    for sequence in (*network.encoder, *network.decoder):
        for i, layer in enumerate(sequence):
            if isinstance(layer, nn.Conv2d) and is_wide(layer):
                sequence[i] = Winograd(layer)
    return network


@pytest.mark.parametrize("shape", SHAPES_2D, ids=str)
@pytest.mark.parametrize("block", [2000, 304], ids=str)
def test_levels_of_the_trained_network(shape: tuple[int, int], block: int) -> None:
    network = load_model_file(SHIPPED / "nuclei.safetensors").network
    largest, changed = by_level(network, textured(shape, 1), (block, block))
    assert largest <= TOLERANCE
    assert changed <= TIES


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="this torch has no NNPACK")
def test_levels_by_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "with_faster_kernels", winograd_everywhere)
    network = load_model_file(SHIPPED / "nuclei.safetensors").network
    largest, changed = by_level(network, textured((500, 700), 3), (500, 700))
    assert 0 < largest <= TOLERANCE
    assert changed <= TIES


@pytest.mark.parametrize("values", [1 << 8, 1 << 22])
@pytest.mark.parametrize("shape", [(1, 5, 7), (9, 33, 41), (21, 50, 18)], ids=str)
def test_levels_in_3d(shape: tuple[int, ...], values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(levels.VALUES, 3, values)  # small tiles within small volumes
    network = random_network(UNetSpec(dims=3, channels=(4, 8, 16)))
    largest, changed = by_level(network, textured(shape, 2), (16, 24, 40))
    assert largest <= TOLERANCE
    assert changed <= TIES


@pytest.mark.parametrize(
    "spec",
    [
        UNetSpec(dims=3, channels=(4, 8, 8), strides=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3))),
        UNetSpec(dims=3, channels=(4, 6), strides=((3, 1, 4),), kernels=((1, 1, 1), (5, 3, 1)), norm="none"),
    ],
    ids=["kernels 1 and 3", "strides 3, 1 and 4"],
)
def test_levels_of_anisotropic_networks(spec: UNetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(levels.VALUES, 3, 1 << 10)
    largest, changed = by_level(random_network(spec), textured((11, 37, 53), 4), (6, 16, 20))
    assert largest <= TOLERANCE
    assert changed <= TIES


# Negative controls: each must fail the very same test.


def test_instance_norm_leaves_seams() -> None:
    network = UNet(UNetSpec(channels=(8, 16, 32)))
    for module in (*network.encoder, *network.decoder):
        for i, layer in enumerate(module):
            if isinstance(layer, nn.BatchNorm2d):
                module[i] = nn.InstanceNorm2d(layer.num_features, affine=True)
    largest, changed = difference(Executor(network, "cpu"), textured((300, 300), 6), (64, 64))
    assert largest > 100 * TOLERANCE
    assert changed > 100 * TIES


@pytest.mark.parametrize("shift", [1, 2, 4, 8])
def test_a_shifted_origin_leaves_seams(trained: Executor, shift: int) -> None:
    image = textured((320, 320), 7)
    plan = TilePlan.make(trained.spec, image.shape, (64, 64))
    shifted = replace(
        plan,
        before=tuple(b - shift for b in plan.before),
        after=tuple(a + shift for a in plan.after),
        lead=tuple(k - shift for k in plan.lead),
    )
    assert difference(trained, image, (64, 64), shifted)[0] > 10 * TOLERANCE


@pytest.mark.parametrize("poolings", [2, 3, 4])
def test_a_halo_one_stride_too_small_leaves_seams(poolings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = random_executor(UNetSpec(channels=(8, 16, 16, 16, 16)[: poolings + 1]))
    image, stride = textured((384, 384), 8), 2**poolings
    needed = tiling.halo(executor.spec)
    whole = in_one_pass(executor, image)
    monkeypatch.setattr(tiling, "halo", lambda spec: tuple(n - stride for n in needed))
    short = logits(executor, image, TilePlan.make(executor.spec, image.shape, (64, 64)))
    assert np.abs(short - whole).max() / np.abs(whole).max() > TOLERANCE


def test_statistics_of_the_tile_would_leave_seams(trained: Executor) -> None:
    """Normalising each tile instead of the image is the peers' commonest mistake."""
    image = textured((300, 300), 9)
    item = next(Image(image, "yx").items(2))
    plan = TilePlan.make(trained.spec, image.shape, (64, 64))

    def per_tile(start: tuple[int, ...], stop: tuple[int, ...]) -> np.ndarray:
        pixels = item.read_mirrored(start, stop)
        return (pixels - pixels.mean()) / pixels.std()

    tiled = [(t.inner, v) for t, v in run_tiles(trained, per_tile, plan)]
    whole = in_one_pass(trained, (image - image.mean()) / image.std())
    worst = max(np.abs(v - whole[(slice(None), *inner)]).max() for inner, v in tiled)
    assert worst / np.abs(whole).max() > 100 * TOLERANCE


class WithoutContext(Levels):
    """Tiles of a level that see zeros instead of their neighbours."""

    def __init__(self, network: UNet) -> None:
        super().__init__(network)
        for module in self._network.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.padding = (1, 1)

    def _around(self, level: int, box: levels.Box, ends: tiling.Canvas) -> levels.Box:
        return box

    def _convolve(self, convolutions: list[nn.Sequential], level: int, x: torch.Tensor, *where: object) -> torch.Tensor:
        return convolutions[1](convolutions[0](x))


def test_levels_without_context_leave_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = random_network(UNetSpec(channels=(8, 16, 32))), textured((300, 300), 6)
    monkeypatch.setitem(levels.VALUES, 2, 1 << 15)  # tiles of 64 pixels at the finest level
    largest, changed = by_level(network, image, (300, 300), WithoutContext)
    assert largest > 100 * TOLERANCE
    assert changed > 100 * TIES
