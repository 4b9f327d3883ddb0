"""Strokes: follows an array while it is painted, and holds one stroke in five out to judge what is learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
        self.newest = self.labels > 0
        self._made = self._count(self.labels)

    def hold_out(self, held_out: NDArray[np.bool_]) -> None:
        """Use another choice of held-out pixels, such as one that was saved."""
        self._check(held_out.shape)
        self.held_out = held_out & (self.labels > 0)

    def begin_round(self) -> None:
        """From now on nothing is new."""
        self.newest[...] = False

    def count(self) -> tuple[int, int]:
        """Return how many strokes teach and how many only judge."""
        teach = self._count(np.where(self.held_out, 0, self.labels))
        judge = self._count(np.where(self.held_out, self.labels, 0))
        return sum(teach.values()), sum(judge.values())

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape != self.labels.shape:
            raise InvalidAnnotation(
                f"The annotation has shape {shape}, but the image needs {self.labels.shape}: "
                "make new annotations for this image."
            )

    def _hold_out_pieces(self, value: int, new: NDArray[np.bool_]) -> None:
        box = ndimage.find_objects(new.view(np.uint8))[0]
        pieces, count = ndimage.label(new[box], self._neighbours)
        self.held_out[box] |= np.array([False, *(self._next(value) for _ in range(count))])[pieces]

    def _hold_out_objects(self, value: int, before: NDArray[np.integer]) -> None:
        """An object that was there before keeps its part; a new one gets its own."""
        for here in self._items(self.labels == value):
            mine = self.labels[here] == value
            kept = mine & (before[here] == value)
            part = bool(self.held_out[here][kept].any()) if kept.any() else self._next(2)
            self.held_out[here] = np.where(mine, part, self.held_out[here])

    def _items(self, mask: NDArray[np.bool_]) -> Iterator[tuple[Any, ...]]:
        """Yield an index for each plane or volume in which the mask holds anything."""
        for position in np.argwhere(mask.any(axis=self._spatial)).tolist():
            rest = iter(position)
            yield tuple(slice(None) if i in self._spatial else next(rest) for i in range(mask.ndim))

    def _next(self, value: int) -> bool:
        self._made[value] = self._made.get(value, 0) + 1
        return self._made[value] % EVERY == FIRST

    def _count(self, labels: NDArray[np.integer]) -> dict[int, int]:
        """Return the number of strokes of each value; objects count for value 2 together."""
        counts: dict[int, int] = {}
        for value in np.unique(labels).tolist():
            if value > 1 and self.objects:
                counts[2] = counts.get(2, 0) + sum(1 for _ in self._items(labels == value))
            elif value:
                counts[value] = int(ndimage.label(labels == value, self._neighbours)[1])
        return counts
