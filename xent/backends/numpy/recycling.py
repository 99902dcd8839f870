"""Memory for large gradients that is used again when the last array on it is gone.

The system zeroes every page of new memory before it can be written, which takes up to a third of a loss with its
gradient. The C library keeps what is freed up to 32 MiB; what is larger it gives back. So the last of these gradients
that is freed is kept here, with as many before it, of other sizes, as ``XENT_RECYCLE_BYTES`` allows: by default
256 MiB, with 0 nothing. ``benchmarks/bench_memory.py`` shows what is gained.

An array may be let go in any thread, and between any two steps of the code here, by the collector of cycles. So there
is no lock: each step on the dictionary is done whole.
"""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np

from ... import errors
from ...arrays import Array

LEAST_BYTES = 1 << 25
MOST_BYTES = 1 << 28
kept: dict[int, Array] = {}
"""Memory on which there is no array, one piece of each size, by its size."""


def limit() -> int:
    """The most bytes that are kept."""
    text = os.environ.get("XENT_RECYCLE_BYTES", "").strip() or str(MOST_BYTES)
    if text.isdecimal():
        return int(text)
    warnings.warn(
        f"xent: XENT_RECYCLE_BYTES={text!r} is no number of bytes; nothing is kept.", errors.PluginWarning, stacklevel=2
    )
    return 0


class Lease:
    """What an array's memory belongs to while there is a view of it. NumPy asks for the memory by its protocol."""

    __slots__ = ("__array_interface__", "memory", "most")

    def __init__(self, memory: Array, most: int):
        self.memory, self.most = memory, most
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        size = len(self.memory)
        if size > self.most:
            return
        kept.pop(size, None)
        kept[size] = self.memory  # the last one
        total = sum(list(kept))
        for other in list(kept):
            if total <= self.most:
                break
            total -= other
            kept.pop(other, None)


def empty_like(array: Array) -> Array | None:
    """A new array like a large contiguous one, on memory that is kept or will be; None for any other."""
    return leased(array.shape, array.dtype) if array.flags.c_contiguous else None


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A new array, on memory that is kept or will be if it is large."""
    array = leased(shape, np.dtype(dtype))
    return np.empty(shape, dtype) if array is None else array


def leased(shape: tuple[int, ...], dtype: Any) -> Array | None:
    """A new array on memory that is kept or will be; None if it is too small or too large for that."""
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST_BYTES:
        return None
    most = limit()
    if size > most:
        return None
    memory = kept.pop(size, None)
    if memory is None:
        try:
            memory = np.empty(size, np.uint8)
        except MemoryError:
            kept.clear()
            memory = np.empty(size, np.uint8)
    owner: Any = Lease(memory, most)
    return np.asarray(owner).view(dtype).reshape(shape)
