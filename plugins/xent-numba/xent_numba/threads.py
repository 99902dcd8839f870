"""Ranges of rows shared out among threads of our own.

The loops run without the interpreter's lock, so plain threads are enough: whatever Numba's threading layer is, it is
not used, and callers may come from any number of threads at once. A process that was forked makes threads of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
    """Calls work(first, stop) on ranges that together are [0, count), none of fewer than ``least`` but the last."""
    shares = min(threads * SHARES, count // max(1, least)) if threads > 1 else 1
    if shares <= 1:
        if count:
            work(0, count)
        return
    edges = [count * share // shares for share in range(shares + 1)]
    turns = iter(range(shares))
    turn_lock = threading.Lock()

    def turn() -> None:
        while True:
            with turn_lock:
                share = next(turns, None)
            if share is None:
                return
            work(edges[share], edges[share + 1])

    try:
        others: list[Future[None]] = [pool_of(threads).submit(turn) for _ in range(min(threads, shares) - 1)]
    except RuntimeError:  # the interpreter is shutting down: no thread can be started any more
        others = []
    turn()
    for other in others:
        other.result()
