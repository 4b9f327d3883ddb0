"""Faster forms of layers: right, used only where they pay, and let go of with a word when they are wrong."""

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from napari_unet.engine import kernels
from napari_unet.engine.card import UNetSpec
from napari_unet.engine.kernels import Direct, Expansion, Winograd
from napari_unet.engine.levels import Levels
from napari_unet.engine.unet import UNet

needs_nnpack = pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="this torch has no NNPACK")
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
WIDE = UNetSpec(channels=(16, 64, 128))
VOLUME = UNetSpec(dims=3, channels=(2, 4))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Let every test ask the processor anew, and be told anew."""
    for remembered in (kernels.winograd_pays, kernels._tell):
        remembered.cache_clear()
    yield
    for remembered in (kernels.winograd_pays, kernels._tell):
        remembered.cache_clear()


def kinds(spec: UNetSpec) -> list[type]:
    """Return what computes the convolutions of the contracting path, and the first expansion."""
    network = Levels(UNet(spec).eval())._network
    return [type(sequence[i]) for sequence in network.encoder for i in (0, 3)] + [type(network.up[0])]


def compare(form: nn.Module, layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the largest difference on a tile of channels last, relative to the largest value."""
    layout = torch.channels_last if len(shape) == 3 else torch.channels_last_3d
    x = torch.rand(1, *shape).contiguous(memory_format=layout)
    with torch.inference_mode():
        expected, found = layer(x), form(x)
    return float((found - expected).abs().max() / expected.abs().max())


@needs_nnpack
@pytest.mark.parametrize("shape", [(3, 3), (4, 200), (61, 34)])
def test_winograd_computes_the_convolution(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 96, 3)
    assert compare(Winograd(layer), layer, (64, *shape)) <= 1e-5


@needs_onednn
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 3, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("channels", [1, 6])
def test_direct_computes_the_convolution(channels: int, kernel: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv3d(channels, 5, kernel)
    assert compare(Direct(layer), layer, (channels, 5, 9, 20)) <= 1e-6


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (3, 1, 4)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_expansion_computes_the_transposed_convolution(bias: bool, stride: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose3d(6, 4, stride, stride, bias=bias)
    assert compare(Expansion(layer), layer, (6, 3, 5, 7)) <= 1e-6


@needs_nnpack
def test_wide_levels_use_winograd_on_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert kinds(WIDE) == [nn.Conv2d] * 3 + [Winograd] * 3 + [nn.ConvTranspose2d]


@pytest.mark.parametrize("capability", ["AVX512", "DEFAULT"])
def test_other_processors_do_not(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert Winograd not in kinds(WIDE)


@needs_onednn
def test_volumes_go_to_onednn_and_to_a_matrix_product() -> None:
    assert kinds(VOLUME) == [Direct] * 4 + [Expansion]


@pytest.mark.parametrize("failure", ["wrong", "raises"])
def test_what_computes_something_else_is_not_used_and_told_once(
    failure: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def convolution(x: Tensor, *others: object) -> Tensor:
        if failure == "raises":
            raise RuntimeError("oneDNN is not there")
        return torch.nn.functional.conv3d(x, *others[:2]) * 1.0001  # type: ignore[arg-type]

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch, "mkldnn_convolution", convolution)
    with caplog.at_level(logging.WARNING):
        assert kinds(VOLUME) == [nn.Conv3d] * 4 + [Expansion]
    words = {"wrong": "it differs from torch's own by more than rounding", "raises": "oneDNN is not there"}[failure]
    assert [r.message for r in caplog.records] == [f"Direct is not used on this processor: {words}."]


def test_the_random_numbers_of_others_stay_as_they_are() -> None:
    network = UNet(VOLUME).eval()
    before = torch.get_rng_state()
    Levels(network)
    assert torch.equal(torch.get_rng_state(), before)
