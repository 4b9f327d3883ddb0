"""Batching: which images, where to, the plan, the run and its report. The verbs behind the Batch panel; no Qt."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Labels
from psygnal import Signal

from ..engine.errors import InvalidImage, NapariUnetError
from ..engine.files import open_image
from ..engine.image import Image
from ..engine.settings import BatchSettings
from . import layers
from .session import Progress, Session, in_one_sentence

if TYPE_CHECKING:
    from ..engine.batch import BatchItem, BatchPlan, BatchReport, ItemFinished, ItemProgress, ItemStarted

NOTHING = "Nothing is chosen: tick an open image, or add files or a folder."


class Batching:
    """What a batch is made of, and how far it is.

    Parameters
    ----------
    session
        The model and settings in use, and who runs jobs.
    """

    changed = Signal()
    """What is chosen, the plan, or the state of an item."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.unticked: set[ImageLayer] = set()
        self.paths: list[str] = []
        """Files, folders and patterns, in addition to the open images."""
        self.out = str(Path.home() / "segmented")
        self.settings = BatchSettings()
        self.plan: BatchPlan | None = None
        self.states: list[str] = []
        """What is said of each item of the plan."""
        self.report: BatchReport | None = None
        self.running = self.paused = False
        self._entry: Any = None
        self._arguments: tuple[list[Any], str, Path, BatchSettings]
        self._origins: dict[int, ImageLayer] = {}
        self._pixels: dict[int, int] = {}
        """Of each item that is computed in this run."""
        self._shares: dict[int, float] = {}
        self._since: tuple[float, float] | None = None
        """When the pace was first measured, and what was done then; anew after a pause."""
        session.changed.connect(self._on_choice)

    def ticked(self) -> list[ImageLayer]:
        """Return the open images that take part."""
        return [layer for layer in self.session.image_layers() if layer not in self.unticked]

    def tick(self, layer: ImageLayer, on: bool) -> None:
        """Let an open image take part or not."""
        (self.unticked.discard if on else self.unticked.add)(layer)
        self.forget()

    def add(self, *paths: str) -> None:
        """Add files, folders or patterns."""
        self.paths += [path for path in paths if path and path not in self.paths]
        self.forget()

    def remove(self, path: str) -> None:
        """Take a file, folder or pattern out again."""
        self.paths.remove(path)
        self.forget()

    def choose(self, out: str | None = None, **settings: Any) -> None:
        """Change the output folder, or fields of the settings."""
        self.out = self.out if out is None else out.strip()
        self.settings = replace(self.settings, **settings)
        self.forget()

    def forget(self) -> None:
        """Drop the plan: something it was made from has changed."""
        if not self.running:
            self.plan = self.report = None
            self.changed.emit()

    def obstacle(self) -> str:
        """Say why nothing can be planned; empty: it can."""
        if self.session.entry is None:
            return self.session.obstacle()
        if not self.out:
            return "There is no output folder: choose one."
        return "" if self.ticked() or self.paths else NOTHING

    # ---- the verbs

    def check(self, only: tuple[str, ...] = ()) -> None:
        """Make the plan; with `only`, of the sources of these names."""
        if problem := self.obstacle():
            self.session.tell(problem, is_error=True)
            return
        sources: list[Any] = []
        problems = []
        self._origins = {}
        entry = self.session.entry
        assert entry is not None
        for layer in self.ticked():
            try:
                image = layers.image_from(layer, None, entry.card.spec.dims)
            except NapariUnetError as error:
                problems.append(str(error))
                continue
            if not only or image.name in only:
                self._origins[id(image)] = layer
                sources.append(image)
        names = {image.name for image in sources}
        sources += [path for path in only if path not in names] if only else self.paths
        if problems:
            self.session.tell(problems[0], is_error=True)
            return
        self._arguments = (sources, self.out.rstrip("/") + "/", entry.path, self._settings())
        self.session.run(
            partial(_planning, *self._arguments),
            "Looking at the images ...",
            on_event=self._on_plan,
            on_done=self._on_planned,
            on_error=lambda error: self.session.tell(in_one_sentence(error), is_error=True),
            on_cancelled=self.changed.emit,
        )

    def run(self) -> None:
        """Compute what is planned."""
        if self.plan is None:
            return
        self.running, self.paused, self._shares, self._since, self.report = True, False, {}, None, None
        items = self.plan.items
        self._pixels = {i: item.pixels for i, item in enumerate(items) if not (item.problem or item.finished)}
        started = self.session.run(
            partial(_batch, *self._arguments),
            f"Segmenting {len(self.plan.todo)} images into {self.out} ...",
            on_event=self._on_event,
            on_done=lambda: self._end(self.report.sentence() + "." if self.report else ""),
            on_error=lambda error: self._end(in_one_sentence(error), is_error=True),
            on_cancelled=lambda: self._end("Stopped; what is finished stays, and Run goes on from there."),
        )
        self.running = self.running and started
        self.changed.emit()

    def pause(self) -> None:
        """Hold after the tile being computed, or go on."""
        if self.running:
            self.paused, self._since = not self.paused, None
            self.session.hold(self.paused)
            self.session.tell("Paused after the tile under way; press Go on." if self.paused else "Going on ...")
            self.changed.emit()

    def check_failed(self) -> None:
        """Plan again what failed or was not begun."""
        if self.report is not None:
            self.check(tuple(o.source for o in self.report.outcomes if o.state in ("failed", "not begun")))

    def save_report(self, path: str) -> None:
        """Write the report of the last run as JSON."""
        if self.report is None:
            return
        try:
            self.report.save(Path(path))
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
        else:
            self.session.tell(f"The report is in {path}.")

    def open_result(self, number: int) -> None:
        """Show the labels of an item, on top of its image if that is open."""
        assert self.plan is not None
        item = self.plan.items[number]
        try:
            labels = open_image(item.target)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        array: Any = labels.array
        if item.pixels < 1 << 26:
            array = np.asarray(array)
        else:
            import dask.array as da  # half of the dock's start, for large results alone

            array = da.from_array(array)
        source = self._origins.get(id(item.source))
        options: dict[str, Any] = {"scale": labels.spacing}
        if source in self.session.viewer.layers and isinstance(item.source, Image):
            with suppress(InvalidImage):  # the image has other axes by now: the labels are shown on their own
                options = layers.placement(source, item.source)
                array = layers.label_array(source, item.source, array)
        self.session.viewer.add_layer(Labels(array, name=item.target.name, **options))

    def command(self) -> str:
        """Return the command line that does the same; empty where an open image has no file."""
        entry = self.session.entry
        files = [layer.source.path for layer in self.ticked()]
        if entry is None or not all(files) or not (files or self.paths):
            return ""
        card, settings = entry.card, self._settings()
        parts = ["napari-unet", "segment", *map(str, files), *self.paths, "-o", self.out.rstrip("/") + "/"]
        parts += ["--model", card.name if entry.shipped else f"{card.name}@{card.version}"]
        parts += ["--format", settings.ending] if settings.ending != ".tif" else []
        parts += ["--link", settings.link] if settings.link != "none" else []
        parts += ["--scheduler", settings.scheduler] if settings.scheduler else []
        one = settings.segment
        for name in ("channel", "tile", "diameter"):
            if (value := getattr(one, name)) is not None:
                parts += [f"--{name}", str(value)]
        parts += ["--device", one.device] if one.device != "auto" else []
        parts += ["--probabilities"] if one.probabilities else []
        if one.objects is not None and card.task == "objects":
            for name, value in asdict(one.objects).items():
                if value != getattr(card.objects, name):
                    parts += [f"--{name.replace('_', '-')}", f"{value:g}"]
        return shlex.join(parts)

    # ---- what the worker says

    def _settings(self) -> BatchSettings:
        entry = self.session.entry
        objects = entry is not None and entry.card.task == "objects"
        return replace(self.settings, segment=self.session.settings, link=self.settings.link if objects else "none")

    def _on_choice(self) -> None:
        now = (self.session.entry and self.session.entry.path, self.session.settings, self.ticked())
        if now != self._entry:
            self._entry = now
            self.forget()

    def _on_plan(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.states = [_planned(item) for item in plan.items]

    def _on_planned(self) -> None:
        from ..engine.batch import in_bytes

        if self.plan is not None:
            bad = sum(bool(item.problem) for item in self.plan.items)
            text = f"{len(self.plan.todo)} to compute" + (f", {bad} cannot be" if bad else "")
            text += f", about {in_bytes(self.plan.bytes)} of disk; nothing runs yet." if self.plan.todo else "."
            self.session.tell(" ".join(filter(None, (text, self.plan.warning))), is_error=bool(self.plan.warning))
        self.changed.emit()

    def _on_event(self, event: Any) -> None:
        handlers: dict[str, Any] = {  # by name: importing the classes would import torch
            "ItemStarted": self._on_started,
            "ItemProgress": self._on_progress,
            "ItemFinished": self._on_finished,
            "BatchDone": self._on_report,
        }
        handlers[type(event).__name__](event)

    def _on_started(self, event: ItemStarted) -> None:
        self.states[event.number] = "computing"
        self.changed.emit()

    def _on_progress(self, event: ItemProgress) -> None:
        self.states[event.number] = f"{100 * event.done // max(1, event.tiles)} %"
        self._shares[event.number] = event.done / max(1, event.tiles)
        total = max(1, sum(self._pixels.values()))
        done = sum(self._pixels[number] * share for number, share in self._shares.items()) / total
        doing = "computing" if event.done < event.tiles else "writing"
        self.session.advance(Progress(min(1000, int(1000 * done)), 1000, self._seconds_left(done), doing))
        self.changed.emit()

    def _seconds_left(self, done: float) -> float | None:
        """Return the time left at the pace so far; before there is one, as planned."""
        assert self.plan is not None
        now = self.session.clock()
        self._since = self._since or (now, done)
        began, before = self._since
        if done > before:
            return (now - began) / (done - before) * max(0.0, 1 - done)
        return self.plan.seconds * max(0.0, 1 - done) if self.plan.seconds else None

    def _on_finished(self, event: ItemFinished) -> None:
        outcome = event.outcome
        self.states[event.number] = outcome.state + (f": {outcome.sentence}" if outcome.sentence else "")
        assert self.plan is not None
        if event.number in self._pixels:
            self._shares[event.number] = 1.0
        if outcome.state == "done":  # so that a batch that is stopped says how many are left
            items = [replace(x, finished=True) if i == event.number else x for i, x in enumerate(self.plan.items)]
            self.plan = replace(self.plan, items=tuple(items))
        self.changed.emit()

    def _on_report(self, event: Any) -> None:
        self.report = event.report

    def _end(self, text: str, *, is_error: bool = False) -> None:
        self.running = self.paused = False
        self.session.tell(text, is_error=is_error)
        self.changed.emit()


def _planned(item: BatchItem) -> str:
    """Say what will become of an item."""
    if item.problem:
        return f"cannot: {item.problem}"
    return item.note or item.words


def _planning(sources: list[Any], out: str, path: Path, settings: BatchSettings) -> Generator[BatchPlan, None, None]:
    from ..engine.batch import plan_batch, with_times
    from ..engine.model import load_model_file

    if not sources:
        raise InvalidImage(NOTHING)
    model = load_model_file(path)
    yield with_times(plan_batch(sources, out, model, settings), model)


def _batch(sources: list[Any], out: str, path: Path, settings: BatchSettings) -> Generator[Any, None, None]:
    """Plan once more, since a batch that was stopped has finished items by now, and run."""
    from ..engine.batch import plan_batch, run_batch
    from ..engine.model import load_model_file

    model = load_model_file(path)
    yield from run_batch(plan_batch(sources, out, model, settings), model)
