"""Strokes: follows an array while it is painted, and holds one stroke in five out to judge what is learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .errors import InvalidAnnotation

EVERY = 5
"""One stroke in so many, of each class, is never trained on."""
FIRST = 3
"""The first of them to be held out: early enough for a verdict after few strokes, but not before two can teach."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Pixels that were painted or erased: what a journal keeps."""

    where: NDArray[np.int64]
    """Flat indices, rising."""
    values: NDArray[np.uint32]
    """What stands there now."""
    held_out: NDArray[np.bool_]


class Strokes:
    """The strokes in an array of annotations.

    A stroke is what was painted in one value, in one piece and in one plane or volume, between two looks. For the
    `objects` task it is a whole object, however often it is touched up.

    Parameters
    ----------
    axes, shape
        Of the annotations: `Image.label_axes` and `Image.label_shape`.
    dims
        Spatial dimensions of the model.
    objects
        Whether values from 2 up are objects, not classes.

    Attributes
    ----------
    labels
        The annotations at the last look.
    held_out, newest
        bool, of the same shape: the pixels that only judge, and those painted since the last round.
    """

    def __init__(self, axes: str, shape: tuple[int, ...], dims: int, objects: bool) -> None:
        self.labels: NDArray[np.integer] = np.zeros(shape, dtype=np.uint8)
        self.held_out = np.zeros(shape, dtype=bool)
        self.newest = np.zeros(shape, dtype=bool)
        self.objects = objects
        self._spatial = tuple(i for i, letter in enumerate(axes) if letter in "zyx"[-dims:])
        self._neighbours = np.zeros((3,) * len(shape), dtype=bool)
        self._neighbours[tuple(slice(None) if i in self._spatial else 1 for i in range(len(shape)))] = True
        self._made: dict[int, int] = {}
        self._forget()

    def _forget(self) -> None:
        self._stroke = np.zeros(self.labels.shape, dtype=np.uint32)
        """The number of the stroke that each pixel belongs to; 0: none."""
        self._pixels: list[int] = [0]
        """How many pixels of each stroke are left: it is there as long as there are any."""
        self._judges: set[int] = set()

    def look(self, labels: NDArray[np.integer]) -> Change | None:
        """Take in what was painted or erased since the last look; None: nothing was.

        Parameters
        ----------
        labels
            0 not labelled, 1 background, 2 and up a class or an object. Copied.

        Raises
        ------
        InvalidAnnotation
            If the shape is another one.
        """
        self._check(labels.shape)
        changed = labels != self.labels
        where = np.flatnonzero(changed)
        if not where.size:
            return None
        before, self.labels = self.labels, labels.copy()
        self.newest |= changed
        self.newest[changed & (labels == 0)] = False
        self.held_out[changed] = False
        for number, lost in zip(*np.unique(self._stroke.flat[where], return_counts=True), strict=True):
            self._pixels[number] -= int(lost) * (number > 0)
        self._stroke.flat[where] = 0
        for value in np.unique(labels.flat[where]).tolist():
            if value > 1 and self.objects:
                self._hold_out_objects(value, before)
            elif value:
                self._hold_out_pieces(value, changed & (labels == value))
        return self.at(where)

    def everything(self) -> Change | None:
        """Return all that is painted as one change; None: nothing is."""
        where = np.flatnonzero(self.labels)
        return self.at(where) if where.size else None

    def at(self, where: NDArray[np.intp]) -> Change:
        """Return what stands at flat indices as a change."""
        values = self.labels.flat[where].astype(np.uint32)
        return Change(where.astype(np.int64), values, self.held_out.flat[where])

    def take_back(self, changes: Iterator[Change]) -> None:
        """Bring back what a journal kept, held-out strokes included."""
        for change in changes:
            if change.where.size and int(change.where[-1]) >= self.labels.size:
                raise InvalidAnnotation("The strokes kept are those of a larger image.")
            highest = int(change.values.max(initial=0))
            if highest > np.iinfo(self.labels.dtype).max:
                self.labels = self.labels.astype(np.min_scalar_type(highest))
            self.labels.flat[change.where] = change.values
            self.held_out.flat[change.where] = change.held_out
        labels, self.labels = self.labels, np.zeros_like(self.labels)
        self._made = {}
        self._forget()
        self.take(labels, self.held_out)

    def take(self, labels: NDArray[np.integer], held_out: NDArray[np.bool_]) -> None:
        """Take in strokes whose parts were chosen before; those that judge are counted apart from what they touch."""
        self._check(held_out.shape)
        parts = held_out & (labels > 0)
        self.look(np.where(parts, 0, labels))
        self.look(labels)
        self.held_out = parts
        self._judges = set(np.unique(self._stroke[parts]).tolist())

    def learned(self, newest: NDArray[np.bool_]) -> None:
        """What was new when a round began is new no more; what was painted since then is."""
        self.newest &= ~newest

    def count(self) -> tuple[int, int]:
        """Return how many strokes teach and how many only judge."""
        there = {number for number, pixels in enumerate(self._pixels) if pixels}
        judge = len(there & self._judges)
        return len(there) - judge, judge

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape != self.labels.shape:
            raise InvalidAnnotation(
                f"The annotation has shape {shape}, but the image needs {self.labels.shape}: "
                "make new annotations for this image."
            )

    def _hold_out_pieces(self, value: int, new: NDArray[np.bool_]) -> None:
        box = ndimage.find_objects(new.view(np.uint8))[0]
        pieces, _ = ndimage.label(new[box], self._neighbours)
        numbers = [0, *(self._begin(value, int(n)) for n in np.bincount(pieces.ravel())[1:])]
        self._stroke[box] += np.array(numbers, dtype=np.uint32)[pieces]
        self.held_out[box] |= np.array([n in self._judges for n in numbers])[pieces]

    def _hold_out_objects(self, value: int, before: NDArray[np.integer]) -> None:
        """An object that was there before keeps its part; a new one gets its own."""
        for here in self._items(self.labels == value):
            mine = self.labels[here] == value
            kept = mine & (before[here] == value)
            number = int(self._stroke[here][kept].max()) if kept.any() else self._begin(2, 0)
            self._stroke[here] = np.where(mine, number, self._stroke[here])
            self._pixels[number] = int(np.count_nonzero(mine))
            self.held_out[here] = np.where(mine, number in self._judges, self.held_out[here])

    def _items(self, mask: NDArray[np.bool_]) -> Iterator[tuple[int | slice, ...]]:
        """Yield an index for each plane or volume in which the mask holds anything."""
        for position in np.argwhere(mask.any(axis=self._spatial)).tolist():
            rest = iter(position)
            yield tuple(slice(None) if i in self._spatial else next(rest) for i in range(mask.ndim))

    def _begin(self, kind: int, pixels: int) -> int:
        """Return the number of a new stroke, and choose whether it is held out; objects are all of kind 2."""
        self._pixels.append(pixels)
        number = len(self._pixels) - 1
        self._made[kind] = self._made.get(kind, 0) + 1
        if self._made[kind] % EVERY == FIRST:
            self._judges.add(number)
        return number
