"""ClickTool: one click, one object, in the slice in view; and corrections of objects that are there. No Qt."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from psygnal import Signal

from ..engine.errors import InvalidImage, NapariUnetError
from ..engine.library import Entry
from . import correcting
from .asking import Desk, Mask, answers, extension, load, readiness
from .choice import NO_IMAGE
from .correcting import SPLIT, VERBS, Verb
from .gestures import Gestures, World
from .planes import Pixel, Plane, plane_in_view
from .preview import Preview, same_active
from .result import Result
from .session import Session, in_one_sentence
from .teaching import Teaching

if TYPE_CHECKING:
    from ..engine.click import ClickSegmenter
    from .jobs import Handle, Starter

KEY = "K"
"""Switches the tool on and off."""
OFF = "Switch it on, then left-click an object."
IDLE = "Left-click an object to cut it out; double-click one that is there to correct it."
PENDING = "Left-click what is missing, right-click what is too much. Enter accepts, Escape drops."
NOTHING = "Nothing stands out here. Left-click the middle of an object; Escape starts anew."
LOOKING = "Looking ..."
PAINTING = "The active layer has its own use for clicks: choose its pan and zoom mode to go on here."
EXTENDING = "Following the object through the slices; Escape stops."
NO_MODEL = "The click model is missing: install napari-unet again."
NO_OBJECT = "Click the object in this slice first, or double-click it."


@dataclass(eq=False)
class Draft:
    """An object that is not yet accepted.

    Attributes
    ----------
    plane
        Where.
    value
        The object that is corrected; None: a new one.
    masks
        What it was before the first click (None: nothing), then the answer to each click that was answered.
    prior
        The automatic object under the first click.
    """

    plane: Plane
    value: int | None = None
    clicks: list[tuple[Pixel, bool]] = field(default_factory=list)
    masks: list[Mask | None] = field(default_factory=lambda: [None])
    prior: Mask | None = None
    accept_when_answered: bool = False

    @property
    def answered(self) -> bool:
        """Whether no click waits for its answer."""
        return len(self.masks) > len(self.clicks)

    @property
    def mask(self) -> Mask | None:
        """The newest answer."""
        return self.masks[-1]


class ClickTool:
    """Clicks in a viewer, and what they do.

    Parameters
    ----------
    session
        Its image is clicked on, its results take the objects.
    start
        `jobs.start`, or what behaves like it.
    make
        Returns the segmenter; runs in the worker.
    study
        Starts the jobs that learn, beside those of the clicks; None: `start` does.
    """

    changed = Signal()
    """On or off, the verb, or the object that is not yet accepted."""

    def __init__(
        self,
        session: Session,
        start: Starter,
        make: Callable[[Entry, str], ClickSegmenter] = load,
        study: Starter | None = None,
    ) -> None:
        self.session, self.viewer = session, session.viewer
        self.teaching = Teaching(session, study or start)
        self.on = self.extending = False
        self.verb: Verb | None = None
        self.draft: Draft | None = None
        self.last: tuple[Plane, int] | None = None
        """The object accepted last, and where."""
        self._start, self._make = start, make
        self._preview = Preview(self.viewer)
        self._gestures = Gestures(
            self.viewer,
            clicked=self.click,
            double_clicked=self.pick_up,
            drawn=self.split_along,
            drawing=lambda: self.verb is SPLIT,
            keys={
                "Enter": self.accept,
                "N": self.accept,
                "Escape": self.drop,
                "Control-Z": self.undo,
                "Control-Shift-Z": self.redo,
                "T": self.extend,
                **{verb.key: partial(self.choose, verb) for verb in VERBS},
            },
            changed=self.changed.emit,
        )
        self._seeds: list[tuple[Plane, Pixel]] = []
        self._own: list[Result] = []
        self._desk: Desk | None = None
        self._desk_of: tuple[Any, ...] = ()
        self._job: Handle | None = None
        self._busy = self._closed = self._appended = False
        self.has_key = KEY not in {str(key) for key in self.viewer.keymap}
        if self.has_key:
            self.viewer.bind_key(KEY, self._on_key)
        self.viewer.layers.events.removed.connect(self._on_removed)
        session.changed.connect(self._on_session)

    # ---- on and off

    def switch(self, on: bool) -> None:
        """Switch it on or off; what is not accepted is dropped."""
        if on == self.on or self._closed:
            return
        if on and (problem := self.obstacle()):
            self.session.tell(problem, is_error=True)
        elif on:
            self.on = True
            self._gestures.begin()
            self._warm_up()
        else:
            self.on = False
            self._gestures.end()
            self.verb, self._seeds = None, []
            self._forget()
            if self._desk is not None:
                self._desk.clear()
            self._preview.remove()
            if self._job is not None:
                self._job.cancel()
        self.changed.emit()

    def close(self) -> None:
        """Switch it off and let go of the viewer; may be called more than once."""
        if self._closed:
            return
        self.switch(False)
        self._closed = True
        self.teaching.close()
        self._desk = None
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.session.changed.disconnect(self._on_session)
        if self.has_key:
            self.viewer.bind_key(KEY, None)

    def obstacle(self) -> str:
        """Say why it cannot be used; empty: it can."""
        if self.session.image_layer is None:
            return NO_IMAGE
        return "" if self._entry() else NO_MODEL

    def cannot_extend(self) -> str:
        """Say why no object can be followed through the slices now; empty: one can."""
        try:
            plane = self._plane()
        except NapariUnetError as error:
            return str(error)
        if not _along(plane):
            return f"{plane.layer.name!r} has one slice only: there is nothing to extend through."
        if self.draft is None and (self.last is None or self.last[0].key != plane.key):
            return NO_OBJECT
        return EXTENDING if self.extending else ""

    def hint(self) -> str:
        """Say what the next click does."""
        if not self.on:
            return self.obstacle() or OFF
        if self._gestures.painting:
            return PAINTING
        if self.extending:
            return EXTENDING
        if self.verb is not None:
            return self.verb.hints[len(self._seeds)]
        if self.draft is None:
            return IDLE
        if not self.draft.answered:
            return LOOKING
        return PENDING if self.draft.mask is not None and self.draft.mask.any() else NOTHING

    # ---- the verbs

    def click(self, world: World, positive: bool = True) -> None:
        """Take a click at a point of the world."""
        self._appended = False
        if self.extending:
            self.session.tell(EXTENDING)
            return
        try:
            plane = self._plane()
            pixel = plane.pixel(world)
            if self.verb is not None:
                self._correct(self.verb, plane, pixel)
            else:
                self._cut_out(plane, pixel, positive)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
        self.changed.emit()

    def pick_up(self, world: World) -> None:
        """Take an object that is there for correction; the click that a double click began with is taken back."""
        try:
            plane = self._plane()
            pixel = plane.pixel(world)
        except NapariUnetError:
            return  # the first click said it
        result = self._result(plane)
        value = correcting.value_at(result, plane, pixel)
        if result is None or not value or self.verb is not None or self.extending:
            return
        if self.draft is not None and self._appended:
            self._take_back()
        self._appended = False
        if self.draft is not None and self.draft.value != value:
            self.accept()
        if self.draft is None:
            self.draft = Draft(plane, value, masks=[result.pixels[plane.where] == value])
            self._show()
            self.session.tell(f"Object {value} is picked up: correct it with clicks.")
        self.changed.emit()

    def accept(self) -> None:
        """Write the object into the result, where it is locked from now on, and learn from it."""
        draft = self.draft
        if draft is None:
            return
        if not draft.answered:
            draft.accept_when_answered = True
            return
        if draft.mask is None or not draft.mask.any():
            self.session.tell(NOTHING)
            return
        try:
            result = self._result(draft.plane) or self._new_result(draft.plane)
            number = correcting.accept(result, draft.plane, draft.mask, draft.value)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self.last = draft.plane, number
        first = draft.clicks[0][0] if draft.clicks and draft.value is None else None
        self.teaching.take(None if self._desk is None else self._desk.segmenter, (draft.plane, draft.mask, first))
        self._forget()
        self.session.tell(f"Object {number} is accepted and locked.")
        self.changed.emit()

    def drop(self) -> None:
        """Forget the object that is not yet accepted, else leave the verb."""
        if self.extending and self._job is not None:
            self._job.cancel()
        elif self.draft is not None:
            self._forget()
        elif self._seeds:
            self._seeds = []
        else:
            self.verb = None
        self.changed.emit()

    def undo(self) -> None:
        """Take back the newest click, or else the newest change of the result."""
        if self.draft is not None:
            self._take_back()
        elif self._seeds:
            self._seeds.pop()
        elif (layer := self._editable()) is not None:
            layer.undo()
        self.changed.emit()

    def redo(self) -> None:
        """Bring back the change of the result that was undone last."""
        if self.draft is None and (layer := self._editable()) is not None:
            layer.redo()

    def choose(self, verb: Verb | None) -> None:
        """Choose what clicks do: a verb, until it is chosen again, or None for cutting out."""
        self.accept()
        self.verb = None if verb is self.verb else verb
        self._seeds = []
        self.changed.emit()

    def split_along(self, start: World, stop: World) -> None:
        """Divide the object that a line runs across."""
        try:
            plane = self._plane()
            self._seeds = []
            ends = plane.pixel(start), plane.pixel(stop)
            self.session.tell(correcting.split_along(self._result(plane), plane, ends))
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
        self.changed.emit()

    def extend(self) -> None:
        """Follow the object through the slices, up to the next ones where the user has seen to it."""
        self.accept()
        problem = self.cannot_extend()
        if self.draft is None and not problem:
            plane = self._plane()
            result = self._result(plane)
            assert self.last is not None
            value = self.last[1]
            mask = None if result is None else result.pixels[plane.where] == value
            if result is None or mask is None or not mask.any():
                problem = NO_OBJECT
            elif not result.layer.editable:
                problem = correcting.RUNNING
            else:
                self._extend(result, plane, value, mask)
        if problem:
            self.session.tell(problem, is_error=True)
        self.changed.emit()

    def keep(self) -> None:
        """Save what was learned as the next version of the click model."""
        if self.teaching.keep() and self.on:
            self._warm_up()

    def forget(self) -> None:
        """Answer as if nothing had been accepted."""
        self._desk = None
        self.teaching.forget()
        if self.on:
            self._warm_up()

    # ---- cutting out

    def _cut_out(self, plane: Plane, pixel: Pixel, positive: bool) -> None:
        if self.draft is not None and self.draft.plane.key != plane.key:
            self.accept()
            if self.draft is not None:
                return
        result = self._result(plane)
        under = correcting.value_at(result, plane, pixel)
        corrected = None if self.draft is None else self.draft.value
        if positive and result is not None and under in result.accepted and under != corrected:
            raise InvalidImage(f"Object {under} was accepted, so it is locked: double-click it to correct it.")
        if self.draft is None:
            if not positive:
                raise InvalidImage("There is nothing to take away from: left-click the object itself first.")
            prior = result.pixels[plane.where] == under if result is not None and under else None
            self.draft = Draft(plane, prior=prior)
        self.draft.plane = plane  # perhaps another channel
        self.draft.clicks.append((pixel, positive))
        self.draft.accept_when_answered = False
        self._appended = True
        self._ask()

    def _take_back(self) -> None:
        draft = self.draft
        assert draft is not None
        if draft.clicks:
            draft.clicks.pop()
            del draft.masks[len(draft.clicks) + 1 :]
        if not draft.clicks and draft.masks[0] is None:
            self._forget()
        else:
            self._show()

    def _ask(self) -> None:
        """Have the newest click answered; while a job runs, its end asks again, and an answer that is old is not shown."""
        draft = self.draft
        if self._busy or draft is None or draft.answered or not self.on:
            return
        clicks = list(draft.clicks)
        self._begin(
            partial(answers, self._at_desk(), draft.plane, clicks, list(draft.masks), draft.prior),
            on_event=partial(self._on_answers, draft, clicks),
            on_error=partial(self._on_error, draft),
        )

    def _on_answers(self, draft: Draft, clicks: list[tuple[Pixel, bool]], masks: list[Mask | None]) -> None:
        if draft is not self.draft or draft.clicks[: len(clicks)] != clicks:
            return
        draft.masks = masks
        if draft.answered:
            self._show()
            if draft.accept_when_answered:
                self.accept()
        self.changed.emit()

    def _on_error(self, draft: Draft | None, error: Exception) -> None:
        if draft is not None and draft is self.draft:
            del draft.clicks[len(draft.masks) - 1 :]
            if not draft.clicks and draft.mask is None:
                self._forget()
        self.session.tell(in_one_sentence(error), is_error=True)

    def _show(self) -> None:
        draft = self.draft
        if draft is None or draft.mask is None:
            self._preview.clear()
        else:
            self._preview.show(draft.plane, draft.mask)

    def _forget(self) -> None:
        self.draft = None
        self._preview.clear()

    # ---- through the slices, and corrections

    def _extend(self, result: Result, plane: Plane, value: int, mask: Mask) -> None:
        if self._busy:
            self.session.tell("A click is being answered: try again.", is_error=True)
            return
        along = _along(plane)
        part = correcting.unseen(result, plane, along, value)
        found: dict[int, Mask] = {}
        self.extending = True
        self._begin(
            partial(extension, self._at_desk(), plane, along, part, mask),
            on_event=lambda event: found.__setitem__(event.z + part.start, event.mask),
            on_done=partial(self._on_extended, result, plane, along, part, value, found),
            on_error=partial(self._on_error, None),
        )

    def _on_extended(
        self, result: Result, plane: Plane, along: str, part: slice, value: int, found: dict[int, Mask]
    ) -> None:
        if not result.on_screen:
            return
        try:
            first, last = correcting.spread(result, plane, along, part, value, found)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self.session.tell(
            f"Object {value} now reaches from {along} = {first} to {last}. "
            "In a slice where it is wrong, double-click it, correct it and extend again."
        )

    def _correct(self, verb: Verb, plane: Plane, pixel: Pixel) -> None:
        seeds = [*(s for s in self._seeds if s[0].key == plane.key), (plane, pixel)]
        result = self._result(plane)
        if not correcting.value_at(result, plane, pixel):
            raise InvalidImage(correcting.NO_OBJECT)
        if len(seeds) < len(verb.hints):
            self._seeds = seeds
            return
        self._seeds = []
        self.session.tell(correcting.correct(result, plane, verb, [at for _, at in seeds]))

    # ---- what there is

    def _plane(self) -> Plane:
        layer = self.session.image_layer
        if layer is None:
            raise InvalidImage(NO_IMAGE)
        return plane_in_view(self.viewer, layer, self.session.choice.image())

    def _result(self, plane: Plane) -> Result | None:
        """Return the newest result of objects on an image."""
        fitting = (
            r
            for r in reversed([*self._own, *self.session.results])
            if r.on_screen
            and r.source is plane.layer
            and r.entry.card.task != "semantic"
            and r.image.label_axes == plane.image.label_axes
            and r.layer.data.size == math.prod(plane.image.label_shape)
        )
        return next(fitting, None)

    def _new_result(self, plane: Plane) -> Result:
        """Return an empty result: of the model in use if it finds objects, else one of our own."""
        entry, own = self.session.entry, self._entry()
        if entry is None or entry.card.task != "objects":
            entry = own
        assert entry is not None
        result = Result(self.viewer, plane.layer, plane.image, entry)
        with same_active(self.viewer):
            result.blank()
        (self._own if entry is own else self.session.results).append(result)
        return result

    def _editable(self) -> Labels | None:
        """Return the layer that undo and redo are for."""
        active = self.viewer.layers.selection.active
        if isinstance(active, Labels) and active is not self._preview.layer:
            return active
        try:
            result = self._result(self._plane())
        except NapariUnetError:
            return None
        return None if result is None else result.layer

    def _entry(self) -> Entry | None:
        try:
            return self.session.library.find("click")
        except NapariUnetError:
            return None

    # ---- jobs

    def _at_desk(self) -> Desk:
        """Return the segmenter of the model in use; another model, or device, has learned nothing yet."""
        entry = self._entry()
        if entry is None:
            raise InvalidImage(NO_MODEL)
        of = entry.path, self.session.settings.device
        if self._desk is None or of != self._desk_of:
            self.teaching.forget()
            self._desk, self._desk_of = Desk(partial(self._make, entry, self.session.settings.device)), of
        return self._desk

    def _warm_up(self) -> None:
        """Load the model and look at the slice in view, so that the first click need not wait."""
        try:
            plane = self._plane()
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self._begin(partial(readiness, self._at_desk(), plane), on_error=partial(self._on_error, None))

    def _begin(
        self,
        function: Callable[[], Generator[Any, None, None]],
        *,
        on_error: Callable[[Exception], object],
        on_event: Callable[[Any], object] = lambda _: None,
        on_done: Callable[[], object] = lambda: None,
    ) -> None:
        """Start a job, if none runs; it may come to its end before `start` returns."""
        if self._busy:
            return

        def ending(callback: Callable[..., object]) -> Callable[..., None]:
            def call(*args: Any) -> None:
                self._busy, self._job, self.extending = False, None, False
                self.teaching.hold(False)
                if self.on:
                    callback(*args)
                    self._ask()
                    self.changed.emit()

            return call

        self._busy = True
        self.teaching.hold(True)
        job = self._start(
            function,
            on_event=lambda event: on_event(event) if self.on else None,
            on_done=ending(on_done),
            on_error=ending(on_error),
            on_cancelled=ending(lambda: self.session.tell("Stopped; nothing was changed.")),
        )
        self._job = job if self._busy else None

    # ---- what the viewer says

    def _on_key(self, viewer: Any) -> None:
        self.switch(not self.on)

    def _on_session(self) -> None:
        if self.draft is not None and self.session.image_layer is not self.draft.plane.layer:
            self._forget()
        if self.session.image_layer is None:
            self.switch(False)
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        self._own = [r for r in self._own if r.layer is not layer and r.source is not layer]
        if layer is self._preview.layer:
            self._preview.layer = None
            self._forget()
        if self.draft is not None and self.draft.plane.layer is layer:
            self._forget()
        if self.last is not None and self.last[0].layer is layer:
            self.last = None
        self.changed.emit()


def _along(plane: Plane) -> str:
    """Return the axis to follow an object along: z before time; empty: there is one slice only."""
    shape = dict(zip(plane.image.label_axes, plane.image.label_shape, strict=True))
    return next((axis for axis in "zyxt" if axis in plane.labels_position and shape[axis] > 1), "")
