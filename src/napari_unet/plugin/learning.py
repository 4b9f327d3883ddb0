"""Learning: paint, train, judge, keep or go back. The verbs behind the Train panel; no Qt."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Labels
from numpy.typing import NDArray
from psygnal import Signal

from ..engine.card import PALETTE
from ..engine.errors import InvalidImage, NapariUnetError
from ..engine.image import Image
from ..engine.library import Entry, Library
from ..engine.settings import SegmentSettings, TrainSettings
from . import layers
from .annotating import Page, Scheme
from .journal import Kept
from .session import Progress, Session, in_one_sentence

if TYPE_CHECKING:
    from ..engine.lesson import Lesson
    from ..engine.model import Model
    from ..engine.training import StepDone, Trained, Validated

NOTHING = "Nothing is painted yet: press New annotations, then paint a stroke on an object and one on the background."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a round, in words; `good` is None where the user must judge."""

    text: str
    good: bool | None = None


@dataclass(eq=False)
class _Round:
    """A training under way."""

    entry: Entry
    lessons: list[Lesson]
    pages: list[Page]
    held_out: int
    best: Validated | None = None
    trained: Trained | None = None
    stopped: bool = False
    discarded: bool = False


class Learning:
    """What is painted in one viewer and what is learned from it.

    Parameters
    ----------
    session
        What is chosen, and who runs jobs.
    """

    changed = Signal()
    """Pages, classes, versions or the state."""
    stepped = Signal(object)
    """A `StepDone`."""
    validated = Signal(object)
    """A `Validated`."""
    judged = Signal(object)
    """A `Verdict`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.viewer = session.viewer
        self.pages: list[Page] = []
        self.settings = TrainSettings()
        self.name = ""
        """What the trained model is called; empty: as its parent, or "my ..." if that is shipped."""
        self.refresh_after = True
        self.state = "idle"
        """"idle", "training" or "judging"."""
        self.value = 2
        """What is painted with."""
        self.candidate: Model | None = None
        """A trained model that is not in the library yet."""
        self._schemes: dict[Path, Scheme] = {}
        self._round: _Round | None = None
        self._kept: list[tuple[ImageLayer, list[Kept]]] = []
        self._watched: list[Any] = []
        self._comparison: Labels | None = None
        self._before_after: tuple[tuple[slice, ...], NDArray[Any], NDArray[Any]] | None = None
        self._hidden: list[Labels] = []
        self._refreshing = self._train_next = False
        self._active: Any = None
        session.changed.connect(self._on_choice)
        session.state_changed.connect(self._on_state)
        self.viewer.layers.events.inserted.connect(self._on_inserted)
        self.viewer.layers.events.removed.connect(self._on_removed)
        for layer in session.image_layers():
            self._look_for_kept(layer)

    # ---- what there is

    @property
    def scheme(self) -> Scheme:
        """The classes of the model in use, as the user named and coloured them."""
        entry = self.session.entry
        if entry is None:
            return Scheme("semantic", 2, ("background", "foreground"), PALETTE[:2])
        return self._schemes.get(entry.path, Scheme.of(entry.card))

    @property
    def page(self) -> Page | None:
        """The annotations of the chosen image."""
        return self._page_of(self.session.image_layer)

    @property
    def model_name(self) -> str:
        """What the trained model will be called."""
        entry = self.session.entry
        if self.name or entry is None:
            return self.name
        return f"my {entry.card.name}" if entry.shipped else entry.card.name

    def strokes(self) -> tuple[int, int, int]:
        """Return on how many images something is painted, and how many strokes teach and judge."""
        counts = [page.strokes.count() for page in self.pages if not page.empty]
        return len(counts), sum(c[0] for c in counts), sum(c[1] for c in counts)

    def history(self) -> list[Entry]:
        """Return the versions of the model in use, newest first, and the model that they began with."""
        entry = self.session.entry
        if entry is None:
            return []
        try:
            versions = self.session.library.versions(entry.card.name)[::-1]
            first = versions[-1].card.parent.partition(":")[0] if versions else ""
            if first and first.partition("@")[0] != entry.card.name:
                versions.append(self.session.library.find(first))
        except NapariUnetError:
            return versions
        return versions

    def kept(self) -> list[Kept]:
        """Return the strokes on the chosen image that an earlier session left."""
        return next((k for layer, k in self._kept if layer is self.session.image_layer), [])

    def obstacle(self) -> str:
        """Say why nothing can be trained now; empty: it can."""
        entry = self.session.entry
        if entry is None:
            return "There is no model yet: press New model."
        if entry.card.task == "click":
            return f"The model {entry.card.name!r} answers clicks: choose another one, or press New model."
        return entry.card.cannot_learn

    # ---- painting

    def annotate(self) -> None:
        """Show the annotations of the chosen image, new ones if there are none."""
        if problem := self.session.obstacle() or self.obstacle():
            self.session.tell(problem, is_error=True)
            return
        layer = self.session.image_layer
        assert layer is not None
        try:
            page = self._page_of(layer) or self._new_page(layer, self.session.choice.image())
            page.show(self.viewer)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self.pick(self.value)
        self.session.tell("Paint a stroke on an object and one on the background; then press Train.")

    def pick(self, value: int) -> None:
        """Paint with a class from now on."""
        self.value = value
        page = self.page
        if page is not None and page.layer is not None and page.layer in self.viewer.layers:
            self.viewer.layers.selection.active = page.layer
            page.layer.selected_label = value
            if page.layer.mode not in ("paint", "fill", "polygon"):
                page.layer.mode = "paint"
        self.changed.emit()

    def next_object(self) -> None:
        """Paint another object from now on."""
        self.look()
        self.pick(self.page.next_object() if self.page else 2)

    def add_class(self, name: str) -> None:
        """Add a class; the model learns it in the next round."""
        if problem := self.obstacle():
            self.session.tell(problem, is_error=True)
            return
        scheme = self.scheme
        color = PALETTE[len(scheme.names) % len(PALETTE)]
        self._use(replace(scheme, names=(*scheme.names, name), colors=(*scheme.colors, color)))
        self.pick(len(scheme.names) + 1)

    def rename_class(self, index: int, name: str) -> None:
        """Give a class another name."""
        names = list(self.scheme.names)
        names[index] = name
        self._use(replace(self.scheme, names=tuple(names)))

    def recolour_class(self, index: int, color: str) -> None:
        """Give a class another colour, in annotations and results."""
        colors = list(self.scheme.colors)
        colors[index] = color
        self._use(replace(self.scheme, colors=tuple(colors)))

    def _use(self, scheme: Scheme) -> None:
        if len(set(scheme.names)) < len(scheme.names) or not all(name.strip() for name in scheme.names):
            self.session.tell("Every class needs a name of its own: choose another one.", is_error=True)
            return
        assert self.session.entry is not None
        self._schemes[self.session.entry.path] = scheme
        for page in self.pages:
            page.follow(scheme)
        for result in self.session.results:
            if result.entry.path == self.session.entry.path and scheme.task == "semantic":
                result.layer.colormap = scheme.result_colormap()
        self.changed.emit()

    def look(self) -> None:
        """Take in what was painted and keep it on disk; cheap where nothing was, to be called every second."""
        changed = False
        for result in self.session.results:
            page = self._page_of(result.source)
            if (
                page is None
                and (result.edited or result.accepted)
                and Scheme.of(result.entry.card).task == self.scheme.task
            ):
                page = self._new_page(result.source, result.image)
            if page is not None and result not in self._watched:
                self._watched.append(result)
                page.watch(result)
        self._watched = [r for r in self._watched if r in self.session.results]
        for page in self.pages:
            results = [
                r
                for r in self.session.results
                if r.source is page.source
                and (r.entry.card.task, r.entry.card.spec.dims) == (page.scheme.task, page.scheme.dims)
            ]
            try:
                changed |= page.look(results)
            except NapariUnetError as error:
                self.session.tell(str(error), is_error=True)
        if changed:
            self.changed.emit()

    # ---- what an earlier session left

    def restore(self) -> None:
        """Bring back what an earlier session painted on the chosen image."""
        layer, kept = self.session.image_layer, self.kept()
        if layer is None or not kept:
            return
        try:
            page = self._page_of(layer) or self._new_page(layer, self.session.choice.image())
            page.take_back(kept)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self._forget(layer)
        page.show(self.viewer)
        teach, judge = page.strokes.count()
        self.session.tell(f"{teach + judge} stroke{'s' * (teach + judge != 1)} brought back.")
        self.changed.emit()

    def forget(self) -> None:
        """Throw away what an earlier session painted on the chosen image."""
        layer = self.session.image_layer
        for kept in self.kept():
            kept.discard()
        if layer is not None:
            self._forget(layer)
        self.changed.emit()

    def save(self, path: Path) -> None:
        """Write the annotations of the chosen image to a file."""
        if self.page is None:
            self.session.tell(NOTHING, is_error=True)
            return
        self.look()
        try:
            self.page.save(path)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self.session.tell(f"Annotations saved: {path.name}.")

    def load(self, path: Path) -> None:
        """Take annotations of the chosen image from a file, in place of what is painted."""
        self.annotate()
        if self.page is None:
            return
        try:
            self.page.load(path)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self.session.tell(f"Annotations loaded: {path.name}.")
        self.changed.emit()

    # ---- training

    def train(self) -> None:
        """Teach a copy of the model in use what is painted, in the background."""
        if self.session.running and self._refreshing:
            self._train_next = True  # it matters more than a new look at an image
            self.session.cancel("Refreshing the prediction was put off.")
            return
        self.look()
        entry = self.session.entry
        if problem := self.obstacle():
            self.session.tell(problem, is_error=True)
            return
        assert entry is not None
        pages = [page for page in self.pages if not page.empty]
        if not pages:
            self.session.tell(NOTHING, is_error=True)
            return
        if self.page is not None and self.session.settings.channel is not None:
            self.page.channel = self.session.settings.channel
        scheme = self.scheme
        diameter = self.session.settings.diameter
        lessons = [replace(page.lesson(), diameter=diameter) for page in pages]
        held_out = sum(page.strokes.count()[1] for page in pages)
        this = _Round(entry, lessons, pages, held_out)
        settings = replace(self.settings, device=self.session.settings.device)
        self._end_comparison()
        self._round, self.candidate = this, None
        self._set("training")
        if not self.session.run(
            partial(_teaching, entry.path, lessons, settings, self.model_name, scheme),
            f"Training {self.model_name!r} ...",
            on_event=partial(self._on_event, this),
            on_done=partial(self._on_done, this),
            on_error=partial(self._on_error, this),
            on_cancelled=partial(self._on_cancelled, this),
        ):
            self._set("idle")

    def stop(self) -> None:
        """End the training now and judge the best of it so far."""
        if self._round is not None:
            self._round.stopped = True
            self.session.cancel("Stopping after this step ...")

    def discard(self) -> None:
        """End the training, or drop the model that waits for a verdict; the model in use stays."""
        if self._round is not None:
            self._round.discarded = True
            self.session.cancel("Discarded; the model in use stays.")
        elif self.candidate is not None:
            self.candidate = None
            self._end_comparison()
            self._set("idle")
            self._judge(Verdict("Discarded; the model in use stays.", False))

    def keep(self) -> None:
        """Put the model that waits for a verdict in use."""
        if self.candidate is not None:
            self._save(self.candidate, "Kept.")

    def show_after(self, after: bool) -> None:
        """Show what the model in use finds in the image in view, or what the trained one does."""
        if self._comparison is None or self._before_after is None or self._comparison not in self.viewer.layers:
            return
        region, *both = self._before_after
        array = np.asarray(self._comparison.data)
        shown = array.reshape(self._comparison.metadata["label_shape"])
        shown[region] = both[after]
        self._comparison.refresh()

    @property
    def comparing(self) -> bool:
        """Whether there is a before and after to look at."""
        return self._comparison is not None

    # ---- versions

    def go_back(self, entry: Entry) -> None:
        """Put another version in use; the files stay as they are, to the bit."""
        try:
            now = self.session.entry
            if not entry.shipped and now is not None and entry.card.name == now.card.name:
                entry = self.session.library.rollback(entry.card.name, entry.card.version)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self._put_in_use(entry)
        self._judge(Verdict(f"Version {entry.card.version} of {entry.card.name!r} is in use.", True))
        self._refresh()

    def name_version(self, entry: Entry, name: str) -> None:
        """Keep a version under a name of its own."""
        from ..engine.model import Model, load_model_file

        try:
            model = load_model_file(entry.path)
            card = model.card.with_(name=name, parent=entry.card.identity)
            saved = self.session.library.add(Model(card, model.network))
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self._put_in_use(saved)
        self.session.tell(f"Kept as {name!r}.")

    def export(self, entry: Entry, path: Path) -> None:
        """Copy a version to a file; .zip and .onnx are for other programs."""
        from ..engine.exchange import export_model

        try:
            path = export_model(self.session.library, entry, path)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self.session.tell(f"Exported: {path.name}.")

    def import_file(self, path: Path) -> None:
        """Take a model file or a package in and put it in use; in the background, since other programs' are tried first."""
        taken: list[Entry] = []

        def imported() -> None:
            self._put_in_use(taken[0])
            self.session.tell(f"Imported: {taken[0].card.name!r}.")

        self.session.run(
            partial(_importing, self.session.library, path),
            f"Importing {path.name} ...",
            on_event=taken.append,
            on_done=imported,
            on_error=lambda error: self.session.tell(in_one_sentence(error), is_error=True),
            on_cancelled=lambda: self.session.tell("Cancelled; nothing was imported."),
        )

    def delete(self, entry: Entry) -> None:
        """Delete a version."""
        try:
            self.session.library.delete(entry)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self.session.refresh_models()
        self.changed.emit()

    def new_model(
        self, name: str, task: str, classes: Sequence[str], dims: int, channels: int, start: Entry | None = None
    ) -> str:
        """Make a model, untrained or from another one, and put it in use; return why that cannot be, else nothing."""
        try:
            from ..engine.model import load_model_file
            from ..engine.transfer import start_model

            parent = None if start is None else load_model_file(start.path)
            model = start_model(name, task, tuple(classes), dims, channels, parent)
            self._put_in_use(self.session.library.add(model))
        except NapariUnetError as error:
            return str(error)
        self.session.tell(f"{name!r} is in use: paint, then press Train.")
        return ""

    def close(self) -> None:
        """Keep what was painted on disk and let go of the viewer; may be called more than once."""
        self.look()
        for page in self.pages:
            page.close()
        self.pages.clear()
        self._watched.clear()
        self._round = self.candidate = None
        for emitter, callback in (
            (self.viewer.layers.events.inserted, self._on_inserted),
            (self.viewer.layers.events.removed, self._on_removed),
        ):
            emitter.disconnect(callback)

    # ---- what the worker says

    def _on_event(self, this: _Round, event: StepDone | Validated | Trained) -> None:
        handlers: dict[str, Any] = {  # by name: importing the classes would import torch
            "StepDone": self._on_step,
            "Validated": self._on_validated,
            "Trained": self._on_trained,
        }
        handlers[type(event).__name__](this, event)

    def _on_step(self, this: _Round, event: StepDone) -> None:
        done, steps, left = event.step, event.steps, event.seconds / event.step * (event.steps - event.step)
        if self.settings.minutes is not None and 60 * self.settings.minutes - event.seconds < left:
            left = max(0.0, 60 * self.settings.minutes - event.seconds)
            steps = done + max(1, round(left * done / max(event.seconds, 1e-3)))
        judging = done == event.steps or done % self.settings.validate_every == 0
        self.session.advance(Progress(done, steps, left, "judging" if judging else "training"))
        self.stepped.emit(event)

    def _on_validated(self, this: _Round, event: Validated) -> None:
        best = this.best  # chosen as in `training.optimise`
        if best is None or best.score is None or event.score is None or event.score >= best.score:
            this.best = event
        self.validated.emit(event)

    def _on_trained(self, this: _Round, event: Trained) -> None:
        this.trained = event

    def _on_done(self, this: _Round) -> None:
        assert this.trained is not None
        self._conclude(this, this.trained)

    def _on_cancelled(self, this: _Round) -> None:
        best = this.best
        if this.discarded or not this.stopped:
            self._leave(this, Verdict("Discarded; the model in use stays.", False))
        elif best is None:
            self._leave(
                this, Verdict("Stopped before the first look at the held-out strokes: nothing was changed.", False)
            )
        else:
            self._conclude(this, best)

    def _on_error(self, this: _Round, error: Exception) -> None:
        self._leave(this, Verdict(in_one_sentence(error), False), is_error=True)

    def _leave(self, this: _Round, verdict: Verdict, *, is_error: bool = False) -> None:
        self._round = None
        self._set("idle")
        self._judge(verdict, is_error=is_error)

    def _conclude(self, this: _Round, end: Validated | Trained) -> None:
        self._round = None
        accepted = end.verdict.accepted
        many = f"{this.held_out} held-out stroke{'s' * (this.held_out != 1)}"
        sentence = end.verdict.sentence(end.score, end.baseline, many)
        if accepted:
            for page, lesson in zip(this.pages, this.lessons, strict=True):
                if lesson.newest is not None:
                    page.strokes.learned(lesson.newest)
            self._save(end.model, sentence)
        elif accepted is None:
            self.candidate = end.model
            self._set("judging")
            self._judge(Verdict(sentence))
            self._compare(this, end.model)
        else:
            self._set("idle")
            self._judge(Verdict(f"{sentence} The model in use stays.", False))

    def _save(self, model: Model, why: str) -> None:
        """Make the model a version, and put it in use; if it cannot be saved it waits, and the model in use stays."""
        self.candidate = model
        self._set("judging")
        saved: list[Entry] = []

        def done() -> None:
            self.candidate = None
            self._end_comparison()
            self._put_in_use(saved[0])
            self._set("idle")
            self._judge(Verdict(f"{why} Now in use as version {saved[0].card.version}.", True))
            self._refresh()

        def failed(error: Exception) -> None:
            self._judge(
                Verdict(f"{in_one_sentence(error)} The trained model waits: press Keep again.", False), is_error=True
            )
            self.changed.emit()

        self.session.run(
            partial(_saving, self.session.library, model),
            "Saving ...",
            on_event=saved.append,
            on_done=done,
            on_error=failed,
            on_cancelled=self.changed.emit,
        )

    def _compare(self, this: _Round, model: Model) -> None:
        """Compute before and after for the plane or volume in view."""
        source = self.session.image_layer
        page = self._page_of(source) or next((p for p in this.pages if p.source in self.viewer.layers), None)
        if page is None:
            return
        try:
            view = layers.in_view(self.viewer, page.source, page.image)
        except InvalidImage as error:
            self.session.tell(str(error), is_error=True)
            return
        settings = replace(self.session.settings, objects=None, probabilities=False)
        found: list[Any] = []

        def done() -> None:
            if self.candidate is not model:
                return
            shape = page.image.label_shape
            array = layers.label_array(page.source, page.image, np.zeros(shape, dtype=np.int32))
            try:
                place = layers.placement(page.source, page.image)
            except InvalidImage as error:
                self.session.tell(str(error), is_error=True)
                return
            self._before_after = found[0]
            self._comparison = Labels(array, name=f"{page.source.name} before and after", **place)
            self._comparison.metadata = {"label_shape": shape}
            self._comparison.editable = False
            if page.scheme.task == "semantic":
                self._comparison.colormap = page.scheme.result_colormap()
            self._hidden = [x for x in self.viewer.layers if isinstance(x, Labels) and x.visible]
            for layer in self._hidden:
                layer.visible = False
            self.viewer.add_layer(self._comparison)
            self.show_after(True)
            self.session.tell("Look at before and after, then keep or discard what was learned.")
            self.changed.emit()

        self.session.run(
            partial(_comparing, page.image, this.entry.path, model, settings, view),
            "Computing before and after ...",
            on_event=found.append,
            on_done=done,
            on_error=lambda error: self.session.tell(in_one_sentence(error), is_error=True),
            on_cancelled=self.changed.emit,
        )

    def _end_comparison(self) -> None:
        comparison, self._comparison, self._before_after = self._comparison, None, None
        if comparison is not None and comparison in self.viewer.layers:
            self.viewer.layers.remove(comparison)
        for layer in self._hidden:
            layer.visible = True
        self._hidden = []

    def _put_in_use(self, entry: Entry) -> None:
        self.session.refresh_models()
        self.session.choose_model(entry)
        self.changed.emit()

    def _refresh(self) -> None:
        """Show what the model now in use finds; results of others, or with corrections in them, stay, hidden."""
        if not self.refresh_after or self.session.image_layer is None or self.session.running:
            return
        for result in self.session.results:
            if result.source is self.session.image_layer and result.on_screen:
                result.layer.visible = result.is_of(result.source, self.session.entry) and not result.edited
        self._refreshing, self._active = True, self.viewer.layers.selection.active
        self.session.segment()

    def _judge(self, verdict: Verdict, *, is_error: bool = False) -> None:
        self.session.tell(verdict.text, is_error=is_error)
        self.judged.emit(verdict)

    def _set(self, state: str) -> None:
        self.state = state
        self.changed.emit()

    # ---- what the viewer says

    def _page_of(self, layer: ImageLayer | None) -> Page | None:
        return next((p for p in self.pages if p.source is layer), None)

    def _new_page(self, layer: ImageLayer, image: Image) -> Page:
        page = Page(layer, image, self.scheme, self._folder)
        page.channel = self.session.settings.channel if layer is self.session.image_layer else None
        self.pages.append(page)
        return page

    @property
    def _folder(self) -> Path:
        return self.session.library.folder.parent / "strokes"

    def _look_for_kept(self, layer: ImageLayer) -> None:
        if not self._folder.is_dir() or not any(self._folder.iterdir()):
            return
        try:
            page = Page(layer, layers.image_from(layer, None, self.scheme.dims), self.scheme, self._folder)
        except NapariUnetError:
            return
        if kept := page.kept():
            self._kept.append((layer, kept))

    def _forget(self, layer: ImageLayer) -> None:
        self._kept = [(x, kept) for x, kept in self._kept if x is not layer]

    def _on_choice(self) -> None:
        for page in self.pages:
            page.follow(self.scheme)
        self.changed.emit()

    def _on_state(self, state: str) -> None:
        if state == "idle" and self._refreshing:
            self._refreshing = False
            page = self.page
            if page is not None and page.layer in self.viewer.layers:
                self.viewer.layers.move(self.viewer.layers.index(page.layer), len(self.viewer.layers))
            if self._active in self.viewer.layers:
                self.viewer.layers.selection.active = self._active  # so that painting goes on
            self._active = None
            if self._train_next:
                self._train_next = False
                self.train()

    def _on_inserted(self, event: Any) -> None:
        if event.value in self.session.image_layers():
            self._look_for_kept(event.value)
            self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        page = self._page_of(event.value)
        self._forget(event.value)
        if page is not None:
            self.look()
            page.close()
            self.pages.remove(page)
            if not page.empty:
                self.session.tell(
                    f"The image {event.value.name!r} was removed; what you painted on it is kept and comes back with it."
                )
        self.changed.emit()


def _teaching(
    path: Path, lessons: list[Lesson], settings: TrainSettings, name: str, scheme: Scheme
) -> Generator[StepDone | Validated | Trained, None, None]:
    """Run in the worker: torch is imported here, not in the window's thread."""
    from ..engine.lesson import teach
    from ..engine.model import load_model_file

    yield from teach(load_model_file(path), lessons, settings, name=name, classes=scheme.names, colors=scheme.colors)


def _importing(library: Library, path: Path) -> Generator[Entry, None, None]:
    from ..engine.exchange import import_model

    yield import_model(library, path)


def _saving(library: Any, model: Model) -> Generator[Entry, None, None]:
    yield library.add(model)


def _comparing(
    image: Image, path: Path, model: Model, settings: SegmentSettings, view: tuple[slice, ...] | None
) -> Generator[tuple[tuple[slice, ...], NDArray[Any], NDArray[Any]], None, None]:
    """Yield the region in view and its labels by the model in use and by the trained one."""
    from ..engine.inference import ItemDone, segment
    from ..engine.model import load_model_file

    found = []
    for one in (load_model_file(path), model):
        for event in segment(image, one, settings, in_view=view):
            if isinstance(event, ItemDone):
                found.append(event)
                break
    before, after = found
    yield after.region, before.labels.copy(), after.labels.copy()
