"""A U-Net level by level: each resolution in small tiles of its own, with the few pixels its own convolutions need.

::

    image ─ encode 0 ────────────── skip ─────────────── decode 0 ─ logits, tile by tile
               └ pool ─ encode 1 ── skip ── decode 1 ─ up ─┘
                           └ pool ─ ...  ─ up ─┘

A tile that goes through the whole network needs the context of the whole network: 96 pixels on each side for four
poolings, and the convolutions over that rim are thrown away. Here all tiles of a level are done before the next level
begins, so a tile needs the context of one level only (two pixels on each side), and what lies in the rim is computed
once. Of each level just that is computed which the block depends on (`tiling.needs`), and zeros are put around it only
where the canvas ends, before each convolution, as the network's own padding does. So the result is that of one pass over
the whole image, up to the rounding of float32.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .card import UNetSpec
from .execution import (
    Executor,
    Placed,
    Scale,
    arriving,
    check_memory,
    device_errors,
    free_memory,
    is_close,
    trial,
)
from .kernels import with_faster_kernels
from .team import Team
from .tiling import CONVOLUTIONS, Canvas, Interval, clipped, context, needs, sizes
from .unet import POOL, UNet

VALUES = {2: 1 << 20, 3: 1 << 22}
"""Values (channels times pixels) that leave a tile, by dimensions: small enough for the cache and for a quick cancel."""
DEVICE_VALUES = 1 << 24
"""The same on another device than the CPU: enough to keep it at work."""
READ = 1 << 20
"""Pixels that are read and normalised at once, for a quick cancel."""
MOST_MEMORY = 2 << 30
"""Bytes that a block takes at most; larger blocks are hardly faster."""
Box = tuple[Interval, ...]
Name = tuple[str, int]
Read = Callable[[tuple[int, ...], tuple[int, ...]], NDArray[Any]]
Part = tuple[tuple[slice, ...], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Extents:
    """What each level of the network computes for one block of the output, in pixels of that level."""

    inputs: tuple[Box, ...]
    encoded: tuple[Box, ...]
    skips: tuple[Box, ...]
    """What of the encoded is kept: the expanding convolutions of a level see less than the next level is pooled from."""
    outputs: tuple[Box, ...]
    ends: tuple[Canvas, ...]
    """Of the canvas, at each level; None: there is more on both sides of the block."""

    @classmethod
    def of(cls, spec: UNetSpec, block: tuple[slice, ...], canvas: Canvas) -> Extents:
        """Return the extents for a block whose corner lies on the pooling grids, on a canvas (or far from its ends)."""
        axes = [needs(spec, axis, s.start, s.stop, n) for axis, (s, n) in enumerate(zip(block, canvas, strict=True))]
        inputs = tuple(zip(*(a[0] for a in axes), strict=True))
        outputs = tuple(zip(*(a[1] for a in axes), strict=True))
        encoded = tuple(times(box, stride) for box, stride in zip(inputs[1:], spec.strides, strict=True))
        depth = len(spec.channels)
        ends = tuple(
            zip(*([None] * depth if n is None else sizes(spec, axis, n) for axis, n in enumerate(canvas)), strict=True)
        )
        skips = tuple(
            tuple(clipped(context(spec, level, axis, i), ends[level][axis]) for axis, i in enumerate(box))
            for level, box in enumerate(outputs[:-1])
        )
        return cls(inputs, (*encoded, outputs[-1]), (*skips, outputs[-1]), outputs, ends)

    def maps(self, spec: UNetSpec) -> dict[Name, Need]:
        """Return what is kept of a block: from when to when, counted in levels done, and how much."""
        deepest = len(spec.strides)
        entering = (spec.in_channels, *spec.channels[:-1])
        found: dict[Name, Need] = {}
        for level, (before, channels) in enumerate(zip(entering, spec.channels, strict=True)):
            back = 2 * deepest - level
            found["input", level] = Need(max(level - 1, 0), level, before * size(self.inputs[level]))
            if level < deepest:
                found["skip", level] = Need(level, back, channels * size(self.skips[level]))
            if level > 0:
                found["output", level] = Need(back, back + 1, channels * size(self.outputs[level]))
        return found

    def values(self, spec: UNetSpec) -> int:
        """Return the values of all maps together; those of the tile under way come on top."""
        return placed(self.maps(spec))[1]


@dataclass(frozen=True, slots=True)
class Need:
    """So many values, from the first to the last of some steps."""

    first: int
    last: int
    size: int


def placed(needs: dict[Name, Need]) -> tuple[dict[Name, int], int]:
    """Return where each lies in one array, and the array's size: the largest first, each as low as those leave room.

    None covers another that is needed at the same step.
    """
    places: dict[Name, int] = {}
    for name, need in sorted(needs.items(), key=lambda item: -item[1].size):
        place = 0
        for other, start in sorted(places.items(), key=lambda item: item[1]):
            theirs = needs[other]
            if need.first <= theirs.last and theirs.first <= need.last and place + need.size > start:
                place = max(place, start + theirs.size)
        places[name] = place
    return places, max(places[name] + need.size for name, need in needs.items())


def size(box: Box) -> int:
    """Return the number of pixels."""
    return math.prod(high - low for low, high in box)


def times(box: Box, stride: tuple[int, ...]) -> Box:
    """Return the pixels one level up that are pooled into a box."""
    return tuple((low * s, high * s) for (low, high), s in zip(box, stride, strict=True))


def overlap(box: Box, other: Box) -> Box:
    """Return what two boxes have in common; where they lie apart it is empty."""
    both = ((max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, other, strict=True))
    return tuple((low, max(low, high)) for low, high in both)


def within(box: Box, origin: Box) -> tuple[slice, ...]:
    """Return where a box lies in an array that covers another one."""
    return tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(box, origin, strict=True))


def cut(box: Box, edge: int, stride: tuple[int, ...]) -> list[Box]:
    """Cut a box into tiles of about equal size, at most `edge` wide if the stride allows; they start on multiples of it."""
    axes = []
    for (low, high), s in zip(box, stride, strict=True):
        count = -(-(high - low) // edge)
        step = -(-(high - low) // (count * s)) * s
        axes.append([(a, min(a + step, high)) for a in range(low, high, step)])
    return list(itertools.product(*axes))


def _distance(box: Box, region: tuple[slice, ...]) -> int:
    """Return the squared distance between the middles, in half pixels."""
    return sum((low + high - s.start - s.stop) ** 2 for (low, high), s in zip(box, region, strict=True))


class Map:
    """The values of a box of one level, in memory that is given."""

    def __init__(self, values: Tensor, box: Box) -> None:
        """Take ``values`` as ``(*box, channels)``."""
        self.box = box
        self._values = values.view(1, *(high - low for low, high in box), -1).movedim(-1, 1)

    def __getitem__(self, box: Box) -> Tensor:
        return self._values[:, :, *within(box, self.box)]

    def __setitem__(self, box: Box, values: Tensor) -> None:
        self._values[:, :, *within(box, self.box)] = values


class _Maps:
    """What is kept of a block under way, all in one array."""

    def __init__(self, spec: UNetSpec, extents: Extents, memory: Tensor) -> None:
        self.extents = extents
        needs = extents.maps(spec)
        boxes = {"input": extents.inputs, "skip": extents.skips, "output": extents.outputs}
        self.inputs: dict[int, Map] = {}
        self.skips: dict[int, Map] = {}
        self.outputs: dict[int, Map] = {}
        of = {"input": self.inputs, "skip": self.skips, "output": self.outputs}
        for (kind, level), place in placed(needs)[0].items():
            values = memory[place : place + needs[kind, level].size]
            of[kind][level] = Map(values, boxes[kind][level])
        deepest = len(spec.strides)
        self.skips[deepest] = self.outputs[deepest]


def parts(block: Any) -> list[Any]:
    """Cut the layers of a level into its convolutions, each with what follows it."""
    each = len(block) // CONVOLUTIONS
    return [block[i * each : (i + 1) * each] for i in range(CONVOLUTIONS)]


class Levels:
    """A "same" U-Net made ready to run level by level on a device."""

    def __init__(self, network: UNet, device: str = "cpu") -> None:
        self.spec, self.device = network.spec, device
        with device_errors(device):
            self._placed = Placed(network, device)
        self._network, self._layout = self._placed.network, self._placed.layout
        for module in (*self._network.encoder.modules(), *self._network.decoder.modules()):
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                module.padding = (0,) * self.spec.dims
        if device == "cpu":
            with_faster_kernels(self._network).to(memory_format=self._layout)  # type: ignore[call-overload]
        self._encoder = [parts(block) for block in self._network.encoder]
        self._decoder = [parts(block) for block in self._network.decoder]
        self._memory: Tensor | None = None

    @staticmethod
    def can_run(spec: UNetSpec) -> bool:
        """Tell whether a network can run level by level."""
        return spec.padding == "same" and len(spec.channels) > 1

    @classmethod
    def checked(cls, network: UNet, device: str) -> Levels | None:
        """Return the network made ready; None, with a word in the log, where it computes something else than in one pass.

        The CPU is not compared with itself.
        """
        levels = cls(network, device)
        if device == "cpu":
            return levels
        image = trial(network.spec)
        whole = tuple(slice(0, n) for n in image.shape[2:])
        found = np.empty((network.spec.out_channels, *image.shape[2:]), dtype=np.float32)

        def read(start: tuple[int, ...], stop: tuple[int, ...]) -> NDArray[np.float32]:
            part: NDArray[np.float32] = image[0][(slice(None), *map(slice, start, stop))]
            return part

        for part in filter(None, levels.run(read, whole, image.shape[2:])):
            found[(slice(None), *part[0])] = part[1]
        if is_close(found, Executor(network, "cpu")(image)[0]):
            return levels
        logging.getLogger(__name__).warning("%s computes something else level by level: whole tiles are used.", device)
        return None

    def memory(self, shape: tuple[int, ...], canvas: Canvas) -> int:
        """Return the bytes that a block of a shape takes, wherever it lies on a canvas."""
        ends = tuple(n if n is not None and m >= n else None for m, n in zip(shape, canvas, strict=True))
        extents = Extents.of(self.spec, tuple(slice(0, n) for n in shape), ends)
        return self._placed.dtype.itemsize * extents.values(self.spec)

    def steps(self, block: tuple[slice, ...], canvas: Canvas) -> int:
        """Return how many parts are read and how many tiles there are at all levels together."""
        extents = Extents.of(self.spec, block, canvas)
        depth = len(self.spec.strides)
        reading = len(self._parts_read(extents))
        encoding = sum(len(self._encoder_tiles(extents, level)) for level in range(depth + 1))
        return reading + encoding + sum(len(self._decoder_tiles(extents, level)) for level in range(depth))

    def largest_block(self, shape: tuple[int, ...], canvas: Canvas, budget: int | None = None) -> tuple[int, ...]:
        """Return the size of the blocks in which an image is computed: halved until one fits.

        Parameters
        ----------
        shape, canvas
            Of the image, or of the part of it that is computed, and of the whole as the network sees it.
        budget
            Bytes that it may take; None: a quarter of the free memory, at most MOST_MEMORY.
        """
        if budget is None:
            budget = min(MOST_MEMORY, free_memory(self.device) // 4)
        block = [-(-n // s) * s for n, s in zip(shape, self.spec.total_stride, strict=True)]
        while self.memory(tuple(block), canvas) > budget and any(
            n > s for n, s in zip(block, self.spec.total_stride, strict=True)
        ):
            axis = max(range(len(block)), key=lambda a: block[a] / self.spec.total_stride[a])
            stride = self.spec.total_stride[axis]
            block[axis] = -(-block[axis] // (2 * stride)) * stride
        return tuple(block)

    def run(
        self,
        read: Read,
        block: tuple[slice, ...],
        canvas: Canvas,
        in_view: tuple[slice, ...] | None = None,
        scale: Scale | None = None,
        classes: bool = False,
    ) -> Iterator[Part | None]:
        """Compute a block of the output, level by level.

        Yields None for each part that is read and each tile of a deeper level, and for each tile of the finest one where
        it lies with its logits ``(k, *tile)`` or its classes ``(1, *tile)``. Raises OutOfMemory or DeviceError.

        Parameters
        ----------
        read
            Gives pixels ``(c, *spatial)`` from start to stop.
        block
            Its corner lies on the pooling grids.
        canvas
            See `tiling.canvas`.
        in_view
            The finest tiles nearest to its middle come first.
        scale, classes
            See `Executor.begin`.
        """
        extents, depth = Extents.of(self.spec, block, canvas), len(self.spec.strides)
        threads = None if self.device == "cpu" else 1  # another device has its own
        needed = extents.values(self.spec)
        with device_errors(self.device), self._borrowed(needed) as memory, Team(threads) as team:
            maps = _Maps(self.spec, extents, memory)
            for box in self._parts_read(extents):
                self._read(maps, read, scale, box)
                yield None
            for level in range(depth + 1):
                yield from team.each(partial(self._encode, maps, level), self._encoder_tiles(extents, level))
            for level in reversed(range(1, depth)):
                yield from team.each(partial(self._expand, maps, level), self._decoder_tiles(extents, level))
            tiles = self._decoder_tiles(extents, 0)
            if in_view is not None:
                tiles.sort(key=partial(_distance, region=in_view))
            sent = team.each(partial(self._answer, maps, classes), tiles)
            for box, found in arriving(sent, self.device):
                yield tuple(slice(*interval) for interval in box), found[0]

    @contextmanager
    def _borrowed(self, needed: int) -> Iterator[Tensor]:
        """Lend the memory of the block before, if it holds so many values: pages that are new cost a tenth of the time."""
        memory, self._memory = self._memory, None
        if memory is None or memory.numel() < needed:
            memory = None
            if self.device == "cpu":
                check_memory(self._placed.dtype.itemsize * needed)
            memory = torch.empty(needed, dtype=self._placed.dtype, device=self.device)
        yield memory
        self._memory = memory

    def free(self) -> None:
        """Let go of the memory that is kept for the next block."""
        self._memory = None

    @torch.inference_mode()
    def _read(self, maps: _Maps, read: Read, scale: Scale | None, box: Box) -> None:
        low, high = zip(*box, strict=True)
        maps.inputs[0][box] = self._placed.send(read(low, high)[None], scale)

    @torch.inference_mode()
    def _encode(self, maps: _Maps, level: int, box: Box) -> None:
        ends = maps.extents.ends[level]
        around = self._around(level, box, ends)
        x = maps.inputs[level][around].contiguous(memory_format=self._layout)
        x = self._convolve(self._encoder[level], level, x, around, box, ends)
        kept = overlap(box, maps.skips[level].box)
        if size(kept):
            maps.skips[level][kept] = x[:, :, *within(kept, box)]
        if level < len(self.spec.strides):
            stride = self.spec.strides[level]
            pooled = tuple((low // s, high // s) for (low, high), s in zip(box, stride, strict=True))
            maps.inputs[level + 1][pooled] = POOL[self.spec.dims](x, stride)

    def _decode(self, maps: _Maps, level: int, box: Box) -> Tensor:
        ends, stride = maps.extents.ends[level], self.spec.strides[level]
        around = self._around(level, box, ends)
        deep = tuple((low // s, -(-high // s)) for (low, high), s in zip(around, stride, strict=True))
        up = self._network.up[level](maps.outputs[level + 1][deep].contiguous(memory_format=self._layout))
        up = up[:, :, *within(around, times(deep, stride))]
        x = torch.cat([maps.skips[level][around], up], dim=1)
        return self._convolve(self._decoder[level], level, x, around, box, ends)

    @torch.inference_mode()
    def _expand(self, maps: _Maps, level: int, box: Box) -> None:
        maps.outputs[level][box] = self._decode(maps, level, box)

    @torch.inference_mode()
    def _answer(self, maps: _Maps, classes: bool, box: Box) -> tuple[Box, Callable[[], NDArray[Any]]]:
        return box, self._placed.fetch(self._network.head(self._decode(maps, 0, box)), classes)

    def _convolve(self, convolutions: list[Any], level: int, x: Tensor, here: Box, box: Box, ends: Canvas) -> Tensor:
        """Return what a level makes of `box` from what it was given of `here`, with zeros beyond the ends of the canvas."""
        reach = [k // 2 for k in self.spec.kernels[level]]
        for left, part in zip(reversed(range(CONVOLUTIONS)), convolutions, strict=True):
            wanted = tuple(
                clipped((low - left * r, high + left * r), end)
                for (low, high), r, end in zip(box, reach, ends, strict=True)
            )
            beyond = [
                (have[0] - (low - r), high + r - have[1])
                for have, (low, high), r in zip(here, wanted, reach, strict=True)
            ]
            if any(map(any, beyond)):
                x = F.pad(x, [n for axis in reversed(beyond) for n in axis])
            x, here = part(x), wanted
        return x

    def _around(self, level: int, box: Box, ends: Canvas) -> Box:
        around = (context(self.spec, level, axis, interval) for axis, interval in enumerate(box))
        return tuple(clipped(interval, end) for interval, end in zip(around, ends, strict=True))

    def _edge(self, level: int) -> int:
        values = VALUES[self.spec.dims] if self.device == "cpu" else DEVICE_VALUES
        return int((values / self.spec.channels[level]) ** (1 / self.spec.dims))

    def _parts_read(self, extents: Extents) -> list[Box]:
        edge = int(READ ** (1 / self.spec.dims))
        return cut(extents.inputs[0], edge, (1,) * self.spec.dims)

    def _encoder_tiles(self, extents: Extents, level: int) -> list[Box]:
        stride = (*self.spec.strides, (1,) * self.spec.dims)[level]
        return cut(extents.encoded[level], self._edge(level), stride)

    def _decoder_tiles(self, extents: Extents, level: int) -> list[Box]:
        return cut(extents.outputs[level], self._edge(level), (1,) * self.spec.dims)
