"""Arrays (outer, classes, inner) of any strides, and vectors of their rows, one row to a lane.

An image's (N, C, H, W) is such an array. Rows are counted flat, in C order, over outer and inner. A vector's rows that
are adjacent in memory are read as a vector; others whose classes are contiguous by blocks (``transposes.py``), the rest
one by one. ``gather_rows`` and ``scatter_rows`` copy tiles of rows, for the loops along rows, if classes are many and
not contiguous.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .memory import gather, itemsize, keep_alive, load, load_int64, prefetch, scatter, store, store_int64, width
from .rows import matrix_of
from .segments import PREFETCH
from .transposes import load_rows, store_rows

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


@njit(forceinline=True)
def store_row_addresses(grid, row, stop, addresses):
    """Writes the addresses of a vector's rows, for those past ``stop`` the last row's; True if rows are adjacent."""
    rows = width(grid.dtype)
    stride, end = grid.outer_stride, stop
    if grid.inner != 1:
        stride, end = grid.inner_stride, min(stop, (row // grid.inner + 1) * grid.inner)
    if row + rows <= end:
        address = row_address(grid, row)
        for lane in range(rows):
            store_int64(addresses + lane * 8, address + lane * stride)
        return stride == itemsize(grid.dtype)
    for lane in range(rows):
        store_int64(addresses + lane * 8, row_address(grid, min(row + lane, stop - 1)))
    return False


class Lines(NamedTuple):
    """Cache lines: one for each class."""

    address: int
    step: int


@njit(forceinline=True)
def lines_of(grid, adjacent, addresses):
    """The lines of a vector's rows."""
    if adjacent:
        return Lines(load_int64(addresses), grid.class_stride)
    return Lines(load_int64(addresses), width(grid.dtype) * itemsize(grid.dtype))


@njit(forceinline=True)
def lines_ahead(grid, adjacent, addresses):
    """The lines of a later vector's rows."""
    lines = lines_of(grid, adjacent, addresses)
    # the next vector follows in each class if rows are adjacent, and else in memory
    ahead = 256 if adjacent else max(PREFETCH, grid.classes * lines.step)
    return Lines(lines.address + ahead, lines.step)


@njit(forceinline=True)
def load_tile(grid, adjacent, addresses, wide, tile):
    """Fills the tile with the classes of a vector's rows."""
    x, classes, first = grid.dtype, grid.classes, load_int64(addresses)
    if adjacent:
        for index in range(classes):
            store(wide, tile + index * 64, load(x, first + index * grid.class_stride))
    elif grid.class_stride == itemsize(x) and classes > 1:
        load_rows(x, addresses, classes, tile)
    else:
        for index in range(classes):
            store(wide, tile + index * 64, gather(x, addresses, index * grid.class_stride))


@njit(forceinline=True)
def store_tile(grid, adjacent, addresses, wide, tile):
    """Writes the tile to the classes of a vector's rows."""
    x, classes, first = grid.dtype, grid.classes, load_int64(addresses)
    if adjacent:
        for index in range(classes):
            store(x, first + index * grid.class_stride, load(wide, tile + index * 64))
    elif grid.class_stride == itemsize(x) and classes > 1:
        store_rows(x, addresses, classes, tile)
    else:
        for index in range(classes):
            scatter(x, addresses, index * grid.class_stride, load(wide, tile + index * 64))


def gather_rows(x, first, stop, rows):
    """Copies the rows in [first, stop) to an array (rows, classes) whose classes are contiguous."""
    grid, matrix = grid_of(x), matrix_of(rows)
    memory = np.empty(4 * LINE, np.uint8)
    sources, targets = memory.ctypes.data, memory.ctypes.data + LINE
    dtype, stride = matrix.dtype, grid.class_stride
    for row in range(first, stop, width(dtype)):
        adjacent = store_row_addresses(grid, row, stop, sources)
        for lane in range(width(dtype)):
            store_int64(targets + lane * 8, matrix.address + (min(row + lane, stop - 1) - first) * matrix.stride)
        for index in range(matrix.classes):
            prefetch(load_int64(sources) + (index + 8) * stride)
            if adjacent:
                value = load(dtype, load_int64(sources) + index * stride)
            else:
                value = gather(dtype, sources, index * stride)
            scatter(dtype, targets, index * itemsize(dtype), value)
    keep_alive(memory)


def scatter_rows(rows, first, stop, out):
    """Copies an array (rows, classes) to the rows in [first, stop) of another."""
    grid, matrix = grid_of(out), matrix_of(rows)
    memory = np.empty(4 * LINE, np.uint8)
    targets, sources = memory.ctypes.data, memory.ctypes.data + LINE
    dtype, stride = matrix.dtype, grid.class_stride
    for row in range(first, stop, width(dtype)):
        adjacent = store_row_addresses(grid, row, stop, targets)
        for lane in range(width(dtype)):
            store_int64(sources + lane * 8, matrix.address + (min(row + lane, stop - 1) - first) * matrix.stride)
        for index in range(matrix.classes):
            value = gather(dtype, sources, index * itemsize(dtype))
            if adjacent:
                store(dtype, load_int64(targets) + index * stride, value)
            else:
                scatter(dtype, targets, index * stride, value)
    keep_alive(memory)
