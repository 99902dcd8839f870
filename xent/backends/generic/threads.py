"""Threads of xent's own that share the tiles of a product, and those of BLAS, which are held to one meanwhile.

BLAS's threads wait for one another at every product, and spin while they wait: on a machine that has other work, small
products take many times longer by two of them than by one. The number is that of the process, so callers are counted.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import importlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any

lock = threading.Lock()
holders: list[Any] = []
"""One entry for each caller that holds them; the first has what restores their number."""


@functools.cache
def controller() -> Any:
    """threadpoolctl's controller of the libraries that are loaded; None if it is not installed."""
    try:
        return importlib.import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


def own_threads(threads: int) -> int:
    """Of so many threads, those that are xent's own in a product: 1 where BLAS's cannot be held to one."""
    return threads if controller() is not None else 1


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS takes one thread inside the with block, or inside that of another caller; as it is without threadpoolctl."""
    if controller() is None:
        yield
        return
    with lock:
        holders.append(None if holders else controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with lock:
            limiter = holders.pop()
            if limiter is not None:
                limiter.restore_original_limits()


def in_threads(work: Callable[[Any], Any], items: Iterable[Any], threads: int) -> list[Any]:
    """[work(item) for item in items], by this thread and others, or as many as could be started.

    Raises the first error after every thread has stopped. An interrupt may end this thread between any two of its
    steps, so it holds no lock: what is shared are a deque, a dict and a queue of C.
    """
    left, ended = deque(enumerate(items)), SimpleQueue[None]()
    results, errors, count, started = dict[int, Any](), list[BaseException](), len(left), 0

    def run() -> None:
        while left:
            try:
                number, item = left.popleft()
            except IndexError:  # another thread took the last one
                return
            results[number] = work(item)

    def help_out() -> None:
        try:
            run()
        except BaseException as error:  # whatever it is, it is the caller's
            errors.append(error)
            left.clear()
        ended.put(None)

    try:
        with contextlib.suppress(RuntimeError):  # the system has no more threads
            for _ in range(min(threads, count) - 1):
                _thread.start_new_thread(help_out, ())
                started += 1
        run()
    finally:
        left.clear()  # for the others to stop, if this thread has not come to the end
        for _ in range(started):
            ended.get()
    if errors:
        raise errors[0]
    return [results[number] for number in range(count)]
