"""Arrays (outer, classes, inner) of any strides, and vectors of their rows, one row to a lane.

An image's (N, C, H, W) is such an array. Rows are counted flat, in C order, over outer and inner. A vector's rows that
are adjacent in memory are read as a vector, others one by one. ``gather_rows`` and ``scatter_rows`` copy tiles of rows,
for the loops along rows, if classes are many and not contiguous.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .lanes import larger
from .memory import gather, itemsize, keep_alive, load, load_int64, prefetch, scatter, store, store_int64, width
from .rows import matrix_of
from .segments import PREFETCH

LINE = 128  # bytes of a number for each row of a vector: at most 16 float64
DOUBLE = np.dtype(np.float64)


class Grid(NamedTuple):
    """An array (outer, classes, inner)."""

    dtype: Any
    address: int
    outer_stride: int
    class_stride: int
    inner_stride: int
    classes: int
    inner: int


@njit
def grid_of(x):
    """An array (outer, classes, inner) as a ``Grid``."""
    return Grid(x.dtype, x.ctypes.data, x.strides[0], x.strides[1], x.strides[2], x.shape[1], x.shape[2])


@njit
def row_address(grid, row):
    """The address of a row's first class."""
    if grid.inner == 1:
        return grid.address + row * grid.outer_stride
    return grid.address + row // grid.inner * grid.outer_stride + row % grid.inner * grid.inner_stride


@njit
def store_row_addresses(grid, row, stop, addresses):
    """Writes the addresses of a vector's rows, for those past ``stop`` the last row's; True if rows are adjacent."""
    x, rows = grid.dtype, width(grid.dtype)
    adjacent = row + rows <= stop
    first = row_address(grid, row)
    for lane in range(rows):
        address = row_address(grid, min(row + lane, stop - 1))
        store_int64(addresses + lane * 8, address)
        adjacent &= address == first + lane * itemsize(x)
    return adjacent


@njit
def load_class(x, adjacent, addresses, offset):
    """One class of a vector's rows."""
    if adjacent:
        return load(x, load_int64(addresses) + offset)
    return gather(x, addresses, offset)


@njit
def store_class(x, adjacent, addresses, offset, value, count):
    """Writes one class of the first ``count`` of a vector's rows."""
    if adjacent:
        store(x, load_int64(addresses) + offset, value)
    else:
        scatter(x, addresses, offset, value, count)


@njit
def load_tile(grid, adjacent, addresses, wide, tile):
    """Fills the tile with the classes of a vector's rows; returns their maxima, any number for a row with NaN."""
    x = grid.dtype
    top = load_class(x, adjacent, addresses, 0)
    # the next vector follows in memory; if rows are adjacent, it does so in each class
    ahead, step = load_int64(addresses) + PREFETCH, width(x) * itemsize(x)
    if adjacent:
        ahead, step = load_int64(addresses) + 256, grid.class_stride
    for index in range(grid.classes):
        prefetch(ahead + index * step)
        logits = load_class(x, adjacent, addresses, index * grid.class_stride)
        store(wide, tile + index * 64, logits)
        top = larger(logits, top)
    return top


def gather_rows(x, first, stop, rows):
    """Copies the rows in [first, stop) to an array (rows, classes) whose classes are contiguous."""
    grid, matrix = grid_of(x), matrix_of(rows)
    memory = np.empty(4 * LINE, np.uint8)
    sources, targets = memory.ctypes.data, memory.ctypes.data + LINE
    dtype, stride = matrix.dtype, grid.class_stride
    for row in range(first, stop, width(dtype)):
        adjacent = store_row_addresses(grid, row, stop, sources)
        for lane in range(width(dtype)):
            store_int64(targets + lane * 8, matrix.address + (row - first + lane) * matrix.stride)
        for index in range(matrix.classes):
            prefetch(load_int64(sources) + (index + 8) * stride)
            value = load_class(dtype, adjacent, sources, index * stride)
            store_class(dtype, False, targets, index * itemsize(dtype), value, stop - row)
    keep_alive(memory)


def scatter_rows(rows, first, stop, out):
    """Copies an array (rows, classes) to the rows in [first, stop) of another."""
    grid, matrix = grid_of(out), matrix_of(rows)
    memory = np.empty(4 * LINE, np.uint8)
    targets, sources = memory.ctypes.data, memory.ctypes.data + LINE
    dtype = matrix.dtype
    for row in range(first, stop, width(dtype)):
        adjacent = store_row_addresses(grid, row, stop, targets)
        for lane in range(width(dtype)):
            store_int64(sources + lane * 8, matrix.address + (min(row + lane, stop - 1) - first) * matrix.stride)
        for index in range(matrix.classes):
            value = gather(dtype, sources, index * itemsize(dtype))
            store_class(dtype, adjacent, targets, index * grid.class_stride, value, stop - row)
    keep_alive(memory)
