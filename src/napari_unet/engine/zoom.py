"""Zoom: an image brought to the size of objects that a model knows, and the labels brought back to the image.

Each value depends on places counted over the whole image, never on where a tile or block begins. So what is computed in
parts is what would be computed at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .card import ModelCard
from .errors import InvalidSettings
from .image import Item

LARGEST = 8.0
"""Images are not enlarged further than this."""
AT_ONCE = 1 << 21
"""About so many pixels of objects are brought back at once: it takes some 50 bytes for each."""
Region = tuple[slice, ...]
Read = Callable[[Region], NDArray[Any]]
"""Gives a region of an array."""


@dataclass(frozen=True, slots=True)
class Zoom:
    """Two shapes of one plane or volume.

    Parameters
    ----------
    full
        Spatial shape of the image and its labels.
    seen
        Spatial shape that the network sees.
    """

    full: tuple[int, ...]
    seen: tuple[int, ...]

    @classmethod
    def make(cls, card: ModelCard, diameter: float | None, shape: tuple[int, ...]) -> Zoom:
        """Return the zoom that makes objects of a diameter in pixels as large as those that a model learned.

        Raises
        ------
        InvalidSettings
            If it is not known how large those were, or the image would have to be enlarged too much.
        """
        if diameter is None:
            return cls(shape, shape)
        check_diameter(card)
        factor = card.diameter / diameter
        if factor > LARGEST:
            raise InvalidSettings(
                f"An object diameter of {diameter:g} pixels would have the image enlarged {factor:.0f} times: "
                f"give {math.ceil(card.diameter / LARGEST)} or more."
            )
        return cls(shape, tuple(max(1, round(n * factor)) for n in shape))

    @property
    def changes(self) -> bool:
        """False if the network sees the image as it is."""
        return self.full != self.seen

    @property
    def factor(self) -> float:
        """How many times as wide as it is the network sees the image."""
        return self.seen[-1] / self.full[-1]

    def item(self, item: Item) -> Item:
        """Return a plane or volume as the network sees it."""
        if not self.changes:
            return item
        return Zoomed(item.image, item.position, item.spatial, item.channel, item.in_channels, self)

    def outer(self, region: Region) -> Region:
        """Return what the network sees of a region of the image."""
        return tuple(
            slice(s.start * m // n, max(s.start * m // n + 1, -(-s.stop * m // n)))
            for s, n, m in zip(region, self.full, self.seen, strict=True)
        )

    def inner(self, region: Region) -> Region:
        """Return the pixels of the image whose middles lie in a region that the network sees."""
        return tuple(
            slice(*(-((m - 2 * edge * n) // (2 * m)) for edge in (s.start, s.stop)))
            for s, n, m in zip(region, self.full, self.seen, strict=True)
        )

    def labels(self, read: Read, region: Region) -> NDArray[Any]:
        """Return a region of the image's labels; `read` gives those that were made of what the network saw."""
        places = [_nearest(s.start, s.stop, m, n) for s, n, m in zip(region, self.full, self.seen, strict=True)]
        found = read(tuple(slice(int(p[0]), int(p[-1]) + 1) if len(p) else slice(0, 0) for p in places))
        return found[np.ix_(*(p - p[:1] for p in places))] if self.changes else found

    def objects(self, read: Read, region: Region) -> NDArray[Any]:
        """Return a region of the image's objects, as `labels`, with smoother outlines where the image was made smaller.

        Each pixel goes to the object, or the background, with the largest share of it by linear interpolation.
        """
        if self.factor >= 1 or not all(s.stop > s.start for s in region):
            return self.labels(read, region)
        others = math.prod(s.stop - s.start for s in region[1:])
        height = max(1, AT_ONCE // others)
        first, *rest = region
        strips = [slice(a, min(a + height, first.stop)) for a in range(first.start, first.stop, height)]
        return np.concatenate([self._shared(read, (strip, *rest)) for strip in strips])

    def _shared(self, read: Read, region: Region) -> NDArray[Any]:
        taps = [_taps(s.start, s.stop, m, n) for s, n, m in zip(region, self.full, self.seen, strict=True)]
        low = [int(places.min()) for places, _ in taps]
        found = read(tuple(slice(a, int(places.max()) + 1) for a, (places, _) in zip(low, taps, strict=True)))
        corners = []
        for sides in itertools.product((0, 1), repeat=len(taps)):
            places = [p[side] - a for (p, _), a, side in zip(taps, low, sides, strict=True)]
            shares = [weights[side] for (_, weights), side in zip(taps, sides, strict=True)]
            corners.append((found[np.ix_(*places)], math.prod(np.ix_(*shares))))
        result, largest = np.empty_like(corners[0][0]), np.full(corners[0][0].shape, -1, dtype=np.float32)
        for label, _ in corners:
            share = sum(part * (other == label) for other, part in corners)
            more = share > largest
            result[more], largest[more] = label[more], share[more]
        return result

    def strokes(self, painted: NDArray[Any]) -> NDArray[Any]:
        """Return sparse labels ``(*spatial)`` as the network sees the image; the thinnest stroke leaves a trace.

        Where a pixel that the network sees covers several labels, its middle decides, then the highest.
        """
        if not self.changes:
            return painted
        middles = [_nearest(0, m, n, m) for n, m in zip(self.full, self.seen, strict=True)]
        highest = painted
        for axis, (n, m, at) in enumerate(zip(self.full, self.seen, middles, strict=True)):
            is_finer = m > n
            highest = highest.take(at, axis) if is_finer else np.maximum.reduceat(highest, np.arange(m) * n // m, axis)
        middle = painted[np.ix_(*middles)]
        return np.where(middle > 0, middle, highest)


def check_diameter(card: ModelCard) -> None:
    """Raise InvalidSettings if it is not known how large the objects of a model should be."""
    if card.task != "objects" or not card.diameter:
        raise InvalidSettings(
            f"How large the objects of {card.name!r} should be is not known: leave the object diameter out."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Zoomed(Item):
    """A plane or volume as the network sees it; its pixels are computed as they are read."""

    zoom: Zoom

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape that the network sees."""
        return self.zoom.seen

    def read(self, slices: Region) -> NDArray[Any]:
        """Read a region of what the network sees; shape ``(c, *region)``, real numbers."""
        return resampled(super(Zoomed, self).read, slices, self.zoom.full, self.zoom.seen)


def resampled(read: Read, region: Region, source: tuple[int, ...], target: tuple[int, ...]) -> NDArray[np.floating]:
    """Return a region of an image brought from one shape to another: linear, and averaged where it gets smaller.

    The weights are those of a triangle as wide as two pixels of the coarser of both shapes, as Pillow's "bilinear".

    Parameters
    ----------
    read
        Gives a region of the source, ``(c, *region)``.
    region
        Of the target.
    source, target
        Spatial shapes.

    Returns
    -------
    array
        ``(c, *region)``, float32, or float64 where float32 could not hold the source's values.
    """
    taps = [_taps(s.start, s.stop, n, m) for s, n, m in zip(region, source, target, strict=True)]
    low = [int(places.min()) for places, _ in taps]
    pixels = read(tuple(slice(a, int(places.max()) + 1) for a, (places, _) in zip(low, taps, strict=True)))
    found = pixels.astype(np.result_type(pixels.dtype, np.float32))
    for axis, (a, (places, weights)) in enumerate(zip(low, taps, strict=True), start=1):
        column = (-1,) + (1,) * (found.ndim - 1 - axis)
        parts = (found.take(p - a, axis) * w.reshape(column) for p, w in zip(places, weights, strict=True))
        found = sum(parts, start=np.zeros((), dtype=found.dtype))
    return np.asarray(found)


def _nearest(start: int, stop: int, source: int, target: int) -> NDArray[np.intp]:
    """Return the source's pixels that hold the middles of pixels ``start`` to ``stop`` of the target."""
    return (2 * np.arange(start, stop) + 1) * source // (2 * target)


def _taps(start: int, stop: int, source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the source's pixels that pixels ``start`` to ``stop`` are made of, and their weights, both ``(taps, n)``."""
    middles = (np.arange(start, stop) + 0.5) * source / target - 0.5
    width = max(1.0, source / target)
    places = np.floor(middles - width).astype(np.intp) + np.arange(1, math.ceil(2 * width) + 1)[:, None]
    weights = np.clip(1 - np.abs(places - middles) / width, 0, None)
    weights[(places < 0) | (places >= source)] = 0
    return places.clip(0, source - 1), (weights / weights.sum(axis=0)).astype(np.float32)
