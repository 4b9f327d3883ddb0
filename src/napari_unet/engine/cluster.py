"""crew(): the workers of a dask cluster, found or started, checked, given the model once and handed piece after piece.

Importing this module needs the extra ``cluster``. A piece of work is a generator function that runs on a worker: it
yields how much of how much is done, and returns its result. A worker that dies loses nothing but the piece under way,
which another one gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import itertools
import logging
import os
import queue
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import torch
from distributed import Client, Future, LocalCluster, Security, Worker, WorkerPlugin, get_worker
from distributed.comm import connect
from distributed.scheduler import KilledWorker

from .errors import ClusterError, NapariUnetError
from .model import Model

ANSWER = 8.0
"""Seconds that a scheduler may take to answer."""
PATIENCE = 300.0
"""Seconds without any worker after which a batch stops: a scheduler of a queueing system may be starting new ones."""
QUEUED = 2
"""Pieces that are handed out for each worker: one to compute, one to go on with."""
NEWS = 0.5
"""Seconds between two words of a worker on its piece."""
TICK = 1.0
"""Seconds after which silence is told, so that the one who listens can pause or cancel."""
PACKAGES = ("napari-unet", "distributed")
"""Must have one version everywhere: they read what the others send."""


@dataclass(frozen=True, slots=True)
class Told:
    """So much of a piece is done; repeated when there is no news."""

    number: int
    done: int = 0
    of: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What came out of a piece, or the error that it ended with."""

    number: int
    result: Any = None
    error: BaseException | None = None


class Desk(WorkerPlugin):  # type: ignore[misc]
    """What a worker keeps from piece to piece.

    Parameters
    ----------
    model
        With which it computes.
    threads
        Of a worker on this machine; 0: whatever its environment says.
    """

    def __init__(self, model: Model, threads: int) -> None:
        self.model, self._threads = model, threads
        self.device = ""
        """The device of this worker; empty: as the settings say."""
        self.kept: Any = None
        """What was prepared for the last piece."""

    def setup(self, worker: Worker) -> None:
        """Called by dask on each worker, also on one that is started later."""
        self.turn = threading.Lock()  # one piece at a time, however many threads a worker has
        if self._threads:
            torch.set_num_threads(self._threads)
            if (count := torch.cuda.device_count()) > 1:
                self.device = f"cuda:{int(worker.name) % count}"


Work = Callable[..., Generator[tuple[int, int], None, Any]]
"""Called on a worker with its `Desk` and what was given for the piece."""


class Crew:
    """Workers that are ready; see `crew`."""

    def __init__(self, client: Client, name: str, topic: str) -> None:
        self._client, self._name, self._topic = client, name, topic
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._count, self._counted = 0, 0.0
        self._alone_since = time.monotonic()
        client.subscribe_topic(topic, lambda event: self._news.put(event[1]))

    @property
    def alive(self) -> bool:
        """Whether the scheduler still answers."""
        return bool(self._client.status == "running")

    def sees(self, paths: Sequence[Path]) -> list[bool]:
        """Tell of each path whether it exists for every worker."""
        answers = self._client.run(_exist, [str(path) for path in paths])
        return [all(seen) for seen in zip(*answers.values(), strict=True)]

    def each(self, work: Work, given: Iterable[tuple[Any, ...]]) -> Iterator[Told | Done]:
        """Have ``work(desk, *arguments)`` done for each of `given`, which is asked for one by one as workers get free.

        Numbers of pieces count `given` from 0. To cancel, close the iterator: workers stop after the step under way.

        Raises
        ------
        ClusterError
            If the scheduler is gone, or there was no worker for PATIENCE seconds.
        """
        waiting = enumerate(given)
        running: dict[str, tuple[int, Future]] = {}
        told: dict[str, Told] = {}
        try:
            while True:
                for number, arguments in itertools.islice(waiting, max(0, self._room() - len(running))):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", UserWarning)  # an image that the workers cannot see is sent
                        future = self._client.submit(_compute, self._topic, work, arguments, pure=False)
                    running[future.key], told[future.key] = (number, future), Told(number)
                    future.add_done_callback(self._news.put)
                if not running:
                    return
                try:
                    news = self._news.get(timeout=TICK)
                except queue.Empty:
                    yield next(iter(told.values()))
                    continue
                if isinstance(news, Future):
                    if news.key in running:  # not of an earlier call
                        del told[news.key]
                        yield self._done(*running.pop(news.key))
                elif news[0] in running:
                    key, done, of = news
                    told[key] = Told(running[key][0], done, of)
                    yield told[key]
        finally:
            if running and self.alive:
                self._client.cancel([future for _, future in running.values()])

    def _room(self) -> int:
        """Return how many pieces may be handed out; raises ClusterError if there is nobody to do them."""
        now = time.monotonic()
        if now - self._counted > TICK:
            try:
                self._count, self._counted = len(self._client.nthreads()), now
            except (OSError, RuntimeError, ValueError, AttributeError) as error:  # a closed client knows no scheduler
                raise ClusterError(self._gone()) from error
            if self._count:
                self._alone_since = now
        if not self.alive:
            raise ClusterError(self._gone())
        if now - self._alone_since > PATIENCE:
            raise ClusterError(f"{self._name} has had no worker for {PATIENCE:.0f} s: start some, then resume.")
        return QUEUED * max(1, self._count)

    def _done(self, number: int, future: Future) -> Done:
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                error = ClusterError(
                    "The workers that computed this died one after the other: give them more memory, or choose "
                    "smaller tiles."
                )
            return Done(number, error=error)
        if future.status != "finished":
            raise ClusterError(self._gone())
        result = future.result()
        if isinstance(result, _Failure):
            result.error.__cause__ = result.cause
            return Done(number, error=result.error)
        return Done(number, result)

    def _gone(self) -> str:
        return f"{self._name} is gone: start it again, then resume; what is finished is kept."


@contextlib.contextmanager
def crew(model: Model, workers: int = 0, scheduler: str = "") -> Iterator[Crew]:
    """Give the workers of a scheduler, or start some on this machine; they have the model. They leave at the end.

    Raises
    ------
    ClusterError
        If the scheduler does not answer, has no workers, or has another version of a package.
    """
    threads = max(1, _cores() // workers) if workers else 0
    topic = f"napari-unet-{uuid.uuid4().hex}"
    with _local(workers) if workers else contextlib.nullcontext(scheduler) as address, connected(address) as client:
        try:
            client.register_plugin(Desk(model, threads), name=topic)
            yield Crew(client, f"The scheduler {scheduler}" if scheduler else "The group of workers", topic)
        finally:
            if client.status == "running":
                with contextlib.suppress(OSError, ValueError, KeyError):
                    client.unregister_worker_plugin(topic)


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """Connect to a scheduler and check it and its workers.

    Raises
    ------
    ClusterError
        As `crew`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dask's own warning of other versions; ours says what to do
            with ThreadPoolExecutor(1) as thread:  # here a loop may be running already
                thread.submit(asyncio.run, _reached(scheduler)).result()
            client = Client(scheduler, timeout=ANSWER, set_as_default=False)  # else napari would draw with it
    except (OSError, ValueError, RuntimeError, ImportError, TypeError) as error:
        raise ClusterError(
            f"The scheduler {scheduler} does not answer: check the address, such as tcp://server:8786, and that it runs."
        ) from error
    try:
        _check(client, scheduler)
        yield client
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            client.close(timeout=ANSWER)


async def _reached(scheduler: str) -> None:
    """Raise TimeoutError if nobody answers as a scheduler does; a client would wait for ever where a port is silent."""
    arguments = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(scheduler, timeout=ANSWER, **arguments), ANSWER)
    comm.abort()


def _check(client: Client, scheduler: str) -> None:
    if not client.nthreads():
        raise ClusterError(f"The scheduler {scheduler} has no workers: start some, one for each GPU.")
    for package in PACKAGES:
        here = importlib.metadata.version(package)
        found = {f"The scheduler {scheduler}": _version_of_scheduler(client, package)}
        answers = client.run(importlib.metadata.version, package, on_error="return")
        found |= {f"The worker {worker}": answer for worker, answer in answers.items()}
        for who, version in found.items():
            if version != here:
                has = f"{package} {version}" if isinstance(version, str) else f"no {package}"
                raise ClusterError(f"{who} has {has}, but here is {here}: install the same version everywhere.")


def _version_of_scheduler(client: Client, package: str) -> str | None:
    try:
        return str(client.run_on_scheduler(importlib.metadata.version, package))
    except importlib.metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def _local(workers: int) -> Iterator[str]:
    settings = {
        # Read when a worker has died: one that is not back by then is given up, and 15 s are short for importing torch.
        "distributed.deploy.lost-worker-timeout": f"{PATIENCE} s",
        # dask has the allocator give every freed page back at once, and convolutions then take twice the time.
        "distributed.nanny.pre-spawn-environ": {},
    }
    with dask.config.set(settings):
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,  # an image is computed within bounds of its own; dask would kill at the first peak
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ClusterError(f"{workers} workers could not be started ({error}): use fewer of them.") from error
        with cluster:
            yield cluster.scheduler_address


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------- on a worker


@dataclass(frozen=True, slots=True, eq=False)
class _Failure:
    """One of our errors with the system's behind it, which pickling an exception would lose."""

    error: NapariUnetError
    cause: OSError | None


def _compute(topic: str, work: Work, arguments: tuple[Any, ...]) -> Any:
    """Do a piece, tell of it, and stop when nobody wants it any more."""
    worker = get_worker()
    key = worker.get_current_task()
    desk = worker.plugins[topic]
    told = time.monotonic()
    with desk.turn, contextlib.closing(work(desk, *arguments)) as steps:
        while True:
            try:
                done, of = next(steps)
            except StopIteration as end:
                return end.value
            except NapariUnetError as error:
                return _Failure(error, error.__cause__ if isinstance(error.__cause__, OSError) else None)
            task = worker.state.tasks.get(key)
            if task is None or task.state == "cancelled":
                return None
            if time.monotonic() - told > NEWS:
                told = time.monotonic()
                worker.log_event(topic, (key, done, of))


def _exist(paths: list[str]) -> list[bool]:
    return [os.path.exists(path) for path in paths]
