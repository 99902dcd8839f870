"""Arrays (rows,) as the loops with rows side by side take them: the numbers of a vector's rows at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .memory import itemsize, load, load_scalar, store, store_scalar, width


class Values(NamedTuple):
    """An array (rows,)."""

    dtype: Any
    address: int
    stride: int


@njit
def values_of(array):
    """An array (rows,) as ``Values``."""
    return Values(array.dtype, array.ctypes.data, array.strides[0])


@njit(forceinline=True)
def load_values(values, row, stop, scratch):
    """The numbers of a vector's rows as lanes, past ``stop`` the last row's."""
    x = values.dtype
    if row + width(x) <= stop and values.stride == itemsize(x):
        return load(x, values.address + row * values.stride)
    for lane in range(width(x)):
        number = load_scalar(x, values.address + min(row + lane, stop - 1) * values.stride)
        store_scalar(x, scratch + lane * itemsize(x), np.float64(number))
    return load(x, scratch)


@njit
def store_values(values, row, stop, lanes, scratch):
    """Writes the numbers of a vector's rows, but for those past ``stop``."""
    x = values.dtype
    if row + width(x) <= stop and values.stride == itemsize(x):
        store(x, values.address + row * values.stride, lanes)
        return
    store(x, scratch, lanes)
    for lane in range(min(width(x), stop - row)):
        number = load_scalar(x, scratch + lane * itemsize(x))
        store_scalar(x, values.address + (row + lane) * values.stride, np.float64(number))
