"""A tile for each thread, in place of all threads for one tile.

Torch lets its threads share every operation and wait for the slowest. Where something else wants a core, most of the time
is that wait: with two threads on two busy cores, an image took ten times as long as with one (`benchmarks/RESULTS.md`). A
thread of the team works by itself; it has a tile of its own, and hands it over when its turn has come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")
AHEAD = 2
"""Tasks a thread that are begun or wait while a result is not yet taken."""


class Team:
    """Some threads (None: as many as torch may use), each with a torch of one thread; none but the caller's where it may use one.

    Within the ``with`` statement torch's number of threads is that of a member in new threads, and behind it as before.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Team:
        if self._threads > 1:
            self._pool = ThreadPoolExecutor(self._threads, "napari-unet-tile", torch.set_num_threads, (1,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def each(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks; what a task raises is raised when its turn comes."""
        if self._pool is None:
            yield from map(work, tasks)
            return
        under_way: deque[Future[Result]] = deque()
        for task in tasks:
            under_way.append(self._pool.submit(work, task))
            if len(under_way) == AHEAD * self._threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
