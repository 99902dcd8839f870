"""Ranges of rows, worked on by threads of our own, and work that no interrupt may cut short.

The loops run without the interpreter's lock, so plain threads are enough. Numba's threading layer is not used, and any
number of threads may call at once. A forked process makes threads of its own.

An interrupt (Ctrl-C, or whatever a signal handler raises) may end the calling thread's work between any two of its
steps. So the calling thread holds no lock at all: what it shares with the others are deques and queues of C, each of
whose operations is done whole or not at all.
"""

from __future__ import annotations

import _thread
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

RANGES_PER_THREAD = 4  # a thread that is slower than the others works on fewer


class Workers:
    """This process's threads besides the callers'; made at the first call that needs them, and kept.

    They are no ``threading.Thread``: the interpreter does not wait for them at its end, and starting one takes no lock.
    """

    def __init__(self) -> None:
        self.calls: SimpleQueue[RangeQueue] = SimpleQueue()
        self.started: dict[int, object] = {}

    def help(self, call: RangeQueue, threads: int) -> None:
        """Has so many threads work on the ranges of a call, or as many as could be started."""
        for number in range(threads):
            if number not in self.started:
                self.start(number)
            self.calls.put(call)

    def start(self, number: int) -> None:
        """Starts one thread, unless another caller does; RuntimeError where none can be started."""
        mine = object()
        try:
            if self.started.setdefault(number, mine) is mine:
                _thread.start_new_thread(self.serve, ())
        except BaseException:  # an interrupt too: a thread more is no harm, one that is only said to be there would be
            self.started.pop(number, None)
            raise

    def serve(self) -> None:
        """Works on one call after the other."""
        while True:
            self.calls.get().help()


workers = Workers()


def forget_workers() -> None:
    """Leaves the parent's threads, which a forked child does not have, to the parent."""
    global workers
    workers = Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_workers)


def run_in_threads(work: Callable[[int, int], Any], count: int, threads: int, least: int = 1) -> None:
    """Calls work(first, stop) on ranges that together are [0, count), each but the last of at least ``least``.

    Returns when all of it is done, by as many threads as could be started. Raises the first error after every thread
    has stopped; only a second interrupt, in the wait for them, leaves one at work on its last range.
    """
    ranges = min(threads * RANGES_PER_THREAD, count // max(1, least)) if threads > 1 else 1
    if ranges <= 1:
        if count:
            work(0, count)
        return
    queue = RangeQueue(work, [count * index // ranges for index in range(ranges + 1)])
    try:
        with suppress(RuntimeError):
            workers.help(queue, min(threads, ranges) - 1)
        queue.run()
        queue.wait()
    finally:
        queue.left.clear()  # for the others to stop, if this thread has not come to the end
        queue.wait()
    if queue.errors:
        raise queue.errors[0]


class RangeQueue:
    """Ranges that several threads take one after the other, until none is left."""

    def __init__(self, work: Callable[[int, int], Any], edges: list[int]):
        self.left = deque((work, *bounds) for bounds in pairwise(edges))
        self.errors: list[BaseException] = []
        self.helping: list[None] = []  # an item for each thread that has begun to help
        self.helped: list[None] = []  # and for each that has stopped
        self.stops: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Works on ranges until none is left."""
        while self.left:
            try:
                work, first, stop = self.left.popleft()
            except IndexError:  # another thread took the last one
                return
            work(first, stop)

    def help(self) -> None:
        """Does the same in another thread than the caller's; its error is kept for the caller, and stops all."""
        if not self.left:
            return
        self.helping.append(None)
        try:
            self.run()
        except BaseException as error:  # whatever it is, it is the caller's
            self.errors.append(error)
            self.left.clear()
        self.helped.append(None)
        self.stops.put(None)

    def wait(self) -> None:
        """Returns when no other thread works on a range."""
        # subtle: what is waited for is counted in the lists, for an interrupt may lose what it takes from the queue
        while len(self.helped) < len(self.helping):
            self.stops.get()


def run_uninterrupted(work: Callable[[], Any]) -> None:
    """Calls work() in a thread of its own, which no interrupt reaches, and returns when it is done; raises its error.

    An interrupt is raised when the work is done, a second one at once.
    """
    ends: list[BaseException | None] = []
    end: SimpleQueue[None] = SimpleQueue()

    def run() -> None:
        try:
            work()
            ends.append(None)
        except BaseException as error:  # whatever it is, it is the caller's
            ends.append(error)
        end.put(None)

    def wait() -> None:
        while not ends:
            end.get()

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:  # the system has no more, or is shutting down
        run()
    try:
        wait()
    except BaseException:
        wait()
        raise
    if ends[0] is not None:
        raise ends[0]
