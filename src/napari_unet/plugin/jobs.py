"""start(): run a generator in a worker thread and hear its events in the window's thread. The only code about threads.

What is cured here once, so that nobody else has to know of it: errors of every kind reach the user (napari's own
workers lose a RuntimeError raised in a generator), cancelling closes the generator so that its ``finally`` runs, a fast
worker waits for a slow window instead of queueing results, nothing is kept alive after the end, and closing the
window never hangs.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

from qtpy.QtCore import QObject, Signal, Slot

from ..engine.errors import NapariUnetError
from .preferences import Preferences

QUEUED = 4
"""Events that may wait for the window; the worker pauses beyond that."""
LAST_WAIT = 10.0
"""Seconds that a closing application, its windows gone, waits for a cancelled job: torch cannot be left in mid-tile."""
Events = Generator[Any, None, None]


def ignore(*_: object) -> None:
    """Do nothing: for callbacks that nobody needs."""


class Handle(Protocol):
    """What a starter of jobs returns; tests hand in their own."""

    @property
    def running(self) -> bool:
        """Whether the job has not come to its end."""
        ...

    def cancel(self) -> None:
        """Stop as soon as the event being computed is done."""
        ...

    def hold(self, on: bool) -> None:
        """Pause before the next event, or go on."""
        ...


class Starter(Protocol):
    """The shape of `start`, so that code without Qt can be handed another one."""

    def __call__(
        self,
        function: Callable[..., Events],
        *args: Any,
        on_event: Callable[[Any], object] = ...,
        on_done: Callable[[], object] = ...,
        on_error: Callable[[Exception], object] = ...,
        on_cancelled: Callable[[], object] = ...,
    ) -> Handle:
        """Run `function(*args)`."""
        ...


def start(
    function: Callable[..., Events],
    *args: Any,
    on_event: Callable[[Any], object] = ignore,
    on_done: Callable[[], object] = ignore,
    on_error: Callable[[Exception], object] = ignore,
    on_cancelled: Callable[[], object] = ignore,
) -> Job:
    """Iterate the generator ``function(*args)`` in a thread of its own.

    Call it from the window's thread and keep what it returns. All callbacks run in the window's thread. After any
    number of `on_event`, exactly one of the others is called: `on_done`, `on_error` with what was raised (also if a
    callback raised it), or `on_cancelled`. After a cancel no event arrives.
    """
    job = Job(function, args, on_event, on_done, on_error, on_cancelled)
    job.begin()
    return job


class Job(QObject):
    """A generator that runs in a thread."""

    _news = Signal()

    def __init__(
        self,
        function: Callable[..., Events],
        args: tuple[Any, ...],
        on_event: Callable[[Any], object],
        on_done: Callable[[], object],
        on_error: Callable[[Exception], object],
        on_cancelled: Callable[[], object],
    ) -> None:
        super().__init__()
        self._function: Callable[..., Events] = function
        self._args = args
        self._on_event, self._on_done = on_event, on_done
        self._on_error, self._on_cancelled = on_error, on_cancelled
        self._inbox: deque[tuple[str, Any]] = deque()
        self._room = threading.Semaphore(QUEUED)
        self._cancel = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._running = True
        self._thread = threading.Thread(target=self._work, name="napari-unet job", daemon=True)
        self._news.connect(self._deliver)

    def begin(self) -> None:
        """Start the thread."""
        atexit.register(self._quit)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the job has not come to its end."""
        return self._running

    def cancel(self) -> None:
        """Stop as soon as the event being computed is done; may be called at any time and more than once."""
        self._cancel.set()
        self._go.set()
        self._room.release()

    def hold(self, on: bool) -> None:
        """Pause before the next event, or go on; a job that is held can be cancelled."""
        if on and not self._cancel.is_set():
            self._go.clear()
        else:
            self._go.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the thread and say whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        """Run in the worker thread: iterate, and close the generator whatever happens."""
        function, args = self._function, self._args
        self._function, self._args = _no_events, ()
        end: tuple[str, Any] = ("done", None)
        threads = _Threads()
        try:
            events = function(*args)
            del function, args
            try:
                while True:
                    self._room.acquire()
                    self._go.wait()
                    if self._cancel.is_set():
                        end = ("cancelled", None)
                        break
                    threads.leave_one_core()
                    try:
                        event = next(events)
                    except StopIteration:
                        break
                    self._send("event", event)
                    del event
            finally:
                events.close()
                threads.restore()
        except BaseException as error:  # noqa: BLE001 - the one place where any failure becomes a message
            end = ("cancelled", None) if self._cancel.is_set() else ("error", _as_exception(error))
        self._send(*end)
        atexit.unregister(self._quit)

    def _send(self, kind: str, value: Any) -> None:
        self._inbox.append((kind, value))
        try:
            self._news.emit()
        except RuntimeError:  # Qt is gone: the application was closed before the thread came to its end
            self._inbox.clear()

    @Slot()
    def _deliver(self) -> None:
        """Run in the window's thread, once for each message."""
        if not self._inbox:
            return
        kind, value = self._inbox.popleft()
        try:
            if kind == "event":
                if not self._cancel.is_set() and self._running:
                    self._on_event(value)
            elif self._running:
                self._finish(kind, value)
        except Exception as error:
            self.cancel()
            if self._running:
                self._finish("error", error)
            else:
                raise
        finally:
            self._room.release()

    def _finish(self, kind: str, value: Any) -> None:
        on_done, on_error, on_cancelled = self._on_done, self._on_error, self._on_cancelled
        self._running = False
        self._on_event = self._on_done = self._on_error = self._on_cancelled = ignore
        if kind == "error":
            _report(value)
            on_error(value)
        elif kind == "cancelled" or self._cancel.is_set():
            on_cancelled()
        else:
            on_done()

    def _quit(self) -> None:
        self.cancel()
        self.wait(LAST_WAIT)


class _Threads:
    """Torch's number of threads in this worker: as the user wants it, else one core is left to the window."""

    def __init__(self) -> None:
        self._before: int | None = None

    def leave_one_core(self) -> None:
        torch: Any = sys.modules.get("torch")  # importing it is the engine's business
        if self._before is None and hasattr(torch, "set_num_threads"):
            before = int(torch.get_num_threads())
            most = max(1, min(before, (os.cpu_count() or 2) - 1))
            torch.set_num_threads(Preferences.read().threads or most)
            self._before = before

    def restore(self) -> None:
        if self._before is not None:
            sys.modules["torch"].set_num_threads(self._before)


def _as_exception(error: BaseException) -> Exception:
    """Return what `on_error` can take: a library that calls ``sys.exit`` would else leave the dock waiting for ever."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


def _report(error: BaseException) -> None:
    """Log an error that is not one of ours, and let go of its frames: they hold arrays."""
    if not isinstance(error, NapariUnetError):
        logging.getLogger(__name__).error("A job failed.\n%s", "".join(traceback.format_exception(error)))
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__


def _no_events() -> Events:
    yield from ()
