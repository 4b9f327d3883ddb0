"""Winograd's convolution: right, used only where it pays, and let go of when it is wrong."""

from collections.abc import Iterator

import pytest
import torch

from napari_unet.engine import winograd
from napari_unet.engine.card import UNetSpec
from napari_unet.engine.levels import Levels
from napari_unet.engine.unet import UNet
from napari_unet.engine.winograd import Winograd

needs_nnpack = pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="this torch has no NNPACK")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Let every test ask the processor anew."""
    winograd.pays.cache_clear()
    yield
    winograd.pays.cache_clear()


def kinds(spec: UNetSpec) -> list[bool]:
    """Return which convolutions of the contracting path run by Winograd's algorithm."""
    return [
        isinstance(sequence[i], Winograd) for sequence in Levels(UNet(spec).eval())._network.encoder for i in (0, 3)
    ]


@needs_nnpack
@pytest.mark.parametrize("shape", [(3, 3), (4, 200), (61, 34)])
def test_it_computes_the_convolution(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(64, 96, 3)
    x = torch.rand(1, 64, *shape).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, found = convolution(x), Winograd(convolution.weight, convolution.bias)(x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@needs_nnpack
def test_wide_levels_use_it_on_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert kinds(UNetSpec(channels=(16, 64, 128))) == [False, False, False, True, True, True]
    assert not any(kinds(UNetSpec(dims=3, channels=(64, 64))))


@pytest.mark.parametrize("capability", ["AVX512", "DEFAULT"])
def test_other_processors_do_not(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not any(kinds(UNetSpec(channels=(16, 64, 128))))


@pytest.mark.parametrize("failure", ["wrong", "raises"])
def test_what_computes_something_else_is_not_used(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def convolution(x, weight, bias, padding):
        if failure == "raises":
            raise RuntimeError("NNPACK is not there")
        return torch.nn.functional.conv2d(x, weight, bias) * 1.0001

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch, "_nnpack_spatial_convolution", convolution)
    assert not any(kinds(UNetSpec(channels=(16, 64, 128))))
