"""segment(): the tile loop over every plane or volume of an image."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import __version__
from .card import ForeignSpec, ModelCard, Step, tuples
from .conveyor import RAW
from .doubts import diameter as median_diameter
from .doubts import doubts
from .errors import InvalidImage, InvalidSettings, OutOfMemory
from .execution import Executor, pick_device, probability, run_tiles
from .image import Image, Item
from .levels import Levels, Part, Read
from .model import Model
from .objects import labels_from_maps
from .settings import ObjectSettings, SegmentSettings
from .steps import applied, measured
from .tiling import TilePlan, block_around, canvas, halo
from .unet import UNet
from .zoom import Zoom, check_diameter

SAMPLE = 1 << 24
"""Normalisation is exact up to this many pixels, and from a regular grid of about so many in larger images."""
CLIP = (-1.0, 4.0)
"""Normalised intensities are cut here, so that a hot pixel does not upset its neighbourhood."""
KEPT_MAPS = 1 << 30
"""Network maps of more bytes than this are not kept for changing thresholds afterwards."""
PREVIEW = 256
"""Edge of what is computed first in the middle of the view."""
NOWHERE = (slice(0, 0),) * 5
"""An empty region."""
SMALLEST_TILE = 32
"""Out of memory is not answered with tiles smaller than this (or the model's stride, if larger)."""

PART = {2: 1024, 3: 128}
"""Edge of the part in the middle that is looked at, by the dimensions of the model."""
LOOKS = (8, 4, 2, 1)
"""How many times smaller the model sees the image; the smallest first."""
WIDEST = 160
"""The image is not shrunk so far that wider objects would look right: where pixels are that coarse, clusters do."""
LEAST = 0.5
"""A look is believed if what it finds is at least so many times as wide as what the model knows."""
ALIKE = 1.5
"""Widths that differ by this factor at most are the same."""
LARGE = 1.5
"""Objects that are so many times as wide as what the model knows are shrunk without being asked (benchmarks/RESULTS.md)."""
HASTY = 512
"""Edge of the part that is looked at for that."""


@dataclass(frozen=True, slots=True)
class Started:
    """The image is understood, the tiles are planned."""

    tiles: int
    device: str
    label_shape: tuple[int, ...]
    label_dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True, eq=False)
class TileDone:
    """A tile is computed: its labels, a preview (foreground = 1) for the `objects` task.

    A tile of a deeper level of the network (see `levels`) has none yet: then the region is empty.
    """

    done: int
    tiles: int
    region: tuple[slice, ...]
    """Where it lies in the label array."""
    labels: NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class ItemDone:
    """The final labels of one plane or volume."""

    region: tuple[slice, ...]
    labels: NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """The result.

    Attributes
    ----------
    labels
        Shape `Image.label_shape`: 0 background, 1 and up class or object (numbered in each plane or volume from 1).
    probabilities
        float32 ``(k, *label_shape)`` if asked for: classes, or `card.OBJECT_MAPS`.
    maps
        float16 ``(3, *label_shape)`` for the `objects` task, unless too large to keep: what `relabel` needs. With an
        object diameter their spatial axes are those that the network saw.
    record
        How it was made; enough to make it again.
    doubts
        Why it should not be believed without a look, in one sentence; empty: nothing speaks against it.
    """

    labels: NDArray[np.integer]
    probabilities: NDArray[np.float32] | None
    maps: NDArray[np.float16] | None
    record: dict[str, Any]
    doubts: str = ""

    @property
    def foreground(self) -> NDArray[np.float16] | None:
        """The probability that a pixel belongs to an object, in the shape of the labels; None: no maps were kept."""
        if self.maps is None:
            return None
        zoom = Zoom(self.labels.shape, self.maps.shape[1:])
        return zoom.labels(self.maps[0].__getitem__, tuple(slice(0, n) for n in zoom.full))


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Intensities `low` and `high` (one of each a channel) become 0 and 1, or what another program's network asks for."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    sample: int
    """Pixels of each channel that were looked at."""
    steps: tuple[Step, ...] | None = None
    """The pre-processing of another program's network, with this image's statistics; None: ours."""
    middle: float | None = None
    """The median of all channels once they are normalised; None: not known."""

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Normalisation:
        """Return what was written down with `dataclasses.asdict` as JSON."""
        return cls(**{name: tuples(value) for name, value in record.items()})

    @property
    def contrast(self) -> float:
        """The span between dark and bright, the smallest of all channels."""
        return min(b - a for a, b in zip(self.low, self.high, strict=True))

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise ``(c, *spatial)``; raises InvalidImage if a value is not finite."""
        exact = np.result_type(pixels.dtype, np.float32)  # float64 for what float32 would round before the subtraction
        column = (-1,) + (1,) * (pixels.ndim - 1)
        low, high = (np.array(v, dtype=exact).reshape(column) for v in (self.low, self.high))
        result = pixels.astype(exact)
        with np.errstate(over="ignore", invalid="ignore"):  # a value that is far out of the others' range is cut
            if self.steps is None:
                result -= low
                result /= high - low
            else:
                result = applied(self.steps, result)
            result = result.astype(np.float32, copy=False)
        whole = pixels.dtype.kind != "f" or bool(np.isfinite(result).all())
        if not whole and (np.isnan(result).any() or not np.isfinite(pixels).all() or self.steps is not None):
            raise InvalidImage(
                "The image holds NaN or infinite values: replace them first, e.g. with numpy.nan_to_num."
            )
        return result.clip(*CLIP, out=result) if self.steps is None else result

    def on_device(self, pixels: Tensor) -> Tensor:
        """Normalise integers ``(n, c, *spatial)`` where they are, as a call does on the CPU; not for other programs' steps."""
        column = (-1,) + (1,) * (pixels.ndim - 2)
        low, high = (pixels.new_tensor(v, dtype=torch.float32).view(column) for v in (self.low, self.high))
        return ((pixels.float() - low) / (high - low)).clamp(*CLIP)


def preparation(items: list[Item], card: ModelCard, settings: SegmentSettings, name: str) -> Normalisation:
    """Look at the whole image once and return what is done to its pixels before a model sees them.

    Raises
    ------
    InvalidImage, InvalidSettings
        See `normalisation`; or percentiles were chosen for a network that brings its own pre-processing.
    """
    if not isinstance(card.spec, ForeignSpec):
        return normalisation(items, settings.percentiles or card.percentiles, name)
    if settings.percentiles:
        raise InvalidSettings(f"{card.name!r} brings its own pre-processing: leave the percentiles out.")
    return normalisation(items, card.percentiles, name, card.spec.before)


def normalisation(
    items: list[Item], percentiles: tuple[float, float], name: str, steps: tuple[Step, ...] | None = None
) -> Normalisation:
    """Look at the whole image once and return the intensities that become 0 and 1.

    Exact while all planes together have at most SAMPLE pixels; else from a regular grid of about that many.

    Raises
    ------
    InvalidImage
        If a value seen is NaN or infinite, or a channel is constant.
    """
    shape = items[0].shape
    total = len(items) * math.prod(shape)
    every = 1 if total <= SAMPLE else math.ceil((total / SAMPLE) ** (1 / (len(shape) + (len(items) > 1))))
    grid = tuple(slice(0, n, min(every, n)) for n in shape)
    planes = (item.read(grid) for item in items[::every])
    sample = np.concatenate([pixels.reshape(len(pixels), -1) for pixels in planes], axis=1)
    if sample.dtype.kind == "f" and not np.isfinite(sample).all():
        count = int((~np.isfinite(sample)).sum())
        raise InvalidImage(
            f"{name!r} holds {count} NaN or infinite values: replace them first, e.g. with numpy.nan_to_num."
        )
    if sample.dtype == bool:
        sample = sample.astype(np.uint8)
    low, high = np.percentile(sample, percentiles, axis=1)
    flat = high <= low
    low, high = np.where(flat, sample.min(axis=1), low), np.where(flat, sample.max(axis=1), high)
    if (high <= low).any():
        value = low[int(np.flatnonzero(high <= low)[0])]
        raise InvalidImage(
            f"Every pixel of {name!r} is {value:g}: there is nothing to segment; check channel and contrast."
        )
    if steps is not None:
        steps = measured(steps, sample)
    with np.errstate(over="ignore", invalid="ignore"):
        middle = float(np.mean((np.median(sample, axis=1) - low) / (high - low)))
    return Normalisation(tuple(map(float, low)), tuple(map(float, high)), sample.shape[1], steps, middle)


def segment(
    image: Image,
    model: Model,
    settings: SegmentSettings = SegmentSettings(),
    *,
    in_view: tuple[slice, ...] | None = None,
) -> Iterator[Started | TileDone | ItemDone | Segmented]:
    """Segment an image; the last event carries the result. To cancel, close the generator.

    Every plane (2D model) or volume (3D model) is computed in tiles that together give what one pass over the whole
    would give: level by level (see `levels`), or, with a given size of tiles, tile by tile through the whole
    network. When memory runs out the tiles are halved, down to SMALLEST_TILE.

    Parameters
    ----------
    image, model, settings
        What, with what, how.
    in_view
        A region of the label array; what lies in it is computed first.

    Raises
    ------
    InvalidImage
        If the image does not fit the model, is constant, or holds NaN or infinite values.
    InvalidSettings
        If an object diameter is given for a model that knows none.
    OutOfMemory, DeviceError
    """
    card = model.card
    if card.task == "click":
        raise InvalidImage(f"The model {card.name!r} answers clicks: choose another model to segment a whole image.")
    items = list(image.items(card.spec.dims, settings.channel, card.spec.in_channels))
    if image.channels == 1 and settings.channel not in (None, 0):
        raise InvalidImage(f"Channel {settings.channel} was asked for, but {image.name!r} has only one.")
    device = pick_device(settings.device)
    network = network_for(model, settings.tile, device)
    device = network.device
    scale = preparation(items, card, settings, image.name)
    diameter = object_diameter(image, model, settings)
    zoom = Zoom.make(card, diameter, items[0].shape)
    plan = TilePlan.make(card.spec, zoom.seen, tile_size(network, settings, zoom.seen))
    thresholds = settings.objects or card.objects

    channels = card.spec.out_channels
    is_objects = card.task == "objects"
    dtype = np.dtype(np.int32 if is_objects else np.uint8 if channels <= 256 else np.uint16)
    labels = np.zeros(image.label_shape, dtype=dtype)
    everything = tuple(slice(0, n) for n in zoom.full)
    sizes = dict(zip(items[0].spatial, zoom.seen, strict=True))
    seen_shape = [sizes.get(a, n) for a, n in zip(image.label_axes, labels.shape, strict=True)]
    keep = is_objects and 2 * channels * math.prod(seen_shape) <= KEPT_MAPS
    maps = np.zeros((channels, *seen_shape), dtype=np.float16) if keep else None
    probabilities = np.zeros((channels, *labels.shape), dtype=np.float32) if settings.probabilities else None
    with_chances = is_objects or settings.probabilities
    seen = None
    if in_view is not None:
        items.sort(key=lambda item: _distance(item, in_view))
        shown = dict(zip(image.label_axes, in_view, strict=True))
        seen = zoom.outer(tuple(shown[a] for a in items[0].spatial))
    done, tiles = 0, _steps(network, plan) * (len(items) - 1) + _steps(network, plan, seen)
    yield Started(tiles, device, labels.shape, dtype)

    for number, item in enumerate(items):
        whole = item.region(everything)
        stitched = None
        if maps is not None:
            own = maps[(slice(None), *item.region(tuple(slice(0, n) for n in zoom.seen)))]
            stitched = own.reshape(channels, *zoom.seen)  # a view, as the next
        elif is_objects:  # in half precision too: the kept maps must give the same objects, with the same thresholds
            stitched = np.zeros((channels, *zoom.seen), dtype=np.float16)
        flat = labels[whole].reshape(item.shape)  # a view: steps have length 1
        as_seen = np.zeros(zoom.seen, dtype) if zoom.changes else flat
        read = reader(network, zoom.item(item), scale)
        while True:
            try:
                for part in parts(network, read, plan, seen, scale, not with_chances, preview=number == 0):
                    done += 1
                    if part is None:
                        yield TileDone(done, tiles, NOWHERE[: labels.ndim], labels[NOWHERE[: labels.ndim]])
                        continue
                    inner, found = part
                    place = zoom.inner(inner)
                    region = item.region(place)
                    chance = found if card.is_foreign or not with_chances else probability(found, is_objects)
                    if probabilities is not None:
                        for into, values in zip(probabilities, chance, strict=True):
                            resized = zoom.labels(partial(_part_of, values, inner), place)
                            into[region] = resized.reshape(into[region].shape)
                    if stitched is not None:
                        stitched[(slice(None), *inner)] = chance
                        preview = (chance[0] > thresholds.foreground_threshold).astype(dtype)
                    else:
                        preview = (found.argmax(0) if with_chances else found[0]).astype(dtype)
                    as_seen[inner] = preview
                    flat[place] = zoom.labels(as_seen.__getitem__, place)
                    yield TileDone(done, tiles, region, labels[region])
                break
            except OutOfMemory:
                smallest = max(SMALLEST_TILE, *card.spec.total_stride)
                if max(plan.step) <= smallest:
                    raise
                smaller = TilePlan.make(card.spec, zoom.seen, tuple(max(smallest, n // 2) for n in plan.step))
                if smaller == plan:  # the network takes tiles of one size
                    raise
                plan = smaller
                tiles = done + _steps(network, plan) * (len(items) - number)
        if isinstance(network, Levels) and item is items[-1]:
            network.free()
        if stitched is not None:
            as_seen[...] = labels_from_maps(stitched, thresholds)
            flat[...] = zoom.objects(as_seen.__getitem__, everything)
        yield ItemDone(whole, labels[whole])
    record = record_of(image, model, settings, thresholds, scale, device, plan.step, diameter)
    against = doubts(image, card, labels, scale.contrast, scale.middle, zoom.factor)
    yield Segmented(labels, probabilities, maps, record, against)


def _part_of(values: NDArray[Any], outer: tuple[slice, ...], region: tuple[slice, ...]) -> NDArray[Any]:
    """Return a region of an array that begins at `outer`."""
    return values[tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(region, outer, strict=True))]


def estimate_diameter(image: Image, model: Model, settings: SegmentSettings = SegmentSettings()) -> int:
    """Estimate how wide the objects of an image are, for `SegmentSettings.diameter`.

    The middle of the middle plane (or volume) is segmented at up to four sizes, the coarsest first. Objects that are
    seen too small vanish or melt together to something small, those that are seen too large break to pieces; so the
    first look that finds objects about as wide as the model knows is believed.

    Parameters
    ----------
    image, model, settings
        As for `segment`; its diameter and its thresholds do not matter.

    Returns
    -------
    diameter
        In pixels.

    Raises
    ------
    InvalidSettings
        If it is not known how large the objects of the model should be.
    InvalidImage
        If no size shows enough objects, or the image does not fit the model.
    OutOfMemory, DeviceError
    """
    check_diameter(model.card)
    found = _estimate(image, model, settings, PART[model.card.spec.dims])
    if found is None:
        raise InvalidImage(
            f"Too few objects were found in the middle of {image.name!r} at any size: measure one and give its diameter."
        )
    return round(found)


def _estimate(image: Image, model: Model, settings: SegmentSettings, edge: int, least: float = 0) -> float | None:
    """Return the width, `least` or more, that a look at the middle of an image finds, the coarsest first; None: none does.

    A model that learned objects of many sizes must find the same width at the next closer look, where clusters come apart.
    """
    card = model.card
    dims = card.spec.dims
    items = list(image.items(dims, settings.channel, card.spec.in_channels))
    item = items[len(items) // 2]
    corner = [max(0, (n - edge) // 2) for n in item.shape]
    pixels = item.read(tuple(slice(a, a + edge) for a in corner))
    part = Image(pixels, "c" + item.spatial, name=image.name)
    thresholds = ObjectSettings() if card.scaled else card.objects  # its own were chosen for objects seen as it learned
    plain = replace(settings, channel=None, objects=thresholds, probabilities=False, tile=None)

    @cache
    def width(look: int) -> float:
        *_, last = segment(part, model, replace(plain, diameter=round(card.diameter * look)))
        assert isinstance(last, Segmented)
        return median_diameter(last.labels, dims)

    for look in LOOKS:
        known = round(card.diameter * look)
        if (look > 1 and known > WIDEST) or (look == 1 and known < least):
            continue
        found = width(look)
        if found < max(LEAST * known, least):
            continue
        if look == 1 or card.scaled:
            return found
        if _alike(found, closer := width(look // 2)):
            return closer
    return None


def _alike(one: float, other: float) -> bool:
    """Tell whether two widths, neither of them 0, are the same."""
    return min(one, other) > 0 and max(one, other) <= ALIKE * min(one, other)


def object_diameter(image: Image, model: Model, settings: SegmentSettings) -> int | None:
    """Return the diameter that was given; where none was, an estimate if the model needs one; None: as the image is.

    Models that need one learned objects at one size only (`ModelCard.scaled`). The others need it where objects are much
    larger than they know, unless they were taught on images as they are.
    """
    card = model.card
    if settings.diameter is not None or not card.estimates:
        return settings.diameter
    if card.scaled:
        with suppress(InvalidImage):  # nothing found, or nothing that can be segmented, which is told when it is tried
            return estimate_diameter(image, model, settings)
        return None
    found, large = None, LARGE * card.diameter
    taught: list[int] = card.training.get("diameters", [])
    with suppress(InvalidImage):
        found = _estimate(image, model, settings, HASTY, min([large, *(d / ALIKE for d in taught)]))
    if found is None:
        return None
    for known in taught:
        if _alike(found, known):
            return known
    return round(found) if found >= large else None


def network_for(model: Model, tile: int | None, device: str) -> Levels | Executor:
    """Return the network made ready: level by level where that is faster and no size of tiles is asked for."""
    network = model.network
    levels = None
    if isinstance(network, UNet) and tile is None and Levels.can_run(network.spec):
        levels = Levels.checked(network, device)
    return levels or Executor(network, device)


def tile_size(
    network: Levels | Executor, settings: SegmentSettings, shape: tuple[int, ...], part: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """Return in what an image of a shape, or a part of it, is computed, from the memory where no size is wanted."""
    budget = None if settings.memory is None else int(1e9 * settings.memory)
    if isinstance(network, Levels):
        return network.largest_block(part or shape, canvas(network.spec, shape), budget)
    return (settings.tile,) * len(shape) if settings.tile else network.largest_tile(halo(network.spec), budget)


def _blocks(network: Levels, plan: TilePlan, seen: tuple[slice, ...] | None, preview: bool) -> list[tuple[slice, ...]]:
    """Return the blocks in the order they are computed: first a small one in the middle of what is seen, to show soon."""
    if seen is None:
        return [tile.inner for tile in plan]
    blocks = [tile.inner for tile in plan.nearest_first(seen)]
    shape = tuple(s.stop for s in plan.region)
    if preview and len(shape) == 2 and math.prod(shape) > 4 * PREVIEW**2:
        blocks.insert(0, block_around(network.spec, shape, seen, PREVIEW))
    return blocks


def _steps(network: Levels | Executor, plan: TilePlan, seen: tuple[slice, ...] | None = None) -> int:
    """Return how many tiles a plane or volume takes; `seen` if it is the one in view."""
    if isinstance(network, Executor):
        return len(plan)
    return sum(network.steps(block, plan.canvas) for block in _blocks(network, plan, seen, preview=True))


def parts(
    network: Levels | Executor,
    read: Read,
    plan: TilePlan,
    seen: tuple[slice, ...] | None,
    scale: Normalisation,
    classes: bool,
    preview: bool = False,
) -> Iterator[Part | None]:
    """Compute a plane or volume, what is seen first.

    Yields where a tile lies with its logits, or its `classes` as one map; None for a deeper level.
    """
    if isinstance(network, Executor):
        tiles = plan if seen is None else plan.nearest_first(seen)
        for tile, found in run_tiles(network, read, tiles, scale.on_device, classes):
            yield tile.inner, found
        return
    for block in _blocks(network, plan, seen, preview):
        yield from network.run(read, block, plan.canvas, seen, scale.on_device, classes)


def relabel(result: Segmented, thresholds: ObjectSettings) -> NDArray[np.int32]:
    """Return the objects of a result for other thresholds, without running the network.

    Raises
    ------
    InvalidImage
        If the result holds no maps (another task, or too large to keep).
    """
    if result.maps is None:
        raise InvalidImage(
            "The network's maps of this result were not kept: run Segment again with the new thresholds."
        )
    dims, shape = result.record["dims"], result.labels.shape
    labels = np.zeros(shape, dtype=np.int32)
    zoom = Zoom(shape[-dims:], result.maps.shape[-dims:])
    everything = tuple(slice(0, n) for n in zoom.full)
    for position in np.ndindex(shape[:-dims]):
        found = labels_from_maps(result.maps[:, *position], thresholds)
        labels[position] = zoom.objects(found.__getitem__, everything)
    return labels


def reader(network: Levels | Executor, item: Item, scale: Normalisation) -> Read:
    """Return what reads the pixels of a region for a network: normalised, or as they are if its device does that."""
    if network.device != "cpu":
        return partial(_read_for_device, item, scale)
    return partial(read_normalised, item, scale)


def _read_for_device(item: Item, scale: Normalisation, start: tuple[int, ...], stop: tuple[int, ...]) -> NDArray[Any]:
    pixels = item.read_mirrored(start, stop)
    return pixels if pixels.dtype in RAW else scale(pixels)


def read_normalised(
    item: Item, scale: Normalisation, start: tuple[int, ...], stop: tuple[int, ...]
) -> NDArray[np.float32]:
    """Read a region, mirrored where it reaches over the border, with its intensities normalised."""
    return scale(item.read_mirrored(start, stop))


def _distance(item: Item, in_view: tuple[slice, ...]) -> float:
    """How far a plane lies from the one in view, along the axes that are stepped through."""
    seen = dict(zip(item.image.label_axes, in_view, strict=True))
    return math.fsum(abs(p - (seen[a].start + seen[a].stop - 1) / 2) for a, p in item.position.items())


def record_of(
    image: Image,
    model: Model,
    settings: SegmentSettings,
    thresholds: ObjectSettings,
    scale: Normalisation,
    device: str,
    tile: tuple[int, ...],
    diameter: int | None,
) -> dict[str, Any]:
    """Return how a result was made, as JSON values."""
    record = {
        "software": f"napari-unet {__version__}",
        "model": model.card.identity,
        "task": model.card.task,
        "classes": model.card.classes,
        "dims": model.card.spec.dims,
        "image": image.name,
        "axes": image.axes,
        "shape": image.shape,
        "settings": asdict(settings) | {"objects": asdict(thresholds)},
        "normalisation": asdict(scale),
        "diameter": diameter,
        "device": device,
        "tile": tile,
    }
    values: dict[str, Any] = json.loads(json.dumps(record))  # tuples become lists, as in a file
    return values
