"""Blocks as xent hands them over, made ready for the loops: which loops fit, and how their rows are shared out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import grids
from .compiled import compiled
from .rows import SEGMENT
from .threads import share_out

Array = Any
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
NAMES = {np.dtype(name): name for name in ("float16", "float32", "float64")}
FEW_CLASSES = 64  # up to here, rows side by side are faster than one after the other
LEAST = 1 << 16  # elements that are worth another thread
TILE = 1 << 16  # elements that are brought at once where the classes of a row do not follow each other
TILE_ROWS = 16  # at least: as many as share the lines of memory that their classes are on


def memory_of(array: Array) -> Array:
    """An array as the loops read it: in this machine's byte order, and 16-bit floats as integers."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.itemsize == 2:
        return array.view(np.int16 if array.dtype == np.float16 else np.uint16)
    return array


def cube(array: Array) -> Array:
    """(rows, classes) as (rows, classes, 1); (outer, classes, inner) as it is."""
    return array if array.ndim == 3 else array[:, :, None]


def flat(array: Array) -> Array:
    """(outer, classes, 1) as (outer, classes)."""
    return array if array.ndim == 2 else array[:, :, 0]


def is_along_rows(array: Array) -> bool:
    """Whether the classes of a row follow each other in memory."""
    return bool(array.strides[1] == array.itemsize and (array.ndim == 2 or array.shape[2] == 1))


class Block(NamedTuple):
    """One block, ready for the loops.

    ``layout`` is "columns" for few classes; else "rows", with arrays (rows, classes), or "tiles" where those have to be
    made first. Arrays of the other two are (outer, classes, inner).
    """

    logits: Array
    told: Array  # labels (rows,), or soft targets in the shape of the logits
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
    def is_shared(self) -> bool:
        """Whether the block is large enough for several threads, and there are some."""
        return self.threads > 1 and self.rows * self.classes >= 2 * LEAST

    @property
    def target(self) -> tuple[Any, ...]:
        return self.told, self.on, self.off

    def loop(self, function: Callable[..., Any]) -> Callable[..., None]:
        """A loop as machine code for this block."""
        return compiled(function, self.dtype, self.soft)

    def share(self, work: Callable[[int, int], Any], count: int) -> None:
        """Shares out ``count`` rows or items among threads, unless the block is too small for that."""
        if self.is_shared:
            share_out(work, count, self.threads, max(1, LEAST * count // (self.rows * self.classes)))
        elif count:
            work(0, count)


def block_of(logits: Array, told: Array, on: float, off: float, threads: int) -> Block:
    """A block for the loops that fit it."""
    dtype, soft = NAMES.get(logits.dtype) or logits.dtype.name, told.ndim > 1
    wide, logits = DOUBLE if dtype == "float64" else SINGLE, memory_of(logits)
    if soft:
        told = memory_of(told.astype(wide, copy=False))
    classes = logits.shape[1]
    if classes <= FEW_CLASSES:
        layout, shaped = "columns", cube
    elif is_along_rows(logits) and not (soft and not is_along_rows(told)):
        layout, shaped = "rows", flat
    else:
        layout, shaped = "tiles", cube
    rows, parts = logits.size // classes, -(-classes // SEGMENT)
    told = shaped(told) if soft else told
    return Block(shaped(logits), told, on, off, layout, dtype, threads, soft, wide, rows, classes, parts)


class Output:
    """Where a gradient is written: ``array`` is what is returned, ``written`` the same memory as the loops take it."""

    def __init__(self, logits: Array, block: Block, out: Array | None):
        self.array = np.empty(logits.shape, logits.dtype) if out is None else out
        memory = memory_of(self.array)
        is_same = memory.dtype.isnative and self.array.dtype.isnative
        is_fit = block.layout != "rows" or is_along_rows(memory)
        self.written = memory if is_same and is_fit else np.empty(logits.shape, block.logits.dtype)
        self.is_copied = self.written is not memory
        self.written = flat(self.written) if block.layout == "rows" else cube(self.written)

    def filled(self) -> Array:
        """The array, with what was written."""
        if self.is_copied:
            values = self.written.view(self.array.dtype.newbyteorder("="))
            self.array[...] = values.reshape(self.array.shape)
        return self.array


def each(block: Block, call: Callable[..., None], *, by_items: bool, out: Array | None = None) -> None:
    """Calls call(logits, told, out, first, stop, row) on ranges of rows, or of items, that together are all.

    The arrays are (rows, classes), and their first row is ``row`` of the whole: tiles are made of what is not so.
    """
    if block.layout == "rows":
        count = block.rows * (block.parts if by_items else 1)
        block.share(lambda first, stop: call(block.logits, block.told, out, first, stop, 0), count)
        return
    bring, put = compiled(grids.bring_rows, block.dtype), compiled(grids.put_rows, block.dtype)
    height = max(TILE_ROWS, TILE // block.classes)

    def in_tiles(first: int, stop: int) -> None:
        most = min(height, stop - first)
        tile = np.empty((most, block.classes), block.logits.dtype)
        slopes = None if out is None else np.empty_like(tile)
        soft = np.empty((most, block.classes), block.wide) if block.soft else None
        for begin in range(first, stop, height):
            end = min(stop, begin + height)
            bring(block.logits, begin, end, tile)
            told = block.told[begin:end] if soft is None else soft
            if soft is not None:
                compiled(grids.bring_rows, block.wide.name)(block.told, begin, end, soft)
            count = (end - begin) * (block.parts if by_items else 1)
            call(tile[: end - begin], told, slopes, 0, count, begin)
            if slopes is not None:
                put(slopes, begin, end, out)

    block.share(in_tiles, block.rows)
