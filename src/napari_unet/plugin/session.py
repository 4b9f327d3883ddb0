"""Session: what is chosen, what runs, and the verbs. One for each viewer; no Qt (the starter of jobs is handed in)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Layer
from numpy.typing import NDArray
from psygnal import Signal

from ..engine.errors import NapariUnetError
from ..engine.image import Image
from ..engine.library import Entry, Library
from ..engine.log import LOGGER
from ..engine.settings import ObjectSettings, SegmentSettings
from . import layers
from .choice import NO_IMAGE, Choice
from .result import Result

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from ..engine.inference import ItemDone, Segmented, Started, TileDone
    from .jobs import Handle, Starter

NO_MODEL = "There is no model yet: put a model file into {folder}."
FIRST = "nuclei"
"""The model in use until another is chosen."""
STILL = 5.0
"""Seconds after which a bar that stands still says why."""
BUSY = "One job is running: wait for it or press Cancel."


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running job is."""

    done: int
    tiles: int
    seconds_left: float | None = None
    """None: not known yet."""
    doing: str = "computing"
    """What is under way until the next progress."""

    @property
    def share(self) -> float:
        """The part of the work that is done."""
        return self.done / self.tiles if self.tiles else 0.0


@dataclass(frozen=True, slots=True)
class Message:
    """One sentence for the user."""

    text: str
    is_error: bool = False


@dataclass(eq=False)
class _Run:
    """A segmentation under way."""

    choice: Choice
    image: Image
    began: float
    result: Result | None = None
    first: float = 0.0
    """When the tiles began."""
    tiles: int = 0
    """How many there are; more when memory ran out."""
    objects: int = 0
    why: str = ""
    """Why it was cancelled; empty: it was not."""
    width: int | None = None
    """How wide the objects were taken to be; None: the image was seen as it is."""
    doubts: str = ""
    """What speaks against the result."""


class Session:
    """What is chosen and what runs in one viewer.

    Parameters
    ----------
    viewer
        A viewer or its model.
    start
        `jobs.start`, or what behaves like it.
    library
        The models to choose from.
    clock
        Seconds, for the remaining time.
    """

    changed = Signal()
    """Image, axes, model or settings were changed."""
    state_changed = Signal(str)
    """"idle", "running" or "stopping"."""
    progressed = Signal(object)
    """A `Progress`."""
    told = Signal(object)
    """A `Message`."""

    def __init__(
        self,
        viewer: ViewerModel,
        start: Starter,
        library: Library | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.viewer = viewer
        self.library = library or Library()
        self._start, self.clock = start, clock
        self.choice = Choice()
        self.models: list[Entry] = []
        self.state = "idle"
        self.results: list[Result] = []
        self._job: Handle | None = None
        self._run: _Run | None = None
        self._wanted: ObjectSettings | None = None
        self._writing = False
        self._closed = False
        self._last = Message("")
        self._progress, self._heard = Progress(0, 0), 0.0
        self.dirty = False
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_active)
        self.refresh_models()
        self._follow(viewer.layers.selection.active)

    # ---- what is chosen

    @property
    def image_layer(self) -> ImageLayer | None:
        """The layer to segment."""
        return self.choice.layer

    @property
    def entry(self) -> Entry | None:
        """The model."""
        return self.choice.entry

    @property
    def settings(self) -> SegmentSettings:
        """How it is segmented."""
        return self.choice.settings

    def image_layers(self) -> list[ImageLayer]:
        """Return the image layers there are to choose from; not the maps that we made ourselves."""
        return [x for x in self.viewer.layers if isinstance(x, ImageLayer) and "napari_unet" not in x.metadata]

    def choose_image(self, layer: ImageLayer | None) -> None:
        """Choose what is segmented; axes and channel are guessed anew."""
        if layer is not self.image_layer:
            self.choice = self.choice.with_(layer=layer, given_axes="")
            if self._last.is_error:
                self.tell("")  # it was about another image
        self.changed.emit()

    def choose_axes(self, axes: str) -> None:
        """Say what the axes are; empty: guess them."""
        self.choice = self.choice.with_(given_axes=axes.strip().lower())
        self.changed.emit()

    def refresh_models(self) -> None:
        """Read the library again and keep the choice if it is still there."""
        name = self.entry.card.name if self.entry else ""
        try:
            self.models = [e for e in self.library.current() if e.card.task != "click"]
        except NapariUnetError as error:
            self.models = []
            self.tell(str(error), is_error=True)
        entry = self.model_named(name) or self.model_named(FIRST) or (self.models[0] if self.models else None)
        self.choice = self.choice.with_(entry=entry)
        self.changed.emit()

    def model_named(self, name: str) -> Entry | None:
        """Return the first model of that name in the list, if there is one."""
        return next((entry for entry in self.models if entry.card.name == name), None)

    def choose_model(self, entry: Entry | None) -> None:
        """Choose the model; its own thresholds come with it."""
        diameter = self.settings.diameter if entry is not None and entry.card.diameter else None
        settings = replace(self.settings, objects=None, diameter=diameter)
        self.choice = self.choice.with_(entry=entry, settings=settings)
        self.changed.emit()

    def choose(self, **settings: Any) -> None:
        """Change fields of the settings; raises InvalidSettings and changes nothing if one is out of its range."""
        guessed = self.choice.guessed_channel and "channel" not in settings
        self.choice = replace(self.choice, settings=replace(self.settings, **settings), guessed_channel=guessed)
        self.changed.emit()

    def obstacle(self) -> str:
        """Say why nothing can be segmented now; empty: it can."""
        if self.image_layer is None:
            return NO_IMAGE
        if self.entry is None:
            return NO_MODEL.format(folder=self.library.folder)
        return ""

    # ---- the verbs

    @property
    def running(self) -> bool:
        """Whether a job is under way (only one at a time)."""
        return self._job is not None

    def segment(self) -> None:
        """Segment the chosen image; what comes of it is heard through the signals and seen in the viewer."""
        if self.running:
            self.tell(BUSY, is_error=True)
            return
        image = self._image()
        if image is None:
            return
        assert self.image_layer is not None
        assert self.entry is not None
        run = _Run(self.choice, image, self.clock())
        self._run = run
        self._set_state("running")
        self.tell(f"Reading {image.name!r} ...")
        view = layers.in_view(self.viewer, self.image_layer, image)
        self._begin(
            partial(_segmentation, image, self.entry.path, self.settings, view),
            on_event=partial(self._on_event, run),
            on_done=partial(self._on_done, run),
            on_error=partial(self._on_error, run),
            on_cancelled=partial(self._on_cancelled, run),
        )

    def _image(self) -> Image | None:
        """Return the chosen image; None if nothing can be done with it now, which is told."""
        problem = self.obstacle()
        if not problem:
            try:
                return self.choice.image()
            except NapariUnetError as error:
                problem = str(error)
        self.tell(problem, is_error=True)
        return None

    def estimate_diameter(self) -> None:
        """Look how wide the objects of the chosen image are, and choose that diameter."""
        image = self._image()
        if image is None:
            return
        assert self.entry is not None
        entry, found = self.entry, list[int]()

        def done() -> None:
            if entry is self.entry:
                self.choose(diameter=found[0])
                self.tell(f"The objects look about {found[0]} pixels wide: press Segment.")

        self.run(
            partial(_estimating, image, entry.path, self.settings),
            "Looking at the middle of the image at several sizes ...",
            on_event=found.append,
            on_done=done,
            on_error=lambda error: self.tell(in_one_sentence(error), is_error=True),
            on_cancelled=lambda: self.tell("Cancelled; nothing was changed."),
        )

    def run(
        self,
        function: Callable[[], Generator[Any, None, None]],
        text: str,
        *,
        on_event: Callable[[Any], object],
        on_done: Callable[[], object],
        on_error: Callable[[Exception], object],
        on_cancelled: Callable[[], object],
    ) -> bool:
        """Run another job, such as a training; False, and nothing is started, if one is running."""
        if self.running:
            self.tell(BUSY, is_error=True)
            return False

        def ending(callback: Callable[..., object]) -> Callable[..., None]:
            def call(*args: Any) -> None:
                self._job = None
                self._set_state("idle")
                callback(*args)

            return call

        self._set_state("running")
        self.tell(text)
        self._begin(
            function,
            on_event=on_event,
            on_done=ending(on_done),
            on_error=ending(on_error),
            on_cancelled=ending(on_cancelled),
        )
        return True

    def cancel(self, why: str = "Cancelled; nothing was changed.") -> None:
        """Stop what runs. The viewer is as before at once; the worker ends after the tile it is computing."""
        if self._job is None or self.state != "running":
            return
        self._wanted = None
        if self._run is not None:
            self._run.why = why
            self._restore(self._run)
        self._set_state("stopping")
        self.tell(why)
        self._job.cancel()

    def hold(self, on: bool) -> None:
        """Pause what runs before its next tile, or let it go on."""
        if self._job is not None:
            self._job.hold(on)

    def rethreshold(self, thresholds: ObjectSettings) -> None:
        """Use other thresholds from now on, and for the result on screen at once (without the network)."""
        self.choose(objects=thresholds)
        self._wanted = thresholds
        self._rethreshold_next()

    def close(self) -> None:
        """Stop what runs and let go of the viewer; may be called more than once."""
        if self._closed:
            return
        self._closed = True
        if self._job is not None:
            self._job.cancel()
        for emitter, callback in (
            (self.viewer.layers.events.inserted, self._on_inserted),
            (self.viewer.layers.events.removed, self._on_removed),
            (self.viewer.layers.selection.events.active, self._on_active),
        ):
            emitter.disconnect(callback)
        self._run = None
        self.results.clear()

    def advance(self, progress: Progress) -> None:
        """Say how far the running job is; where there is more to do than was thought, the bar stands still."""
        if progress.share < self._progress.share:
            progress = replace(self._progress, seconds_left=progress.seconds_left, doing=progress.doing)
        self._progress, self._heard = progress, self.clock()
        self.progressed.emit(progress)

    def standing_still(self) -> str:
        """Say what is under way if there was no progress for a while; empty: there was."""
        seconds = self.clock() - self._heard
        return f"{self._progress.doing}, {seconds:.0f} s" if self.state == "running" and seconds > STILL else ""

    def redraw(self) -> None:
        """Show the tiles that arrived since the last call; cheap, to be called a few times a second."""
        if self.dirty and self._run is not None and self._run.result is not None:
            self._run.result.redraw()
        self.dirty = False

    # ---- what the worker says

    def _begin(self, function: Callable[[], Generator[Any, None, None]], **callbacks: Callable[..., Any]) -> None:
        """Start a job; it may come to its end before `start` returns."""
        ended = False

        def ending(callback: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> None:
                nonlocal ended
                ended, self._job = True, None
                if not self._closed:
                    callback(*args)

            return call

        names = ("on_done", "on_error", "on_cancelled")
        job = self._start(function, on_event=callbacks["on_event"], **{n: ending(callbacks[n]) for n in names})
        if not ended:
            self._job = job

    def _on_event(self, run: _Run, event: Started | TileDone | ItemDone | Segmented) -> None:
        if self._run is not run or run.why:
            return
        handlers: dict[str, Callable[[_Run, Any], None]] = {  # by name: importing the classes would import torch
            "Started": self._on_started,
            "TileDone": self._on_tile,
            "ItemDone": self._on_item,
            "Segmented": self._on_segmented,
        }
        handlers[type(event).__name__](run, event)

    def _on_started(self, run: _Run, event: Started) -> None:
        source, entry = run.choice.layer, run.choice.entry
        assert source is not None
        assert entry is not None
        fitting = (r for r in reversed(self.results) if r.is_of(source, entry) and r.can_be_replaced(run.image))
        run.result = next(fitting, None) or Result(self.viewer, source, run.image, entry)
        with self._own_change():
            run.result.begin(run.image, entry)
        run.first, run.tiles = self.clock(), event.tiles
        many = "one tile" if event.tiles == 1 else f"{event.tiles} tiles"
        self.tell(f"Segmenting {run.image.name!r} with {entry.card.name} on {event.device}, {many} ...")

    def _on_tile(self, run: _Run, event: TileDone) -> None:
        assert run.result is not None
        run.result.write(event.region, event.labels)
        self.dirty = True
        if event.tiles > run.tiles:
            run.tiles = event.tiles
            self.tell(f"Memory ran short: going on with smaller tiles, {event.tiles} in all ...")
        left = (self.clock() - run.first) / event.done * (event.tiles - event.done)
        doing = "computing" if event.done < event.tiles else "putting the result together"
        self.advance(Progress(event.done, event.tiles, left, doing))

    def _on_item(self, run: _Run, event: ItemDone) -> None:
        assert run.result is not None
        run.result.write(event.region, event.labels)
        run.objects += int(event.labels.max(initial=0))
        self.dirty = True

    def _on_segmented(self, run: _Run, event: Segmented) -> None:
        result, run.result = run.result, None
        assert result is not None
        run.doubts, run.width = event.doubts, event.record["diameter"]
        with self._own_change():
            result.finish(event)
        self.results = [r for r in self.results if r is not result] + [result]

    def _on_done(self, run: _Run) -> None:
        if self._run is not run:
            return
        seconds = self.clock() - run.began
        if run.choice.entry is not None and run.choice.entry.card.task == "objects":
            count = f"{run.objects} object{'s' * (run.objects != 1)}"
            wide = f", seen as {run.width} pixels wide" if run.width else ""
            text = f"Found {count} in {seconds:.1f} s{wide}." if run.objects else ""
        else:
            text = f"Segmented in {seconds:.1f} s."
        self._end(" ".join(filter(None, (text, run.doubts, run.choice.doubt()))))
        if run.choice.settings.objects != self.settings.objects and self.settings.objects is not None:
            self._wanted = self.settings.objects
            self._rethreshold_next()

    def _on_error(self, run: _Run, error: Exception) -> None:
        if self._run is run:
            self._restore(run)
            self._end(in_one_sentence(error), is_error=True)

    def _on_cancelled(self, run: _Run) -> None:
        if self._run is run:
            self._restore(run)
            self._end(run.why or "Cancelled; nothing was changed.")

    def _end(self, text: str, *, is_error: bool = False) -> None:
        self._run, self._job = None, None
        self.dirty = False
        self._set_state("idle")
        self.tell(text, is_error=is_error)

    def _restore(self, run: _Run) -> None:
        """Make the viewer what it was before an unfinished run."""
        result, run.result = run.result, None
        if result is not None:
            with self._own_change():
                result.restore()

    # ---- other thresholds

    def _rethreshold_next(self) -> None:
        """Relabel the result on screen with the newest thresholds wanted; older requests are dropped."""
        if self.running or self._wanted is None:
            return
        thresholds, self._wanted = self._wanted, None
        result = next((r for r in reversed(self.results) if r.is_of(self.image_layer, self.entry)), None)
        if result is None or result.segmented is None:
            return
        if result.edited:
            self.tell("You edited these labels, so they stay as they are: press Segment for new ones.")
            return
        self._set_state("running")
        self._begin(
            partial(_relabelling, result.segmented, thresholds),
            on_event=partial(self._on_relabelled, result, thresholds),
            on_done=self._on_rethresholded,
            on_error=self._on_rethreshold_error,
            on_cancelled=partial(self._end, "Cancelled; the labels are as before."),
        )

    def _on_relabelled(self, result: Result, thresholds: ObjectSettings, labels: NDArray[np.int32]) -> None:
        if not result.on_screen or result.edited or result.segmented is None:
            return
        with self._own_change():
            result.relabel(labels, thresholds)
        dims = result.segmented.record["dims"]
        count = int(labels.reshape(-1, *labels.shape[-dims:]).max(axis=tuple(range(1, dims + 1))).sum())
        self.tell(f"{count} object{'s' * (count != 1)} with these thresholds.")

    def _on_rethresholded(self) -> None:
        self._job = None
        self._set_state("idle")
        self._rethreshold_next()

    def _on_rethreshold_error(self, error: Exception) -> None:
        self._end(in_one_sentence(error), is_error=True)

    # ---- what the viewer says

    def _on_inserted(self, event: Any) -> None:
        if not self._writing and self.image_layer is None:
            self._follow(event.value)
        self.changed.emit()

    def _on_active(self, event: Any) -> None:
        if not self._writing:
            self._follow(event.value)

    def _follow(self, layer: Layer | None) -> None:
        if isinstance(layer, ImageLayer) and "napari_unet" not in layer.metadata:
            self.choose_image(layer)
        elif self.image_layer is None and (there := self.image_layers()):
            self.choose_image(there[-1])

    def _on_removed(self, event: Any) -> None:
        if self._writing:
            return
        layer, run, name = event.value, self._run, event.value.name
        self.results = [r for r in self.results if r.layer is not layer and r.source is not layer]
        if run is not None and not run.why:
            if layer is run.choice.layer:
                self.cancel(f"The image {name!r} was removed, so its segmentation was stopped.")
            elif run.result is not None and layer is run.result.layer:
                self.cancel(f"The layer {name!r} was removed, so its segmentation was stopped.")
        if layer is self.image_layer:
            there = self.image_layers()
            self.choose_image(there[-1] if there else None)
        else:
            self.changed.emit()

    @contextmanager
    def _own_change(self) -> Iterator[None]:
        """What happens in here to layers and selection is our doing, not the user's."""
        before, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = before

    def _set_state(self, state: str) -> None:
        if state == "running":
            self._progress, self._heard = Progress(0, 0), self.clock()
        self.state = state
        self.state_changed.emit(state)

    def tell(self, text: str, *, is_error: bool = False) -> None:
        """Say one sentence to the user."""
        self._last = Message(text, is_error)
        LOGGER.log(logging.ERROR if is_error else logging.INFO, "%s", text)
        self.told.emit(self._last)


def in_one_sentence(error: Exception) -> str:
    """Return what to tell the user; errors that are not ours are bugs and say so."""
    if isinstance(error, NapariUnetError):
        return str(error)
    first = (str(error).splitlines() or [""])[0]
    return f"Something unforeseen went wrong ({type(error).__name__}: {first}): please report it."


def _segmentation(
    image: Image, path: Path, settings: SegmentSettings, view: tuple[slice, ...] | None
) -> Generator[Started | TileDone | ItemDone | Segmented, None, None]:
    """Run in the worker: torch is imported here, not in the window's thread."""
    from ..engine.inference import segment
    from ..engine.model import load_model_file

    yield from segment(image, load_model_file(path), settings, in_view=view)


def _estimating(image: Image, path: Path, settings: SegmentSettings) -> Generator[int, None, None]:
    from ..engine.inference import estimate_diameter
    from ..engine.model import load_model_file

    yield estimate_diameter(image, load_model_file(path), settings)


def _relabelling(segmented: Segmented, thresholds: ObjectSettings) -> Generator[NDArray[np.int32], None, None]:
    from ..engine.inference import relabel

    yield relabel(segmented, thresholds)
