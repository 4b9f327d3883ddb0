"""segment_by_regions(): images larger than memory, block by block, into an OME-Zarr; a kill loses the block under way.

With an object diameter all stages but the last work on what the network sees (see `zoom`). Classes are written as they
come. Objects are those of the whole image, not an approximation, found in stages over the
blocks of a plane or volume; each block of each stage depends on finished stages only, and is marked when it is done:

1. *maps*: the network's maps, from blocks that start on the pooling grid (see `tiling`).
2. *parts*: the seeds of objects and the pieces of foreground, numbered in each block on its own. Then, without reading
   pixels again, parts that touch across the faces of blocks are one (union-find), and each gets its global marker.
3. *flood*: the watershed of a window, which is the block and a margin. Where the window ends but the image does not,
   the foreground floods too, as "unknown": a flood from outside the window cannot come earlier than that. So what the
   unknown does not reach is what the watershed of the whole image gives; and if it reaches the block, the margin is
   doubled. No object is cut, however large, and no largest size need be known.
4. *number*: sizes are summed over the blocks, small objects left out and the others numbered, as the labels are written.

The next tile is read and the last block written while the network computes. Blocks of a stage, or planes of a stack, can
be handed to other processes (`Spread`), which open the same folder and compute them with `Piece`.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import ndimage, sparse
from skimage.segmentation import watershed

from .doubts import NO_OBJECTS, doubts_of_image
from .errors import FileError, InvalidImage, LibraryError, OutOfMemory
from .execution import Executor, pick_device, probability
from .files import CHUNK, LabelStore
from .image import Image, Item
from .inference import (
    SMALLEST_TILE,
    Normalisation,
    network_for,
    object_diameter,
    parts,
    preparation,
    reader,
    record_of,
    tile_size,
)
from .levels import Extents, Levels, Part
from .linking import Chain
from .model import Model
from .objects import SEED, SMOOTHING, inwardness, labels_from_maps
from .settings import BatchSettings
from .storage import write_atomically
from .tiling import Canvas, Tile, TilePlan
from .zoom import Zoom

BLOCK = {2: 2048, 3: 128}
"""Edge of a block, by the dimensions of the model."""
MARGIN = {2: 64, 3: 16}
"""How far the first window of the flood reaches over its block."""
REACH = math.ceil(4 * SMOOTHING)
"""Pixels around a block that its smoothed distance depends on."""
Region = tuple[slice, ...]
Index = tuple[int, ...]
"""A block, counted along each axis."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Work that depends on finished stages only: a block of a stage, or (without a stage) a whole plane or volume."""

    item: int
    stage: str = ""
    index: Index = ()


Spread = Callable[[Sequence[Piece]], Iterator[Piece | None]]
"""Has pieces computed elsewhere, in any order, and yields each when it is on disk, and None now and then until it is."""


@dataclass(frozen=True, slots=True)
class RegionDone:
    """One stage of one block is on disk."""

    done: int
    tiles: int


@dataclass(frozen=True, slots=True)
class RegionsDone:
    """The labels are complete and stand at their place; the work folder is deleted when the next event is asked for."""

    doubts: str = ""
    """Why they should not be believed without a look, as in `inference.Segmented`."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A shape cut into blocks of equal edges; those at the far border are cut off."""

    shape: tuple[int, ...]
    edge: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // e) for n, e in zip(self.shape, self.edge, strict=True))

    def __iter__(self) -> Iterator[Index]:
        return np.ndindex(*self.counts)

    def __len__(self) -> int:
        return math.prod(self.counts)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Size of the chunks of an array that is written block by block: they divide the blocks."""
        return tuple(
            min(next(e // k for k in itertools.count(1) if e % k == 0 and e // k <= CHUNK), n)
            for e, n in zip(self.edge, self.shape, strict=True)
        )

    def region(self, index: Index) -> Region:
        """Return where a block lies."""
        return tuple(slice(i * e, min((i + 1) * e, n)) for i, e, n in zip(index, self.edge, self.shape, strict=True))

    def grown(self, region: Region, margin: int) -> Region:
        """Return a region with a margin, as far as the shape reaches."""
        return tuple(
            slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(region, self.shape, strict=True)
        )

    def touching(self, region: Region) -> Iterator[Index]:
        """Yield the blocks that share pixels with a region."""
        yield from itertools.product(
            *(range(s.start // e, -(-s.stop // e)) for s, e in zip(region, self.edge, strict=True))
        )

    def pairs(self) -> Iterator[tuple[int, Index, Index]]:
        """Yield an axis and two blocks that share a face across it."""
        for index in self:
            for axis, count in enumerate(self.counts):
                if index[axis] + 1 < count:
                    yield axis, index, tuple(i + (a == axis) for a, i in enumerate(index))


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What a stage made of a block."""

    pixels: tuple[tuple[Any, Region, NDArray[Any]], ...]
    """Values with the array and the region of it where they belong."""
    notes: dict[str, NDArray[Any]] = field(default_factory=dict)
    """What is remembered with the mark."""


class Work:
    """The folder of an unfinished output: arrays, and a mark for everything that is done.

    Parameters
    ----------
    folder
        Where; begun anew if what is there was begun for another key.
    key
        All that decides the result.
    joined
        Somebody else has begun it; then another key is an error.
    """

    def __init__(self, folder: Path, key: str, *, joined: bool = False) -> None:
        self.folder = folder
        path = folder / "key.json"
        if joined:
            if not path.is_file() or path.read_text("utf-8") != key:
                raise FileError(f"{folder} was begun for something else: run the batch again.")
            return
        if folder.exists() and (not path.is_file() or path.read_text("utf-8") != key):
            shutil.rmtree(folder)
        if not folder.exists():
            write_atomically(path, key.encode())
        zarr.open_group(str(folder / "arrays"), mode="a", zarr_format=3)  # by one, before others make arrays in it

    def has(self, name: str) -> bool:
        """Tell whether something is done."""
        return (self.folder / f"{name}.npz").is_file()

    def mark(self, name: str, **arrays: NDArray[Any]) -> None:
        """Remember that something is done, and what came out of it."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        write_atomically(self.folder / f"{name}.npz", content.getvalue())

    def read(self, name: str, *keys: str) -> dict[str, NDArray[Any]]:
        """Return what was remembered, or of that what is named."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in keys or file}

    def array(self, name: str, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: Any) -> zarr.Array[Any]:
        """Open an array, made when it is not there."""
        group = zarr.open_group(str(self.folder / "arrays"), mode="a", zarr_format=3)
        return group.require_array(name, shape=shape, chunks=chunk, dtype=dtype, fill_value=0)

    def drop(self, item: str) -> None:
        """Delete what was only needed for one plane or volume."""
        shutil.rmtree(self.folder / item, ignore_errors=True)
        shutil.rmtree(self.folder / "arrays" / item, ignore_errors=True)

    def save(self, mark: str, found: Computed) -> None:
        """Write what came out of a block, then its mark."""
        for array, region, values in found.pixels:
            array[region] = values
        self.mark(mark, **found.notes)

    def finish(self) -> None:
        """Delete the folder."""
        (self.folder / "key.json").unlink(missing_ok=True)  # what a kill leaves is then not taken for good
        shutil.rmtree(self.folder, ignore_errors=True)


def segment_by_regions(
    image: Image,
    model: Model,
    settings: BatchSettings,
    target: Path,
    source: dict[str, Any],
    spread: Spread | None = None,
) -> Iterator[RegionDone | RegionsDone]:
    """Segment an image of any size into the OME-Zarr or TIFF `target`; its memory is that of a few blocks.

    Started again with the same arguments it goes on after the last finished block, and the result is the same.

    Parameters
    ----------
    image, model, settings
        What, with what, how.
    target
        Where the labels go; it is there when they are complete. Until then a hidden folder beside it holds the work.
    source
        What tells this image from another one.
    spread
        Who computes; None: this process.

    Raises
    ------
    InvalidImage, FileError, OutOfMemory, DeviceError
    """
    if settings.segment.probabilities:
        raise InvalidImage(
            f"{image.name!r} is computed region by region, which gives labels only: leave out probabilities."
        )
    try:
        run = Run(image, model, settings, target, source, spread)
        with run.threads:
            yield from run.events()
    except InvalidImage:
        shutil.rmtree(work_folder(target), ignore_errors=True)
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            f"{target} cannot be written: {reason}; free some space or mend the folder, then resume."
        ) from error
    except LibraryError as error:  # from write_atomically: here it is about no model
        raise FileError(str(error)) from error


def work_folder(target: Path) -> Path:
    """Return the hidden folder beside an output where it is prepared."""
    return target.with_name(f".{target.name}.parts")


class Run:
    """One image on its way into one output.

    Parameters
    ----------
    image, model, settings, target, source, spread
        As for `segment_by_regions`.
    device
        Where to compute; empty: as the settings say.
    joined
        The output was begun by another process, for which pieces are computed here.
    """

    def __init__(
        self,
        image: Image,
        model: Model,
        settings: BatchSettings,
        target: Path,
        source: dict[str, Any],
        spread: Spread | None = None,
        *,
        device: str = "",
        joined: bool = False,
    ) -> None:
        spec = model.card.spec
        self.image, self.model, self.settings, self.target = image, model, settings, target
        self.items = list(image.items(spec.dims, settings.segment.channel, spec.in_channels))
        self.thresholds = settings.segment.objects or model.card.objects
        self._device, self.spread = device or settings.segment.device, spread
        full = self.items[0].shape
        edge = _edge(full, settings.block or BLOCK[spec.dims], spec.total_stride)
        self.blocks = Blocks(full, edge)
        """In which the labels are written."""
        how = asdict(replace(settings, resume=True, ending=".zarr", workers=0, scheduler=""))
        key = {"model": model.card.content_hash, "settings": how, "source": source, "edge": edge}
        self.work = Work(work_folder(target), json.dumps(key, sort_keys=True, default=str), joined=joined)
        self.is_objects = model.card.task == "objects"
        self.linked = settings.link != "none" and self.is_objects
        self.threads = ThreadPoolExecutor(2, "napari-unet disk")
        """One reads the next tile and one writes the last block while the network computes."""
        self.done = 0
        self._part: _Part | None = None

    @cached_property
    def network(self) -> Levels | Executor:
        """The network, made ready when the first block needs it."""
        return network_for(self.model, self.settings.segment.tile, pick_device(self._device))

    @cached_property
    def diameter(self) -> int | None:
        """Given or estimated, once, also when the run is resumed."""
        if not self.work.has("diameter"):
            found = object_diameter(self.image, self.model, self.settings.segment)
            self.work.mark("diameter", found=np.array(json.dumps(found)))
        given: int | None = json.loads(str(self.work.read("diameter")["found"]))
        return given

    @cached_property
    def zoom(self) -> Zoom:
        """How large the network sees the image."""
        return Zoom.make(self.model.card, self.diameter, self.items[0].shape)

    @cached_property
    def seen(self) -> Blocks:
        """In which the network sees a plane or volume."""
        spec = self.model.card.spec
        wanted = self.settings.block or BLOCK[spec.dims]
        return Blocks(self.zoom.seen, _edge(self.zoom.seen, wanted, spec.total_stride))

    @cached_property
    def labels(self) -> LabelStore:
        """The finished labels."""
        return self._labels("final")

    @cached_property
    def unlinked(self) -> LabelStore:
        """The labels of each plane or volume on its own."""
        return self._labels("unlinked") if self.linked else self.labels

    @cached_property
    def scale(self) -> Normalisation:
        """Found by a look at the whole image, once, also when the run is resumed."""
        if not self.work.has("scale"):
            found = preparation(self.items, self.model.card, self.settings.segment, self.image.name)
            self.work.mark("scale", found=np.array(json.dumps(asdict(found))))
        return Normalisation.from_record(json.loads(str(self.work.read("scale")["found"])))

    def events(self) -> Iterator[RegionDone | RegionsDone]:
        """Compute what is not done."""
        if self.work.has("begun") and not (self.work.folder / "final.zarr").is_dir() and self.target.exists():
            yield RegionsDone()  # a kill came after the labels were moved to their place
            self.work.finish()
            return
        self.work.mark("begun")
        arrays = self.labels, self.unlinked, self.scale  # made before anybody else asks for them
        todo = [number for number in range(len(self.items)) if not self.work.has(f"item{number}")]
        yield self.advance((len(self.items) - len(todo)) * self.steps)
        if self.spread and len(todo) >= len(self.blocks):  # a stack of many planes: each is one piece
            for piece in self.spread([Piece(number) for number in todo]):
                yield self.advance(self.steps if piece else 0)
        else:
            for number in todo:
                yield from self.part(number).events()
        highest = max(int(self.work.read(f"item{number}")["highest"]) for number in range(len(self.items)))
        if self.linked:
            highest = yield from self._link()
        record = record_of(
            self.image,
            self.model,
            self.settings.segment,
            self.thresholds,
            arrays[2],
            self._device,
            self.blocks.edge,
            self.diameter,
        )
        if self.linked:
            record |= {"link": self.settings.link, "overlap": self.settings.overlap}
        self.labels.finish(self.target, record, highest)
        scale = self.scale
        against = doubts_of_image(self.image, self.model.card, scale.contrast, scale.middle, self.zoom.factor)
        yield RegionsDone(NO_OBJECTS if self.is_objects and not highest else against)
        self.work.finish()

    def compute(self, piece: Piece) -> Iterator[tuple[int, int]]:
        """Compute a piece for the process that has begun the output; yields how many of how many blocks are done."""
        part, before = self.part(piece.item), self.done
        if piece.stage:
            part.finish(piece)
            yield 1, 1
        else:
            for event in part.events():
                yield event.done - before, self.steps

    def part(self, number: int) -> _Part:
        """Return the stages of one plane or volume; kept as long as it is the same one."""
        if self._part is None or self._part.number != number:
            self._part = self._kind(self, number)
        return self._part

    @property
    def _kind(self) -> type[_Part]:
        if not self.is_objects:
            return _Classes
        return _Whole if len(self.blocks) == len(self.seen) == 1 else _Objects

    @property
    def steps(self) -> int:
        """Stages of all blocks of a plane or volume."""
        return sum(len(self.blocks_of(stage)) for stage in self._kind.stages)

    def blocks_of(self, stage: str) -> Blocks:
        """Return the blocks of a stage: the last one writes the labels."""
        return self.blocks if stage == self._kind.stages[-1] else self.seen

    def advance(self, step: int = 1) -> RegionDone:
        """Count a stage of a block."""
        self.done += step
        return RegionDone(self.done, self.steps * len(self.items))

    def _labels(self, name: str) -> LabelStore:
        sizes = dict(zip(self.items[0].spatial, self.blocks.chunk, strict=True))
        chunk = tuple(sizes.get(a, 1) for a in self.image.label_axes)
        small = np.uint8 if len(self.model.card.classes) <= 256 else np.uint16
        dtype = np.dtype(np.uint32 if self.is_objects else small)
        return LabelStore(self.work.folder / f"{name}.zarr", self.image, dtype, chunk)

    def _link(self) -> Generator[RegionDone, None, int]:
        """Give objects that overlap from one plane to the next one number, and return the highest.

        Quick, so done again when resumed.
        """
        used = 0
        along = self.settings.link
        series: dict[tuple[int, ...], list[int]] = {}
        for number, item in enumerate(self.items):
            series.setdefault(tuple(p for a, p in item.position.items() if a != along), []).append(number)
        for numbers in series.values():
            chain = Chain(self.settings.overlap)
            before: Item | None = None
            for number in numbers:
                item = self.items[number]
                highest = int(self.work.read(f"item{number}")["highest"])
                regions = [self.blocks.region(index) for index in self.blocks]
                shared = [] if before is None else [(before.region(r), item.region(r)) for r in regions]
                chain.extend(highest, ((self.unlinked[a], self.unlinked[b]) for a, b in shared))
                for region in map(item.region, regions):
                    self.labels[region] = chain.numbers[self.unlinked[region]].astype(np.uint32)
                    yield self.advance(0)
                used = max(used, int(chain.numbers.max()))
                before = item
        return used


class _Part(ABC):
    """The stages of one plane or volume, each over all its blocks."""

    stages: tuple[str, ...]

    def __init__(self, run: Run, number: int) -> None:
        self.run, self.number, self.item = run, number, run.items[number]
        self.blocks, self.work = run.seen, run.work
        self._reading: tuple[object, Future[NDArray[Any]]] | None = None

    def events(self) -> Iterator[RegionDone]:
        """Compute what is not done, here or by those that the run knows."""
        for stage in self.stages:
            self.prepare(stage)
            blocks = self.run.blocks_of(stage)
            todo = [index for index in blocks if not self.work.has(self._mark(stage, index))]
            yield self.run.advance(len(blocks) - len(todo))
            if self.run.spread:
                done = self.run.spread([Piece(self.number, stage, index) for index in todo])
            else:
                done = self._here(stage, todo)
            for piece in done:
                yield self.run.advance(1 if piece else 0)
        self.work.mark(f"item{self.number}", highest=np.array(self.highest_label()))
        self.work.drop(str(self.number))

    def prepare(self, stage: str) -> None:  # noqa: B027 (not every part has something to prepare)
        """Put together what a stage needs of all blocks; once, by the process that began the output."""

    @abstractmethod
    def compute(self, stage: str, index: Index, following: Index | None = None) -> Computed:
        """Compute a stage of a block; `following` is the block after it, whose reading begins meanwhile."""

    @abstractmethod
    def highest_label(self) -> int:
        """Return the highest number in the finished labels."""

    def finish(self, piece: Piece) -> None:
        """Compute a piece and write it."""
        self.work.save(self._mark(piece.stage, piece.index), self.compute(piece.stage, piece.index))

    def _here(self, stage: str, todo: list[Index]) -> Iterator[Piece]:
        """Compute blocks here, each while the last one is written."""
        last: tuple[Piece, Future[None]] | None = None
        for index, following in itertools.zip_longest(todo, todo[1:]):
            found = self.compute(stage, index, following)
            if last is not None:
                last[1].result()
                yield last[0]
            saving = self.run.threads.submit(self.work.save, self._mark(stage, index), found)
            last = Piece(self.number, stage, index), saving
        if last is not None:
            last[1].result()
            yield last[0]

    def _mark(self, stage: str, index: Index) -> str:
        return f"{self.number}/{stage}{'_'.join(map(str, index))}"

    def _tiles(self, index: Index, following: Index | None, classes: bool = False) -> Iterator[Part]:
        """Run the network on a block; yields where a tile lies with its logits or `classes`, all again when memory ran out."""
        spec, network, settings = self.run.model.card.spec, self.run.network, self.run.settings.segment
        part = tuple(s.stop - s.start for s in self.blocks.region(index))
        size = tile_size(network, settings, self.blocks.shape, part)
        while True:
            tiles = self._plan(index, size)
            first_of_next = [next(iter(self._plan(following, size)))] if following else []
            order = [_reach(network, tile, tiles.canvas) for tile in (*tiles, *first_of_next)]
            read = partial(self._read, dict(itertools.pairwise(order)))
            try:
                yield from filter(None, parts(network, read, tiles, None, self.run.scale, classes))
                return
            except OutOfMemory:
                smallest = max(SMALLEST_TILE, *spec.total_stride)
                if max(size) <= smallest:
                    raise
                size = tuple(max(smallest, n // 2) for n in size)

    def _probabilities(self, index: Index, following: Index | None) -> NDArray[np.float16]:
        """Return the three maps of a block of the `objects` task."""
        block = self.blocks.region(index)
        maps = np.zeros((3, *(s.stop - s.start for s in block)), dtype=np.float16)
        for place, logits in self._tiles(index, following):
            maps[(slice(None), *_within(place, block))] = probability(logits, True)
        return maps

    def _written(self, index: Index, read: Callable[[Region], NDArray[Any]]) -> tuple[Any, Region, NDArray[Any]]:
        """Return a block of the labels with its place; `read` gives them as made of what the network saw."""
        block = self.run.blocks.region(index)
        where = self.item.region(block)
        return self.run.unlinked, where, self.run.zoom.objects(read, block).reshape([s.stop - s.start for s in where])

    def _plan(self, index: Index, size: tuple[int, ...]) -> TilePlan:
        return TilePlan.make(self.run.model.card.spec, self.blocks.shape, size, self.blocks.region(index))

    def _read(self, follows: dict[tuple[Index, Index], tuple[Index, Index]], start: Index, stop: Index) -> NDArray[Any]:
        """Read a tile, and begin with the one that follows."""
        read = reader(self.run.network, self.run.zoom.item(self.item), self.run.scale)
        begun = self._reading and self._reading[0] == (start, stop) and self._reading[1]
        pixels = begun.result() if begun else read(start, stop)
        then = follows.get((start, stop))
        self._reading = (then, self.run.threads.submit(read, *then)) if then else None
        return pixels


class _Classes(_Part):
    stages = ("classes",)

    def compute(self, stage: str, index: Index, following: Index | None = None) -> Computed:
        """See `_Part`."""
        block = self.blocks.region(index)
        classes = np.zeros([s.stop - s.start for s in block], dtype=np.uint16)
        for place, found in self._tiles(index, following, classes=True):
            classes[_within(place, block)] = found[0]
        where = self.item.region(block)
        return Computed(((self.run.unlinked, where, classes.reshape([s.stop - s.start for s in where])),))

    def highest_label(self) -> int:
        """See `_Part`."""
        return len(self.run.model.card.classes) - 1


class _Whole(_Part):
    """Objects of a plane or volume that is one block: nothing goes through the disk but the labels."""

    stages = ("whole",)

    def compute(self, stage: str, index: Index, following: Index | None = None) -> Computed:
        """See `_Part`."""
        found = labels_from_maps(self._probabilities(index, following), self.run.thresholds)
        pixels = self._written(index, found.__getitem__)
        return Computed((pixels,), {"highest": np.array(found.max(initial=0))})

    def highest_label(self) -> int:
        """See `_Part`."""
        (index,) = self.blocks
        return int(self.work.read(self._mark("whole", index))["highest"])


class _Objects(_Part):
    stages = ("maps", "parts", "flood", "number")

    def __init__(self, run: Run, number: int) -> None:
        super().__init__(run, number)
        self.thresholds = run.thresholds
        shape, chunk = self.blocks.shape, self.blocks.chunk
        self.maps = self.work.array(f"{number}/maps", (3, *shape), (3, *chunk), np.float16)
        self.seeds = self.work.array(f"{number}/seeds", shape, chunk, np.int32)
        self.pieces = self.work.array(f"{number}/pieces", shape, chunk, np.int32)
        self.flooded = self.work.array(f"{number}/flooded", shape, chunk, np.int32)

    def prepare(self, stage: str) -> None:
        """See `_Part`."""
        made = {"flood": ("joined", self._join), "number": ("numbers", self._count)}.get(stage)
        if made and not self.work.has(mark := f"{self.number}/{made[0]}"):
            self.work.mark(mark, **made[1]())

    def compute(self, stage: str, index: Index, following: Index | None = None) -> Computed:
        """See `_Part`."""
        if stage == "maps":
            return self._map(index, following)
        return {"parts": self._find_parts, "flood": self._flood, "number": self._number}[stage](index)

    def highest_label(self) -> int:
        """See `_Part`."""
        return int(self._numbers.max(initial=0))

    def _map(self, index: Index, following: Index | None) -> Computed:
        block = (slice(None), *self.blocks.region(index))
        return Computed(((self.maps, block, self._probabilities(index, following)),))

    def _landscape(self, region: Region) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return foreground and smoothed distance, as `objects.labels_from_maps` has them for the whole image."""
        outer = self.blocks.grown(region, REACH)
        maps = np.asarray(self.maps[(slice(None), *outer)])
        crop = _within(region, outer)
        return maps[0][crop] > self.thresholds.foreground_threshold, inwardness(maps)[crop]

    def _find_parts(self, index: Index) -> Computed:
        block = self.blocks.region(index)
        foreground, inner = self._landscape(block)
        seeds, seed_count = ndimage.label((inner > self.thresholds.seed_threshold) & foreground)
        pieces, piece_count = ndimage.label(foreground)
        piece_of_seed = np.zeros(seed_count + 1, dtype=np.int64)
        piece_of_seed[seeds] = pieces
        faces = {
            f"{kind}{axis}{end}": parts.take(0 if end == "low" else -1, axis)
            for kind, parts in (("seeds", seeds), ("pieces", pieces))
            for axis in range(seeds.ndim)
            for end in ("low", "high")
        }
        sizes = np.bincount(seeds.ravel(), minlength=seed_count + 1)
        return Computed(
            ((self.seeds, block, seeds), (self.pieces, block, pieces)),
            {"piece_of_seed": piece_of_seed, "sizes": sizes, "count": np.array(piece_count), **faces},
        )

    def _join(self) -> dict[str, NDArray[Any]]:
        """Find out which parts are one, and give each seed, and each piece without a seed, a marker.

        Markers stand in the order of the blocks, those of block i at ``first[i] : first[i + 1]``.
        """
        names = {index: self._mark("parts", index) for index in self.blocks}
        parts = [self.work.read(name, "piece_of_seed", "sizes", "count") for name in names.values()]
        counts = {"seeds": [len(p["sizes"]) - 1 for p in parts], "pieces": [int(p["count"]) for p in parts]}
        first = {kind: np.array([0, *itertools.accumulate(n)]) for kind, n in counts.items()}
        groups = {kind: self._groups(kind, names, first[kind]) for kind in first}
        seeds, pieces = groups["seeds"], groups["pieces"]
        sizes = np.bincount(seeds, weights=np.concatenate([p["sizes"][1:] for p in parts]))
        is_seed = sizes >= SEED
        markers_of_seeds = np.where(is_seed, np.cumsum(is_seed), 0)
        piece_of_seed = pieces[
            np.concatenate(
                [p["piece_of_seed"][1:] - 1 + n for p, n in zip(parts, first["pieces"], strict=False)]
            ).astype(np.int64)
        ]
        is_unseeded = np.ones(pieces.max(initial=-1) + 1, dtype=bool)
        is_unseeded[piece_of_seed[is_seed[seeds]]] = False
        markers_of_pieces = np.where(is_unseeded, np.cumsum(is_unseeded) + is_seed.sum(), 0)
        return {
            "highest": is_seed.sum() + is_unseeded.sum(),
            "seeds": markers_of_seeds[seeds].astype(np.int32),
            "pieces": markers_of_pieces[pieces].astype(np.int32),
            "first_seeds": first["seeds"],
            "first_pieces": first["pieces"],
        }

    def _groups(self, kind: str, names: dict[Index, str], first: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the group of each part: those that touch across faces are in one. Holds two faces at a time."""
        edges, place = [np.zeros((2, 0), dtype=np.int64)], {index: i for i, index in enumerate(names)}
        for axis, a, b in self.blocks.pairs():
            one = self.work.read(names[a], key := f"{kind}{axis}high")[key]
            other = self.work.read(names[b], key := f"{kind}{axis}low")[key]
            both = (one > 0) & (other > 0)
            pair = np.unique(np.stack([one[both], other[both]]).astype(np.int64), axis=1)
            edges.append(pair + np.array([[first[place[a]] - 1], [first[place[b]] - 1]]))
        total, (row, column) = int(first[-1]), np.concatenate(edges, axis=1)
        graph = sparse.coo_array((np.ones(len(row), dtype=bool), (row, column)), shape=(total, total))
        return np.asarray(sparse.csgraph.connected_components(graph, directed=False)[1], dtype=np.int64)

    @cached_property
    def _joined(self) -> dict[str, NDArray[Any]]:
        """What `_join` found."""
        return self.work.read(f"{self.number}/joined")

    def _table(self, kind: str, index: Index) -> NDArray[np.int32]:
        """Return the marker of each part of a block; 0 for "no part"."""
        place = int(np.ravel_multi_index(index, self.blocks.counts))
        start, stop = self._joined[f"first_{kind}"][place : place + 2]
        return np.concatenate([[0], self._joined[kind][start:stop]]).astype(np.int32)

    def _flood(self, index: Index) -> Computed:
        block, margin, unknown = (
            self.blocks.region(index),
            MARGIN[len(self.blocks.shape)],
            int(self._joined["highest"]) + 1,
        )
        while True:
            window = self.blocks.grown(block, margin)
            foreground, inner = self._landscape(window)
            markers = self._markers(window)
            _mark_rim(markers, foreground, window, self.blocks.shape, unknown)
            labels = watershed(-inner, markers, mask=foreground)[_within(block, window)]  # type: ignore[no-untyped-call]
            if not (labels == unknown).any():
                break
            margin *= 2
        found, sizes = np.unique(labels, return_counts=True)
        return Computed(((self.flooded, block, labels),), {"found": found, "sizes": sizes})

    def _markers(self, window: Region) -> NDArray[np.int32]:
        result = np.zeros([s.stop - s.start for s in window], dtype=np.int32)
        for index in self.blocks.touching(window):
            block = self.blocks.region(index)
            shared = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(window, block, strict=True)
            )
            of_seeds = self._table("seeds", index)[np.asarray(self.seeds[shared])]
            of_pieces = self._table("pieces", index)[np.asarray(self.pieces[shared])]
            result[_within(shared, window)] = np.where(of_seeds, of_seeds, of_pieces)
        return result

    def _count(self) -> dict[str, NDArray[Any]]:
        """Give each marker its final number; 0 for objects that are too small."""
        sizes = np.zeros(int(self._joined["highest"]) + 1, dtype=np.int64)
        for index in self.blocks:
            known = self.work.read(self._mark("flood", index))
            sizes[known["found"]] += known["sizes"]
        keep = sizes >= self.thresholds.minimal_size
        keep[0] = False
        keep[sizes == 0] = False
        return {"numbers": np.where(keep, np.cumsum(keep), 0).astype(np.uint32)}

    @cached_property
    def _numbers(self) -> NDArray[np.uint32]:
        """What `_count` found."""
        return self.work.read(f"{self.number}/numbers")["numbers"]

    def _number(self, index: Index) -> Computed:
        return Computed((self._written(index, lambda region: self._numbers[np.asarray(self.flooded[region])]),))


def _edge(shape: tuple[int, ...], wanted: int, stride: tuple[int, ...]) -> tuple[int, ...]:
    """Return how large blocks are that begin on the pooling grid."""
    return tuple(-(-min(wanted, n) // s) * s for n, s in zip(shape, stride, strict=True))


def _mark_rim(
    markers: NDArray[np.int32], foreground: NDArray[np.bool_], window: Region, shape: tuple[int, ...], unknown: int
) -> None:
    """Mark the foreground where the window ends but the image does not, in place."""
    for axis, (w, n) in enumerate(zip(window, shape, strict=True)):
        for at, ends in ((0, w.start > 0), (-1, w.stop < n)):
            if ends:
                rim = np.moveaxis(markers, axis, 0)[at]  # a view
                rim[(rim == 0) & np.moveaxis(foreground, axis, 0)[at]] = unknown


def _within(region: Region, outer: Region) -> Region:
    return tuple(slice(r.start - o.start, r.stop - o.start) for r, o in zip(region, outer, strict=True))


def _reach(network: Levels | Executor, tile: Tile, canvas: Canvas) -> tuple[Index, Index]:
    """Return where the pixels start and stop that a tile is computed from."""
    if isinstance(network, Executor):
        return tile.start, tile.stop
    low, high = zip(*Extents.of(network.spec, tile.inner, canvas).inputs[0], strict=True)
    return low, high
