"""Ranges of rows, worked on by threads of our own.

The loops run without the interpreter's lock, so plain threads are enough. Numba's threading layer is not used, and any
number of threads may call at once. A forked process makes threads of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

RANGES_PER_THREAD = 4  # a thread that is slower than the others works on fewer
lock = threading.Lock()
pools: dict[int, ThreadPoolExecutor] = {}


def pool_of(threads: int) -> ThreadPoolExecutor:
    """This process's threads besides the caller's; made at the first call and kept."""
    with lock:
        if threads not in pools:
            pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="xent-numba")
        return pools[threads]


def forget_pools() -> None:
    """Drops the parent's threads, which a forked child does not have, and the lock, which one of them may hold."""
    global lock
    lock = threading.Lock()
    pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_pools)


def run_in_threads(work: Callable[[int, int], Any], count: int, threads: int, least: int = 1) -> None:
    """Calls work(first, stop) on ranges that together are [0, count), each but the last of at least ``least``.

    Returns when all of it is done, by as many threads as could be started. Raises the first error after every thread
    has stopped.
    """
    ranges = min(threads * RANGES_PER_THREAD, count // max(1, least)) if threads > 1 else 1
    if ranges <= 1:
        if count:
            work(0, count)
        return
    queue = RangeQueue(work, [count * index // ranges for index in range(ranges + 1)])
    with contextlib.suppress(RuntimeError):  # no thread can be started: the system has no more, or is shutting down
        for _ in range(min(threads, ranges) - 1):
            pool_of(threads).submit(queue.run)
    queue.run()
    queue.wait()


class RangeQueue:
    """Ranges that several threads take one after the other, until none is left."""

    def __init__(self, work: Callable[[int, int], Any], edges: list[int]):
        self.work, self.edges = work, edges
        self.taken = self.done = 0
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def run(self) -> None:
        """Works on ranges until none is left, or one has failed."""
        while True:
            with self.changed:
                if self.error is not None or self.taken == len(self.edges) - 1:
                    return
                index, self.taken = self.taken, self.taken + 1
            try:
                self.work(self.edges[index], self.edges[index + 1])
            except BaseException as error:  # an interrupt too: the others must stop before it is raised
                self.error = self.error or error
            with self.changed:
                self.done += 1
                self.changed.notify_all()

    def wait(self) -> None:
        """Returns when no thread works any more; raises the error if there was one."""
        with self.changed:
            self.changed.wait_for(lambda: self.done == self.taken)
        if self.error is not None:
            raise self.error
