"""Blocks of logits and targets, prepared for the loops: which loops fit them, and how threads divide their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .fields import SEGMENT
from .loops import loop_of
from .threads import run_in_threads

Array = Any
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
NAMES = {np.dtype(name): name for name in ("float16", "float32", "float64")}
FEW_CLASSES = 128  # up to here, rows side by side are faster than one after the other
THREAD_ELEMENTS = 1 << 16  # elements that are worth another thread
TILE_ELEMENTS = 1 << 16  # elements that are copied at once if the classes of a row are not contiguous
TILE_ROWS = 16  # at least: as many rows as have a class on one cache line


def as_memory(array: Array) -> Array:
    """An array as the loops read it: in this machine's byte order, and 16-bit floats as integers."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.itemsize == 2:
        return array.view(np.int16 if array.dtype == np.float16 else np.uint16)
    return array


def as_grid(array: Array) -> Array:
    """(rows, classes) as (rows, classes, 1); (outer, classes, inner) as it is."""
    return array if array.ndim == 3 else array[:, :, None]


def as_matrix(array: Array) -> Array:
    """(outer, classes, 1) as (outer, classes)."""
    return array if array.ndim == 2 else array[:, :, 0]


def has_contiguous_rows(array: Array) -> bool:
    """Whether the classes of a row are contiguous."""
    return bool(array.strides[1] == array.itemsize and (array.ndim == 2 or array.shape[2] == 1))


class PreparedBlock(NamedTuple):
    """One block, ready for the loops.

    ``layout`` is "columns" for few classes; else "rows", with arrays (rows, classes), or "tiles" if such arrays have to
    be copied first. Arrays of the other two layouts are (outer, classes, inner).
    """

    logits: Array
    targets: Array  # labels (rows,), or soft targets in the shape of the logits
    on: float
    off: float
    layout: str
    dtype: str
    threads: int
    soft: bool  # whether there are soft targets
    wide: Any  # the dtype of the result
    rows: int
    classes: int
    parts: int  # how many segments a row has

    @property
    def is_parallel(self) -> bool:
        """Whether the block is large enough for several threads, and there are some."""
        return self.threads > 1 and self.rows * self.classes >= 2 * THREAD_ELEMENTS

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The first arguments of a loop over the whole block."""
        return self.logits, self.targets, self.on, self.off

    def loop(self, name: str) -> Callable[..., None]:
        """The loop of a name as machine code for this block."""
        return loop_of(name, self.dtype, self.soft)

    def run_in_threads(self, work: Callable[[int, int], Any], count: int) -> None:
        """Calls work(first, stop) on ranges of ``count`` rows or items, in threads if the block is large enough."""
        if self.is_parallel:
            least = max(1, THREAD_ELEMENTS * count // (self.rows * self.classes))
            run_in_threads(work, count, self.threads, least)
        elif count:
            work(0, count)


def prepare(
    logits: Array, targets: Array, on: float, off: float, threads: int, out: Array | None = None
) -> PreparedBlock:
    """A block for the loops that fit it and the array for its gradient, from labels or soft targets."""
    dtype, soft = NAMES.get(logits.dtype) or logits.dtype.name, targets.ndim > 1
    wide, logits = DOUBLE if dtype == "float64" else SINGLE, as_memory(logits)
    if soft:
        targets = as_memory(targets.astype(wide, copy=False))
    classes = logits.shape[1]
    if classes <= FEW_CLASSES:
        layout, shaped = "columns", as_grid
    elif all(map(has_contiguous_rows, (logits, *((targets,) if soft else ()), *(() if out is None else (out,))))):
        layout, shaped = "rows", as_matrix
    else:
        layout, shaped = "tiles", as_grid
    rows, parts = logits.size // classes, -(-classes // SEGMENT)
    targets = shaped(targets) if soft else targets
    return PreparedBlock(shaped(logits), targets, on, off, layout, dtype, threads, soft, wide, rows, classes, parts)


class GradientOutput:
    """Memory for a gradient: ``array`` is returned; ``written`` is the same memory, or a copy, as the loops take it."""

    def __init__(self, logits: Array, block: PreparedBlock, out: Array | None):
        self.array = np.empty(logits.shape, logits.dtype) if out is None else out
        memory = as_memory(self.array)
        is_same = memory.dtype.isnative and self.array.dtype.isnative
        self.written = memory if is_same else np.empty(logits.shape, block.logits.dtype)
        self.is_copy = self.written is not memory
        self.written = as_matrix(self.written) if block.layout == "rows" else as_grid(self.written)

    def filled(self) -> Array:
        """The array, with the gradient that was written."""
        if self.is_copy:
            values = self.written.view(self.array.dtype.newbyteorder("="))
            self.array[...] = values.reshape(self.array.shape)
        return self.array


def run_along_rows(
    block: PreparedBlock, call: Callable[..., None], *, by_items: bool, out: Array | None = None
) -> None:
    """Calls call(logits, targets, out, first, stop, row) on ranges that together are all rows, or all items.

    The arrays are (rows, classes), and their first row is row ``row`` of the block. Classes that are not contiguous are
    copied to tiles.
    """
    if block.layout == "rows":
        count = block.rows * (block.parts if by_items else 1)
        block.run_in_threads(lambda first, stop: call(block.logits, block.targets, out, first, stop, 0), count)
        return
    gather_rows = loop_of("grids.gather_rows", block.dtype)
    scatter_rows = None if out is None else loop_of("grids.scatter_rows", block.dtype)
    height = max(TILE_ROWS, TILE_ELEMENTS // block.classes)

    def in_tiles(first: int, stop: int) -> None:
        most = min(height, stop - first)
        tile = np.empty((most, block.classes), block.logits.dtype)
        gradient = None if out is None else np.empty_like(tile)
        soft = np.empty((most, block.classes), block.wide) if block.soft else None
        for begin in range(first, stop, height):
            end = min(stop, begin + height)
            gather_rows(block.logits, begin, end, tile)
            targets = block.targets[begin:end] if soft is None else soft
            if soft is not None:
                loop_of("grids.gather_rows", block.wide.name)(block.targets, begin, end, soft)
            count = (end - begin) * (block.parts if by_items else 1)
            call(tile[: end - begin], targets, gradient, 0, count, begin)
            if scatter_rows is not None:
                scatter_rows(gradient, begin, end, out)

    block.run_in_threads(in_tiles, block.rows)
