"""What computes the layers of a level on the CPU: a faster kernel where torch's own choice is a slow one.

* `Winograd`: wide 3 x 3 convolutions by NNPACK, a part of torch. It multiplies less often than the direct convolution, and
  rounds a little more. With AVX2 a network of base 32 takes 0.7 of the time; with AVX-512 hardly anything is gained. The
  processor decides and not a clock, so that a machine gives the same labels every time.
* `Direct`: convolutions of volumes by oneDNN. Torch takes them for small when channels x z x y are few, and forgets x: so
  an image of one channel goes through its slow convolution.
* `Expansion`: transposed convolutions of volumes as matrix products, for the same reason.

Each layer is compared with torch's own on a small tile when a network is made ready, and let go of with a word in the log
if it computes something else. The times are measured by `benchmarks/speed.py`.
"""

from __future__ import annotations

import logging
import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .unet import UNet

LEAST_CHANNELS = 64
"""Narrower convolutions are not faster by Winograd's algorithm."""
LARGEST_ERROR = 2e-5
"""Largest difference to torch's own layer that is accepted, relative to the largest value."""
TRIAL = {2: 6, 3: 2}
"""Edge of the tile on which they are compared, on top of the kernel's, by dimensions."""


class Winograd(nn.Module):
    """An unpadded 3 x 3 convolution."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight.detach().contiguous(), layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``(n, c, y, x)``."""
        result: Tensor = torch._nnpack_spatial_convolution(x.contiguous(), self.weight, self.bias, (0, 0))
        return result


class Direct(nn.Module):
    """An unpadded convolution of volumes."""

    def __init__(self, layer: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``(n, c, z, y, x)``."""
        result: Tensor = torch.mkldnn_convolution(x, self.weight, self.bias, (0, 0, 0), (1, 1, 1), (1, 1, 1), 1)
        return result


class Expansion(nn.Module):
    """A transposed convolution whose kernel is its stride: each voxel becomes a small box of its own."""

    def __init__(self, layer: nn.ConvTranspose3d) -> None:
        super().__init__()
        self._stride = layer.kernel_size
        self.weight = nn.Parameter(layer.weight.movedim(1, -1).flatten(1).t().contiguous(), requires_grad=False)
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
        self.bias = nn.Parameter(bias.repeat(math.prod(self._stride)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the boxes of ``(n, c, z, y, x)`` side by side."""
        boxes = F.linear(x.movedim(1, -1), self.weight, self.bias).unflatten(-1, (*self._stride, -1))
        beside = boxes.permute(0, 1, 4, 2, 5, 3, 6, 7)
        result: Tensor = beside.flatten(5, 6).flatten(3, 4).flatten(1, 2).movedim(-1, 1)
        return result


def with_faster_kernels(network: UNet) -> UNet:
    """Return the network, its unpadded layers in their faster form where there is one; changes what it is given."""
    for layers in (*network.encoder, network.up, *network.decoder):
        for i, layer in enumerate(layers):
            form = faster(layer)
            if form is not None and is_right(form, layer):
                layers[i] = form
    return network


def faster(layer: nn.Module) -> nn.Module | None:
    """Return the faster form of a layer on this processor; None: torch's own is the fastest."""
    if isinstance(layer, nn.Conv2d) and is_wide(layer) and winograd_pays():
        return Winograd(layer)
    if isinstance(layer, nn.Conv3d) and torch.backends.mkldnn.is_available():
        return Direct(layer)
    return Expansion(layer) if isinstance(layer, nn.ConvTranspose3d) else None


def is_wide(layer: nn.Conv2d) -> bool:
    """Tell whether a convolution is faster by Winograd's algorithm."""
    return layer.kernel_size == (3, 3) and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS


@cache
def winograd_pays() -> bool:
    """Tell whether this processor gains by it, and torch has an NNPACK."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.nnpack.is_available()


@torch.inference_mode()
def is_right(form: nn.Module, layer: nn.Module) -> bool:
    """Compare a layer's faster form with torch's own."""
    channels, kernel = layer.in_channels, layer.kernel_size
    assert isinstance(channels, int)
    assert isinstance(kernel, tuple)
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, channels, *(TRIAL[len(kernel)] + k for k in kernel), generator=draw)
    expected = layer(x)
    try:
        error = float((form(x) - expected).abs().max() / expected.abs().max())
    except RuntimeError as failure:
        _tell(type(form).__name__, str(failure).splitlines()[0])
        return False
    if error > LARGEST_ERROR:
        _tell(type(form).__name__, "it differs from torch's own by more than rounding")
        return False
    return True


@cache
def _tell(form: str, reason: str) -> None:
    """Say it once in the log."""
    logging.getLogger(__name__).warning("%s is not used on this processor: %s.", form, reason)
