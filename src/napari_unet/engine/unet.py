"""UNet: the network of Ronneberger, Fischer, Brox 2015 and its 3D form (Çiçek et al. 2016), from one description."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .card import UNetSpec
from .tiling import CONVOLUTIONS

# Typed as Any: the stubs want sizes of one length, ours have the length of the spec.
CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
UP: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL = {2: F.max_pool2d, 3: F.max_pool3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def block(spec: UNetSpec, level: int, in_channels: int) -> nn.Sequential:
    """Return the convolutions of one level: (conv, norm, ReLU) twice."""
    kernel, out_channels = spec.kernels[level], spec.channels[level]
    padding = tuple(k // 2 for k in kernel) if spec.padding == "same" else 0
    layers: list[nn.Module] = []
    for i in range(CONVOLUTIONS):
        bias = spec.norm == "none"
        layers.append(
            CONV[spec.dims](in_channels if i == 0 else out_channels, out_channels, kernel, padding=padding, bias=bias)
        )
        if spec.norm == "batch":
            layers.append(NORM[spec.dims](out_channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def crop(x: Tensor, like: Tensor) -> Tensor:
    """Cut the middle of `x` to the spatial shape of `like`, for skips that lost fewer border pixels."""
    for axis in range(2, x.ndim):
        x = x.narrow(axis, (x.shape[axis] - like.shape[axis]) // 2, like.shape[axis])
    return x


class UNet(nn.Module):
    """A U-Net, 2D or 3D.

    Input ``(n, in_channels, *spatial)``, output logits ``(n, out_channels, *spatial)``. With "same" convolutions the
    spatial sizes must be multiples of the total stride; with "valid" ones the output is smaller (572 to 388 in 2015).
    Weights are drawn as in 2015, section 3: Gaussian with variance 2 / fan-in.
    """

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        widths, depth = spec.channels, len(spec.channels) - 1
        self.encoder = nn.ModuleList(block(spec, i, widths[i - 1] if i else spec.in_channels) for i in range(depth + 1))
        self.up = nn.ModuleList(
            UP[spec.dims](widths[i + 1], widths[i], spec.strides[i], spec.strides[i]) for i in range(depth)
        )
        self.decoder = nn.ModuleList(block(spec, i, 2 * widths[i]) for i in range(depth))
        self.dropout = nn.Dropout(spec.dropout)
        self.head = CONV[spec.dims](widths[0], spec.out_channels, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
                if module.weight.is_meta:
                    continue  # nothing to draw; torch would import its whole compiler to draw nothing
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees: ``(n, channels[0], *spatial)``."""
        skips = []
        for level, stride in enumerate(self.spec.strides):
            x = self.encoder[level](x)
            skips.append(x)
            x = POOL[self.spec.dims](x, stride)
        x = self.dropout(self.encoder[-1](x))
        for level in reversed(range(len(skips))):
            x = self.up[level](x)
            x = self.decoder[level](torch.cat([crop(skips.pop(), x), x], dim=1))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.features(x))
        return logits
