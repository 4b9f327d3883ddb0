"""Images made by our own generator, always the same ones: a stack, a time-lapse, membranes as electron microscopes see them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ..engine.image import Image

SEED = 2015
Truth = NDArray[np.int32]


def stack(shape: tuple[int, int, int] = (24, 160, 160), count: int = 45) -> tuple[Image, Truth]:
    """Return round nuclei in a volume (z, y, x), planes four times as far apart as pixels, and their truth."""
    rng = np.random.default_rng(SEED)
    truth = np.zeros(shape, dtype=np.int32)
    grid = np.indices(shape).astype(np.float32)
    stretch = np.array([4.0, 1.0, 1.0])
    centres: list[NDArray[np.float64]] = []
    while len(centres) < count:
        centre, radius = rng.uniform(0, np.array(shape) - 1), rng.uniform(8, 11)
        if all(np.linalg.norm((centre - other) * stretch) > 21 for other in centres):
            centres.append(centre)
            offset = (grid - centre[:, None, None, None]) * stretch[:, None, None, None]
            truth[(offset**2).sum(0) < radius**2] = len(centres)
    brightness = rng.uniform(90, 200, count + 1)
    brightness[0] = 12
    return Image(_seen(brightness[truth], rng, (0.5, 1.5, 1.5)), "zyx", (2.0, 0.5, 0.5), "micrometer", "stack"), truth


def timelapse(shape: tuple[int, int, int] = (10, 180, 180), count: int = 14) -> tuple[Image, Truth]:
    """Return nuclei that wander (t, y, x), and their truth: each keeps its number."""
    rng = np.random.default_rng(SEED)
    frames, *size = shape
    y, x = np.indices(size)
    side = int(np.ceil(np.sqrt(count)))
    cells = np.stack(np.unravel_index(np.arange(count), (side, side)), axis=1)
    places = (cells + 0.5) * np.array(size) / side + rng.uniform(-6, 6, (count, 2))
    speeds, radii = rng.normal(0, 1.2, (count, 2)), rng.uniform(9, 13, (count, 2))
    truth = np.zeros(shape, dtype=np.int32)
    for frame in range(frames):
        for i, ((cy, cx), (ry, rx)) in enumerate(zip(places + frame * speeds, radii, strict=True), start=1):
            truth[frame][((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = i
    brightness = rng.uniform(90, 200, count + 1)
    brightness[0] = 12
    return Image(_seen(brightness[truth], rng, (0, 1.5, 1.5)), "tyx", name="timelapse"), truth


def membranes(shape: tuple[int, int] = (320, 320), count: int = 60) -> tuple[Image, Truth]:
    """Return a section of neurites (y, x), dark membranes between them, and their truth."""
    rng = np.random.default_rng(SEED)
    bend = np.stack([gaussian_filter(rng.standard_normal(shape), 12, mode="wrap") for _ in range(2)])
    grid = np.indices(shape) + 14 * bend / bend.std()
    seeds = rng.uniform(0, np.array(shape), (count, 2))
    far = ((grid[:, None] - seeds.T[:, :, None, None]) ** 2).sum(0)
    cells = far.argmin(0) + 1
    edges = np.zeros(shape, dtype=bool)
    edges[:-1] |= cells[:-1] != cells[1:]
    edges[:, :-1] |= cells[:, :-1] != cells[:, 1:]
    wall = distance_transform_edt(~edges) < 2.5
    plasma = 165 + 14 * gaussian_filter(rng.standard_normal(shape), 2) / 0.14
    for cy, cx in rng.uniform(20, np.array(shape) - 20, (25, 2)):  # mitochondria, which are dark and no membrane
        inside = ((grid[0] - cy) / rng.uniform(5, 8)) ** 2 + ((grid[1] - cx) / rng.uniform(7, 14)) ** 2 < 1
        plasma[inside] -= 55
    pixels = np.where(wall, 45, plasma)
    return Image(_seen(pixels, rng, (1.0, 1.0)), "yx", name="membranes"), np.where(wall, 0, cells).astype(np.int32)


def _seen(pixels: NDArray[np.float64], rng: np.random.Generator, blur: tuple[float, ...]) -> NDArray[np.uint8]:
    """Return what a camera makes of it: blurred, with the noise of few photons."""
    blurred = gaussian_filter(pixels.astype(np.float32), blur)
    return np.asarray((rng.poisson(blurred * 2) / 2 + rng.normal(0, 2, pixels.shape)).clip(0, 255), dtype=np.uint8)
