"""Instant: a classifier of pixels that answers every stroke within a blink, and says where it is unsure.

Each pixel is described by a scale space of filters (`describe`). On the strokes' pixels a logistic regression is fitted by
Newton's method: a few ridge regressions one after another. Nothing is carried over from fit to fit, so a stroke that is
taken back is as if it had never been. `benchmarks/instant.py` measured it against ridge regression, a random forest, and the
U-Net's last maps beside the filters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from .image import Item
from .inference import Normalisation
from .objects import SMALLEST

EDGE = 256
"""Edge of a tile in pixels."""
OCTAVES = 5
"""Scales, each twice as coarse as the one before: Gaussians of about 1, 2.5, 5, 10 and 20 pixels."""
REACH = 96
"""Pixels around a tile that its filters look at: a multiple of the coarsest scale's step."""
MOST_BYTES = 768 << 20
"""Descriptions kept; the least recently used go first. A tile takes 3.4 MB a channel."""
MOST_PIXELS = 400
"""A larger stroke is thinned to so many pixels, which count for all of them."""
STRENGTH = 0.8
"""Of the penalty on the weights, which fades with the number of strokes to the power of 1.5: 0.035 at 8, 0.009 at 20.

Choosing it by leaving strokes out was tried: no better, and slower."""
SAMPLED = 7
"""Every so manieth pixel of a tile tells what is usual."""
NEWTON = 8
"""Steps of Newton's method at most."""
WINDOW = 64
"""Edge, in pixels, of the places among which the next one to paint is chosen."""
MOST_TILES = 64
"""In larger images only so many tiles, evenly spread, are searched for it: about three seconds."""
SPARSE = 4
"""Of these, every so manieth row and column is looked at."""
FEWEST_HELD_OUT = 20
"""Fewer held-out pixels than this, of either class, cannot judge."""

Tile = tuple[int, int]
Box = tuple[slice, slice]
Place = tuple[Hashable, Box]
"""A plane by its name, and a part of it."""


# ---- what a pixel looks like


def describe(pixels: Tensor) -> Tensor:
    """Return 1 + 5 `OCTAVES` maps for each channel of ``(c, h, w)``; both sizes are 1 more than a multiple of 2^(OCTAVES - 1).

    The intensity, and at each scale: smoothed intensity, steepness, the two curvatures, spread.
    """
    maps, current = [pixels], pixels
    for octave in range(OCTAVES):
        smooth = _smoothed(current)
        here = [smooth, *_slopes(smooth), (_smoothed(current**2) - smooth**2).clamp_(min=0).sqrt_()]
        if octave:
            here = [F.interpolate(m[None], pixels.shape[1:], mode="bilinear", align_corners=True)[0] for m in here]
        maps += here
        current = _smoothed(smooth)[:, ::2, ::2]
    return torch.cat(maps)


def _smoothed(x: Tensor) -> Tensor:
    """Apply the binomial filter 1 4 6 4 1 along both axes: a Gaussian of one pixel."""
    for axis, around in ((-1, (2, 2, 0, 0)), (-2, (0, 0, 2, 2))):
        wide, n = F.pad(x[None], around, mode="replicate")[0], x.shape[axis]
        a, b, c, d, e = (wide.narrow(axis, i, n) for i in range(5))
        x = (a + e).add_(b + d, alpha=4).add_(c, alpha=6).mul_(1 / 16)
    return x


def _slopes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the length of the gradient and the eigenvalues of the Hessian."""
    wide, (h, w) = F.pad(x[None], (1, 1, 1, 1), mode="replicate")[0], x.shape[1:]

    def at(y: int, x: int) -> Tensor:
        return wide[:, 1 + y : 1 + y + h, 1 + x : 1 + x + w]

    steep = torch.hypot(at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)) / 2
    yy, xx = at(1, 0) + at(-1, 0) - 2 * x, at(0, 1) + at(0, -1) - 2 * x
    xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    middle, apart = (yy + xx) / 2, torch.hypot((yy - xx) / 2, xy)
    return steep, middle + apart, middle - apart


class Canvas:
    """One plane of an image, described tile by tile.

    Parameters
    ----------
    name
        Tells it from other planes.
    item
        The plane, with all channels that are to be looked at.
    scale
        Of its intensities.
    """

    def __init__(self, name: Hashable, item: Item, scale: Normalisation) -> None:
        self.name, self.shape = name, (item.shape[0], item.shape[1])
        self._item, self._scale = item, scale

    def tiles(self, region: Box | None = None) -> list[Tile]:
        """Return the tiles that a region (None: the whole plane) touches, from its middle outwards; none if it is empty."""
        region = region or (slice(0, self.shape[0]), slice(0, self.shape[1]))
        spans = [(max(r.start, 0), min(r.stop, n)) for r, n in zip(region, self.shape, strict=True)]
        if any(stop <= start for start, stop in spans):
            return []
        (top, bottom), (left, right) = spans
        middle = np.array([(top + bottom) / 2, (left + right) / 2]) / EDGE - 0.5
        tiles = [(i, j) for i in range(top // EDGE, -(-bottom // EDGE)) for j in range(left // EDGE, -(-right // EDGE))]
        return sorted(tiles, key=lambda tile: float(np.square(middle - tile).sum()))

    def described(self, tile: Tile) -> Tensor:
        """Return the filters of a tile: half precision, ``(pixels, maps)``."""
        start = [i * EDGE - REACH for i in tile]
        pixels = self._scale(self._item.read_mirrored(tuple(start), tuple(s + EDGE + 2 * REACH + 1 for s in start)))
        maps = describe(torch.from_numpy(pixels))[:, REACH:, REACH:]
        return _by_pixel(maps, box_of(tile, self.shape))


def box_of(tile: Tile, shape: tuple[int, int]) -> Box:
    """Return where a tile lies in a plane."""
    rows, columns = (slice(i * EDGE, min((i + 1) * EDGE, n)) for i, n in zip(tile, shape, strict=True))
    return rows, columns


def _size(box: Box) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def _windows(shape: tuple[int, int]) -> list[Box]:
    """Cut a tile into windows of about WINDOW pixels."""
    rows, columns = ([slice(a, min(a + WINDOW, n)) for a in range(0, n, WINDOW)] for n in shape)
    return [(r, c) for r in rows for c in columns]


def _by_pixel(maps: Tensor, box: Box) -> Tensor:
    """Turn ``(maps, h, w)`` into ``(pixels, maps)`` of what lies inside the image.

    Of roots, so that a bright spot is one among others.
    """
    height, width = _size(box)
    maps = maps[:, :height, :width]
    return (maps.sign() * maps.abs().sqrt()).movedim(0, -1).reshape(height * width, -1).half()


class Cache:
    """Remembers descriptions, up to so many bytes; the least recently used go first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.bytes = 0
        self._most = most_bytes
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable) -> Tensor | None:
        """Return what is kept under a key, or None."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Hashable, maps: Tensor) -> None:
        """Keep maps under a new key."""
        self._kept[key] = maps
        self.bytes += maps.nbytes
        while self.bytes > self._most and len(self._kept) > 1:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes


# ---- what was painted


@dataclass(eq=False)
class Stroke:
    """What was painted in one piece and one value between two looks."""

    canvas: Hashable
    value: int
    """1 background, 2 and up a class."""
    where: NDArray[np.intp]
    """Flat indices, thinned to MOST_PIXELS."""
    size: int
    """How many pixels it has."""
    held_out: bool = False
    rows: NDArray[np.float32] | None = None
    """Descriptions of its pixels, ``(pixels, maps)``; None: not looked up yet."""
    usual: NDArray[np.float32] | None = None
    """Mean and mean square of the maps in the tiles it lies in, ``(2, maps)``."""


class Marks:
    """Tells the strokes in the annotations of one plane apart."""

    def __init__(self, canvas: Hashable, shape: tuple[int, int]) -> None:
        self.strokes: dict[int, Stroke] = {}
        self._canvas = canvas
        self._labels: NDArray[np.integer] = np.zeros(shape, dtype=np.uint8)
        self._owner = np.zeros(shape, dtype=np.int32)
        self._count = 0

    def look(self, labels: NDArray[np.integer], held_out: NDArray[np.bool_] | None = None) -> bool:
        """Take in what was painted, erased or painted over since the last look; return whether anything was."""
        changed = labels != self._labels
        touched = set(np.unique(self._owner[changed]).tolist()) - {0} if changed.any() else set()
        self._owner[changed] = 0
        for value in np.unique(labels[changed]).tolist():
            if value:
                pieces, count = ndimage.label(changed & (labels == value), np.ones((3, 3)))
                self._owner[pieces > 0] = pieces[pieces > 0] + self._count
                touched.update(range(self._count + 1, self._count + count + 1))
                self._count += count
        self._labels = labels.copy()
        for number in sorted(touched):
            self._take(number)
        if held_out is not None:
            for stroke in self.strokes.values():
                stroke.held_out = bool(held_out.flat[stroke.where].mean() > 0.5)
        return bool(touched)

    @property
    def painted(self) -> NDArray[np.bool_]:
        """Where anything is painted."""
        return self._labels > 0

    def _take(self, number: int) -> None:
        """Look at one stroke again; one that has lost its last pixel is no more."""
        self.strokes.pop(number, None)
        where = np.flatnonzero(self._owner == number)
        if where.size:
            thin = where[np.linspace(0, where.size - 1, min(where.size, MOST_PIXELS)).astype(np.intp)]
            value = int(self._labels.flat[thin[0]])
            self.strokes[number] = Stroke(self._canvas, value, thin, where.size, held_out=False)


# ---- what is learned


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Tells from descriptions which class a pixel is of."""

    weights: NDArray[np.float32]
    """``(maps + 1, classes)``; the last row is added."""
    values: tuple[int, ...]
    """1 background, 2 and up a class."""

    def labels(self, described: Tensor) -> NDArray[np.uint8]:
        """Return the value of each pixel."""
        best = torch.cat([scores.argmax(1) for scores in self._scores(described)])
        return np.asarray(np.array(self.values, dtype=np.uint8)[best.numpy()])

    def doubt(self, described: Tensor) -> NDArray[np.float32]:
        """Return how unsure the value of each pixel is: 0 (certain) to 1 (two classes are equally likely)."""
        best = torch.cat([scores.topk(2, dim=1)[0] for scores in self._scores(described)])
        return np.asarray((1 - torch.tanh((best[:, 0] - best[:, 1]) / 4)).numpy())

    def _scores(self, described: Tensor) -> Iterator[Tensor]:
        weights, rest = torch.from_numpy(self.weights[:-1]), torch.from_numpy(self.weights[-1])
        return (torch.addmm(rest, part.float(), weights) for part in described.split(1 << 15))


def fitted(strokes: Sequence[Stroke]) -> Classifier | None:
    """Return the logistic regression of class on description; None: fewer than two classes are painted.

    Of several classes each is told from the rest. Every class weighs the same, and within it every pixel painted.
    """
    values = sorted({s.value for s in strokes})
    if len(values) < 2:
        return None
    x = np.concatenate([s.rows for s in strokes if s.rows is not None])
    middle, square = np.stack([s.usual for s in strokes if s.usual is not None]).mean(0, dtype=np.float64)
    spread = np.sqrt((square - middle**2).clip(0)) + 1e-3
    z = np.concatenate([(x - middle) / spread, np.ones((len(x), 1))], axis=1)
    count = [s.where.size for s in strokes]
    y = np.repeat([s.value for s in strokes], count)
    mass = np.repeat([s.size / s.where.size for s in strokes], count)
    strength = STRENGTH / len(strokes) ** 1.5
    told = [_told(z, y == value, mass, strength) for value in (values[1:] if len(values) == 2 else values)]
    weights = np.stack([-told[0], *told] if len(values) == 2 else told, axis=1)
    weights[:-1] /= spread[:, None]
    weights[-1] -= middle @ weights[:-1]
    return Classifier(weights.astype(np.float32), tuple(values))


def _strangeness(rows: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], float]:
    """Return what tells how far others lie from rows, on average and in units of their spread."""
    middle = rows.mean(0)
    spread = np.cov(rows.T) + np.diag(1e-2 * rows.var(0) + 1e-6)
    pull = np.linalg.inv(spread)

    def distance(others: NDArray[np.float32]) -> float:
        apart = others - middle
        return float(np.sqrt(np.einsum("ni,ij,nj->n", apart, pull, apart, optimize=True).clip(0)).mean())

    return distance


def _told(
    z: NDArray[np.float64], mine: NDArray[np.bool_], mass: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    """Return the weights that tell one class from the rest: ridge regressions, each weighed by the one before."""
    share = np.where(mine, mass / mass[mine].sum(), mass / mass[~mine].sum()) / 2
    penalty = np.append(np.full(z.shape[1] - 1, strength), 1e-6)
    weights = np.zeros(z.shape[1])
    for _ in range(NEWTON):
        chance = 1 / (1 + np.exp(-(z @ weights).clip(-30, 30)))
        slope = z.T @ (share * (chance - mine)) + penalty * weights
        bend = (z * (share * np.maximum(chance * (1 - chance), 1e-3))[:, None]).T @ z + np.diag(penalty)
        step = np.linalg.solve(bend, slope)
        weights -= step
        if np.abs(step).max() < 1e-3:
            break
    return weights


@dataclass(frozen=True, slots=True)
class Verdict:
    """Scores on the held-out strokes that both have seen; None: too few of them."""

    instant: float | None = None
    unet: float | None = None

    @property
    def unet_is_better(self) -> bool:
        """Whether the U-Net's answer is the one to show."""
        return self.instant is not None and self.unet is not None and self.unet > self.instant


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The answer to a tile."""

    box: Box
    labels: NDArray[np.uint8]
    """1 background, 2 and up a class."""
    doubt: NDArray[np.float32] | None
    """If asked for: 0 (certain) to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Parts of a plane; none where nothing can be told yet."""

    parts: tuple[Part, ...]
    left: int
    """Tiles of the region that are still to come."""


class Instant:
    """Learns from the strokes on any number of planes, and answers tile by tile."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.cache = Cache(most_bytes)
        self._canvases: dict[Hashable, Canvas] = {}
        self._marks: dict[Hashable, Marks] = {}
        self._rivals: dict[Hashable, NDArray[np.uint8]] = {}
        """The U-Net's answers to the planes that it has looked at; 0: none yet."""

    def look(self, canvas: Canvas, labels: NDArray[np.integer], held_out: NDArray[np.bool_] | None = None) -> bool:
        """Take in what was painted on a plane since the last look at it; return whether anything was."""
        self._canvases.setdefault(canvas.name, canvas)
        marks = self._marks.setdefault(canvas.name, Marks(canvas.name, canvas.shape))
        return marks.look(labels, held_out)

    @property
    def strokes(self) -> list[Stroke]:
        """All strokes there are."""
        return [s for marks in self._marks.values() for s in marks.strokes.values()]

    @property
    def missing(self) -> str:
        """Say what must be painted before there is an answer; empty: nothing."""
        painted = {s.value for s in self.strokes}
        if len(painted) > 1:
            return ""
        if not painted:
            return "Paint a stroke on an object and one on the background."
        return "Paint a stroke on an object too." if painted == {1} else "Paint a stroke on the background too."

    def fit(self) -> Classifier | None:
        """Return what the strokes teach; None: fewer than two classes are painted."""
        for stroke in self.strokes:
            if stroke.rows is None:
                self._look_up(stroke)
        return fitted(self.strokes)

    def answer(
        self, name: Hashable, region: Box | None = None, unet: bool = False, doubt: bool = False
    ) -> Iterator[Answered]:
        """Learn from the strokes, and answer a region (None: the whole plane) of a plane from its middle outwards.

        What is described already comes first and at once; the rest follows tile by tile.

        Parameters
        ----------
        unet
            Give the U-Net's answer wherever there is one.
        doubt
            Say how unsure the answer is, too.
        """
        canvas, classifier, rival = self._canvases[name], self.fit(), self._rivals.get(name)
        tiles = canvas.tiles(region)
        ready = [tile for tile in tiles if self.cache.get((name, tile)) is not None]
        left = [tile for tile in tiles if tile not in ready]

        def part(tile: Tile) -> tuple[Part, ...]:
            described, box = self.described(name, tile), box_of(tile, canvas.shape)
            if classifier is None:
                return ()
            unsure = classifier.doubt(described).reshape(_size(box)) if doubt else None
            if unet and rival is not None and rival[box].all():
                return (Part(box, rival[box].copy(), unsure),)
            return (Part(box, classifier.labels(described).reshape(_size(box)), unsure),)

        if ready:
            yield Answered(tuple(p for tile in ready for p in part(tile)), len(left))
        for done, tile in enumerate(left, start=1):
            yield Answered(part(tile), len(left) - done)

    def next_place(self, names: Sequence[Hashable]) -> Iterator[Place | None]:
        """Look for the part of some planes where strokes would teach most; yields the best so far after each tile.

        It is where pixels look least like any that are painted (Mahalanobis distance on average), never where something
        is painted already.
        """
        self.fit()  # looks up what is new
        rows = [s.rows for s in self.strokes if s.rows is not None]
        strange = _strangeness(np.concatenate(rows)) if rows else None
        best, most = None, 0.0
        tiles = [(name, tile) for name in names for tile in self._canvases[name].tiles()]
        for name, tile in tiles[:: max(1, -(-len(tiles) // MOST_TILES))]:
            box = box_of(tile, self._canvases[name].shape)
            painted = self._marks[name].painted[box]
            if strange is not None and not painted.all():
                maps = self.described(name, tile).reshape(*_size(box), -1)
                for part in _windows(_size(box)):
                    if painted[part].any():
                        continue
                    found = strange(maps[part][::SPARSE, ::SPARSE].flatten(0, 1).float().numpy())
                    if found > most:
                        y, x = (slice(b.start + p.start, b.start + p.stop) for b, p in zip(box, part, strict=True))
                        best, most = (name, (y, x)), found
            yield best

    def described(self, name: Hashable, tile: Tile) -> Tensor:
        """Return the description of a tile, made now or before."""
        maps = self.cache.get((name, tile))
        if maps is None:
            maps = self._canvases[name].described(tile)
            self.cache.put((name, tile), maps)
        return maps

    def _look_up(self, stroke: Stroke) -> None:
        """Pick a stroke's pixels from the tiles it lies in."""
        shape = self._canvases[stroke.canvas].shape
        y, x = np.unravel_index(stroke.where, shape)
        rows, usual = [], []
        order = np.lexsort((x // EDGE, y // EDGE))
        for tile in sorted({(int(i), int(j)) for i, j in zip(y // EDGE, x // EDGE, strict=True)}):
            maps, (down, right) = self.described(stroke.canvas, tile), box_of(tile, shape)
            inside = order[(y[order] // EDGE == tile[0]) & (x[order] // EDGE == tile[1])]
            flat = (y[inside] - down.start) * (right.stop - right.start) + x[inside] - right.start
            rows.append(maps[torch.from_numpy(flat)].float().numpy())
            sample = maps[::SAMPLED].float()
            usual.append(torch.stack([sample.mean(0), sample.square().mean(0)]).numpy())
        stroke.where = stroke.where[order]
        stroke.rows, stroke.usual = np.concatenate(rows), np.mean(usual, axis=0)

    # ---- the U-Net as a rival

    def saw(self, canvas: Canvas, box: Box, labels: NDArray[np.integer]) -> None:
        """Take in what the U-Net answers (1 background, 2 and up a class) in a part of a plane."""
        if canvas.name not in self._rivals:
            self._rivals[canvas.name] = np.zeros(canvas.shape, dtype=np.uint8)
        self._rivals[canvas.name][box] = labels

    def judge(self) -> Verdict:
        """Compare the U-Net with what is learned without the held-out strokes, on those that it has looked at."""
        self.fit()  # looks up what is new
        strokes = self.strokes
        held = [(s, r) for s in strokes if s.held_out and (r := self._rival(s)).all()]
        mass = {value: sum(s.size for s, _ in held if s.value == value) for value in {s.value for s, _ in held}}
        classifier = fitted([s for s in strokes if not s.held_out])
        if len(mass) < 2 or min(mass.values()) < FEWEST_HELD_OUT or classifier is None:
            return Verdict()
        judged = [s for s, _ in held]
        return Verdict(
            balanced_dice(judged, [classifier.labels(torch.from_numpy(s.rows)) for s in judged if s.rows is not None]),
            balanced_dice(judged, [r for _, r in held]),
        )

    def _rival(self, stroke: Stroke) -> NDArray[np.uint8]:
        """Return the U-Net's answers to a stroke's pixels; 0: none yet."""
        plane = self._rivals.get(stroke.canvas)
        return np.zeros(1, dtype=np.uint8) if plane is None else plane.flat[stroke.where]


def balanced_dice(strokes: Sequence[Stroke], guesses: Sequence[NDArray[np.uint8]]) -> float:
    """Return the mean Dice over the classes, each stroke and each class given the same mass: as `gate.agreement`, of labels."""
    values = sorted({s.value for s in strokes})
    rates = np.zeros((len(values), len(values)))
    for stroke, guess in zip(strokes, guesses, strict=True):
        mass = min(stroke.size, SMALLEST)
        rates[values.index(stroke.value)] += [mass * float((guess == value).mean()) for value in values]
    rates /= [[sum(min(s.size, SMALLEST) for s in strokes if s.value == value)] for value in values]
    return float(np.mean(2 * rates.diagonal() / (1 + rates.sum(0))))
