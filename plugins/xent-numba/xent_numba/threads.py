"""Ranges of rows shared out among threads of our own.

The loops run without the interpreter's lock, so plain threads are enough: whatever Numba's threading layer is, it is
not used, and callers may come from any number of threads at once. A process that was forked makes threads of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SHARES = 4  # of a thread: one that is slower than the others takes fewer
lock = threading.Lock()
pools: dict[int, ThreadPoolExecutor] = {}


def pool_of(threads: int) -> ThreadPoolExecutor:
    """The threads beside the caller's, of this process; made at the first call and kept."""
    with lock:
        if threads not in pools:
            pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="xent-numba")
        return pools[threads]


def forget() -> None:
    """The threads of the parent are not there in a forked child, and its lock may be held by one of them."""
    global lock
    lock = threading.Lock()
    pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)


def share_out(work: Callable[[int, int], Any], count: int, threads: int, least: int = 1) -> None:
    """Calls work(first, stop) on ranges that together are [0, count), none of fewer than ``least`` but the last.

    Returns when all of it is done, by whichever threads there were; raises the first error, once nobody works any more.
    """
    shares = min(threads * SHARES, count // max(1, least)) if threads > 1 else 1
    if shares <= 1:
        if count:
            work(0, count)
        return
    turns = Turns(work, [count * share // shares for share in range(shares + 1)])
    with contextlib.suppress(RuntimeError):  # no thread can be started: the system has no more, or is shutting down
        for _ in range(min(threads, shares) - 1):
            pool_of(threads).submit(turns.take)
    turns.take()
    turns.wait()


class Turns:
    """Ranges to be worked on, taken one after the other by whoever comes; who comes late finds none left."""

    def __init__(self, work: Callable[[int, int], Any], edges: list[int]):
        self.work, self.edges = work, edges
        self.taken = self.done = 0
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def take(self) -> None:
        """Works on ranges until none is left, or one has failed."""
        while True:
            with self.changed:
                if self.error is not None or self.taken == len(self.edges) - 1:
                    return
                share, self.taken = self.taken, self.taken + 1
            try:
                self.work(self.edges[share], self.edges[share + 1])
            except BaseException as error:  # an interrupt too: the others must have stopped before it goes on
                self.error = self.error or error
            with self.changed:
                self.done += 1
                self.changed.notify_all()

    def wait(self) -> None:
        """Returns when nobody works any more; raises the error if there was one."""
        with self.changed:
            self.changed.wait_for(lambda: self.done == self.taken)
        if self.error is not None:
            raise self.error
