"""segment_by_regions(): images larger than memory, block by block, into an OME-Zarr; a kill loses the block under way.

Classes are written as they come. Objects are those of the whole image, not an approximation, found in stages over the
blocks of a plane or volume; each block of each stage depends on finished stages only, and is marked when it is done:

1. *maps*: the network's maps, from blocks that start on the pooling grid (see `tiling`).
2. *parts*: the seeds of objects and the pieces of foreground, numbered in each block on its own. Then, without reading
   pixels again, parts that touch across the faces of blocks are one (union-find), and each gets its global marker.
3. *flood*: the watershed of a window, which is the block and a margin. Where the window ends but the image does not,
   the foreground floods too, as "unknown": a flood from outside the window cannot come earlier than that. So what the
   unknown does not reach is what the watershed of the whole image gives; and if it reaches the block, the margin is
   doubled. No object is cut, however large, and no largest size need be known.
4. *number*: sizes are summed over the blocks, small objects left out and the others numbered, as the labels are written.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import ndimage, sparse
from skimage.segmentation import watershed

from .errors import FileError, InvalidImage, LibraryError, OutOfMemory
from .execution import Executor, pick_device, run_tiles
from .files import CHUNK, LabelStore
from .image import Image, Item
from .inference import SMALLEST_TILE, Normalisation, normalisation, probability, read_normalised, record_of
from .linking import Chain
from .model import Model
from .objects import SEED, SMOOTHING, inwardness
from .settings import BatchSettings
from .storage import write_atomically
from .tiling import Tile, TilePlan, halo

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
class RegionDone:
    """One stage of one block is on disk."""

    done: int
    tiles: int


@dataclass(frozen=True, slots=True)
class RegionsDone:
    """The labels are complete and stand at their place; the work folder is deleted when the next event is asked for."""


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


class Work:
    """The folder of an unfinished output: arrays, and a mark for everything that is done.

    Parameters
    ----------
    folder
        Where; begun anew if what is there was begun for another key.
    key
        All that decides the result.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        path = folder / "key.json"
        if folder.exists() and (not path.is_file() or path.read_text("utf-8") != key):
            shutil.rmtree(folder)
        if not folder.exists():
            write_atomically(path, key.encode())

    def has(self, name: str) -> bool:
        """Tell whether something is done."""
        return (self.folder / f"{name}.npz").is_file()

    def mark(self, name: str, **arrays: NDArray[Any]) -> None:
        """Remember that something is done, and what came out of it."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        write_atomically(self.folder / f"{name}.npz", content.getvalue())

    def read(self, name: str) -> dict[str, NDArray[Any]]:
        """Return what was remembered."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
            return dict(file)

    def array(self, name: str, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: Any) -> zarr.Array[Any]:
        """Open an array, made when it is not there."""
        group = zarr.open_group(str(self.folder / "arrays"), mode="a", zarr_format=3)
        return group.require_array(name, shape=shape, chunks=chunk, dtype=dtype, fill_value=0)

    def drop(self, item: str) -> None:
        """Delete what was only needed for one plane or volume."""
        shutil.rmtree(self.folder / item, ignore_errors=True)
        shutil.rmtree(self.folder / "arrays" / item, ignore_errors=True)

    def finish(self) -> None:
        """Delete the folder."""
        (self.folder / "key.json").unlink(missing_ok=True)  # what a kill leaves is then not taken for good
        shutil.rmtree(self.folder, ignore_errors=True)


def segment_by_regions(
    image: Image, model: Model, settings: BatchSettings, target: Path, source: dict[str, Any]
) -> Iterator[RegionDone | RegionsDone]:
    """Segment an image of any size into the OME-Zarr `target`; its memory is that of a few blocks.

    Started again with the same arguments it goes on after the last finished block, and the result is the same.

    Parameters
    ----------
    image, model, settings
        What, with what, how.
    target
        Where the labels go; it is there when they are complete. Until then a hidden folder beside it holds the work.
    source
        What tells this image from another one.

    Raises
    ------
    InvalidImage, FileError, OutOfMemory, DeviceError
    """
    if settings.segment.probabilities:
        raise InvalidImage(
            f"{image.name!r} is computed region by region, which gives labels only: leave out probabilities."
        )
    try:
        yield from _Run(image, model, settings, target, source).events()
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


class _Run:
    """One call of `segment_by_regions`."""

    def __init__(
        self, image: Image, model: Model, settings: BatchSettings, target: Path, source: dict[str, Any]
    ) -> None:
        spec = model.card.spec
        self.image, self.model, self.settings, self.target = image, model, settings, target
        self.items = list(image.items(spec.dims, settings.segment.channel, spec.in_channels))
        self.thresholds = settings.segment.objects or model.card.objects
        self.device = pick_device(settings.segment.device)
        wanted = settings.block or BLOCK[spec.dims]
        shape = self.items[0].shape
        edge = tuple(-(-min(wanted, n) // s) * s for n, s in zip(shape, spec.total_stride, strict=True))
        self.blocks = Blocks(shape, edge)
        self.chunk = tuple(next(e // n for n in itertools.count(1) if e % n == 0 and e // n <= CHUNK) for e in edge)
        how = asdict(replace(settings, resume=True, ending=".zarr"))
        key = {"model": model.card.content_hash, "settings": how, "source": source, "edge": edge}
        self.work = Work(work_folder(target), json.dumps(key, sort_keys=True, default=str))
        self.is_objects = model.card.task == "objects"
        self.stages = 4 if self.is_objects else 1
        self.done = 0

    @cached_property
    def executor(self) -> Executor:
        """The network, made ready when the first block needs it."""
        return Executor(self.model.network, self.device)

    def events(self) -> Iterator[RegionDone | RegionsDone]:
        linked = self.settings.link != "none" and self.is_objects
        if self.work.has("begun") and not (self.work.folder / "final.zarr").is_dir() and self.target.exists():
            yield RegionsDone()  # a kill came after the labels were moved to their place
            self.work.finish()
            return
        final = self._labels("final")
        self.work.mark("begun")
        unlinked = self._labels("unlinked") if linked else final
        scale = self._normalisation()
        for number, item in enumerate(self.items):
            name = str(number)
            if self.work.has(f"item{name}"):
                self.done += self.stages * len(self.blocks)
                yield self.advance(0)
                continue
            if self.is_objects:
                yield from _Objects(self, item, name, scale, unlinked).events()
            else:
                for index in self.blocks:
                    if not self.work.has(mark := f"{name}/{index}"):
                        for tile, logits in self.tiles(item, index, scale):
                            region = item.region(tile.inner)
                            classes = logits.argmax(0).astype(self._dtype)
                            unlinked[region] = classes.reshape([s.stop - s.start for s in region])
                        self.work.mark(mark)
                    yield self.advance()
                self.work.mark(f"item{name}", highest=np.array(len(self.model.card.classes) - 1))
            self.work.drop(name)
        if linked:
            yield from self._link(unlinked, final)
        record = record_of(
            self.image, self.model, self.settings.segment, self.thresholds, scale, self.device, self.blocks.edge
        )
        if linked:
            record |= {"link": self.settings.link, "overlap": self.settings.overlap}
        final.finish(self.target, record)
        yield RegionsDone()
        self.work.finish()

    def tiles(self, item: Item, index: Index, scale: Normalisation) -> Iterator[tuple[Tile, NDArray[np.float32]]]:
        """Run the network on a block; yields tiles with their logits, again from the start when memory ran out."""
        spec, block = self.model.card.spec, self.blocks.region(index)
        tile = (self.settings.segment.tile,) * spec.dims if self.settings.segment.tile else None
        size = tile or self.executor.largest_tile(halo(spec))
        while True:
            plan = TilePlan.make(spec, tuple(s.stop - s.start for s in block), size)
            try:
                yield from run_tiles(
                    self.executor, partial(read_normalised, item, scale), (_moved(t, block) for t in plan)
                )
                return
            except OutOfMemory:
                smallest = max(SMALLEST_TILE, *spec.total_stride)
                if max(plan.step) <= smallest:
                    raise
                size = tuple(max(smallest, n // 2) for n in plan.step)

    def advance(self, step: int = 1) -> RegionDone:
        """Count a stage of a block."""
        self.done += step
        return RegionDone(self.done, self.stages * len(self.blocks) * len(self.items))

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(
            np.uint32 if self.is_objects else np.uint8 if len(self.model.card.classes) <= 256 else np.uint16
        )

    def _labels(self, name: str) -> LabelStore:
        sizes = dict(zip(self.items[0].spatial, self.chunk, strict=True))
        chunk = tuple(
            min(n, sizes.get(a, 1)) for a, n in zip(self.image.label_axes, self.image.label_shape, strict=True)
        )
        return LabelStore(self.work.folder / f"{name}.zarr", self.image, self._dtype, chunk)

    def _normalisation(self) -> Normalisation:
        """Look at the whole image once, also when the run is resumed."""
        if not self.work.has("scale"):
            percentiles = self.settings.segment.percentiles or self.model.card.percentiles
            found = normalisation(self.items, percentiles, self.image.name)
            self.work.mark("scale", low=np.array(found.low), high=np.array(found.high), sample=np.array(found.sample))
        known = self.work.read("scale")
        return Normalisation(tuple(known["low"].tolist()), tuple(known["high"].tolist()), int(known["sample"]))

    def _link(self, unlinked: LabelStore, final: LabelStore) -> Iterator[RegionDone]:
        """Give objects that overlap from one plane to the next one number; quick, so done again when resumed."""
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
                chain.extend(highest, ((unlinked[a], unlinked[b]) for a, b in shared))
                for region in map(item.region, regions):
                    final[region] = chain.numbers[unlinked[region]].astype(self._dtype)
                    yield self.advance(0)
                before = item


class _Objects:
    """The stages for one plane or volume."""

    def __init__(self, run: _Run, item: Item, name: str, scale: Normalisation, labels: LabelStore) -> None:
        self.run, self.item, self.name, self.scale, self.labels = run, item, name, scale, labels
        self.blocks, self.work, self.thresholds = run.blocks, run.work, run.thresholds
        chunk = tuple(min(c, n) for c, n in zip(run.chunk, item.shape, strict=True))
        self.maps = self.work.array(f"{name}/maps", (3, *item.shape), (3, *chunk), np.float16)
        self.seeds = self.work.array(f"{name}/seeds", item.shape, chunk, np.int32)
        self.pieces = self.work.array(f"{name}/pieces", item.shape, chunk, np.int32)
        self.flooded = self.work.array(f"{name}/flooded", item.shape, chunk, np.int32)

    def events(self) -> Iterator[RegionDone]:
        yield from self._stage("maps", self._map)
        yield from self._stage("parts", self._part)
        self._join()
        yield from self._stage("flood", self._flood)
        numbers = self._numbers()
        for index in self.blocks:
            region = self.blocks.region(index)
            where = self.item.region(region)
            final = numbers[np.asarray(self.flooded[region])]
            self.labels[where] = final.reshape([s.stop - s.start for s in where])
            yield self.run.advance()
        self.work.mark(f"item{self.name}", highest=np.array(numbers.max(initial=0)))

    def _stage(self, stage: str, compute: Callable[[Index], dict[str, NDArray[Any]]]) -> Iterator[RegionDone]:
        for index in self.blocks:
            if not self.work.has(self._mark(stage, index)):
                self.work.mark(self._mark(stage, index), **compute(index))
            yield self.run.advance()

    def _mark(self, stage: str, index: Index) -> str:
        return f"{self.name}/{stage}{'_'.join(map(str, index))}"

    def _map(self, index: Index) -> dict[str, NDArray[Any]]:
        block = self.blocks.region(index)
        maps = np.zeros((3, *(s.stop - s.start for s in block)), dtype=np.float16)
        for tile, logits in self.run.tiles(self.item, index, self.scale):
            inner = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(tile.inner, block, strict=True))
            maps[(slice(None), *inner)] = probability(logits, True)
        self.maps[(slice(None), *block)] = maps
        return {}

    def _landscape(self, region: Region) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return foreground and smoothed distance, as `objects.labels_from_maps` has them for the whole image."""
        outer = self.blocks.grown(region, REACH)
        maps = np.asarray(self.maps[(slice(None), *outer)])
        crop = _within(region, outer)
        return maps[0][crop] > self.thresholds.foreground_threshold, inwardness(maps)[crop]

    def _part(self, index: Index) -> dict[str, NDArray[Any]]:
        block = self.blocks.region(index)
        foreground, inner = self._landscape(block)
        seeds, seed_count = ndimage.label((inner > self.thresholds.seed_threshold) & foreground)
        pieces, piece_count = ndimage.label(foreground)
        self.seeds[block], self.pieces[block] = seeds, pieces
        piece_of_seed = np.zeros(seed_count + 1, dtype=np.int64)
        piece_of_seed[seeds] = pieces
        faces = {
            f"{kind}{axis}{end}": parts.take(0 if end == "low" else -1, axis)
            for kind, parts in (("seeds", seeds), ("pieces", pieces))
            for axis in range(seeds.ndim)
            for end in ("low", "high")
        }
        sizes = np.bincount(seeds.ravel(), minlength=seed_count + 1)
        return {"piece_of_seed": piece_of_seed, "sizes": sizes, "count": np.array(piece_count), **faces}

    def _join(self) -> None:
        """Find out which parts are one, and give each seed, and each piece without a seed, a marker."""
        parts = {index: self.work.read(self._mark("parts", index)) for index in self.blocks}
        counts = {
            "seeds": [len(p["sizes"]) - 1 for p in parts.values()],
            "pieces": [int(p["count"]) for p in parts.values()],
        }
        first = {kind: dict(zip(parts, itertools.accumulate([0, *n]), strict=False)) for kind, n in counts.items()}
        groups = {}
        for kind in ("seeds", "pieces"):
            edges = [np.zeros((2, 0), dtype=np.int64)]
            for axis, a, b in self.blocks.pairs():
                one, other = parts[a][f"{kind}{axis}high"], parts[b][f"{kind}{axis}low"]
                both = (one > 0) & (other > 0)
                pair = np.unique(np.stack([one[both], other[both]]).astype(np.int64), axis=1)
                edges.append(pair + np.array([[first[kind][a] - 1], [first[kind][b] - 1]]))
            total, (row, column) = sum(counts[kind]), np.concatenate(edges, axis=1)
            graph = sparse.coo_array((np.ones(len(row), dtype=bool), (row, column)), shape=(total, total))
            groups[kind] = sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
        seeds, pieces = groups["seeds"], groups["pieces"]
        sizes = np.bincount(seeds, weights=np.concatenate([p["sizes"][1:] for p in parts.values()]))
        is_seed = sizes >= SEED
        markers_of_seeds = np.where(is_seed, np.cumsum(is_seed), 0)
        piece_of_seed = pieces[
            np.concatenate([p["piece_of_seed"][1:] - 1 + first["pieces"][i] for i, p in parts.items()]).astype(np.int64)
        ]
        is_unseeded = np.ones(pieces.max(initial=-1) + 1, dtype=bool)
        is_unseeded[piece_of_seed[is_seed[seeds]]] = False
        markers_of_pieces = np.where(is_unseeded, np.cumsum(is_unseeded) + is_seed.sum(), 0)
        self.highest = int(is_seed.sum() + is_unseeded.sum())
        self.markers = {
            index: (
                _table(markers_of_seeds[seeds[first["seeds"][index] :][: len(p["sizes"]) - 1]]),
                _table(markers_of_pieces[pieces[first["pieces"][index] :][: int(p["count"])]]),
            )
            for index, p in parts.items()
        }

    def _flood(self, index: Index) -> dict[str, NDArray[Any]]:
        block, margin, unknown = self.blocks.region(index), MARGIN[len(self.blocks.shape)], self.highest + 1
        while True:
            window = self.blocks.grown(block, margin)
            foreground, inner = self._landscape(window)
            markers = self._markers(window)
            _mark_rim(markers, foreground, window, self.blocks.shape, unknown)
            labels = watershed(-inner, markers, mask=foreground)[_within(block, window)]  # type: ignore[no-untyped-call]
            if not (labels == unknown).any():
                break
            margin *= 2
        self.flooded[block] = labels
        found, sizes = np.unique(labels, return_counts=True)
        return {"found": found, "sizes": sizes}

    def _markers(self, window: Region) -> NDArray[np.int32]:
        result = np.zeros([s.stop - s.start for s in window], dtype=np.int32)
        for index in self.blocks.touching(window):
            block = self.blocks.region(index)
            shared = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(window, block, strict=True)
            )
            of_seeds, of_pieces = self.markers[index]
            markers = of_seeds[np.asarray(self.seeds[shared])]
            result[_within(shared, window)] = np.where(markers, markers, of_pieces[np.asarray(self.pieces[shared])])
        return result

    def _numbers(self) -> NDArray[np.uint32]:
        """Return the final number of each marker; 0 for objects that are too small."""
        sizes = np.zeros(self.highest + 1, dtype=np.int64)
        for index in self.blocks:
            known = self.work.read(self._mark("flood", index))
            sizes[known["found"]] += known["sizes"]
        keep = sizes >= self.thresholds.minimal_size
        keep[0] = False
        keep[sizes == 0] = False
        return np.where(keep, np.cumsum(keep), 0).astype(np.uint32)


def _table(markers: NDArray[np.int64]) -> NDArray[np.int32]:
    """Put 0 for "no part" before the markers of parts 1, 2, ..."""
    return np.concatenate([[0], markers]).astype(np.int32)


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


def _moved(tile: Tile, block: Region) -> Tile:
    """Return a tile planned for a block, in the coordinates of the image."""
    return Tile(
        inner=tuple(slice(s.start + b.start, s.stop + b.start) for s, b in zip(tile.inner, block, strict=True)),
        start=tuple(n + b.start for n, b in zip(tile.start, block, strict=True)),
        stop=tuple(n + b.start for n, b in zip(tile.stop, block, strict=True)),
        crop=tile.crop,
    )
