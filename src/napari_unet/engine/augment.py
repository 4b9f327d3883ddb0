"""Patch augmentation: every geometric change in one resampling, then changes of intensity. The same code in 2D and 3D."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .image import cut
from .settings import AugmentSettings

CONTROL = 4
"""Control points of the elastic deformation along each axis (three in 2015; one more since our patches are cut free)."""


def patch(
    stack: NDArray[np.float16],
    channels: int,
    center: tuple[int, ...],
    size: tuple[int, ...],
    settings: AugmentSettings,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Cut one randomly turned, flipped, zoomed and bent patch around `center`.

    Parameters
    ----------
    stack
        ``(c + k, *spatial)``: pixels first, then whatever must follow them (targets, weights).
    channels
        How many of the leading channels are pixels: they are interpolated, the rest takes the nearest value.
    center, size
        In pixels.

    Returns
    -------
    pixels, rest
        ``(c, *size)`` and ``(k, *size)``.
    """
    dims = len(size)
    zoom = settings.scale ** rng.uniform(-1, 1)
    matrix = np.eye(dims) / zoom
    if settings.rotation:
        angle = rng.uniform(-np.pi, np.pi)
        turn = np.eye(dims)
        turn[-2:, -2:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix = turn @ np.diag(rng.choice([-1.0, 1.0], size=dims)) / zoom
    if dims == 3:
        matrix[0] *= zoom  # a stack's z sampling is part of its nature
    grid = torch.zeros(dims)
    for axis, n in enumerate(size):
        ticks = torch.linspace(-(n - 1) / 2, (n - 1) / 2, n).view(n, *(1,) * (dims - axis))
        grid = grid + ticks * torch.from_numpy(matrix[:, axis]).float()
    if settings.elastic > 0:
        bend = torch.from_numpy(rng.normal(0, settings.elastic, (dims, *(CONTROL,) * dims))).float()
        if dims == 3:
            bend[0] = 0
        for n in size:  # one axis after the other is the same, and much faster
            bend = torch.tensordot(bend, spread(n, "bicubic" if dims == 2 else "bilinear"), dims=([1], [1]))
        grid += bend.movedim(0, -1)
    reach = [float(grid[..., d].abs().max()) for d in range(dims)]
    half = tuple(int(np.ceil(r)) + 1 for r in reach)
    low = tuple(c - h for c, h in zip(center, half, strict=True))
    high = tuple(c + h + 1 for c, h in zip(center, half, strict=True))
    source = torch.from_numpy(cut(stack, low, high)).float()[None]
    normalised = (grid / torch.tensor(half, dtype=torch.float32)).flip(-1)[None]
    pixels = F.grid_sample(source[:, :channels], normalised, mode="bilinear", align_corners=True)[0]
    rest = F.grid_sample(source[:, channels:], normalised, mode="nearest", align_corners=True)[0]
    return pixels, rest


@cache
def spread(size: int, mode: str) -> Tensor:
    """Return how the control points of an axis are weighted at each of its pixels, ``(size, CONTROL)``."""
    points = torch.eye(CONTROL)[None, None]
    return F.interpolate(points, (CONTROL, size), mode=mode, align_corners=True)[0, 0].T.contiguous()


def intensities(pixels: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """Change the grey values of a normalised patch ``(c, *spatial)``: blur, contrast, gamma, inversion, noise."""
    if settings.blur > 0 and rng.random() < 0.5:
        pixels = gaussian(pixels, rng.uniform(0, settings.blur))
    if settings.gamma > 0:
        low = pixels.amin()
        span = (pixels.amax() - low).clamp(min=1e-3)
        pixels = ((pixels - low) / span) ** float(2 ** rng.normal(0, settings.gamma)) * span + low
    if settings.contrast > 0:
        pixels = pixels * float(np.exp(rng.normal(0, settings.contrast))) + float(rng.normal(0, settings.contrast / 2))
    if rng.random() < settings.inversion:
        pixels = 1 - pixels
    if settings.noise > 0:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        pixels = pixels + torch.randn(pixels.shape, generator=generator) * float(rng.uniform(0, settings.noise))
    return pixels


def gaussian(pixels: Tensor, sigma: float) -> Tensor:
    """Blur the last two axes of ``(c, *spatial)`` with a Gaussian of `sigma` pixels."""
    if sigma < 0.3:
        return pixels
    reach = int(3 * sigma + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    flat = pixels.reshape(-1, 1, *pixels.shape[-2:])
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), taps[None, None, None, :])
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), taps[None, None, :, None])
    return flat.reshape(pixels.shape)
