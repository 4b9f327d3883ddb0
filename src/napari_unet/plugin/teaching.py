"""Teaching: the objects that a user accepts teach the click model, in a job of its own beside the clicks. No Qt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ..engine.errors import NapariUnetError
from .asking import Accepted, lesson
from .session import Session, in_one_sentence

if TYPE_CHECKING:
    from ..engine.adaptation import Learned
    from ..engine.click import ClickSegmenter
    from .jobs import Handle, Starter

NOTHING_YET = "Each object that you accept teaches the tool the kind of image that this is."
OFF = "What you accept is not learned from."
LEARNING = "It is learning from the last object: wait a moment."
NOTHING_TO_KEEP = "Nothing was learned that makes the answers better."
NOTHING_TO_FORGET = "Nothing was learned yet."


class Teaching:
    """What the click tool learned, and whether it goes on learning.

    Parameters
    ----------
    session
        Its library takes what is kept.
    start
        `jobs.start`, or what behaves like it.
    """

    changed = Signal()
    """On or off, or what was learned."""

    def __init__(self, session: Session, start: Starter) -> None:
        self.session = session
        self.on = True
        self._start = start
        self._segmenter: ClickSegmenter | None = None
        self._accepted: list[Accepted] = []
        self._learned: Learned | None = None
        self._job: Handle | None = None
        self.busy = False
        """Whether it is learning."""

    def switch(self, on: bool) -> None:
        """Learn from what is accepted from now on, or do not; what was learned stays."""
        self.on = on
        if not on:
            self._accepted = []
            self.stop()
        self.changed.emit()

    def take(self, segmenter: ClickSegmenter | None, accepted: Accepted) -> None:
        """Have a segmenter learn an object, at once or after those that it is learning."""
        if self.on and segmenter is not None:
            self._segmenter = segmenter
            self._accepted.append(accepted)
            self._go_on()

    def _go_on(self) -> None:
        if self.busy or not self._accepted or self._segmenter is None:
            return
        self.busy = True
        accepted, self._accepted = self._accepted, []
        job = self._start(
            partial(lesson, self._segmenter, accepted),
            on_event=self._on_event,
            on_done=self._on_end,
            on_error=self._on_error,
            on_cancelled=self._on_end,
        )
        self._job = job if self.busy else None
        self.changed.emit()

    def hold(self, on: bool) -> None:
        """Pause while a click is answered, or go on."""
        if self._job is not None:
            self._job.hold(on)

    def stop(self) -> None:
        """Stop learning after the step that is being taken."""
        if self._job is not None:
            self._job.cancel()

    def forget(self) -> None:
        """Forget what was learned; whoever holds the segmenter makes a new one."""
        self.stop()
        self._segmenter, self._learned, self._accepted = None, None, []
        self.changed.emit()

    def close(self) -> None:
        """Forget it, and tell nobody any more."""
        self.changed.disconnect()
        self.forget()

    def keep(self) -> bool:
        """Save the taught model as the next version of its name, which answers from then on; returns whether it is saved."""
        if problem := self.cannot_keep():
            self.session.tell(problem, is_error=True)
            return False
        assert self._segmenter is not None
        try:
            entry = self.session.library.add(self._segmenter.model)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return False
        self.session.tell(
            f"Kept as {entry.card.name}@{entry.card.version}: it answers from now on, also after the next start. "
            "The Models panel goes back to the one before."
        )
        self.forget()
        return True

    def cannot_keep(self) -> str:
        """Say why there is nothing to keep; empty: there is."""
        if self.busy:
            return LEARNING
        return "" if self._learned is not None and self._learned.better else NOTHING_TO_KEEP

    def cannot_forget(self) -> str:
        """Say why there is nothing to forget; empty: there is."""
        return "" if self.busy or self._learned is not None else NOTHING_TO_FORGET

    def sentence(self) -> str:
        """Say what was learned, and whether it helps."""
        if self._learned is not None:
            return self._learned.sentence()
        if not self.on:
            return OFF
        return "Learning from the first object ..." if self.busy else NOTHING_YET

    def _on_event(self, event: Any) -> None:
        if hasattr(event, "objects"):  # Learned; the others are steps
            self._learned = event
            self.changed.emit()

    def _on_end(self) -> None:
        self._job, self.busy = None, False
        self._go_on()
        self.changed.emit()

    def _on_error(self, error: Exception) -> None:
        self._on_end()
        self.session.tell(in_one_sentence(error), is_error=True)
