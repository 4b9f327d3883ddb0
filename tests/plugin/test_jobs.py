"""The traps of generators in threads, each with the cure."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from napari_unet.engine.errors import OutOfMemory
from napari_unet.plugin import jobs

END = 10_000
"""Milliseconds after which a test that hangs fails."""


class Ends:
    """What a job called at its end."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events: list[object] = []
        self.error: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self.calls)

    def keep(self, error: Exception) -> None:
        self.error = error
        self.calls.append("error")

    def callbacks(self) -> dict[str, object]:
        return {
            "on_event": self.events.append,
            "on_done": lambda: self.calls.append("done"),
            "on_error": self.keep,
            "on_cancelled": lambda: self.calls.append("cancelled"),
        }


def count(n: int) -> Iterator[int]:
    yield from range(n)


def test_events_arrive_in_order_in_the_window_s_thread(qtbot) -> None:
    ends, threads = Ends(), set()
    callbacks = ends.callbacks()
    callbacks["on_event"] = lambda event: (ends.events.append(event), threads.add(threading.get_ident()))
    job = jobs.start(count, 20, **callbacks)
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert ends.events == list(range(20))
    assert threads == {threading.get_ident()}
    assert ends.calls == ["done"]
    assert not job.running


@pytest.mark.parametrize("error", [RuntimeError("CUDA is gone"), OutOfMemory("Memory ran out."), ValueError("odd")])
def test_every_error_reaches_the_user(qtbot, error: Exception) -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise error

    ends = Ends()
    job = jobs.start(fails, **ends.callbacks())
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert ends.error is error
    assert ends.calls == ["error"]
    assert not job.running


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_a_program_ends_the_job(qtbot, error: BaseException) -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise error

    ends = Ends()
    jobs.start(fails, **ends.callbacks())
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert ends.calls == ["error"]
    assert type(error).__name__ in str(ends.error)


def test_an_error_in_a_callback_ends_the_job_and_reaches_the_user(qtbot) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    def broken(event: object) -> None:
        raise RuntimeError("the layer is gone")

    ends = Ends()
    job = jobs.start(endless, **(ends.callbacks() | {"on_event": broken}))
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert ends.calls == ["error"]
    assert job.wait(END / 1000)
    assert closed.is_set()


def test_a_job_that_is_held_makes_no_event_until_it_goes_on(qtbot) -> None:
    made: list[int] = []

    def counting() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            yield i

    ends = Ends()
    job = jobs.Job(counting, (), jobs.ignore, ends.callbacks()["on_done"], jobs.ignore, jobs.ignore)
    job.hold(True)
    job.begin()
    assert not job.wait(0.05)
    assert made == []
    job.hold(False)
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert made == [0, 1, 2, 3, 4]


def test_a_job_that_is_held_can_be_cancelled(qtbot) -> None:
    ends = Ends()
    job = jobs.start(lambda: (yield 1), **ends.callbacks())
    job.hold(True)
    job.cancel()
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert job.wait(END / 1000)


def test_cancel_closes_the_generator(qtbot) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ends = Ends()
    job = jobs.start(endless, **ends.callbacks())
    qtbot.waitUntil(lambda: len(ends.events) > 2, timeout=END)
    job.cancel()
    seen = len(ends.events)
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert ends.calls == ["cancelled"]
    assert len(ends.events) == seen
    assert closed.is_set()


def test_cancelling_before_the_first_event_is_fine(qtbot) -> None:
    ends = Ends()
    jobs_started = jobs.start(count, 5, **ends.callbacks())
    jobs_started.cancel()
    jobs_started.cancel()
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert ends.calls == ["cancelled"]
    assert ends.events == []


def test_the_worker_waits_for_a_slow_window(qtbot) -> None:
    made: list[int] = []

    def fast() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    ends = Ends()
    job = jobs.start(fast, **ends.callbacks())
    assert not job.wait(0.3)  # nobody hears: the event loop does not turn
    assert len(made) <= jobs.QUEUED
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert len(ends.events) == 50


@pytest.mark.parametrize("how", ["done", "error", "cancelled"])
def test_no_array_outlives_the_job(qtbot, how: str) -> None:
    class Pixels(np.ndarray):
        """An array that weakref can follow."""

    def work(pixels: np.ndarray) -> Iterator[np.ndarray]:
        for _ in range(3):
            yield pixels + 1
        if how == "error":
            raise RuntimeError("no")

    ends = Ends()
    pixels = np.zeros(9).view(Pixels)
    alive = weakref.ref(pixels)
    job = jobs.start(work, pixels, **(ends.callbacks() | {"on_event": jobs.ignore}))
    del pixels
    if how == "cancelled":
        job.cancel()
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert ends.calls == [how]
    assert job.wait(END / 1000)
    gc.collect()
    assert alive() is None


def test_torch_leaves_one_core_to_the_window_and_gets_it_back(qtbot, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 3)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    ends = Ends()
    job = jobs.start(count, 3, **ends.callbacks())
    qtbot.waitUntil(lambda: bool(ends), timeout=END)
    assert job.wait(END / 1000)
    assert set_to == [2, 8]
