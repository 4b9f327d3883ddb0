"""Wide 3 x 3 convolutions by Winograd's algorithm (NNPACK, a part of torch), where that pays: x86 without AVX-512.

It multiplies less often than the direct convolution, and rounds a little more. With AVX2 a network of base 32 takes three
quarters of the time; with AVX-512 nothing is gained (both measured by `benchmarks/speed.py`). The processor decides
and not a clock, so that a machine gives the same labels every time.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .unet import UNet

LEAST_CHANNELS = 64
"""Narrower convolutions are not faster."""
LARGEST_ERROR = 1e-5
"""Largest difference to the direct convolution that is accepted, relative to the largest value."""


class Winograd(nn.Module):
    """An unpadded 3 x 3 convolution."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight.detach().contiguous(), bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``(n, c, y, x)``."""
        result: Tensor = torch._nnpack_spatial_convolution(x.contiguous(), self.weight, self.bias, (0, 0))
        return result


def with_winograd(network: UNet) -> UNet:
    """Return the network, its wide unpadded 3 x 3 convolutions replaced where that pays; changes what it is given."""
    if pays():
        for sequence in (*network.encoder, *network.decoder):
            for i, layer in enumerate(sequence):
                if is_wide(layer):
                    sequence[i] = Winograd(layer.weight, layer.bias)
    return network


def is_wide(layer: nn.Module) -> bool:
    """Tell whether a layer is a convolution that is faster by Winograd's algorithm."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
    )


@cache
def pays() -> bool:
    """Tell whether this processor gains by it, and torch has an NNPACK that computes what it should."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.nnpack.is_available() and is_right()


@torch.inference_mode()
def is_right() -> bool:
    """Compare with the direct convolution once."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, LEAST_CHANNELS, 21, 34, generator=draw)
    weight = torch.randn(LEAST_CHANNELS, LEAST_CHANNELS, 3, 3, generator=draw)
    bias = torch.randn(LEAST_CHANNELS, generator=draw)
    expected = F.conv2d(x, weight, bias)
    try:
        found = Winograd(weight, bias)(x)
    except RuntimeError:
        return False
    return bool((found - expected).abs().max() <= LARGEST_ERROR * expected.abs().max())
