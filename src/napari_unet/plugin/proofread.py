"""Corrections of labelled objects: pure functions of an array, and the one that writes them into a layer. No Qt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import line
from skimage.segmentation import watershed

from ..engine.errors import InvalidAnnotation

Array = NDArray[Any]
Index = tuple[int | slice, ...]


def place(labels: Array, mask: NDArray[np.bool_], value: int, locked: Collection[int] = ()) -> Array:
    """Return labels with an object put in, in place of what it was before.

    Pixels of locked objects stay. Of any other object that lies under it for more than half, nothing remains.
    """
    mask = mask & ~np.isin(labels, [v for v in locked if v != value])
    result = np.where(labels == value, 0, labels)
    for other, under in zip(*np.unique(labels[mask], return_counts=True), strict=True):
        whole = labels == other
        if other not in (0, value) and 2 * under > np.count_nonzero(whole):
            result[whole] = 0
    result[mask] = value
    return result


def delete(labels: Array, value: int) -> Array:
    """Return labels without an object."""
    return np.where(labels == value, 0, labels)


def renumber(labels: Array, value: int, into: int) -> Array:
    """Return labels with an object of another number, or made one with the object of that number."""
    return np.where(labels == value, into, labels)


def split(labels: Array, value: int, seeds: Sequence[tuple[int, ...]], into: tuple[int, int]) -> Array:
    """Return labels with an object divided between two points in it, where it is narrowest (seeded watershed).

    Raises
    ------
    InvalidAnnotation
        If both points are one pixel.
    """
    if seeds[0] == seeds[1]:
        raise InvalidAnnotation("Both clicks are on the same pixel: click once in each half.")
    mask = labels == value
    markers = np.zeros(labels.shape, dtype=np.int32)
    for i, seed in enumerate(seeds, start=1):
        markers[seed] = i
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[(slice(1, -1),) * mask.ndim]
    pieces = watershed(-depth, markers, mask=mask)
    result = np.where(mask, into[0], labels)
    result[pieces == 2] = into[1]
    return result


def cut(labels: Array, value: int, ends: Sequence[tuple[int, int]], into: tuple[int, int]) -> Array:
    """Return labels of a plane with an object divided along a straight line; the largest piece comes first.

    Raises
    ------
    InvalidAnnotation
        If the line does not go all the way through it.
    """
    mask = labels == value
    rows, columns = line(*ends[0], *ends[1])
    inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
    open_ = mask.copy()
    open_[rows[inside], columns[inside]] = False
    pieces, count = ndimage.label(open_)  # of 4 neighbours: no way leads across a diagonal line
    if count < 2:
        raise InvalidAnnotation("The line does not divide the object: draw it from one side to the other.")
    first = 1 + int(np.argmax(np.bincount(pieces[open_])[1:]))
    result = np.where(mask, into[0], labels)
    result[(pieces > 0) & (pieces != first)] = into[1]
    return result


def fill_holes(labels: Array, value: int) -> Array:
    """Return labels with the holes of an object filled, but for other objects in them."""
    filled = ndimage.binary_fill_holes(labels == value)
    return np.where(filled & (labels == 0), value, labels)


def keep_largest(labels: Array, value: int) -> Array:
    """Return labels with only the largest piece of an object."""
    pieces, count = ndimage.label(labels == value, np.ones((3,) * labels.ndim))
    if count < 2:
        return labels
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.where((pieces > 0) & (pieces != largest), 0, labels)


def write(layer: Labels, index: Index, labels: Array) -> bool:
    """Write a part of a layer as one step of napari's own undo, which holds wherever the user looks by then.

    Parameters
    ----------
    layer
        A Labels layer of a numpy array with a type that holds the values.
    index
        Which part, with a number or a slice for each of its axes.
    labels
        What shall stand there.

    Returns
    -------
    changed
        False: all that stands there already.
    """
    changed = np.nonzero(np.asarray(layer.data[index]) != labels)
    if not changed[0].size:
        return False
    along = iter(changed)
    where = tuple(
        np.full(changed[0].shape, part) if isinstance(part, int) else next(along) + (part.start or 0) for part in index
    )
    layer.data_setitem(where, labels[changed].astype(layer.data.dtype))
    return True
