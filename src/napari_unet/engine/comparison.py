"""compare(): a result held against the truth: its scores, and where it is wrong, as labels and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidImage
from .image import AXES, Image, Item
from .metrics import ClassScore, Overlaps, Scores, class_scores, match, overlaps, score

TASKS = ("objects", "semantic")
SMALL = 512
"""Pictures whose longer edge is shorter than this are drawn twice as large."""
GREY = (1.0, 99.8)
"""The percentiles of the intensities that are drawn black and white."""
FILLED = 0.55
"""How much of the grey is covered inside an object that is wrong."""


class Kind(IntEnum):
    """What became of a pixel; 0: nothing was there, and nothing was found, or all is well inside."""

    MATCHED = 1
    MISSED = 2
    INVENTED = 3
    MIXED = 4


COLORS = {Kind.MATCHED: "#3ddc84", Kind.MISSED: "#ff9f1c", Kind.INVENTED: "#e05fc4", Kind.MIXED: "#4d8dff"}
"""Told apart on grey, in both themes, and with the common kinds of colour blindness."""
COLOR_NAMES = {Kind.MATCHED: "green", Kind.MISSED: "orange", Kind.INVENTED: "pink", Kind.MIXED: "blue"}
MEANINGS = {
    "objects": {
        Kind.MATCHED: "outline of a matched object",
        Kind.MISSED: "missed: only in the truth",
        Kind.INVENTED: "invented: only in the result",
        Kind.MIXED: "in both, but the objects overlap by less than half",
    },
    "semantic": {
        Kind.MATCHED: "outline of what is right",
        Kind.MISSED: "missed: background in the result",
        Kind.INVENTED: "invented: background in the truth",
        Kind.MIXED: "another class than in the truth",
    },
}


@dataclass(frozen=True, slots=True)
class PlaneCompared:
    """A plane (or volume) was compared."""

    done: int
    planes: int


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A result held against the truth.

    Attributes
    ----------
    task
        ``objects`` or ``semantic``.
    together
        The axes that an object spans.
    scores
        Of the objects; for ``semantic`` of the foreground as a whole.
    classes
        For ``semantic``: of each class.
    errors
        uint8 in the shape of the result: 0, or the `Kind` of each pixel.
    """

    task: str
    together: str
    scores: Scores
    classes: tuple[ClassScore, ...]
    errors: NDArray[np.uint8]

    @property
    def way(self) -> str:
        """What was compared at once, in words."""
        kind = "plane" if len(self.together) == 2 else "volume"
        return f"{kind} by {kind}, {self.scores.planes} {kind}s" if self.scores.planes > 1 else f"as one {kind}"


def object_axes(record: dict[str, Any], axes: str) -> str:
    """Return which of its axes an object of a result spans, by the record of how the result was made.

    A 2D model numbers the objects of every plane anew, unless they were linked afterwards. Without a record, or for
    labels that nobody knows the making of, an object spans all axes.
    """
    dims, link = record.get("dims"), record.get("link") or ""
    if dims not in (2, 3):
        return axes
    return "".join(a for a in axes if a in "zyx"[-dims:] or a == link)


def compare(
    result: NDArray[np.integer],
    truth: NDArray[np.integer],
    axes: str = "",
    together: str = "",
    task: str = "objects",
) -> Comparison:
    """Hold a result against the truth.

    Parameters
    ----------
    result, truth
        Labels of one shape, 0 is background.
    axes, together
        One letter of ``tczyx`` for each axis, and those of them that an object spans: ``compare(r, t, "zyx", "yx")``
        compares plane by plane. Empty: an object spans all axes.
    task
        ``objects``: a label is an object, and objects are matched at an IoU of 0.5; ``semantic``: it is a class.

    Raises
    ------
    InvalidImage
        If the shapes differ, the arrays are no labels, or the axes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> found = compare(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 9, 0]]))
    >>> found.scores.matched, found.scores.missed, found.scores.invented, found.errors.tolist()
    (1, 1, 1, [[0, 1, 2, 3]])
    """
    *_, last = comparing(result, truth, axes, together, task)
    assert isinstance(last, Comparison)
    return last


def comparing(
    result: NDArray[np.integer],
    truth: NDArray[np.integer],
    axes: str = "",
    together: str = "",
    task: str = "objects",
) -> Iterator[PlaneCompared | Comparison]:
    """Do what `compare` does, with an event after each plane; the last one is the comparison."""
    if task not in TASKS:
        raise InvalidImage(f"{task!r} is no task: choose one of {', '.join(TASKS)}.")
    if result.shape != truth.shape:
        raise InvalidImage(
            f"The result has shape {result.shape}, but the truth has {truth.shape}: compare label images of one shape."
        )
    axes = axes or AXES[-result.ndim :]
    together = together or axes
    if result.ndim < 2 or len(axes) != result.ndim or not set(together) <= set(axes):
        raise InvalidImage(
            f"Axes {axes!r} with objects along {together!r} do not fit labels of shape {result.shape}: "
            f"name each axis, and those that an object spans."
        )
    order = [axes.index(a) for a in sorted(axes, key=lambda a: (a in together, axes.index(a)))]
    errors = np.zeros(result.shape, dtype=np.uint8)
    results, truths, kinds = (_planes(array, order, len(set(together))) for array in (result, truth, errors))
    tables: list[Overlaps] = []
    for number, (r, t) in enumerate(zip(results, truths, strict=True), start=1):
        table = overlaps(r, t)
        kinds[number - 1][...] = _kinds_of_classes(r, t) if task == "semantic" else _kinds_of_objects(r, t, table)
        tables.append(table)
        yield PlaneCompared(number, len(results))
    classes = class_scores(tables) if task == "semantic" else ()
    yield Comparison(task, together, score(tables), classes, errors)


def _planes(array: NDArray[Any], order: list[int], dims: int) -> list[NDArray[Any]]:
    """Return views of what is compared at once, along the axes that come first in an order of the axes."""
    moved = array.transpose(order)
    return [moved[position] for position in np.ndindex(moved.shape[: array.ndim - dims])]


def _kinds_of_objects(result: NDArray[Any], truth: NDArray[Any], table: Overlaps) -> NDArray[np.uint8]:
    found = match(table)
    missed, invented = np.isin(truth, found.missed), np.isin(result, found.invented)
    matched = outlines(np.where(np.isin(result, found.predicted), result, 0))
    return _painted(matched, missed & ~invented, invented & ~missed, missed & invented)


def _kinds_of_classes(result: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.uint8]:
    there, here, same = truth > 0, result > 0, result == truth
    return _painted(outlines(np.where(same, result, 0)), there & ~here, here & ~there, there & here & ~same)


def _painted(*parts: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the kind of each pixel; what is wrong lies over the outlines of what is right."""
    return np.select(parts[::-1], list(Kind)[::-1], 0).astype(np.uint8)


def outlines(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels of objects whose neighbour along one of the last two axes, y and x, is of none or of another."""
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in (-2, -1):
        here, there = (np.moveaxis(labels, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        different = here != there
        edges = np.moveaxis(edge, axis, 0)
        edges[1:] |= different & (here > 0)
        edges[:-1] |= different & (there > 0)
    return edge


def worst(errors: NDArray[np.uint8]) -> tuple[int, ...]:
    """Return the position, along all axes but the last two, of the plane with the most pixels that are wrong."""
    wrong = np.count_nonzero(errors > Kind.MATCHED, axis=(-2, -1))
    return tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))


def grey(image: Image, position: tuple[int, ...], shape: tuple[int, ...], record: dict[str, Any]) -> NDArray[Any]:
    """Return the pixels of one plane of what was segmented, to be drawn below its errors.

    Parameters
    ----------
    image
        Its colours become grey; of several channels the one that was looked at is taken, else the first.
    position
        Which plane, along the axes that are neither c, y nor x and longer than 1.
    shape
        Of the plane of errors.
    record
        How the result was made, for the channel.

    Raises
    ------
    InvalidImage
        If the image has no such plane.
    """
    sizes = dict(zip(image.axes, image.shape, strict=True))
    steps = [a for a in image.axes if a not in "cyx" and sizes[a] > 1]
    if (
        len(steps) != len(position)
        or (sizes["y"], sizes["x"]) != shape
        or any(i >= sizes[a] for a, i in zip(steps, position, strict=False))
    ):
        raise InvalidImage(
            f"{image.name!r} of shape {image.shape} is not what was segmented: its planes are not {shape}."
        )
    at = {a: 0 for a in image.axes if a not in "cyx"} | dict(zip(steps, position, strict=True))
    channel = record.get("settings", {}).get("channel")
    if channel is None and image.channels > 1 and not image.rgb:
        channel = 0
    return np.asarray(Item(image, at, "yx", channel, 1).read((slice(None), slice(None)))[0])


def picture(errors: NDArray[np.uint8], pixels: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Return a picture of the errors of one plane.

    Parameters
    ----------
    errors
        ``(y, x)``, of `Comparison.errors`.
    pixels
        ``(y, x)``: drawn in grey below; None: dark.

    Returns
    -------
    numpy.ndarray
        uint8 ``(y, x, 3)``, twice as large as the plane if that is small.
    """
    base = np.full(errors.shape, 0.15) if pixels is None else _stretched(pixels)
    drawn = np.repeat(base[..., None], 3, axis=-1)
    firm = outlines(errors)  # outlines of matched objects are one or two pixels wide: all of them are edges
    for kind, color in COLORS.items():
        here = errors == kind
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        cover = np.where(firm | (kind is Kind.MATCHED), 1.0, FILLED)[here][:, None]
        drawn[here] = cover * rgb + (1 - cover) * drawn[here]
    large = np.kron(drawn, np.ones((2, 2, 1))) if max(errors.shape) < SMALL else drawn
    return (255 * large).round().astype(np.uint8)


def _stretched(pixels: NDArray[Any]) -> NDArray[np.float64]:
    shown = np.nan_to_num(pixels.astype(np.float64))
    low, high = np.percentile(shown, GREY)
    return np.asarray((shown - low) / (high - low if high > low else 1.0)).clip(0, 1)
