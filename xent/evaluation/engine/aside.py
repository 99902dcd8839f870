"""A call in a thread that no signal reaches, while the calling thread waits.

Leaves out what is called.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class Unwanted(BaseException):
    """The caller of a run was interrupted."""


def run_aside(run: Callable[[Callable[[int], None], Callable[[], None]], Any], tell: Callable[[int], None]) -> Any:
    """The result of run(tell_caller, check_wanted), which is called in a thread of its own, that no signal reaches.

    An interrupt of a thread that schedules others may leave a lock held for which they then wait for ever. So the
    calling thread only waits and calls ``tell`` with what is told; once it is interrupted ``check_wanted`` raises, and
    the interrupt is raised when the run has ended, a second one at once.
    """
    told: SimpleQueue[int] = SimpleQueue()
    results: list[Any] = []
    errors: list[BaseException] = []
    interrupts: list[None] = []

    def check_wanted() -> None:
        if interrupts:
            raise Unwanted

    def run_here() -> None:
        try:
            results.append(run(told.put, check_wanted))
        except BaseException as error:  # whatever it is, it is the caller's
            errors.append(error)
        told.put(0)

    def wait() -> None:
        while not (results or errors):
            tell(told.get())

    _thread.start_new_thread(run_here, ())
    try:
        wait()
        while not told.empty():
            tell(told.get())
    except BaseException:  # of ``tell`` too
        interrupts.append(None)
        tell = ignore
        wait()
        raise
    if errors:
        raise errors[0]
    return results[0]


def ignore(rows: int) -> None:
    """What is told to nobody."""
