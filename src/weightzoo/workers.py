"""Several processes for a list of tasks, with results in the order of the tasks and few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 4  # tasks a process that are under way or done and not yet asked for
_START_SECONDS = 2.5  # of a process, mostly for importing PyTorch


def worth_it(workers: int, tasks: int, seconds: float) -> int:
    """How many of the processes that may be used are worth starting for so many tasks of so many seconds each."""
    return max(1, min(workers, int(tasks * seconds / _START_SECONDS)))


def in_order(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
) -> Iterator[Result]:
    """`function` of every task, in their order, computed by `workers` processes; with 1, by this one.

    Everything must be picklable. An error of a task is raised when its turn comes, and the tasks that have not begun
    are then left.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pool = ProcessPoolExecutor(workers, context, begin)
    waiting: deque[Future[Result]] = deque()
    left = iter(tasks)
    try:
        while True:
            while len(waiting) < _AHEAD * workers:
                try:
                    waiting.append(pool.submit(function, next(left)))
                except StopIteration:
                    break
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def begin() -> None:
    """What a process of a pool does first: one thread of PyTorch, and an end when its parent ends."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted terminal tells all processes; the first decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A killed parent can't tell its processes to end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
