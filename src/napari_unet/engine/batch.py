"""plan_batch() and run_batch(): many images, one after the other; checked before hours are spent, resumable, reported.

A finished output has a record beside it (a hidden JSON file, written after it) of the model, the settings and the image
it was made from. Only an output whose record fits is taken for finished.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import secrets
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import NDArray

from .. import __version__
from .card import OBJECT_MAPS
from .errors import ClusterError, FileError, InvalidSettings, NapariUnetError
from .execution import Executor, pick_device
from .files import DAMAGED, checked_ending, collect_inputs, is_zarr, open_image, stem, write_labels, write_maps
from .image import Image, describe
from .inference import Segmented, TileDone, segment
from .linking import link
from .model import Model
from .regions import Piece, RegionDone, RegionsDone, Run, Spread, segment_by_regions, work_folder
from .settings import BatchSettings
from .storage import write_atomically
from .tiling import accepted

if TYPE_CHECKING:
    from .cluster import Crew, Desk

LARGE = 1 << 25
"""Images of more label pixels than this are computed region by region if the output is one of BY_REGIONS."""
BY_REGIONS = (".zarr", ".tif", ".tiff")
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

    @property
    def bytes(self) -> int:
        """Estimated disk space for all."""
        return sum(item.bytes for item in self.todo)


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
    FileError, InvalidSettings, DeviceError, ClusterError
        For what concerns the whole batch. What concerns one image stands in its item.
    """
    if settings.scheduler:
        with _cluster().connected(settings.scheduler):
            pass  # it answers
    else:
        pick_device(settings.segment.device)
    if settings.workers:
        _cluster()
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
    """Return the plan with estimated times, from one tile computed now; without them where others compute."""
    if plan.settings.workers or plan.settings.scheduler:
        return plan
    spec = model.card.spec
    executor = Executor(model.network, pick_device(plan.settings.segment.device))
    edge = 256 if spec.dims == 2 else 64
    tile = np.zeros((1, spec.in_channels, *accepted(spec, edge)), dtype=np.float32)
    executor(tile)  # the first is slower
    began = time.perf_counter()
    executor(tile)
    a_pixel = (time.perf_counter() - began) / tile[0, 0].size * 1.4  # what tiles share is computed twice
    return replace(plan, items=tuple(replace(item, seconds=item.pixels * a_pixel) for item in plan.items))


Event = ItemStarted | ItemProgress | ItemFinished


def run_batch(plan: BatchPlan, model: Model) -> Iterator[Event | BatchDone]:
    """Segment the images of a plan. To pause, ask for no further event; to cancel, close the generator.

    An item that fails does not stop the others, except where the disk is full or the output folder is gone.

    Raises
    ------
    ClusterError
        If workers were asked for and are not there, or the scheduler went away while images were computed side by side.
    """
    outcomes: dict[int, Outcome] = {}
    for number, item in enumerate(plan.items):
        if item.problem or item.finished:
            outcomes[number] = _outcome(item, "failed" if item.problem else "skipped", item.problem or item.note)
            if item.finished:
                shutil.rmtree(work_folder(item.target), ignore_errors=True)  # left by a kill at the very end
            yield ItemFinished(number, item, outcomes[number])
    todo = [(number, item) for number, item in enumerate(plan.items) if number not in outcomes]
    apart = bool(todo and (plan.settings.workers or plan.settings.scheduler))
    for event in (_by_crew if apart else _here)(todo, plan, model):
        if isinstance(event, ItemFinished):
            outcomes[event.number] = event.outcome
        yield event
    yield BatchDone(BatchReport(model.card.identity, tuple(outcomes[i] for i in range(len(plan.items)))))


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
        if item.target.suffix.lower() == ".png" and np.prod(image.label_shape) != np.prod(image.label_shape[-2:]):
            raise FileError(f"PNG cannot hold labels of shape {image.label_shape}: choose the format .tif or .zarr.")
        _check_place(item)
    except (NapariUnetError, OSError) as error:
        return replace(item, problem=str(error))
    pixels = int(np.prod([float(n) for n in image.label_shape]))
    by_regions = item.target.suffix.lower() in BY_REGIONS and pixels > LARGE and not settings.segment.probabilities
    needed = pixels * BYTES_A_PIXEL[task]
    if not by_regions and needed > psutil.virtual_memory().available:
        return replace(
            item,
            problem=f"{item.name!r} would need about {in_bytes(needed)} of memory: write it as .zarr or .tif, region by region.",
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
    for name in ("device", "tile", "memory"):  # they decide how fast it is
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
    there = next(p for p in plan.todo[0].target.absolute().parents if p.exists())
    free = shutil.disk_usage(there).free
    if plan.bytes <= free:
        return ""
    return f"About {in_bytes(plan.bytes)} may be needed in {there}, but {in_bytes(free)} are free."


def in_bytes(count: float) -> str:
    """Say an amount of memory: "3.2 GB"."""
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5 or unit == "GB":
            break
    return f"{count:.{1 if count < 10 else 0}f} {unit}"


# ---------------------------------------------------------------- the run


FULL = "The output folder is full or gone: free some space or bring it back, then resume."
Numbered = Sequence[tuple[int, BatchItem]]


def _here(todo: Numbered, plan: BatchPlan, model: Model) -> Iterator[Event]:
    """Compute items in this process, one after the other."""
    yield from _one_by_one(todo, lambda item: _computed(item, plan.settings, plan.axes, model), lambda: "")


def _one_by_one(todo: Numbered, computed: Callable[[BatchItem], Steps], lost: Callable[[], str]) -> Iterator[Event]:
    """Compute items one after the other; `lost` says after a failure why no later one would fare better."""
    stopped = ""
    for number, item in todo:
        if stopped:
            yield ItemFinished(number, item, _outcome(item, "not begun", stopped))
            continue
        yield ItemStarted(number, item)
        began = time.perf_counter()
        try:
            doubts = yield from _numbered(number, computed(item))
        except (NapariUnetError, *DAMAGED, MemoryError) as error:
            outcome = _outcome(item, "failed", _sentence(error, item))
            stopped = FULL if _is_lost(error) else lost()
        else:
            note = f"{item.note}. {doubts}" if item.note and doubts else item.note or doubts
            outcome = _outcome(item, "done", note, time.perf_counter() - began)
        yield ItemFinished(number, item, outcome)


def _numbered(number: int, steps: Steps) -> Generator[ItemProgress, None, str]:
    """Yield the progress of an item, and return what speaks against its result."""
    while True:
        try:
            done, tiles = next(steps)
        except StopIteration as end:
            return end.value or ""
        yield ItemProgress(number, done, tiles)


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What is written of an item that was computed at once."""

    labels: NDArray[np.integer]
    probabilities: NDArray[np.float32] | None
    about: dict[str, Any]
    doubts: str = ""


Steps = Generator[tuple[int, int], None, Any]
"""Yields how many of how many tiles are done."""


def _computed(item: BatchItem, settings: BatchSettings, axes: str | None, model: Model) -> Steps:
    """Segment and write one item; returns what speaks against its result."""
    image = _opened(item, axes)
    record = _record(item, model, settings, axes)
    if item.by_regions:
        return (yield from _regions(item, image, settings, model, record))
    made = yield from _made(image, settings, model)
    _write(item, made, image, model, record)
    return made.doubts


def _opened(item: BatchItem, axes: str | None) -> Image:
    return item.source if isinstance(item.source, Image) else open_image(item.source, axes=axes)


def _regions(
    item: BatchItem,
    image: Image,
    settings: BatchSettings,
    model: Model,
    record: dict[str, Any],
    spread: Spread | None = None,
) -> Steps:
    """Segment and write an item region by region; returns what speaks against its result."""
    beside = record_path(item.target)
    against = ""
    _write_json(beside, record | {"state": "under way"})  # if killed now, the output will be known for our own
    for event in segment_by_regions(image, model, settings, item.target, record["source"], spread):
        if isinstance(event, RegionDone):
            yield event.done, event.tiles
        elif isinstance(event, RegionsDone):
            against = event.doubts
            _write_json(beside, record | {"state": "done"})
    return against


def _made(image: Image, settings: BatchSettings, model: Model) -> Generator[tuple[int, int], None, Made]:
    """Segment an image at once."""
    result = None
    for happened in segment(image, model, settings.segment):
        if isinstance(happened, TileDone):
            yield happened.done, happened.tiles
        elif isinstance(happened, Segmented):
            result = happened
    assert result is not None, "segment() ends with Segmented"
    linked = {} if settings.link == "none" else {"link": settings.link, "overlap": settings.overlap}
    labels = _linked(result.labels, image, model, settings)
    return Made(labels, result.probabilities, result.record | linked, result.doubts)


def _write(item: BatchItem, made: Made, image: Image, model: Model, record: dict[str, Any]) -> None:
    """Write what was made of an item, and then its record."""
    beside = record_path(item.target)
    if item.target.exists():
        _write_json(beside, record | {"state": "under way"})  # as above
    write_labels(item.target, made.labels, image, made.about)
    if made.probabilities is not None:
        names = OBJECT_MAPS if model.card.task == "objects" else model.card.classes
        write_maps(probabilities_path(item.target), made.probabilities, image, names, made.about)
    _write_json(beside, record | {"state": "done"})


# ---------------------------------------------------------------- the run, by the workers of a cluster


def _cluster() -> Any:
    """Return the module `cluster`, which needs packages that not everybody has."""
    if importlib.util.find_spec("distributed") is None:
        raise ClusterError("Workers need the package distributed: say pip install 'napari-unet[cluster]'.")
    from . import cluster

    return cluster


def _by_crew(todo: Numbered, plan: BatchPlan, model: Model) -> Iterator[Event]:
    """Have items computed by workers: small images side by side, then large ones one by one, their regions side by side."""
    settings = plan.settings
    crew: AbstractContextManager[Crew] = _cluster().crew(model, settings.workers, settings.scheduler)
    with crew as workers:
        seen = _seen([item for _, item in todo], workers, everywhere=bool(settings.workers))
        small = [(number, item) for number, item in todo if not item.by_regions]
        stopped = yield from _side_by_side(small, plan, model, workers, seen)
        large = [(number, item) for number, item in todo if item.by_regions]
        if stopped:
            yield from (ItemFinished(n, item, _outcome(item, "not begun", stopped)) for n, item in large)
            return
        yield from _one_by_one(
            large,
            lambda item: _regions_by(workers, item, plan, model, seen),
            lambda: "" if workers.alive else "The scheduler is gone: start it again, then resume.",
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the workers find at the same place as we: files, and folders for outputs."""

    sources: frozenset[Path]
    folders: frozenset[Path]

    def both(self, item: BatchItem) -> bool:
        """Tell whether they see an item's source and the folder of its output."""
        return item.source in self.sources and item.target.parent in self.folders


def _seen(items: Sequence[BatchItem], workers: Crew, *, everywhere: bool) -> _Seen:
    sources = sorted({item.source for item in items if isinstance(item.source, Path)})
    folders = sorted({item.target.parent for item in items})
    if everywhere:
        return _Seen(frozenset(sources), frozenset(folders))
    sees = dict(zip(sources, workers.sees([source.absolute() for source in sources]), strict=True))
    with _marked(folders) as marks:
        seen = dict(zip(folders, workers.sees([mark.absolute() for mark in marks]), strict=True))
    return _Seen(frozenset(s for s in sources if sees[s]), frozenset(f for f in folders if seen[f]))


@contextmanager
def _marked(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """Give a new file in each folder, which a folder of the same name elsewhere does not have."""
    marks = [folder / f".napari-unet-{secrets.token_hex(8)}" for folder in folders]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        yield marks
    except OSError as error:
        raise FileError(f"{error.filename} cannot be written: {error.strerror}; choose another output.") from error
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def _side_by_side(
    todo: Numbered, plan: BatchPlan, model: Model, workers: Crew, seen: _Seen
) -> Generator[Event, None, str]:
    """Have each item computed by a worker; returns why the batch must stop, if it must."""
    from .cluster import Done, Told

    settings, axes = plan.settings, plan.axes
    handed: list[tuple[int, BatchItem, float]] = []
    failed: list[tuple[int, BatchItem, BaseException]] = []
    open_, stopped = dict(todo), ""

    def pieces() -> Iterator[tuple[BatchItem, BatchSettings, str | None, bool]]:
        for number, item in todo:
            source, writes = item.source, seen.both(item)
            try:
                if source not in seen.sources:  # so it is read here and sent
                    image = _opened(item, axes)
                    source = replace(image, array=np.asarray(image.array[...]))
            except (NapariUnetError, *DAMAGED, MemoryError) as error:
                failed.append((number, item, error))
                continue
            handed.append((number, item, time.perf_counter()))
            source = source.absolute() if isinstance(source, Path) else source
            yield replace(item, source=source, target=item.target.absolute()), settings, axes, writes

    started: set[int] = set()
    for news in workers.each(_on_worker, pieces()):
        number, item, began = handed[news.number]
        if number not in started:
            started.add(number)
            yield ItemStarted(number, item)
        if isinstance(news, Told):
            yield ItemProgress(number, news.done, news.of)
            continue
        assert isinstance(news, Done)
        outcome, error = _outcome(item, "done", item.note, time.perf_counter() - began), news.error
        if error is None and news.result is not None:
            try:
                _write(item, news.result, _opened(item, axes), model, _record(item, model, settings, axes))
            except NapariUnetError as raised:
                error = raised
        if error is not None:
            outcome = _outcome(item, "failed", _sentence(error, item))
            stopped = FULL if _is_lost(error) else ""
        del open_[number]
        yield ItemFinished(number, item, outcome)
        if stopped:
            break
    for number, item, error in failed:
        del open_[number]
        yield ItemFinished(number, item, _outcome(item, "failed", _sentence(error, item)))
    yield from (ItemFinished(n, item, _outcome(item, "not begun", stopped)) for n, item in open_.items())
    return stopped


def _on_worker(desk: Desk, item: BatchItem, settings: BatchSettings, axes: str | None, writes: bool) -> Steps:
    """Compute an item; write it if its folder is the same here, else return what was made."""
    if desk.device:
        settings = replace(settings, segment=replace(settings.segment, device=desk.device))
    if writes:
        yield from _computed(item, settings, axes, desk.model)
        return None
    return (yield from _made(_opened(item, axes), settings, desk.model))


@dataclass(frozen=True, slots=True)
class _Job:
    """What a worker must know to compute pieces of an image."""

    source: Path
    axes: str | None
    settings: BatchSettings
    target: Path
    identity: dict[str, Any]


def _regions_by(workers: Crew, item: BatchItem, plan: BatchPlan, model: Model, seen: _Seen) -> Steps:
    """Have the regions of an item computed by workers."""
    from .cluster import Done

    settings = plan.settings
    if not seen.both(item) or not isinstance(item.source, Path):
        raise ClusterError(
            f"{_origin(item.source)} is computed region by region, so the workers must find it and "
            f"{item.target.parent} under the same names: use a shared folder, or compute here."
        )
    record = _record(item, model, settings, plan.axes)
    job = _Job(item.source.absolute(), plan.axes, settings, item.target.absolute(), record["source"])

    def spread(pieces: Sequence[Piece]) -> Iterator[Piece | None]:
        for news in workers.each(_piece_on_worker, ((job, piece) for piece in pieces)):
            if isinstance(news, Done) and news.error is not None:
                raise news.error
            yield pieces[news.number] if isinstance(news, Done) else None

    return (yield from _regions(item, _opened(item, plan.axes), settings, model, record, spread))


def _piece_on_worker(desk: Desk, job: _Job, piece: Piece) -> Steps:
    """Compute a piece of an image; what is prepared for it is kept for the next one."""
    if desk.kept is None or desk.kept[0] != job:
        image = open_image(job.source, axes=job.axes)
        run = Run(image, desk.model, job.settings, job.target, job.identity, device=desk.device, joined=True)
        desk.kept = job, run
    yield from desk.kept[1].compute(piece)


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


def _outcome(item: BatchItem, state: str, sentence: str = "", seconds: float = 0.0) -> Outcome:
    return Outcome(item.name, _origin(item.source), str(item.target), state, sentence, round(seconds, 3))


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
