"""plan_batch() and run_batch(): many images, one after the other; checked before hours are spent, resumable, reported.

A finished output has a record beside it (a hidden JSON file, written after it) of the model, the settings and the image
it was made from. Only an output whose record fits is taken for finished.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from .. import __version__
from .card import OBJECT_MAPS
from .errors import FileError, InvalidSettings, NapariUnetError
from .execution import Executor, pick_device
from .files import DAMAGED, checked_ending, collect_inputs, is_zarr, open_image, stem, write_labels, write_maps
from .image import Image, describe
from .inference import Segmented, TileDone, segment
from .linking import link
from .model import Model
from .regions import RegionDone, RegionsDone, segment_by_regions, work_folder
from .settings import BatchSettings
from .storage import write_atomically

LARGE = 1 << 25
"""Images of more label pixels than this are computed region by region if the output is a .zarr."""
BYTES_A_PIXEL = {"objects": 40, "semantic": 12}
"""Memory for an image computed at once: pixels, maps, labels, watershed."""
SCRATCH_A_PIXEL = {"objects": 12, "semantic": 1}
"""Disk that a plane or volume computed region by region takes until it is finished."""
CHANGES = {"model": "the model", "settings": "the settings", "source": "the image"}
"""What a record holds, and what it is called where it differs."""
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT)
"""What the system says when the disk is full or the folder is gone: no later image would fare better."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchItem:
    """One image of a batch, and what will become of it."""

    name: str
    source: Path | Image
    target: Path
    problem: str = ""
    """Why it cannot be segmented; empty: it can."""
    finished: bool = False
    """It was segmented before with the same model and settings, so it is skipped."""
    note: str = ""
    """What the user should know, e.g. why an earlier result is computed again."""
    words: str = ""
    """What the model makes of the image."""
    pixels: int = 0
    seconds: float = 0.0
    """Estimated; 0: not known."""
    bytes: int = 0
    """Estimated disk space while it runs."""
    by_regions: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """What a batch will do: data, made and checked before anything runs."""

    items: tuple[BatchItem, ...]
    settings: BatchSettings
    axes: str | None = None
    warning: str = ""

    @property
    def todo(self) -> tuple[BatchItem, ...]:
        """The items that will be computed."""
        return tuple(item for item in self.items if not item.problem and not item.finished)

    @property
    def seconds(self) -> float:
        """Estimated time of all; 0: not known."""
        return sum(item.seconds for item in self.todo)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item."""

    name: str
    source: str
    target: str
    state: str
    """done, skipped, failed, or not begun."""
    sentence: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What became of a batch."""

    model: str
    outcomes: tuple[Outcome, ...]

    @property
    def complete(self) -> bool:
        """Whether every item is segmented, now or before."""
        return all(o.state in ("done", "skipped") for o in self.outcomes)

    def sentence(self) -> str:
        """Say it in one line: ``"7 done, 2 skipped, 1 failed"``."""
        count = Counter(o.state for o in self.outcomes)
        return ", ".join(f"{count[s]} {s}" for s in ("done", "skipped", "failed", "not begun") if count[s])

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        about = {"software": f"napari-unet {__version__}", **asdict(self), "complete": self.complete}
        _write_json(path, about)


@dataclass(frozen=True, slots=True, eq=False)
class ItemStarted:
    number: int
    item: BatchItem


@dataclass(frozen=True, slots=True, eq=False)
class ItemProgress:
    """So many of the item's tiles (or regions) are done."""

    number: int
    done: int
    tiles: int


@dataclass(frozen=True, slots=True, eq=False)
class ItemFinished:
    """An item was computed, was skipped or failed; `outcome` says which."""

    number: int
    item: BatchItem
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class BatchDone:
    """The end; also when it was stopped by a full disk."""

    report: BatchReport


Source = str | Path | Image


def plan_batch(
    sources: Sequence[Source], out: str | Path, model: Model, settings: BatchSettings, axes: str | None = None
) -> BatchPlan:
    """Look at every image without reading its pixels, and say what a batch will do.

    Parameters
    ----------
    sources
        Files, folders, patterns, or images that are open.
    out
        A folder (made when needed), or for a single image the file.
    model, settings
        With what and how.
    axes
        For files; None: what each of them says.

    Raises
    ------
    FileError, InvalidSettings, DeviceError
        For what concerns the whole batch. What concerns one image stands in its item.
    """
    pick_device(settings.segment.device)
    if model.card.task == "click":
        raise InvalidSettings(
            f"The model {model.card.name!r} answers clicks: choose another one to segment whole images."
        )
    if settings.link != "none" and model.card.task != "objects":
        raise InvalidSettings(f"{model.card.name!r} finds classes, which need no linking: leave out link.")
    found = list(_collected(sources))
    several = len(sources) > 1 or len(found) > 1
    folder = Path(out) if _is_folder(str(out)) else None
    if folder is None and several:
        raise FileError(f"Several images cannot all be written to {out}: give a folder, such as {Path(out).stem}/.")
    if folder is None:
        checked_ending(Path(out))
    else:
        for given in sources:
            if (
                not isinstance(given, Image)
                and Path(given).is_dir()
                and folder.resolve().is_relative_to(Path(given).resolve())
            ):
                raise FileError(
                    f"The output folder {folder} lies inside the input {given}: choose a folder outside of it."
                )
    items = []
    for source, problem in found:
        name = source.name if isinstance(source, Image) else stem(source)
        target = folder / f"{_as_file(name)}_labels{settings.ending}" if folder else Path(out)
        item = BatchItem(name, source, target, problem)
        items.append(item if problem else _checked(item, model, settings, axes))
    items = _without_clashes(items)
    plan = BatchPlan(tuple(items), settings, axes)
    return replace(plan, warning=_space(plan))


def with_times(plan: BatchPlan, model: Model) -> BatchPlan:
    """Return the plan with estimated times, from one tile computed now."""
    spec = model.card.spec
    executor = Executor(model.network, pick_device(plan.settings.segment.device))
    edge = 256 if spec.dims == 2 else 64
    tile = np.zeros((1, spec.in_channels, *(edge // s * s for s in spec.total_stride)), dtype=np.float32)
    executor(tile)  # the first is slower
    began = time.perf_counter()
    executor(tile)
    a_pixel = (time.perf_counter() - began) / tile[0, 0].size * 1.4  # what tiles share is computed twice
    return replace(plan, items=tuple(replace(item, seconds=item.pixels * a_pixel) for item in plan.items))


def run_batch(plan: BatchPlan, model: Model) -> Iterator[ItemStarted | ItemProgress | ItemFinished | BatchDone]:
    """Segment the images of a plan. To pause, ask for no further event; to cancel, close the generator.

    An item that fails does not stop the others, except where the disk is full or the output folder is gone.
    """
    outcomes: list[Outcome] = []
    stopped = ""
    for number, item in enumerate(plan.items):
        outcome = Outcome(item.name, _origin(item.source), str(item.target), "done")
        if item.problem:
            outcome = replace(outcome, state="failed", sentence=item.problem)
        elif item.finished:
            outcome = replace(outcome, state="skipped", sentence=item.note)
            shutil.rmtree(work_folder(item.target), ignore_errors=True)  # left by a kill at the very end
        elif stopped:
            outcome = replace(outcome, state="not begun", sentence=stopped)
        else:
            yield ItemStarted(number, item)
            began = time.perf_counter()
            try:
                for done, tiles in _computed(item, plan, model):
                    yield ItemProgress(number, done, tiles)
                outcome = replace(outcome, sentence=item.note, seconds=round(time.perf_counter() - began, 3))
            except (NapariUnetError, *DAMAGED, MemoryError) as error:
                outcome = replace(outcome, state="failed", sentence=_sentence(error, item))
                if _is_lost(error):
                    stopped = "The output folder is full or gone: free some space or bring it back, then resume."
        outcomes.append(outcome)
        yield ItemFinished(number, item, outcome)
    yield BatchDone(BatchReport(model.card.identity, tuple(outcomes)))


def record_path(target: Path) -> Path:
    """Return the file beside an output that says how it was made."""
    return target.with_name(f".{target.name}.json")


def probabilities_path(labels: Path) -> Path:
    """Return where the probabilities go that belong to labels."""
    ending = ".zarr" if labels.suffix.lower() == ".zarr" else ".tif"
    return labels.with_name(f"{stem(labels).removesuffix('_labels')}_probabilities{ending}")


# ---------------------------------------------------------------- the plan


def _collected(sources: Sequence[Source]) -> Iterator[tuple[Path | Image, str]]:
    """Yield each image once, or a path with what is wrong with it."""
    seen: set[Path] = set()
    for given in sources:
        if isinstance(given, Image):
            yield given, ""
            continue
        try:
            paths = collect_inputs([given])
        except FileError as error:
            yield Path(given), str(error)
            continue
        for path in paths:
            if path not in seen:
                seen.add(path)
                yield path, ""


def _is_folder(out: str) -> bool:
    path = Path(out)
    return out.endswith(("/", os.sep)) or (path.is_dir() and not is_zarr(path)) or not path.suffix


def _as_file(name: str) -> str:
    """Return a layer's name as a file's."""
    return "".join("_" if c in '<>:"/\\|?*' or ord(c) < 32 else c for c in name).strip(" .") or "image"


def _checked(item: BatchItem, model: Model, settings: BatchSettings, axes: str | None) -> BatchItem:
    """Return an item with what can be known of it before it is read."""
    spec, task = model.card.spec, model.card.task
    try:
        image = item.source if isinstance(item.source, Image) else open_image(item.source, axes=axes, lazy=True)
        first = next(image.items(spec.dims, settings.segment.channel, spec.in_channels))
        if settings.link != "none" and settings.link not in first.position:
            raise FileError(
                f"{item.name!r} has no axis {settings.link} of planes to link: name its axes, or do not link."
            )
        _check_place(item)
    except (NapariUnetError, OSError) as error:
        return replace(item, problem=str(error))
    pixels = int(np.prod([float(n) for n in image.label_shape]))
    by_regions = item.target.suffix.lower() == ".zarr" and pixels > LARGE and not settings.segment.probabilities
    needed = pixels * BYTES_A_PIXEL[task]
    if not by_regions and needed > psutil.virtual_memory().available:
        return replace(
            item,
            problem=f"{item.name!r} would need about {in_bytes(needed)} of memory: write it as .zarr, region by region.",
        )
    scratch = int(np.prod([float(n) for n in first.shape])) * SCRATCH_A_PIXEL[task] if by_regions else 0
    item = replace(
        item, words=describe(image, spec.dims), pixels=pixels, bytes=pixels // 2 + scratch, by_regions=by_regions
    )
    return _compared(item, settings, _record(item, model, settings, axes))


def _check_place(item: BatchItem) -> None:
    """Raise FileError if nothing can be written where the labels should go."""
    target = item.target
    if isinstance(item.source, Path):
        source, place = item.source.resolve(), target.resolve()
        if place == source:
            raise FileError(f"The labels would replace the image {item.source}: choose another output.")
        if is_zarr(source) and place.is_relative_to(source):
            raise FileError(f"{target} lies inside the image {item.source}: choose another output.")
    there = next(p for p in target.absolute().parents if p.exists())
    if not there.is_dir():
        raise FileError(f"{target} cannot be written: {there} is no folder; choose another output.")
    if not os.access(there, os.W_OK):
        raise FileError(f"{target} cannot be written: there is no permission for {there}; choose another output.")


def _compared(item: BatchItem, settings: BatchSettings, record: dict[str, Any]) -> BatchItem:
    """Return an item with whether it is finished already, or what has changed since."""
    if not settings.resume:
        return item
    try:
        before = json.loads(record_path(item.target).read_text("utf-8"))
    except (OSError, ValueError):
        before = None
    if not isinstance(before, dict):
        if not item.target.exists():
            return item
        problem = f"{item.target} exists, and not from a batch: move it away, or replace it (--no-resume)."
        return replace(item, problem=problem)
    if changed := [words for key, words in CHANGES.items() if before.get(key) != record[key]]:
        return replace(item, note=f"computed again, since {' and '.join(changed)} changed")
    if not item.target.exists() or before.get("state") != "done":
        return item
    return replace(item, finished=True, note="finished before")


def _record(item: BatchItem, model: Model, settings: BatchSettings, axes: str | None) -> dict[str, Any]:
    """Return all that decides a result, as JSON values."""
    how = asdict(settings.segment) | {"objects": asdict(settings.segment.objects or model.card.objects)}
    how |= {"link": settings.link, "overlap": settings.overlap, "axes": axes}
    for name in ("device", "tile"):  # they decide how fast it is
        del how[name]
    record = {
        "model": f"{model.card.identity} {model.card.content_hash}",
        "settings": how,
        "source": _identity(item.source),
    }
    values: dict[str, Any] = json.loads(json.dumps(record))
    return values


def _identity(source: Path | Image) -> dict[str, Any]:
    """Return what tells an image from another one, without reading large ones."""
    if isinstance(source, Image):
        array = source.array
        check = zlib.crc32(np.ascontiguousarray(array).data.cast("B")) if isinstance(array, np.ndarray) else None
        return {
            "name": source.name,
            "axes": source.axes,
            "shape": source.shape,
            "dtype": str(array.dtype),
            "crc": check,
        }
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    about = [p.stat() for p in files]
    return {"files": len(files), "bytes": sum(s.st_size for s in about), "changed": max(s.st_mtime_ns for s in about)}


def _without_clashes(items: list[BatchItem]) -> list[BatchItem]:
    """Return the items; two that would go to one place both have that problem."""
    result = list(items)
    first: dict[Path, int] = {}
    for i, item in enumerate(items):
        j = first.setdefault(item.target, i)
        if i != j and not item.problem:
            one, other = _origin(items[j].source), _origin(item.source)
            problem = f"{one} and {other} would both be written to {item.target}: rename one of them."
            result[i] = replace(item, problem=problem)
            if not items[j].problem:
                result[j] = replace(items[j], problem=problem)
    return result


def _space(plan: BatchPlan) -> str:
    """Say if the disk is likely too small."""
    if not plan.todo:
        return ""
    needed = sum(item.bytes for item in plan.todo)
    there = next(p for p in plan.todo[0].target.absolute().parents if p.exists())
    free = shutil.disk_usage(there).free
    return f"About {in_bytes(needed)} may be needed in {there}, but {in_bytes(free)} are free." if needed > free else ""


def in_bytes(count: float) -> str:
    """Say an amount of memory: "3.2 GB"."""
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5 or unit == "GB":
            break
    return f"{count:.{1 if count < 10 else 0}f} {unit}"


# ---------------------------------------------------------------- the run


def _computed(item: BatchItem, plan: BatchPlan, model: Model) -> Iterator[tuple[int, int]]:
    """Segment and write one item; yields how many of how many tiles are done."""
    settings = plan.settings
    image = item.source if isinstance(item.source, Image) else open_image(item.source, axes=plan.axes)
    record = _record(item, model, settings, plan.axes)
    beside = record_path(item.target)
    if item.by_regions or item.target.exists():  # also if killed now, the output will be known for our own
        _write_json(beside, record | {"state": "under way"})
    if item.by_regions:
        for event in segment_by_regions(image, model, settings, item.target, record["source"]):
            if isinstance(event, RegionDone):
                yield event.done, event.tiles
            elif isinstance(event, RegionsDone):
                _write_json(beside, record | {"state": "done"})
    else:
        result = None
        for happened in segment(image, model, settings.segment):
            if isinstance(happened, TileDone):
                yield happened.done, happened.tiles
            elif isinstance(happened, Segmented):
                result = happened
        assert result is not None, "segment() ends with Segmented"
        labels = _linked(result.labels, image, model, settings)
        about = result.record | (
            {} if settings.link == "none" else {"link": settings.link, "overlap": settings.overlap}
        )
        write_labels(item.target, labels, image, about)
        if result.probabilities is not None:
            names = OBJECT_MAPS if model.card.task == "objects" else model.card.classes
            write_maps(probabilities_path(item.target), result.probabilities, image, names, about)
        _write_json(beside, record | {"state": "done"})


def _linked(labels: NDArray[np.integer], image: Image, model: Model, settings: BatchSettings) -> NDArray[np.integer]:
    if settings.link == "none":
        return labels
    linked = np.zeros(labels.shape, dtype=np.int64)
    stepped = image.label_axes[: labels.ndim - model.card.spec.dims]
    along = stepped.index(settings.link)
    for position in np.ndindex(*(1 if i == along else n for i, n in enumerate(labels.shape[: len(stepped)]))):
        index = tuple(slice(None) if i == along else p for i, p in enumerate(position))
        linked[index] = link(labels[index], 0, settings.overlap)
    return linked


def _write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(content, indent=1, default=str).encode())
    except NapariUnetError as error:  # it speaks of models
        raise FileError(str(error)) from error


def _origin(source: Path | Image) -> str:
    return source.name if isinstance(source, Image) else str(source)


def _sentence(error: BaseException, item: BatchItem) -> str:
    if isinstance(error, NapariUnetError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{item.name!r} does not fit into memory: write it as .zarr, which is computed region by region."
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{_origin(item.source)} cannot be read or written ({reason.rstrip('.')}): check that it is complete."


def _is_lost(error: BaseException | None) -> bool:
    """Tell whether the disk is full or gone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in LOST:
            return True
        error = error.__cause__
    return False
