"""ClickSegmenter: set_image() once, then one click, one object.

The network sees a square window of the image, resampled to SIZE pixels, in four channels: grey, positive clicks,
negative clicks (disks), and the mask so far (iterative clicks after Sofiiuk et al. 2021). One click does not say how
large the object is, so the network looks through windows of several sizes at once; what counts is the answer that is
surest of itself and that the others agree with.
From then on the window follows the object: when the answer reaches over its edge it grows, when the answer is small in
it it shrinks, and the network looks again.
Of an answer to a correcting click only the connected change that holds the click is taken (the progressive merge of
Chen et al. 2022, FocalClick), so what was right stays.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from .adaptation import MOST_STEPS, SMALLEST_AREA, STEPS, Adaptation, Learned
from .errors import InvalidImage, InvalidModel, InvalidSettings
from .execution import Executor, device_errors, pick_device
from .image import ArrayLike, Image, Item
from .inference import Normalisation
from .library import Library
from .model import Model
from .prompts import CHANNELS, RADIUS, SIZE, Mask, draw_disk, reach
from .training import StepDone

FLIPS = ((), (-1,), (-2,), (-2, -1))
"""A single window is seen four times, mirrored along these axes, and the answers are averaged."""
SCALES = (32, 48, 72, 108, 160, 240, 360, 540)
"""Edges of the first windows, where nothing is known of the object's size."""
WIDEST = 1.3
"""No first window is wider than so many times the image."""
SMALLEST = 32
"""No window is smaller; beyond that, magnifying shows nothing new."""
ROOM = 1.4
"""A window's edge over the extent of the mask that it is made for."""
SMALL = 0.3
"""An answer of less than this part of the window is looked at again, magnified."""
AGAIN = 1.8
"""The edge of that second window over the extent of the answer."""
LOOKS = 2
"""So often at most the window follows the answer."""
CERTAINTY = 3
"""Power of an answer's certainty beside its agreement with the others."""
DISOBEYED = 0.5
"""Factor on the certainty of an answer for each click that it does not follow."""
NOTHING = 20.0
"""Minus this is the logit of "no object", where there is nothing to see."""
SAMPLE = 1 << 18
"""About so many pixels, on a regular grid, decide the normalisation: milliseconds, whatever the image's size."""
LEAST_OVERLAP = 0.3
"""An object ends where its mask in the next slice overlaps (intersection over union) less than this."""
MOST_GROWTH = 2.5
"""An object ends where its area changes from one slice to the next by more than this factor."""
LEAST_CONTRAST = 0.35
"""An object ends where its contrast falls below this part of its contrast in the first slice."""
JUDGES = 10
"""The taught model answers if one click finds more with it than without it, on so many of the newest objects."""


class Click(NamedTuple):
    """A click on the image: this object (positive), or not this.

    A NamedTuple, so a plain ``((y, x), positive)`` does as well.
    """

    position: tuple[float, float]
    """(y, x) in pixels; whole numbers are pixel centres."""
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Window:
    """A square part of the image; may reach over the border, where the image is mirrored."""

    top: int
    left: int
    side: int

    @classmethod
    def around(cls, center: tuple[float, float], side: float, shape: tuple[int, ...]) -> Window:
        """Return a window about `center`: no smaller than SMALLEST, and moved into the image as far as it fits."""
        whole = max(SMALLEST, math.ceil(side))
        corner = []
        for c, n in zip(center, shape, strict=True):
            start = round(c + 0.5 - whole / 2)
            corner.append(min(max(start, 0), n - whole) if whole <= n else (n - whole) // 2)
        return cls(corner[0], corner[1], whole)

    def inside(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the part of the image that it covers."""
        return (
            slice(max(self.top, 0), min(self.top + self.side, shape[0])),
            slice(max(self.left, 0), min(self.left + self.side, shape[1])),
        )

    def to_network(self, point: tuple[int, int]) -> tuple[float, float]:
        """Return where the network sees the middle of a pixel."""
        zoom = SIZE / self.side
        return (point[0] + 0.5 - self.top) * zoom - 0.5, (point[1] + 0.5 - self.left) * zoom - 0.5

    def cut(self, mask: Mask) -> Mask:
        """Return what it shows of a mask ``(h, w)``, as ``(side, side)``; False beyond the image."""
        rows, columns = self.inside(mask.shape)
        result = np.zeros((self.side, self.side), dtype=bool)
        result[rows.start - self.top : rows.stop - self.top, columns.start - self.left : columns.stop - self.left] = (
            mask[rows, columns]
        )
        return result

    def seen(self, logits: NDArray[np.float32], shape: tuple[int, ...]) -> Mask:
        """Return the mask ``(h, w)`` that the network's logits ``(SIZE, SIZE)`` stand for."""
        rows, columns = self.inside(shape)
        result = np.zeros(shape, dtype=bool)
        result[rows, columns] = (
            resampled(logits, self.side)[
                rows.start - self.top : rows.stop - self.top, columns.start - self.left : columns.stop - self.left
            ]
            > 0
        )
        return result


@dataclass(frozen=True, slots=True, eq=False)
class SliceDone:
    """The object in one more slice."""

    z: int
    mask: Mask


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """What is clicked on: pixels, and how they are normalised (None: constant)."""

    item: Item
    scale: Normalisation | None


@dataclass(frozen=True, slots=True, eq=False)
class _Accepted:
    """An object that is to be learned, and where a user clicks on it first."""

    plane: _Plane
    mask: Mask
    point: tuple[int, int]
    around: tuple[slice, slice]
    grey: NDArray[np.float32]
    """The normalised pixels around it."""


class ClickSegmenter:
    """Cuts out one object from a few clicks, and learns from those that its user accepts.

    Parameters
    ----------
    model
        A model of the task `click`, or what `load_model` takes.
    device
        auto, cuda, cuda:N, mps or cpu.

    Raises
    ------
    ModelNotFound, InvalidModel, DeviceError

    Examples
    --------
    >>> segmenter = ClickSegmenter()
    >>> segmenter.set_image(image)
    >>> mask = segmenter.segment([Click((40, 52))])
    >>> mask = segmenter.segment([Click((40, 52)), Click((61, 50), positive=False)], previous=mask)
    >>> segmenter.accept(mask)
    >>> *_, learned = segmenter.learn()
    """

    def __init__(self, model: Model | str = "click", device: str = "auto") -> None:
        if isinstance(model, str):
            model = Library().load(model)
        spec = model.card.spec
        if model.card.task != "click" or spec.dims != 2 or spec.in_channels != CHANNELS:
            raise InvalidModel(f"The model {model.card.name!r} does not answer clicks: choose one of the task 'click'.")
        self.model = self._start = model
        self._device = pick_device(device)
        self._executor = self._untaught = Executor(model.network, self._device)
        self._taught: Executor | None = None
        self._adaptation: Adaptation | None = None
        self._accepted: list[_Accepted] = []
        self._judged: deque[tuple[float, float]] = deque(maxlen=JUDGES)
        self._objects = 0
        self._learned = Learned(0, None, None)
        self._plane: _Plane | None = None

    def set_image(self, image: Image | ArrayLike, *, channel: int | None = None) -> None:
        """Choose the image that the next clicks are on; takes milliseconds.

        Parameters
        ----------
        image
            ``(h, w)``, ``(h, w, 3 or 4)`` as RGB(A), or an `Image` of one plane.
        channel
            Which channel, where there is more than one and they are no colours.

        Raises
        ------
        InvalidImage
            If it is empty, has more than one plane, or holds NaN or infinite values.
        """
        self._plane = self._prepare(image, channel)

    def clear_image(self) -> None:
        """Let go of the image."""
        self._plane = None

    def segment(
        self,
        clicks: Sequence[Click | tuple[Any, ...]],
        previous: NDArray[Any] | None = None,
        prior: NDArray[Any] | None = None,
    ) -> Mask:
        """Return the object that is clicked on.

        Parameters
        ----------
        clicks
            All clicks on this object so far, the newest last.
        previous
            The object's mask before the newest click, bool ``(h, w)``: the last answer, or an object picked up for
            correction. Only the connected change that holds the newest click is taken from the network's answer.
        prior
            Where an automatic model sees objects, bool or probability ``(h, w)``: its piece under the first click
            starts the first mask. Has no part once there is a `previous`.

        Returns
        -------
        mask
            bool ``(h, w)``: the pieces that hold a positive click, and pieces of `previous` that never had one; empty on
            a constant background.

        Raises
        ------
        InvalidSettings
            If there is no click, none that says what the object is, or one is outside the image.
        InvalidImage
            If no image was set, a mask does not fit it, or the pixels looked at hold NaN or infinite values.
        """
        if self._plane is None:
            raise InvalidImage("There is no image to click on: call set_image first.")
        return self._answer(self._executor, self._plane, clicks, previous, prior)

    def accept(
        self,
        mask: NDArray[Any],
        click: Click | tuple[Any, ...] | None = None,
        image: Image | ArrayLike | None = None,
    ) -> None:
        """Say that a mask is an object of the image, for the next `learn`; takes milliseconds.

        Parameters
        ----------
        mask
            bool ``(h, w)``; one that is empty, or tiny, or fills the image, or is on a constant background has no part.
        click
            The first click on it, to judge the models by; None: its innermost point.
        image
            The image, as in `set_image`; None: the one that was set. The next clicks are on that one in any case.

        Raises
        ------
        InvalidSettings
            If the click is outside the image.
        InvalidImage
            If there is no image, the mask does not fit it, or pixels near it hold NaN or infinite values.
        """
        plane = self._plane if image is None else self._prepare(image, None)
        if plane is None:
            raise InvalidImage("There is no image to learn from: call set_image first.")
        mask = _fitting(mask, plane.item.shape)
        if plane.scale is None or np.count_nonzero(mask) < SMALLEST_AREA:
            return
        point = innermost(mask) if click is None else _pixel(click, mask.shape)
        around = _box(mask, reach(max(s.stop - s.start for s in _box(mask))))
        self._accepted.append(_Accepted(plane, mask.copy(), point, around, plane.scale(plane.item.read(around))[0]))

    def learn(self) -> Generator[StepDone | Learned, None, None]:
        """Learn the objects that were accepted; yields after each gradient step, and `Learned` at the end.

        The taught model answers from then on if, on the newest objects, one click finds more with it than without it,
        each judged before it was learned; else the untaught one does. It may run in one thread while `segment` answers
        in another.

        Raises
        ------
        OutOfMemory, DeviceError
        """
        if self._adaptation is None:
            self._adaptation = Adaptation(self._start, self._device)
        steps = 0
        while self._accepted:
            accepted = self._accepted.pop(0)
            if self._taught is not None:
                untaught, taught = (self._after_one_click(e, accepted) for e in (self._untaught, self._taught))
                self._judged.append((untaught, taught))
            if self._adaptation.add(accepted.grey, accepted.mask[accepted.around]):
                self._objects += 1
                steps = min(steps + STEPS, MOST_STEPS)
        if steps:
            with device_errors(self._device):
                yield from self._adaptation.steps(steps)
                model = self._adaptation.model
                self._taught = Executor(model.network, self._device)
            scores = [float(mean) for mean in np.mean(self._judged, axis=0)] if self._judged else [None, None]
            self._learned = Learned(self._objects, scores[1], scores[0])
            facts = {"objects": self._objects, "untaught": scores[0], "taught": scores[1]}
            card = self._start.card.with_(parent=self._start.card.identity, training=facts, created="", content_hash="")
            better = self._learned.better
            self.model = Model(card, model.network) if better else self._start
            self._executor = self._taught if better else self._untaught
        yield self._learned

    def _after_one_click(self, executor: Executor, accepted: _Accepted) -> float:
        """Return the intersection over union of an object with what one click finds."""
        found = self._answer(executor, accepted.plane, [Click(accepted.point)], None, None)
        return np.count_nonzero(found & accepted.mask) / np.count_nonzero(found | accepted.mask)

    def extend(self, volume: ArrayLike, mask: NDArray[Any], z: int, *, axis: int = 0) -> Iterator[SliceDone]:
        """Follow an object from slice `z` through a stack, first up, then down; yields each slice that still holds it.

        The mask of a slice starts that of the next, with a click at its innermost point. The object ends where its
        mask is empty, jumps (LEAST_OVERLAP), changes its size (MOST_GROWTH) or loses its contrast (LEAST_CONTRAST).

        Parameters
        ----------
        volume
            ``(z, h, w)`` or ``(z, h, w, 3 or 4)``; one slice is read at a time.
        mask
            The object in slice `z`, bool ``(h, w)``.
        z
            Where to start.
        axis
            The axis of `volume` to step along.

        Raises
        ------
        InvalidSettings, InvalidImage
        """
        depth = volume.shape[axis]
        if not 0 <= z < depth:
            raise InvalidSettings(f"Slice {z} is outside the stack: choose one of 0 to {depth - 1}.")

        def plane(k: int) -> ArrayLike:
            return np.asarray(volume[(slice(None),) * axis + (k,)])

        first = self._prepare(plane(z), None)
        start = _fitting(mask, first.item.shape)
        if not start.any():
            raise InvalidSettings(f"There is no object in slice {z}: click on one first.")
        contrast = _contrast(first, start)
        for step in (1, -1):
            now = start
            for k in range(z + step, depth if step == 1 else -1, step):
                there = _Plane(self._prepare(plane(k), None).item, first.scale)
                found = self._answer(self._executor, there, [Click(innermost(now))], None, now)
                both = np.count_nonzero(found & now)
                area, before = np.count_nonzero(found), np.count_nonzero(now)
                if (
                    both < LEAST_OVERLAP * (area + before - both)
                    or not before / MOST_GROWTH <= area <= before * MOST_GROWTH
                    or _contrast(there, found) * np.sign(contrast) < LEAST_CONTRAST * abs(contrast)
                ):
                    break
                now = found
                yield SliceDone(k, now)

    def _prepare(self, image: Image | ArrayLike, channel: int | None) -> _Plane:
        if not isinstance(image, Image):
            shape = tuple(image.shape)
            colours = len(shape) == 3 and shape[-1] in (3, 4)
            if len(shape) != 2 and not colours:
                raise InvalidImage(
                    f"An array of shape {shape} is no plane to click on: give (h, w), or (h, w, 3) for RGB."
                )
            image = Image(image, "yxc" if colours else "yx", rgb=colours)
        items = list(image.items(2, channel, 1))
        if len(items) > 1:
            raise InvalidImage(f"{image.name!r} has {len(items)} planes (shape {image.shape}): click on one at a time.")
        (item,) = items
        every = max(1, math.isqrt(math.prod(item.shape) // SAMPLE))
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told below
            sample = item.read((slice(0, None, every), slice(0, None, every))).astype(np.float32)
        if not np.isfinite(sample).all():
            raise InvalidImage(
                f"{image.name!r} holds NaN or infinite values: replace them first, e.g. with numpy.nan_to_num."
            )
        low, high = (float(v) for v in np.percentile(sample, self.model.card.percentiles))
        if high <= low:
            low, high = float(sample.min()), float(sample.max())
        return _Plane(item, Normalisation((low,), (high,), sample.size) if high > low else None)

    def _answer(
        self,
        executor: Executor,
        plane: _Plane,
        clicks: Sequence[Click | tuple[Any, ...]],
        previous: NDArray[Any] | None,
        prior: NDArray[Any] | None,
    ) -> Mask:
        shape = plane.item.shape
        points = [(_pixel(c, shape), bool(c[1]) if len(c) > 1 else True) for c in clicks]
        positives = [p for p, positive in points if positive]
        before = None if previous is None else _fitting(previous, shape)
        if not points:
            raise InvalidSettings("There is no click: give at least one.")
        if not positives and (before is None or not before.any()):
            raise InvalidSettings("All clicks are negative: click on the object itself first.")
        hint = before
        if hint is None and prior is not None:
            hint = with_clicks(_fitting(prior, shape), positives[:1], strict=True)
        if hint is not None and not hint.any():
            hint = None
        if plane.scale is None:
            return np.zeros(shape, dtype=bool) if before is None else before.copy()

        anchors = positives if before is None else positives + unclicked(before, positives)
        where = [p for p, _ in points]
        windows = [Window.around(*_middle(where, hint), shape)] if hint is not None else first_windows(positives, shape)
        answers = self._look(executor, plane, plane.scale, windows, points, hint)
        masks = [with_clicks(w.seen(a, shape), anchors) for a, w in zip(answers, windows, strict=True)]
        best = 0
        if len(windows) > 1:
            sure = np.array([certainty(a, w, points) for a, w in zip(answers, windows, strict=True)])
            best = int(np.argmax(sure**CERTAINTY * agreement(masks)))
        window, found = windows[best], masks[best]
        for _ in range(LOOKS):
            closer = next_window(window, found, where, shape)
            if closer is None:
                break
            window = closer
            (answer,) = self._look(executor, plane, plane.scale, [window], points, hint)
            found = with_clicks(window.seen(answer, shape), anchors)

        newest, positive = points[-1]
        if before is None and is_background(plane.item, found):
            return np.zeros(shape, dtype=bool)
        if before is not None:
            found = merge(before, found, newest, positive)
        for p, wanted in points:
            if not wanted:
                found[p] = False
        return with_clicks(found, anchors)

    def _look(
        self,
        executor: Executor,
        plane: _Plane,
        scale: Normalisation,
        windows: list[Window],
        points: list[tuple[tuple[int, int], bool]],
        hint: Mask | None,
    ) -> NDArray[np.float32]:
        """Show the network some windows; returns logits ``(n, SIZE, SIZE)``, all negative where a window is constant."""
        shown = np.zeros((len(windows), CHANNELS, SIZE, SIZE), dtype=np.float32)
        for channels, window in zip(shown, windows, strict=True):
            stop = (window.top + window.side, window.left + window.side)
            channels[0] = resampled(scale(plane.item.read_mirrored((window.top, window.left), stop))[0], SIZE)
            for p, positive in points:
                draw_disk(channels[1 if positive else 2], window.to_network(p))
            if hint is not None:
                channels[3] = resampled(window.cut(hint).astype(np.float32), SIZE) > 0.5
        constant = np.ptp(shown[:, 0], axis=(1, 2)) == 0
        logits = np.full((len(windows), SIZE, SIZE), -NOTHING, dtype=np.float32)
        if len(windows) == 1 and not constant[0]:
            answers = executor(np.concatenate([np.flip(shown, axes) for axes in FLIPS]))
            logits[0] = np.mean([np.flip(a[0], axes) for a, axes in zip(answers, FLIPS, strict=True)], axis=0)
        elif not constant.all():
            logits[~constant] = executor(shown[~constant])[:, 0]
        return logits


def _pixel(click: Click | tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the pixel under a click; raises InvalidSettings if there is none."""
    try:
        y, x = (float(v) for v in click[0])
        pixel = (math.floor(y + 0.5), math.floor(x + 0.5))
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise InvalidSettings(f"{click!r} is no click: give ((y, x), positive).") from error
    if not all(0 <= p < n for p, n in zip(pixel, shape, strict=True)):
        raise InvalidSettings(
            f"The click at y {y:g}, x {x:g} is outside the image of {shape[0]} x {shape[1]} pixels: click inside it."
        )
    return pixel


def _fitting(mask: NDArray[Any], shape: tuple[int, ...]) -> Mask:
    """Return a mask or probability map as bool; raises InvalidImage if it is not of the image's shape."""
    mask = np.asarray(mask)
    if mask.shape != shape:
        raise InvalidImage(f"The mask has shape {mask.shape}, the image {shape}: give a mask of this image.")
    return mask > 0.5 if mask.dtype.kind == "f" else mask.astype(bool)


def _contrast(plane: _Plane, mask: Mask) -> float:
    """Return how much brighter an object is than the ring around it, in normalised intensities."""
    if plane.scale is None or not mask.any():
        return 0.0
    box = _box(mask, 6)
    grey, inside = plane.scale(plane.item.read(box))[0], mask[box]
    ring = ndimage.binary_dilation(inside, iterations=5) & ~ndimage.binary_dilation(inside, iterations=1)
    return float(np.median(grey[inside]) - np.median(grey[ring])) if ring.any() else 0.0


def is_background(item: Item, mask: Mask) -> bool:
    """Tell whether an answer is one constant grey value that goes on around it, or along half of the image's border."""
    if not mask.any():
        return False
    box = _box(mask, 1)
    pixels, inside = item.read(box)[0], mask[box]
    value = np.median(pixels[inside])
    if np.count_nonzero(pixels[inside] == value) < 0.95 * np.count_nonzero(inside):
        return False
    ring = ndimage.binary_dilation(inside) & ~inside
    border = sum(int(np.count_nonzero(edge)) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    goes_on = np.count_nonzero(pixels[ring] == value)
    return bool(goes_on > 0.5 * np.count_nonzero(ring) or border > sum(mask.shape))


def _box(mask: Mask, margin: int = 0) -> tuple[slice, slice]:
    """Return the bounding box of a mask that is not empty, with a margin, within the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + 1 + margin),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + 1 + margin),
    )


def innermost(mask: Mask) -> tuple[int, int]:
    """Return the pixel of a mask that lies deepest in it; the image's border counts as its boundary."""
    box = _box(mask)
    distance = ndimage.distance_transform_edt(np.pad(mask[box], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(y) + box[0].start, int(x) + box[1].start


def resampled(plane: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return a square plane at another size: averaged when it shrinks, interpolated when it grows."""
    if len(plane) == size:
        return plane
    shown = F.interpolate(torch.from_numpy(plane)[None, None], (size, size), mode="bilinear", antialias=True)
    result: NDArray[np.float32] = shown[0, 0].numpy()
    return result


def with_clicks(mask: Mask, positives: Sequence[tuple[int, int]], *, strict: bool = False) -> Mask:
    """Return the connected pieces of a mask that hold a positive click.

    All pieces where nothing is there to choose by: no positive click, or (unless `strict`) none that lies in the mask.
    """
    held = [p for p in positives if mask[p]]
    if not held:
        return np.zeros_like(mask) if strict else mask
    box = _box(mask)
    pieces, count = ndimage.label(mask[box])
    if count == 1:
        return mask
    chosen = np.zeros(count + 1, dtype=bool)
    for y, x in held:
        chosen[pieces[y - box[0].start, x - box[1].start]] = True
    result = np.zeros_like(mask)
    result[box] = chosen[pieces]
    return result


def unclicked(mask: Mask, positives: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the innermost point of each connected piece of a mask that holds no positive click."""
    if not mask.any():
        return []
    box = _box(mask)
    pieces, count = ndimage.label(mask[box])
    clicked = {int(pieces[y - box[0].start, x - box[1].start]) for y, x in positives if mask[y, x]}
    points = [innermost(pieces == label) for label in range(1, count + 1) if label not in clicked]
    return [(y + box[0].start, x + box[1].start) for y, x in points]


def merge(previous: Mask, found: Mask, newest: tuple[int, int], positive: bool) -> Mask:
    """Take from `found` only the connected change that holds the newest click (Chen et al. 2022).

    Where the network did not follow the click, the click's own small disk is the change.
    """
    result = previous.copy()
    change = previous ^ found
    if change[newest] and found[newest] == positive:
        box = _box(change)
        pieces, _ = ndimage.label(change[box])
        here = pieces == pieces[newest[0] - box[0].start, newest[1] - box[1].start]
        result[box][here] = found[box][here]
    elif previous[newest] != positive:
        rows, columns = np.ogrid[: previous.shape[0], : previous.shape[1]]
        result[(rows - newest[0]) ** 2 + (columns - newest[1]) ** 2 <= RADIUS**2] = positive
    return result


def first_windows(positives: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> list[Window]:
    """Return windows of several sizes about the positive clicks, none much larger than the image."""
    center, extent = _middle(positives, None)
    windows = [Window.around(center, max(side, extent), shape) for side in SCALES]
    largest = max(SCALES[0], WIDEST * max(shape))
    return list(dict.fromkeys(w for w in windows if w.side <= largest or w.side <= extent + 1))


def _middle(points: Sequence[tuple[int, int]], mask: Mask | None) -> tuple[tuple[float, float], float]:
    """Return the middle of points and mask, and the edge of a window with room for both."""
    low, high = np.min(points, axis=0), np.max(points, axis=0) + 1
    if mask is not None:
        box = _box(mask)
        low = np.minimum(low, [s.start for s in box])
        high = np.maximum(high, [s.stop for s in box])
    center = (low + high - 1) / 2
    return (float(center[0]), float(center[1])), ROOM * float((high - low).max())


def certainty(logits: NDArray[np.float32], window: Window, points: Sequence[tuple[tuple[int, int], bool]]) -> float:
    """Return the mean probability inside an answer ``(SIZE, SIZE)``; less for each click that it does not follow."""
    places = [(tuple(math.floor(v + 0.5) for v in window.to_network(p)), positive) for p, positive in points]
    seen = [((y, x), positive) for (y, x), positive in places if 0 <= y < SIZE and 0 <= x < SIZE]
    mask = with_clicks(logits > 0, [p for p, positive in seen if positive], strict=True)
    if not mask.any():
        return 0.0
    disobeyed = sum(bool(mask[p]) != positive for p, positive in seen)
    return float(np.mean(1 / (1 + np.exp(-logits[mask]))) * DISOBEYED**disobeyed)


def agreement(masks: Sequence[Mask]) -> NDArray[np.float64]:
    """Return, for each mask, the sum of its IoU with the others."""
    areas = [np.count_nonzero(m) for m in masks]
    result = np.zeros(len(masks))
    for i, j in itertools.combinations(range(len(masks)), 2):
        if areas[i] and areas[j]:
            box = _box(masks[i])
            both = np.count_nonzero(masks[i][box] & masks[j][box])
            result[[i, j]] += both / (areas[i] + areas[j] - both)
    return result


def next_window(
    window: Window, found: Mask, points: Sequence[tuple[int, int]], shape: tuple[int, ...]
) -> Window | None:
    """Return where to look again: further out if the answer was cut off, closer if it is small; None: good enough."""
    if not found.any():
        return None
    rows, columns = _box(found)
    inside = window.inside(shape)
    cut_off = any(
        (mine.start == seen.start and seen.start > 0) or (mine.stop == seen.stop and seen.stop < n)
        for mine, seen, n in zip((rows, columns), inside, shape, strict=True)
    )
    low = np.minimum([rows.start, columns.start], np.min(points, axis=0))
    high = np.maximum([rows.stop, columns.stop], np.max(points, axis=0) + 1)
    center = (low + high - 1) / 2
    extent = float((high - low).max())
    middle = (float(center[0]), float(center[1]))
    if cut_off:
        return Window.around(middle, 2 * window.side, shape) if window.side < max(shape) else None
    if extent < SMALL * window.side and window.side > SMALLEST:
        return Window.around(middle, AGAIN * extent, shape)
    return None
