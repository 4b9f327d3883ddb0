"""What the click network is shown: its channels, objects as it meets them, and clicks as a person would give them.

Clicks are simulated as in Sofiiuk et al. 2021: a first one inside the object, then, up to some number of times, one in
the largest error of the network's own answer, which becomes the mask channel. The recipe of the shipped model and what
`ClickSegmenter` learns from its user both draw their patches here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from .augment import gaussian
from .image import mirrored

Mask = NDArray[np.bool_]

CHANNELS = 4
"""Grey, positive clicks, negative clicks, mask so far."""
SIZE = 128
"""Edge, in pixels, of what the network sees."""
RADIUS = 3
"""Radius of a click's disk in what the network sees."""
AS_ZOOMED = 0.65
"""Part of the objects that are seen as large as the zoom will show them; the others as the first windows do."""
FARTHEST, NEAREST = 0.07, 1.4
"""An object's extent over the window's edge, in the first windows."""
MOST_ZOOM = 4
"""Objects are magnified, or shrunk, by at most this factor."""
FEWEST_PIXELS = 12
"""Less than this of an object, as the network would see it, is no object."""
RING = 9
"""Width of the window (max filter) whose ring around an object counts as much as the object."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image and objects in it.

    Attributes
    ----------
    stack
        The grey values ``(1, h, w)``, normalised.
    labels
        ``(h, w)``: 0, or the object's number.
    boxes
        ``(n, 5)``: number, top, left, bottom, right of each object that is to be seen.
    """

    stack: NDArray[np.float16]
    labels: NDArray[np.integer]
    boxes: NDArray[np.int64]

    @classmethod
    def of(cls, grey: NDArray[np.floating], labels: NDArray[np.integer], smallest: int) -> Picture:
        """Find the objects of at least `smallest` pixels, and of less than 0.7 of the image, in grey values ``(h, w)``."""
        areas = np.bincount(labels.ravel())
        boxes = [
            (label, box[0].start, box[1].start, box[0].stop, box[1].stop)
            for label, box in enumerate(ndimage.find_objects(labels), start=1)
            if box is not None and smallest <= areas[label] < 0.7 * labels.size
        ]
        return cls(grey[None].astype(np.float16), labels, np.array(boxes, dtype=np.int64).reshape(-1, 5))


def reach(extent: int) -> int:
    """Return how far from the middle of an object of some extent, in pixels, `view` may look."""
    return math.ceil(min(extent / FARTHEST, SIZE * MOST_ZOOM) * 0.8) + 2  # turned and stretched a little


def view(picture: Picture, rng: np.random.Generator) -> tuple[Tensor, Mask, Mask]:
    """Return grey values, one object and all others as the network may see them, turned, zoomed and bent at random.

    Each ``(SIZE, SIZE)``; mirrored beyond the image.
    """
    label, top, left, bottom, right = (int(v) for v in picture.boxes[rng.integers(len(picture.boxes))])
    extent = max(bottom - top, right - left)
    near, far = np.log(NEAREST), np.log(FARTHEST)
    seen = rng.uniform(0.3, 0.85) if rng.random() < AS_ZOOMED else np.exp(rng.uniform(far, near))
    zoom = float(np.clip(SIZE * seen / extent, 1 / MOST_ZOOM, MOST_ZOOM))
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.7 else rng.integers(4) * np.pi / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag(rng.choice([-1.0, 1.0], 2) * np.exp(rng.normal(0, 0.08, 2))) / zoom
    room = max(0.0, SIZE - extent * zoom) / 2 if rng.random() < 0.5 else 8.0
    jitter = rng.uniform(-room, room, 2) / zoom
    center = (int((top + bottom) / 2 + jitter[0]), int((left + right) / 2 + jitter[1]))
    ticks = torch.linspace(-(SIZE - 1) / 2, (SIZE - 1) / 2, SIZE)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), dim=-1) @ torch.from_numpy(matrix.T).float()
    if rng.random() < 0.3:
        coarse = torch.from_numpy(rng.normal(0, 4 / zoom, (1, 2, 4, 4))).float()
        grid += F.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=True)[0].movedim(0, -1)
    half = tuple(int(np.ceil(float(grid[..., d].abs().max()))) + 1 for d in range(2))
    index = np.ix_(*(mirrored(m - h, m + h + 1, n) for m, h, n in zip(center, half, picture.labels.shape, strict=True)))
    cut = torch.from_numpy(picture.stack[0][index])[None, None].float()
    ids = picture.labels[index]
    mine = torch.from_numpy(np.stack([ids == label, (ids > 0) & (ids != label)]).astype(np.float32))[None]
    if zoom < 0.75:
        cut = gaussian(cut[0], 0.45 / zoom)[None]
    where = (grid / torch.tensor(half, dtype=torch.float32)).flip(-1)[None]
    grey = F.grid_sample(cut, where, mode="bilinear", align_corners=True, padding_mode="border")[0, 0]
    masks = F.grid_sample(mine, where, mode="bilinear", align_corners=True, padding_mode="border")[0] > 0.5
    return grey, masks[0].numpy(), masks[1].numpy()


def begin(
    grey: Tensor, truth: Mask, change: Callable[[Tensor, np.random.Generator], Tensor], rng: np.random.Generator
) -> tuple[Tensor, Mask, tuple[float, float]] | None:
    """Return channels ``(CHANNELS, SIZE, SIZE)`` without a click, the piece of an object, and a first click on it.

    None if too little of the object is seen; `change` alters the grey values ``(1, SIZE, SIZE)``.
    """
    click = inner_point(truth, rng) if np.count_nonzero(truth) >= FEWEST_PIXELS else None
    if click is None or not truth[int(click[0]), int(click[1])]:
        return None
    pieces, count = ndimage.label(truth)
    pixels = torch.zeros(CHANNELS, SIZE, SIZE)
    pixels[0] = change(grey[None], rng)[0]
    return pixels, pieces == pieces[int(click[0]), int(click[1])] if count > 1 else truth, click


def draw_disk(channel: NDArray[np.float32], center: tuple[float, float]) -> None:
    """Set the pixels within RADIUS of `center` to 1."""
    y, x = center
    top, left = max(math.ceil(y - RADIUS), 0), max(math.ceil(x - RADIUS), 0)
    rows, columns = np.ogrid[top : math.floor(y + RADIUS) + 1, left : math.floor(x + RADIUS) + 1]
    part = channel[top : math.floor(y + RADIUS) + 1, left : math.floor(x + RADIUS) + 1]
    disk = (rows - y) ** 2 + (columns - x) ** 2 <= RADIUS**2
    part[disk[: part.shape[0], : part.shape[1]]] = 1


def inner_point(mask: Mask, rng: np.random.Generator) -> tuple[float, float] | None:
    """Return a point of a mask ``(SIZE, SIZE)``: half of the times its innermost one, else any, the deeper the likelier.

    Computed at half the resolution, which is quick and as exact as a hand.
    """
    half = mask.reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3)) >= 0.5
    if not half.any():
        places = np.flatnonzero(mask)
        if not len(places):
            return None
        y, x = divmod(int(places[rng.integers(len(places))]), SIZE)
        return float(y), float(x)
    distance = ndimage.distance_transform_edt(np.pad(half, 1))[1:-1, 1:-1]
    if rng.random() < 0.5:
        index = int(distance.argmax())
    else:
        odds = distance.ravel() ** rng.uniform(0.3, 2)
        index = int(np.searchsorted(np.cumsum(odds), rng.random() * odds.sum()))
    y, x = divmod(min(index, half.size - 1), SIZE // 2)
    return float(2 * y + rng.integers(2)), float(2 * x + rng.integers(2))


def largest_error(answer: Mask, truth: Mask) -> tuple[Mask, bool] | None:
    """Return the largest connected error, and whether it is something missing."""
    best: tuple[int, Mask, bool] | None = None
    for missing, wrong in ((True, truth & ~answer), (False, answer & ~truth)):
        pieces, count = ndimage.label(wrong)
        if count:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            if best is None or sizes.max() > best[0]:
                best = (int(sizes.max()), pieces == sizes.argmax(), missing)
    return None if best is None else (best[1], best[2])


def correct(pixels: Tensor, answer: Mask, truth: Mask, rng: np.random.Generator) -> bool:
    """Add a click in the largest error of an answer to what is shown; returns whether there was one."""
    error = largest_error(answer, truth)
    point = inner_point(error[0], rng) if error is not None else None
    if error is None or point is None:
        return False
    draw_disk(pixels[1 if error[1] else 2].numpy(), point)
    return True


@torch.no_grad()
def converse(network: nn.Module, pixels: Tensor, truths: Mask, rounds: NDArray[Any], rng: np.random.Generator) -> None:
    """Let the network answer, correct it, and hand its answer back as the mask so far, `rounds` times for each patch."""
    device, learning = next(network.parameters()).device, network.training
    network.eval()
    for done in range(int(rounds.max(initial=0))):
        on = np.flatnonzero(rounds > done)
        answers = (network(pixels[on].to(device))[:, 0] > 0).cpu().numpy()
        for i, answer in zip(on, answers, strict=True):
            pixels[i, 3] = torch.from_numpy(answer.astype(np.float32))
            correct(pixels[i], answer, truths[i], rng)
    network.train(learning)


def weights(target: Tensor) -> Tensor:
    """Return how much each pixel of targets ``(n, 1, SIZE, SIZE)`` counts.

    The object and a ring around it count 1, so that the boundary lands in the middle; what lies further counts so much
    less that it does not outweigh the object. Small objects count a little more.
    """
    ring = F.max_pool2d(target, RING, stride=1, padding=RING // 2) - target
    far = 1 - target - ring
    mass, near_mass, far_mass = (x.sum((1, 2, 3), keepdim=True) for x in (target, ring, far))
    beyond = ((mass - near_mass).clamp(min=0) / far_mass.clamp(min=1)).clamp(min=0.05, max=1)
    return (target + ring + beyond * far) * (1000 / mass.clamp(min=60)).sqrt().clamp(max=3)
