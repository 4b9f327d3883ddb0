"""The U-Net of napari-unet in one file that needs only torch: it travels in exported packages.

``UNet(**kwargs)`` takes the fields of the model's card and loads its state dict; input ``(n, in_channels, *spatial)``,
output logits ``(n, out_channels, *spatial)``.
"""

from typing import Any, Dict, List, Sequence  # noqa: UP035 - it may meet an older Python than ours

import torch
from torch import nn
from torch.nn import functional as F

CONV: Dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}  # noqa: UP006
UP: Dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}  # noqa: UP006
POOL = {2: F.max_pool2d, 3: F.max_pool3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def crop(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Cut the middle of `x` to the spatial shape of `like`."""
    for axis in range(2, x.ndim):
        x = x.narrow(axis, (x.shape[axis] - like.shape[axis]) // 2, like.shape[axis])
    return x


class UNet(nn.Module):
    """A U-Net (Ronneberger, Fischer, Brox 2015; Çiçek et al. 2016)."""

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        kernels: Sequence[Sequence[int]],
        padding: str = "same",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.strides = [tuple(stride) for stride in strides]
        self.padding, self.pool = padding, POOL[dims]

        def block(level: int, inputs: int) -> nn.Sequential:
            kernel = tuple(kernels[level])
            margin = tuple(k // 2 for k in kernel) if padding == "same" else 0
            layers: List[nn.Module] = []  # noqa: UP006
            for width in (inputs, channels[level]):
                layers.append(CONV[dims](width, channels[level], kernel, padding=margin, bias=norm == "none"))
                if norm == "batch":
                    layers.append(NORM[dims](channels[level]))
                layers.append(nn.ReLU())
            return nn.Sequential(*layers)

        depth = len(channels) - 1
        self.encoder = nn.ModuleList(block(i, channels[i - 1] if i else in_channels) for i in range(depth + 1))
        self.up = nn.ModuleList(
            UP[dims](channels[i + 1], channels[i], self.strides[i], self.strides[i]) for i in range(depth)
        )
        self.decoder = nn.ModuleList(block(i, 2 * channels[i]) for i in range(depth))
        self.head = CONV[dims](channels[0], out_channels, 1)

    def forward(self, x: torch.Tensor) -> Any:
        """Return the logits."""
        skips = []
        for encoder, stride in zip(self.encoder, self.strides):  # noqa: B905 - the deepest block has no stride
            x = encoder(x)
            skips.append(x)
            x = self.pool(x, stride)
        x = self.encoder[-1](x)
        for level in reversed(range(len(skips))):
            x = self.up[level](x)
            skip = skips[level] if self.padding == "same" else crop(skips[level], x)
            x = self.decoder[level](torch.cat([skip, x], dim=1))
        return self.head(x)
