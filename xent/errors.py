"""What xent raises and warns, apart from the built-in TypeError and ValueError.

Leaves out the messages themselves: they are written in ``checks/``.
"""

from __future__ import annotations

import traceback


class LabelError(ValueError, IndexError):
    """Labels outside ``[0, C)``: how many, where the first one is, and its value.

    Attributes
    ----------
    count : int
        How many labels are out of range.
    position : tuple of int
        Index of the first one in the labels' own shape; on Dask, the global row.
    value : int, str or None
        The first bad label, as it is written.
    """

    def __init__(self, message: str, count: int = 0, position: tuple[int, ...] = (), value: int | str | None = None):
        super().__init__(message)
        # subtle: BaseException pickles `args` and `__dict__`, so these three survive the way back from a worker
        self.count, self.position, self.value = count, position, value


class KindError(ValueError):
    """Predictions that are not of the kind that they are said to be."""


class NotServed(ValueError):
    """A kernel was forced upon a call that it cannot serve."""


class PluginWarning(RuntimeWarning):
    """A plugin or a kernel was set aside, or is not what was asked for."""


def summary(error: BaseException) -> str:
    """An error in one line: its type, and its message where it can be shown."""
    try:
        message = str(error)
    except BaseException as another:  # a plugin's own type may raise anything
        if is_interrupt(another):
            raise
        message = "its message cannot be shown"
    return " ".join(f"{type(error).__name__}: {message}".split()).removesuffix(":")


class Interrupted(BaseException):
    """The command line was interrupted (SIGINT).

    It is no KeyboardInterrupt, of which click would make its own error and exit code.
    """


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception is no fault of the code that it came out of: Ctrl-C, or raised by a handler of a signal."""
    import signal  # here, for an error is rare

    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    codes = {getattr(handler, "__code__", None) for handler in handlers} - {None}
    # a context that an interrupt left between two steps of contextlib's: no frame but the catcher's own
    is_left = isinstance(error, GeneratorExit) and not (error.__traceback__ and error.__traceback__.tb_next)
    return (
        isinstance(error, KeyboardInterrupt | Interrupted)
        or is_left
        or any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))
    )
