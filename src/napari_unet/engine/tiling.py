"""Exact overlap-tile geometry: which pixels a block of the output needs, and how to cut an image so that tiles meet.

::

      outer (what the network sees)
    ┌───────────────────────┐      inner: what a tile contributes; starts on a multiple of the total stride,
    │  before               │             so that every tile pools on the same grid
    │   ┌───────────────┐   │      before, after: the context (halo) that the inner part depends on
    │   │     inner     │   │
    │   └───────────────┘   │      The network sees `outer`, and of its output only `inner` is kept:
    │                 after │      the result is that of one pass over the whole image.
    └───────────────────────┘

What lies beyond the image depends on the network. One with padded ("same") convolutions is given none of it: its own
zeros surround the image as they surrounded every patch it learned from, and tiles at the border are moved inward to the
`canvas`, the image rounded up to the total stride. For "valid" convolutions, and for networks of other programs, the image is
mirrored, as in Ronneberger et al. 2015 (Figure 2). The conditions under which tiles are exact are in the docs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from .card import ForeignSpec, Spec, UNetSpec
from .errors import InvalidSettings

CONVOLUTIONS = 2
"""Convolutions in each block of the U-Net."""


Interval = tuple[int, int]
Canvas = tuple[int | None, ...]
"""What a network sees of a whole image, from 0 to so many pixels on each axis; None: what lies beyond too, mirrored."""


def canvas(spec: Spec, shape: tuple[int, ...]) -> Canvas:
    """Return the canvas of an image of a shape."""
    if isinstance(spec, ForeignSpec) or spec.padding == "valid":
        return (None,) * spec.dims
    return tuple(-(-n // s) * s for n, s in zip(shape, spec.total_stride, strict=True))


def sizes(spec: UNetSpec, axis: int, size: int) -> list[int]:
    """Return the size of each level, along one axis, for a canvas of a size."""
    return [size // math.prod(stride[axis] for stride in spec.strides[:level]) for level in range(len(spec.channels))]


def clipped(interval: Interval, size: int | None) -> Interval:
    """Return the part of an interval that lies in ``[0, size)``; None: endless."""
    return interval if size is None else (max(0, interval[0]), min(size, interval[1]))


def needs(
    spec: UNetSpec, axis: int, start: int, stop: int, size: int | None = None
) -> tuple[list[Interval], list[Interval]]:
    """Return what the output interval ``[start, stop)`` of a "same" U-Net depends on at each level, along one axis.

    Interval arithmetic from the head back to the input. Coordinates are those of the level, counted from a pixel where
    the pooling grids of all levels start. The skip that joins at a level lies within what the next level is pooled from.
    A canvas of a `size` ends there; None: far from its ends.

    Returns
    -------
    inputs, outputs
        What enters the contracting convolutions of each level (at level 0: the image), and what leaves the expanding
        ones (at the deepest level, which has none: the contracting ones).
    """
    depth = len(spec.channels) - 1
    ends = [None] * (depth + 1) if size is None else sizes(spec, axis, size)
    outputs = [(start, stop)]
    for level in range(depth):
        low, high = clipped(context(spec, level, axis, outputs[level]), ends[level])
        stride = spec.strides[level][axis]
        outputs.append((low // stride, -(-high // stride)))
    inputs = [clipped(context(spec, depth, axis, outputs[depth]), ends[depth])]
    for level in reversed(range(depth)):
        low, high = (n * spec.strides[level][axis] for n in inputs[0])
        inputs.insert(0, clipped(context(spec, level, axis, (low, high)), ends[level]))
    return inputs, outputs


def context(spec: UNetSpec, level: int, axis: int, interval: Interval) -> Interval:
    """Return what an interval behind the convolutions of a level depends on before them."""
    reach = CONVOLUTIONS * (spec.kernels[level][axis] // 2)
    return interval[0] - reach, interval[1] + reach


def dependency(spec: UNetSpec, axis: int, start: int, stop: int) -> Interval:
    """Return the interval of the image that the output interval ``[start, stop)`` depends on, along one axis."""
    return needs(spec, axis, start, stop)[0][0]


def valid_output(spec: UNetSpec, axis: int, size: int) -> int | None:
    """Return the output size of a "valid" U-Net for an input size along one axis; None if a pooling meets an odd size."""
    shrink = [CONVOLUTIONS * (kernel[axis] - 1) for kernel in spec.kernels]
    for level, stride in enumerate(spec.strides):
        size -= shrink[level]
        if size <= 0 or size % stride[axis]:
            return None
        size //= stride[axis]
    size -= shrink[-1]
    if size <= 0:
        return None
    for level in reversed(range(len(spec.strides))):
        size = size * spec.strides[level][axis] - shrink[level]
    return size if size > 0 else None


def halo(spec: Spec) -> tuple[int, ...]:
    """Return the context in pixels that a tile needs on each side, per axis.

    For "same" convolutions: the dependency of an aligned block, rounded up to the total stride, so that the outer part
    starts on the pooling grid too. For "valid" ones: the border that the convolutions eat. For the network of another
    program: what its author says, rounded likewise where a tile of a fixed size leaves room for it.
    """
    if isinstance(spec, ForeignSpec):
        return tuple(_foreign_margins(spec, axis)[0] for axis in range(spec.dims))
    result = []
    for axis, stride in enumerate(spec.total_stride):
        if spec.padding == "valid":
            size = next(n for n in itertools.count(stride) if valid_output(spec, axis, n))
            result.append((size - (valid_output(spec, axis, size) or 0)) // 2)
        else:
            block = 64 * stride
            low, high = dependency(spec, axis, 0, block)
            reach = max(-low, high - block)
            result.append(-(-reach // stride) * stride)
    return tuple(result)


def _foreign_margins(spec: ForeignSpec, axis: int) -> Interval:
    """Return the context before and behind what a tile contributes, at least."""
    stride, eaten, rim = spec.total_stride[axis], spec.eaten[axis], spec.halo[axis]
    before, behind = eaten + -(-rim // stride) * stride, eaten + rim
    room = spec.smallest[axis] - before - behind
    return (before, behind) if spec.step[axis] or room >= stride else (behind, behind)


def accepted(spec: Spec, edge: int) -> tuple[int, ...]:
    """Return the shape of a tile about `edge` wide that a network takes."""
    if not isinstance(spec, ForeignSpec):
        return tuple(max(s, edge // s * s) for s in spec.total_stride)
    return tuple(n + max(0, edge - n) // (s or edge + 1) * s for n, s in zip(spec.smallest, spec.step, strict=True))


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: what it reads, what it keeps, and where the kept part lies in the network's output."""

    inner: tuple[slice, ...]
    """The part of the image that this tile contributes."""
    start: tuple[int, ...]
    """First pixel read on each axis; below 0 means mirrored."""
    stop: tuple[int, ...]
    """One past the last pixel read; may lie over the border, mirrored too."""
    crop: tuple[slice, ...]
    """The kept part within the network's output."""


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How an image, or a region of one, is cut into tiles of equal outer size.

    Parameters
    ----------
    region
        What is cut; it starts on multiples of the total stride.
    canvas
        See `tiling.canvas`: no tile reaches beyond it.
    step
        Size of the inner part on each axis; a multiple of the total stride.
    before, after
        Context read on each side of the inner part.
    lead
        How many pixels of the network's output lie before the inner part.
    """

    region: tuple[slice, ...]
    canvas: Canvas
    step: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    lead: tuple[int, ...]

    @classmethod
    def make(
        cls, spec: Spec, shape: tuple[int, ...], tile: tuple[int, ...], region: tuple[slice, ...] | None = None
    ) -> TilePlan:
        """Plan tiles whose inner part is about `tile`: rounded down to the stride, evened out, no larger than the image.

        They cover a region of an image of a `shape`; None: all of it.

        Raises
        ------
        InvalidSettings
            If `tile` is smaller than the total stride.
        """
        region = region or tuple(slice(0, n) for n in shape)
        if isinstance(spec, ForeignSpec):
            return cls._foreign(spec, region, tile)
        margin, limit = halo(spec), canvas(spec, shape)
        step, after = [], []
        for axis, (part, wanted, stride) in enumerate(zip(region, tile, spec.total_stride, strict=True)):
            inner = _evened_out(part.stop - part.start, wanted, stride)
            step.append(inner)
            outer = inner + 2 * margin[axis]
            if spec.padding == "valid":
                outer = next(n for n in itertools.count(outer) if (valid_output(spec, axis, n) or 0) >= inner)
            after.append(outer - inner - margin[axis])
        lead = (0,) * spec.dims if spec.padding == "valid" else margin
        return cls(region, limit, tuple(step), margin, tuple(after), lead)

    @classmethod
    def _foreign(cls, spec: ForeignSpec, region: tuple[slice, ...], tile: tuple[int, ...]) -> TilePlan:
        step, after = [], []
        before = halo(spec)
        for axis, (part, wanted, stride) in enumerate(zip(region, tile, spec.total_stride, strict=True)):
            smallest, grows = spec.smallest[axis], spec.step[axis]
            behind = _foreign_margins(spec, axis)[1]
            if grows:
                inner = _evened_out(part.stop - part.start, wanted, stride)
                outer = smallest + max(0, -(-(before[axis] + inner + behind - smallest) // grows)) * grows
            else:
                outer, room = smallest, smallest - before[axis] - behind
                inner = room // stride * stride or room
            step.append(inner)
            after.append(outer - inner - before[axis])
        lead = tuple(b - e for b, e in zip(before, spec.eaten, strict=True))
        return cls(region, (None,) * spec.dims, tuple(step), before, tuple(after), lead)

    @property
    def outer(self) -> tuple[int, ...]:
        """Shape of what the network sees."""
        full = (a + b + c for a, b, c in zip(self.before, self.step, self.after, strict=True))
        return tuple(n if end is None else min(n, end) for n, end in zip(full, self.canvas, strict=True))

    def __len__(self) -> int:
        return math.prod(-(-(r.stop - r.start) // s) for r, s in zip(self.region, self.step, strict=True))

    def __iter__(self) -> Iterator[Tile]:
        outer = self.outer
        lost = tuple(b - k for b, k in zip(self.before, self.lead, strict=True))  # on each side, by the network
        starts = (range(r.start, r.stop, s) for r, s in zip(self.region, self.step, strict=True))
        for origin in itertools.product(*starts):
            inner = tuple(slice(o, min(o + s, r.stop)) for o, s, r in zip(origin, self.step, self.region, strict=True))
            start = tuple(
                o - b if end is None else max(0, min(o - b, end - n))
                for o, b, n, end in zip(origin, self.before, outer, self.canvas, strict=True)
            )
            yield Tile(
                inner=inner,
                start=start,
                stop=tuple(a + n for a, n in zip(start, outer, strict=True)),
                crop=tuple(slice(i.start - a - k, i.stop - a - k) for i, a, k in zip(inner, start, lost, strict=True)),
            )

    def nearest_first(self, region: tuple[slice, ...]) -> list[Tile]:
        """Return the tiles ordered by their distance to the middle of `region`, so that what is in view comes first."""
        middle = [(s.start + s.stop) / 2 for s in region]

        def distance(tile: Tile) -> float:
            return math.fsum(((s.start + s.stop) / 2 - m) ** 2 for s, m in zip(tile.inner, middle, strict=True))

        return sorted(self, key=distance)


def _evened_out(size: int, wanted: int, stride: int) -> int:
    """Return the size of tiles of about `wanted` pixels, all of them multiples of the stride and about equally large."""
    if wanted < stride:
        raise InvalidSettings(f"A tile of {wanted} pixels is too small for this model: use {stride} or more.")
    blocks = math.ceil(size / (wanted // stride * stride))
    return -(-math.ceil(size / blocks) // stride) * stride


def block_around(spec: Spec, shape: tuple[int, ...], region: tuple[slice, ...], edge: int) -> tuple[slice, ...]:
    """Return a block of an image about `edge` wide around the middle of a region, its corner on the pooling grids."""
    block = []
    for size, seen, stride in zip(shape, region, spec.total_stride, strict=True):
        low = (seen.start + seen.stop - edge) // 2
        low = max(0, min(low, size - edge)) // stride * stride
        block.append(slice(low, min(low + edge, size)))
    return tuple(block)
