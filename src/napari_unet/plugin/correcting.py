"""What accepting and correcting objects does to a result: which numbers, which slices, what is locked. No Qt.

A 2D model numbers the objects of each slice anew, so there a number means an object in its slice only; an accepted object
has a number that no other has, in any slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import InvalidAnnotation
from . import proofread
from .planes import Index, Pixel, Plane
from .result import Result


@dataclass(frozen=True, slots=True)
class Verb:
    """A correction of objects that are there."""

    name: str
    key: str
    hints: tuple[str, ...]
    """What each click does."""
    done: str
    """What is said of the object afterwards."""


DELETE = Verb("Delete", "D", ("Click the object to delete.",), "is deleted")
MERGE = Verb(
    "Merge", "J", ("Click the first of two objects.", "Click the object to merge it with."), "is one object now"
)
SPLIT = Verb(
    "Split",
    "S",
    ("Click in one half of an object, or draw a line across it with Shift held.", "Click in its other half."),
    "is two objects now",
)
FILL = Verb("Fill holes", "H", ("Click the object whose holes shall be filled.",), "has no holes now")
LARGEST = Verb(
    "Keep largest", "G", ("Click the object of which only the largest piece shall stay.",), "is one piece now"
)
VERBS = (DELETE, MERGE, SPLIT, FILL, LARGEST)
LOCKED = "All of it belongs to accepted objects, which are locked: double-click one of them to correct it."
NO_OBJECT = "There is no object here: click on one."
RUNNING = "A run is filling the result: wait until it is done."


def value_at(result: Result | None, plane: Plane, pixel: Pixel) -> int:
    """Return the number of the object under a pixel; 0: none."""
    return 0 if result is None else int(result.pixels[plane.where][pixel])


def accept(result: Result, plane: Plane, mask: NDArray[np.bool_], value: int | None) -> int:
    """Write an object into a slice and lock it.

    Parameters
    ----------
    value
        The object that it was before; None: it is new.

    Returns
    -------
    number
        Its number from now on.

    Raises
    ------
    InvalidAnnotation
        If nothing of it is left beside locked objects, or a run is filling the result.
    """
    _check(result)
    labels = result.pixels[plane.where].astype(np.int32)
    number = _next(result) if value is None else _own_number(result, plane, value)
    if value is not None and value != number:
        labels = proofread.renumber(labels, value, 0)
    labels = proofread.place(labels, mask, number, result.accepted)
    if not (labels == number).any():
        raise InvalidAnnotation(LOCKED)
    result.correct(plane.where, labels, [number], plane.labels_position)
    return number


def unseen(result: Result, plane: Plane, along: str, value: int) -> slice:
    """Return the slices about this one, up to the next ones where the user has seen to an object."""
    here = plane.labels_position
    at = [p[along] for p in result.accepted.get(value, []) if p == {**here, along: p.get(along, -1)}]
    length = plane.image.label_shape[plane.image.label_axes.index(along)]
    low = max((k + 1 for k in at if k < here[along]), default=0)
    return slice(low, min((k for k in at if k > here[along]), default=length))


def spread(
    result: Result, plane: Plane, along: str, part: slice, value: int, found: Mapping[int, NDArray[np.bool_]]
) -> tuple[int, int]:
    """Write an object into other slices, in one step; where it was not found, it is taken away.

    Returns
    -------
    first, last
        How far it reaches within `part`.
    """
    _check(result)
    axes = plane.image.label_axes
    index = tuple(part if axis == along else i for axis, i in zip(axes, plane.where, strict=True))
    step = sum(isinstance(i, slice) for i in index[: axes.index(along)])
    labels = result.pixels[index].astype(np.int32)
    slices = np.moveaxis(labels, step, 0)  # a view
    for k, labels_there in enumerate(slices, start=part.start):
        if k != plane.labels_position[along]:
            mask = found.get(k, np.zeros(labels_there.shape, dtype=bool))
            labels_there[...] = proofread.place(labels_there, mask, value, result.accepted)
    result.correct(index, labels, [value], plane.labels_position)
    reached = np.flatnonzero((slices == value).any(axis=(1, 2))) + part.start
    return int(reached[0]), int(reached[-1])


def correct(result: Result | None, plane: Plane, verb: Verb, clicks: Sequence[Pixel]) -> str:
    """Do what a verb says to the objects under clicks, in one step of undo; returns what was done, in a sentence.

    Raises
    ------
    InvalidAnnotation
        If it cannot be done.
    """
    values = [value_at(result, plane, pixel) for pixel in clicks]
    if result is None or not all(values):
        raise InvalidAnnotation(NO_OBJECT)
    _check(result)
    value = values[-1]
    if verb is MERGE:
        value = _merge(result, plane, values[0], value)
        return _done(verb, value)
    where = _scope(result, plane, value)
    labels, locked = result.pixels[where].astype(np.int32), [_own_number(result, plane, value)]
    if verb is DELETE:
        changed, locked = proofread.renumber(labels, value, 0), []
    elif verb is SPLIT:
        if values[0] != value:
            raise InvalidAnnotation("The second click is on another object: click in the other half of the first.")
        locked = _two_numbers(result, plane, value)
        points = [_point(plane, pixel, where) for pixel in clicks]
        changed = proofread.split(labels, value, points, (locked[0], locked[1]))
    else:
        changed = (proofread.fill_holes if verb is FILL else proofread.keep_largest)(labels, value)
        if np.array_equal(changed, labels):
            return f"Object {value} is like that already: nothing was changed."
        changed = proofread.renumber(changed, value, locked[0])
    result.correct(where, changed, locked, plane.labels_position)
    return _done(verb, value)


def split_along(result: Result | None, plane: Plane, ends: tuple[Pixel, Pixel]) -> str:
    """Divide the object that most of a line runs through, in this slice; raises InvalidAnnotation if it cannot be done."""
    steps = np.linspace(*ends, num=1 + max(abs(a - b) for a, b in zip(*ends, strict=True))).round().astype(int)
    under = np.zeros(1, dtype=int) if result is None else result.pixels[plane.where][tuple(steps.T)]
    if result is None or not under.any():
        raise InvalidAnnotation(NO_OBJECT)
    _check(result)
    value = int(np.argmax(np.bincount(under[under > 0])))
    locked = _two_numbers(result, plane, value)
    labels = result.pixels[plane.where].astype(np.int32)
    changed = proofread.cut(labels, value, ends, (locked[0], locked[1]))
    result.correct(plane.where, changed, locked, plane.labels_position)
    return _done(SPLIT, value)


def _merge(result: Result, plane: Plane, first: int, second: int) -> int:
    if first == second:
        raise InvalidAnnotation("Both clicks are on the same object: click on the one to merge it with.")
    kept = second if second in result.accepted and first not in result.accepted else first
    number = _own_number(result, plane, kept)
    labels = result.pixels.astype(np.int32)
    for value in (first, second):
        where = _scope(result, plane, value)
        labels[where] = proofread.renumber(labels[where], value, number)
    result.correct((slice(None),) * labels.ndim, labels, [number], plane.labels_position)
    return number


def _scope(result: Result, plane: Plane, value: int) -> Index:
    """Return where an object may be: an accepted one anywhere, another one where its model looked at once."""
    if value in result.accepted:
        return (slice(None),) * len(plane.where)
    if result.entry.card.spec.dims == 2:
        return plane.where
    axes = zip(plane.image.label_axes, plane.where, strict=True)
    return tuple(slice(None) if axis != "t" else at for axis, at in axes)


def _own_number(result: Result, plane: Plane, value: int) -> int:
    """Return the number under which an object is locked: its own if no other object has it."""
    alone = result.entry.card.spec.dims == 3 and "t" not in plane.image.label_axes
    return value if alone or value in result.accepted or not plane.labels_position else _next(result)


def _two_numbers(result: Result, plane: Plane, value: int) -> list[int]:
    first = _own_number(result, plane, value)
    return [first, max(first + 1, _next(result))]


def _next(result: Result) -> int:
    return max(int(result.pixels.max()), *result.accepted, 0) + 1


def _point(plane: Plane, pixel: Pixel, where: Index) -> tuple[int, ...]:
    """Return a pixel of a plane as a point in a part of the labels."""
    inside = iter(pixel)
    whole = [part if isinstance(part, int) else next(inside) for part in plane.where]
    return tuple(at for at, part in zip(whole, where, strict=True) if isinstance(part, slice))


def _check(result: Result) -> None:
    if not result.layer.editable:
        raise InvalidAnnotation(RUNNING)


def _done(verb: Verb, value: int) -> str:
    return f"Object {value} {verb.done}. Ctrl+Z takes it back."
