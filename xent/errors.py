"""What xent raises and warns, apart from the built-in TypeError and ValueError.

Leaves out the messages themselves: they are written in ``checks.py``.
"""

from __future__ import annotations


class LabelError(ValueError, IndexError):
    """Labels outside ``[0, C)``: how many, where the first one is, and its value.

    Attributes
    ----------
    count : int
        How many labels are out of range.
    position : tuple of int
        Index of the first one in the labels' own shape; on Dask, the global row.
    value : int or None
        The first bad label.
    """

    def __init__(self, message: str, count: int = 0, position: tuple[int, ...] = (), value: int | None = None):
        super().__init__(message)
        # subtle: BaseException pickles `args` and `__dict__`, so these three survive the way back from a worker
        self.count, self.position, self.value = count, position, value


class NotServed(ValueError):
    """A kernel was forced upon a call that it cannot serve."""


class PluginWarning(RuntimeWarning):
    """A plugin or a kernel was set aside, or is not what was asked for."""
