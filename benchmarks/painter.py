"""A simulated user who paints strokes where a prediction is wrong.

The rules are those published for RootPainter's simulated user (Smith et al.), written anew: the brush is half as thick
as the class is deep, a stroke stays inside its class, errors within two pixels of the true border are left alone. To
them: strokes have a limited length, as many as a person makes before pressing Train, and every other one runs along a
border instead of through the middle. In a volume the user paints in slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

TOLERATED = 2.0
"""Errors this close to the true border, in pixels, are not corrected."""
LONGEST = 40
"""A stroke is at most so many pixels long."""
THICKEST = 2.5
"""The brush's largest radius in pixels."""
SMALLEST_ERROR = 12
"""Errors of fewer pixels are not seen."""
SPEED = 400.0
"""Painting, in pixels a second."""
BETWEEN = 1.0
"""Seconds to look, move and press, for each stroke."""
EVERY, FIRST = 5, 3
"""Of each class every fifth stroke, the third first, is held out, as in the app."""

Plane = NDArray[np.integer]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Stroke:
    """What one press of the mouse painted."""

    plane: int
    """Which of the planes it lies in."""
    mask: Mask
    """bool, of the plane's shape."""
    value: int
    """1 background, 2 and up a class or an object."""
    held_out: bool
    seconds: float


class Painter:
    """Paints on planes whose truth it knows.

    Parameters
    ----------
    truths
        Integer planes: 0 background, 1 and up a class, or with `objects` an object each.
    objects
        Fill whole objects instead of drawing lines in them; background is painted in lines all the same.
    seed
        Of every choice.
    """

    def __init__(self, truths: Sequence[Plane], objects: bool = False, seed: int = 0) -> None:
        self._truths = [np.asarray(t) for t in truths]
        self._objects = objects
        self._rng = np.random.default_rng(seed)
        self._classes = [np.minimum(t, 1) if objects else t for t in self._truths]
        # The frame of an image is no border of a class.
        self._depths = [_depth(c) for c in self._classes]
        self._painted = [np.zeros(t.shape, dtype=bool) for t in self._truths]
        self._made: dict[int, int] = {}

    def first(self, count: int) -> list[Stroke]:
        """Paint `count` strokes with no prediction to look at: the classes in turn."""
        kinds = sorted({int(v) for c in self._classes for v in np.unique(c)}, reverse=True)
        strokes: list[Stroke] = []
        for i in range(count):
            kind = kinds[i % len(kinds)]
            strokes += self._paint([c == kind for c in self._classes], 1)
        return strokes

    def correct(self, predictions: Sequence[Plane], count: int) -> list[Stroke]:
        """Paint at most `count` strokes on the errors of predictions (0 background, classes or objects as in the truth)."""
        wrong = [
            (np.minimum(p, 1) if self._objects else p) != c for p, c in zip(predictions, self._classes, strict=True)
        ]
        if self._objects:  # objects that are merged or split are wrong too
            wrong = [w | _unmatched(p, t) for w, p, t in zip(wrong, predictions, self._truths, strict=True)]
        return self._paint(wrong, count)

    def _paint(self, wanted: list[Mask], count: int) -> list[Stroke]:
        strokes: list[Stroke] = []
        places = [w & (d > TOLERATED) & ~p for w, d, p in zip(wanted, self._depths, self._painted, strict=True)]
        while len(strokes) < count:
            regions = [
                (area, i, kind, label)
                for i, place in enumerate(places)
                for kind in np.unique(self._classes[i][place]).tolist()
                for label, area in _regions(place & (self._classes[i] == kind))
            ]
            if not regions:
                break
            weights = np.array([area for area, *_ in regions], dtype=float)
            _, plane, kind, label = regions[int(self._rng.choice(len(regions), p=weights / weights.sum()))]
            error = _labelled(places[plane] & (self._classes[plane] == kind)) == label
            mask, length = self._object(plane, error) if self._objects and kind else self._line(plane, kind, error)
            value = int(self._truths[plane][mask][0]) + 1
            places[plane] &= ~ndimage.binary_dilation(mask, iterations=8)
            self._painted[plane] |= mask
            counted = min(value, 2) if self._objects else value
            self._made[counted] = self._made.get(counted, 0) + 1
            held_out = self._made[counted] % EVERY == FIRST
            strokes.append(Stroke(plane, mask, value, held_out, BETWEEN + length / SPEED))
        return strokes

    def _object(self, plane: int, error: Mask) -> tuple[Mask, float]:
        """Return one whole object, and how far the brush travels to fill it."""
        point = tuple(self._rng.choice(np.argwhere(error)))
        mask = self._truths[plane] == self._truths[plane][point]
        thickness = 2 * min(THICKEST, max(1.0, 0.5 * float(self._depths[plane][mask].max())))
        return mask, np.count_nonzero(mask) / thickness

    def _line(self, plane: int, kind: int, error: Mask) -> tuple[Mask, float]:
        """Return a stroke inside an error, and its length."""
        depth = self._depths[plane]
        radius = min(THICKEST, max(0.0, 0.5 * float(depth[error].max())))
        inside = error & (depth > radius + 0.5)
        along_border = bool(self._rng.random() < 0.5)
        allowed = inside & (depth <= radius + 3) if along_border else inside
        if not allowed.any():
            allowed = inside
        start = tuple(self._rng.choice(np.argwhere(allowed)))
        cost = np.where(allowed, 1.0 if along_border else 1 / depth.clip(1), -1)
        path = _path(cost, start)
        brush = np.zeros(depth.shape, dtype=bool)
        brush[tuple(path.T)] = True
        mask = ndimage.distance_transform_edt(~brush) <= radius
        return mask & (self._classes[plane] == kind), float(len(path))


def _depth(classes: Plane) -> NDArray[np.float64]:
    """Return each pixel's distance to the nearest pixel of another class; the largest side where there is none."""
    depth = np.full(classes.shape, float(max(classes.shape)))
    for kind in np.unique(classes):
        here = classes == kind
        if not here.all():
            depth[here] = ndimage.distance_transform_edt(here)[here]
    return depth


def _labelled(mask: Mask) -> NDArray[np.int32]:
    labels, _ = ndimage.label(mask)
    return np.asarray(labels)


def _regions(mask: Mask) -> list[tuple[int, int]]:
    """Return label and area of each connected region that is large enough to be seen."""
    areas = np.bincount(_labelled(mask).ravel())
    return [(label, int(areas[label])) for label in range(1, len(areas)) if areas[label] >= SMALLEST_ERROR]


def _path(cost: NDArray[np.float64], start: tuple[int, ...]) -> NDArray[np.intp]:
    """Return a path of at most LONGEST pixels that leads from `start` as far as the cost (-1: closed) lets it."""
    low = [max(0, s - LONGEST) for s in start]
    window = cost[tuple(slice(a, s + LONGEST + 1) for a, s in zip(low, start, strict=True))]
    origin = tuple(s - a for s, a in zip(start, low, strict=True))
    graph = MCP_Geometric(window)
    total, _ = graph.find_costs([origin])
    reach = np.where(np.isfinite(total), total, -1)
    end = np.unravel_index(int(reach.argmax()), reach.shape)
    path = np.array(graph.traceback(end))
    length = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    return path[length < LONGEST] + np.array(low)


def _unmatched(prediction: Plane, truth: Plane) -> Mask:
    """Return the true objects that no predicted one covers with an IoU of at least one half."""
    wrong = np.zeros(truth.shape, dtype=bool)
    areas = np.bincount(prediction.ravel())
    for label, box in enumerate(ndimage.find_objects(truth), start=1):
        if box is None:
            continue
        mine = truth[box] == label
        shared = np.bincount(prediction[box][mine], minlength=len(areas))
        shared[0] = 0
        best = int(shared.argmax())
        union = np.count_nonzero(mine) + areas[best] - shared[best]
        if shared[best] < union / 2:
            wrong[box] |= mine
    return wrong


def annotation(strokes: Sequence[Stroke], plane: int, shape: tuple[int, ...]) -> tuple[Plane, Mask]:
    """Return the labels of a plane (0 not labelled, 1 background, 2 and up) and which of them are held out."""
    labels, held_out = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=bool)
    for stroke in strokes:
        if stroke.plane == plane:
            labels[stroke.mask] = stroke.value
            held_out[stroke.mask] = stroke.held_out
    return labels, held_out
