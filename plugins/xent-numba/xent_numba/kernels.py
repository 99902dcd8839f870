"""The kernels, as xent calls them: which loop fits a block, and how its rows are shared out among threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xent.kernels import Partial, Statistics

from . import columns, rows, slopes
from .compiled import compiled
from .threads import share_out

Array = Any
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

    @property
    def soft(self) -> bool:
        return bool(self.told.ndim > 1)

    @property
    def wide(self) -> Any:
        return np.dtype(np.float64 if self.dtype == "float64" else np.float32)

    @property
    def classes(self) -> int:
        return int(self.logits.shape[1])

    @property
    def rows(self) -> int:
        return int(self.logits.size // self.classes)

    @property
    def parts(self) -> int:
        """How many segments a row has."""
        return -(-self.classes // rows.SEGMENT)

    @property
    def target(self) -> tuple[Any, ...]:
        return self.told, self.on, self.off

    def loop(self, function: Callable[..., Any]) -> Callable[..., None]:
        """A loop as machine code for this block."""
        return compiled(function, self.dtype, self.soft)

    def share(self, work: Callable[[int, int], Any], count: int) -> None:
        """Shares out ``count`` rows or items among threads; few of them make no thread worth its while."""
        least = max(1, LEAST * count // max(1, self.rows * self.classes))
        share_out(work, count, self.threads, least)


def block_of(logits: Array, told: Array, on: float, off: float, threads: int) -> Block:
    """A block for the loops that fit it."""
    dtype, logits = logits.dtype.name, memory_of(logits)
    if told.ndim > 1:
        told = memory_of(told.astype(np.float64 if dtype == "float64" else np.float32, copy=False))
    many = (logits, told) if told.ndim > 1 else (logits,)
    if logits.shape[1] <= FEW_CLASSES:
        layout, many = "columns", tuple(map(cube, many))
    elif all(map(is_along_rows, many)):
        layout, many = "rows", tuple(one if one.ndim == 2 else one[:, :, 0] for one in many)
    else:
        layout, many = "tiles", tuple(map(cube, many))
    return Block(many[0], many[-1] if told.ndim > 1 else told, on, off, layout, dtype, threads)


class Output:
    """Where a gradient is written: ``array`` is what is returned, ``written`` the same memory as the loops take it."""

    def __init__(self, logits: Array, block: Block, out: Array | None):
        self.array = np.empty(logits.shape, logits.dtype) if out is None else out
        memory = memory_of(self.array)
        is_same = memory.dtype.isnative and self.array.dtype.isnative
        is_fit = block.layout != "rows" or is_along_rows(memory)
        self.written = memory if is_same and is_fit else np.empty(logits.shape, block.logits.dtype)
        self.is_copied = self.written is not memory
        if block.layout == "rows":
            self.written = self.written if self.written.ndim == 2 else self.written[:, :, 0]
        else:
            self.written = cube(self.written)

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
    bring, put = compiled(columns.bring_rows, block.dtype), compiled(columns.put_rows, block.dtype)
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
                compiled(columns.bring_rows, block.wide.name)(block.told, begin, end, soft)
            count = (end - begin) * (block.parts if by_items else 1)
            call(tile[: end - begin], told, slopes, 0, count, begin)
            if slopes is not None:
                put(slopes, begin, end, out)

    block.share(in_tiles, block.rows)


def table_of(block: Block, fields: int = rows.FIELDS) -> Array:
    """A table of the numbers of every item."""
    return np.empty((fields, block.rows * block.parts))


def fold(block: Block) -> Array:
    """The numbers of every item."""
    table, loop, parts = table_of(block), block.loop(rows.fold), block.parts

    def call(x: Array, told: Array, _: Any, first: int, stop: int, row: int) -> None:
        loop(x, told, block.on, block.off, first, stop, table[:, row * parts :])

    each(block, call, by_items=True)
    return table


def whole_rows(block: Block, table: Array) -> Array:
    """The fold's four numbers of every row (4, rows), float64, from those of its items."""
    if block.parts == 1:
        return table[: rows.FIELDS]
    whole = np.empty((rows.FIELDS, block.rows))
    compiled(rows.finish_partial, block.dtype)(table, block.parts, 0, block.rows, whole)
    return whole


def finished(block: Block, table: Array) -> Array:
    """The loss of every row, from the numbers of its items."""
    losses, loop = np.empty(block.rows, block.wide), compiled(rows.finish_loss, block.dtype)
    block.share(lambda first, stop: loop(table, block.parts, first, stop, losses), block.rows)
    return losses


def without_strangers(block: Block, losses: Array) -> Array:
    """The losses with NaN at labels that are none of the classes."""
    if not block.soft and block.rows and block.told.view(np.uint64).max() >= block.classes:
        losses[(block.told < 0) | (block.told >= block.classes)] = np.nan
    return losses


def partial(block: Block) -> Partial:
    """The fold's four numbers of every row."""
    if block.layout != "columns":
        return Partial(*whole_rows(block, fold(block)).astype(block.wide))
    fields, loop = np.empty((rows.FIELDS, block.rows), block.wide), block.loop(columns.partial)
    block.share(lambda first, stop: loop(block.logits, *block.target, first, stop, *fields), block.rows)
    return Partial(*fields)


def loss(block: Block, out: Array | None) -> Array:
    """The loss of every row."""
    if block.layout != "columns":
        losses = finished(block, fold(block))
    else:
        losses, loop = np.empty(block.rows, block.wide), block.loop(columns.loss)
        block.share(lambda first, stop: loop(block.logits, *block.target, first, stop, losses), block.rows)
    losses = without_strangers(block, losses)
    if out is None:
        return losses
    out[...] = losses
    return out


def gradient(block: Block, whole: Partial, scale: Array, output: Output) -> Array:
    """The gradient, from the fold's numbers of every row."""
    scale = scale.astype(block.wide, copy=False)
    if block.layout != "columns":
        write_items(block, np.stack([field.astype(np.float64) for field in whole]), scale, output.written)
        return output.filled()
    numbers = tuple(np.asarray(whole[field], block.wide) for field in (rows.MAX, rows.REST, rows.MASS))
    loop, arguments = block.loop(columns.gradient), (block.logits, *block.target, numbers, scale)
    block.share(lambda first, stop: loop(*arguments, first, stop, output.written), block.rows)
    return output.filled()


def write_items(block: Block, table: Array, scale: Array, out: Array) -> None:
    """Writes the gradient of every item, from exponentials that are taken again."""
    loop = block.loop(slopes.gradient)

    def call(x: Array, told: Array, to: Array, first: int, stop: int, row: int) -> None:
        loop(x, told, block.on, block.off, table[:, row:], scale[row:], first, stop, to)

    each(block, call, by_items=True, out=out)


def loss_and_gradient(block: Block, scale: Array, output: Output) -> tuple[Array, Array]:
    """The loss of every row and the gradient, from one read of the logits."""
    scale = scale.astype(block.wide, copy=False)
    if block.layout == "columns":
        losses, loop = np.empty(block.rows, block.wide), block.loop(columns.loss_and_gradient)
        arguments = block.logits, *block.target, scale
        block.share(lambda first, stop: loop(*arguments, first, stop, losses, output.written), block.rows)
    elif block.rows < block.threads and block.parts > 1:  # a row is shared by threads: each must know all of it first
        table = fold(block)
        losses = finished(block, table)
        whole = whole_rows(block, table).astype(block.wide).astype(np.float64)  # as a Partial has them
        write_items(block, whole, scale, output.written)
    else:
        table = fold_and_write(block, scale, output.written)
        losses = finished(block, table)
    return without_strangers(block, losses), output.filled()


def fold_and_write(block: Block, scale: Array, out: Array) -> Array:
    """The numbers of every item; writes the gradient."""
    table, loop, parts = table_of(block), block.loop(slopes.fold_and_gradient), block.parts

    def call(x: Array, told: Array, to: Array, first: int, stop: int, row: int) -> None:
        loop(x, told, block.on, block.off, scale[row:], first, stop, table[:, row * parts :], to)

    each(block, call, by_items=False, out=out)
    return table


def statistics(block: Block, label_logit: Array) -> Statistics:
    """The fold's numbers of every row, and what an evaluation asks for beside."""
    label_logit, parts = label_logit.astype(block.wide, copy=False), block.parts
    ranks, squares, spreads = np.empty(block.rows, np.int64), *np.empty((2, block.rows), block.wide)
    if block.layout == "columns":
        fields, loop = np.empty((rows.FIELDS, block.rows), block.wide), block.loop(columns.statistics)
        arguments, rest = (block.logits, block.told, label_logit), (fields, ranks, squares, spreads)
        block.share(lambda first, stop: loop(*arguments, first, stop, *rest), block.rows)
        return Statistics(Partial(*fields), ranks, squares, spreads)
    table, loop = table_of(block, rows.STATISTICS_FIELDS), block.loop(rows.fold_with_statistics)

    def call(x: Array, told: Array, _: Any, first: int, stop: int, row: int) -> None:
        loop(x, told, label_logit[row:], first, stop, table[:, row * parts :])

    each(block, call, by_items=True)
    finish = compiled(rows.finish_statistics, block.dtype)
    finish(table, block.parts, 0, block.rows, ranks, squares, spreads)
    return Statistics(Partial(*whole_rows(block, table).astype(block.wide)), ranks, squares, spreads)


class Sparse:
    """The kernel for labels; its methods are those of xent's contract."""

    def partial(self, logits: Array, labels: Array, on: float, off: float, *, threads: int) -> Partial:
        return partial(block_of(logits, labels, on, off, threads))

    def loss(
        self, logits: Array, labels: Array, on: float, off: float, *, threads: int, out: Array | None = None
    ) -> Array:
        return loss(block_of(logits, labels, on, off, threads), out)

    def gradient(
        self,
        logits: Array,
        labels: Array,
        on: float,
        off: float,
        partial: Partial,
        scale: Array,
        *,
        threads: int,
        out: Array | None = None,
    ) -> Array:
        block = block_of(logits, labels, on, off, threads)
        return gradient(block, partial, scale, Output(logits, block, out))

    def loss_and_gradient(
        self,
        logits: Array,
        labels: Array,
        on: float,
        off: float,
        scale: Array,
        *,
        threads: int,
        out: Array | None = None,
    ) -> tuple[Array, Array]:
        block = block_of(logits, labels, on, off, threads)
        return loss_and_gradient(block, scale, Output(logits, block, out))

    def statistics(self, logits: Array, labels: Array, label_logit: Array, *, threads: int) -> Statistics:
        return statistics(block_of(logits, labels, 1.0, 0.0, threads), label_logit)


class Dense:
    """The kernel for soft targets; its methods are those of xent's contract."""

    def partial(self, logits: Array, targets: Array, *, threads: int) -> Partial:
        return partial(block_of(logits, targets, 1.0, 0.0, threads))

    def loss(self, logits: Array, targets: Array, *, threads: int, out: Array | None = None) -> Array:
        return loss(block_of(logits, targets, 1.0, 0.0, threads), out)

    def gradient(
        self, logits: Array, targets: Array, partial: Partial, scale: Array, *, threads: int, out: Array | None = None
    ) -> Array:
        block = block_of(logits, targets, 1.0, 0.0, threads)
        return gradient(block, partial, scale, Output(logits, block, out))

    def loss_and_gradient(
        self, logits: Array, targets: Array, scale: Array, *, threads: int, out: Array | None = None
    ) -> tuple[Array, Array]:
        block = block_of(logits, targets, 1.0, 0.0, threads)
        return loss_and_gradient(block, scale, Output(logits, block, out))


sparse, dense = Sparse(), Dense()
