"""Arrays (outer, classes, inner) of any strides, and vectors of their rows, one row to a lane.

An image's (N, C, H, W) is such an array. Rows are counted flat, in C order, over outer and inner. Where the rows of a
vector lie side by side in memory they are read as a vector, else one by one. ``bring_rows`` and ``put_rows`` copy tiles
of rows, for the loops along rows, where classes are many and do not follow each other.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .lanes import larger
from .memory import gather, integer, keep_alive, load, prefetch, put_integer, scatter, size, store, width
from .rows import block_of
from .segments import PREFETCH

LINE = 128  # bytes of a number for each row of a vector: at most 16 float64


DOUBLE = np.dtype(np.float64)


@njit
def grid_of(x):
    """An array (outer, classes, inner) as the loops take it: (dtype, address, strides, classes, inner)."""
    return x.dtype, x.ctypes.data, (x.strides[0], x.strides[1], x.strides[2]), x.shape[1], x.shape[2]


@njit
def row_address(grid, row):
    """Where the first class of a row is."""
    _, address, strides, _, inner = grid
    if inner == 1:
        return address + row * strides[0]
    return address + row // inner * strides[0] + row % inner * strides[2]


@njit
def line_up(grid, row, stop, place):
    """Writes the addresses of a vector's rows, the last one for those past ``stop``; True where they are neighbours."""
    x, rows = grid[0], width(grid[0])
    adjacent = row + rows <= stop
    first = row_address(grid, row)
    for lane in range(rows):
        address = row_address(grid, min(row + lane, stop - 1))
        put_integer(place + lane * 8, address)
        adjacent &= address == first + lane * size(x)
    return adjacent


@njit
def read(x, adjacent, place, offset):
    """One class of a vector's rows, whose addresses are at ``place``."""
    if adjacent:
        return load(x, integer(place) + offset)
    return gather(x, place, offset)


@njit
def write(x, adjacent, place, offset, value, count):
    """The same, written; only the first ``count`` rows."""
    if adjacent:
        store(x, integer(place) + offset, value)
    else:
        scatter(x, place, offset, value, count)


@njit
def bring(grid, adjacent, place, wide, tile):
    """Fills the tile with the classes of a vector's rows; returns their maxima, of no meaning where one is NaN."""
    x, _, strides, classes, _ = grid
    top = read(x, adjacent, place, 0)
    # what comes next is what follows in memory, and in each class where rows are neighbours
    ahead, pace = integer(place) + PREFETCH, width(x) * size(x)
    if adjacent:
        ahead, pace = integer(place) + 256, strides[1]
    for index in range(classes):
        prefetch(ahead + index * pace)
        logits = read(x, adjacent, place, index * strides[1])
        store(wide, tile + index * 64, logits)
        top = larger(logits, top)
    return top


def bring_rows(x, first, stop, rows):
    """Copies the rows in [first, stop) to an array (rows, classes), the classes of a row one after the other."""
    grid, block = grid_of(x), block_of(rows)
    memory = np.empty(4 * LINE, np.uint8)
    place, to = memory.ctypes.data, memory.ctypes.data + LINE
    y, address, stride, classes = block
    for row in range(first, stop, width(y)):
        adjacent = line_up(grid, row, stop, place)
        for lane in range(width(y)):
            put_integer(to + lane * 8, address + (row - first + lane) * stride)
        for index in range(classes):
            prefetch(integer(place) + (index + 8) * grid[2][1])
            write(y, False, to, index * size(y), read(y, adjacent, place, index * grid[2][1]), stop - row)
    keep_alive(memory)


def put_rows(rows, first, stop, out):
    """Copies an array (rows, classes) to the rows in [first, stop) of another."""
    grid, block = grid_of(out), block_of(rows)
    memory = np.empty(4 * LINE, np.uint8)
    place, start = memory.ctypes.data, memory.ctypes.data + LINE
    y, address, stride, classes = block
    for row in range(first, stop, width(y)):
        adjacent = line_up(grid, row, stop, place)
        for lane in range(width(y)):
            put_integer(start + lane * 8, address + (min(row + lane, stop - 1) - first) * stride)
        for index in range(classes):
            write(y, adjacent, place, index * grid[2][1], gather(y, start, index * size(y)), stop - row)
    keep_alive(memory)
