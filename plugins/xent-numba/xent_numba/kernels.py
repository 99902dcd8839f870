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
MOST_CLASSES = 1 << 24  # side by side, a class is told by its number in float32
MOST_LANES = 16


def memory_of(array: Array) -> Array:
    """An array as the loops read it: in this machine's byte order, and 16-bit floats as integers."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.itemsize == 2:
        return array.view(np.int16 if array.dtype == np.float16 else np.uint16)
    return array


class Block(NamedTuple):
    """One block, ready for the loops: (rows, classes) for those along rows, else (outer, classes, inner)."""

    logits: Array
    told: Array  # labels (rows,), or soft targets in the shape of the logits
    on: float
    off: float
    dtype: str
    threads: int

    @property
    def soft(self) -> bool:
        return bool(self.told.ndim == self.logits.ndim)

    @property
    def is_along_rows(self) -> bool:
        return bool(self.logits.ndim == 2)

    @property
    def wide(self) -> Any:
        return np.dtype(np.float64 if self.dtype == "float64" else np.float32)

    @property
    def rows(self) -> int:
        return int(self.logits.shape[0] * (1 if self.is_along_rows else self.logits.shape[2]))

    @property
    def classes(self) -> int:
        return int(self.logits.shape[1])

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
        """Shares out ``count`` rows or items; none is worth a thread of its own unless it is large."""
        least = max(1, LEAST * count // max(1, self.rows * self.classes))
        share_out(work, count, self.threads, least)


def is_strided(array: Array) -> bool:
    """Whether the classes of a row do not follow each other in memory."""
    return bool(array.strides[1] != array.itemsize or (array.ndim == 3 and array.shape[2] != 1))


def block_of(logits: Array, told: Array, on: float, off: float, threads: int) -> Block:
    """A block for the loops that fit it; few rows of many classes are copied where their classes are strided."""
    dtype = logits.dtype.name
    logits, soft = memory_of(logits), told.ndim == logits.ndim
    both = (logits, told) if soft else (logits,)
    classes, many = logits.shape[1], logits.size // max(1, logits.shape[1])
    if soft:
        told = told.astype(np.float64 if dtype == "float64" else np.float32, copy=False)
        told = told if told.dtype.isnative else told.astype(told.dtype.newbyteorder("="))
    strided = any(is_strided(one) for one in both)
    if strided and classes > FEW_CLASSES and (many < MOST_LANES or classes >= MOST_CLASSES):
        logits = by_rows(logits)
        told = by_rows(told) if soft else told
        strided = False
    if classes > FEW_CLASSES and not strided:
        logits, told = flat(logits), flat(told) if soft else told
    elif logits.ndim == 2:
        logits, told = logits[:, :, None], told[:, :, None] if soft else told
    return Block(logits, told, on, off, dtype, threads)


def flat(array: Array) -> Array:
    """(outer, classes, 1) as (outer, classes)."""
    return array if array.ndim == 2 else array[:, :, 0]


def by_rows(array: Array) -> Array:
    """A copy (rows, classes) in which the classes of a row follow each other."""
    if array.ndim == 3:
        array = np.moveaxis(array, 1, 2).reshape(-1, array.shape[1])
    return np.ascontiguousarray(array)


def table_of(block: Block, fields: int = rows.FIELDS) -> Array:
    """A table of the numbers of every item."""
    return np.empty((fields, block.rows * block.parts))


def fold(block: Block) -> Array:
    """The numbers of every item of a block along rows."""
    table, loop = table_of(block), block.loop(rows.fold)
    block.share(lambda first, stop: loop(block.logits, *block.target, first, stop, table), table.shape[1])
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
    if block.is_along_rows:
        return Partial(*whole_rows(block, fold(block)).astype(block.wide))
    fields, loop = np.empty((rows.FIELDS, block.rows), block.wide), block.loop(columns.partial)
    block.share(lambda first, stop: loop(block.logits, *block.target, first, stop, *fields), block.rows)
    return Partial(*fields)


def loss(block: Block, out: Array | None) -> Array:
    """The loss of every row."""
    if block.is_along_rows:
        losses = finished(block, fold(block))
    else:
        losses, loop = np.empty(block.rows, block.wide), block.loop(columns.loss)
        block.share(lambda first, stop: loop(block.logits, *block.target, first, stop, losses), block.rows)
    losses = without_strangers(block, losses)
    if out is None:
        return losses
    out[...] = losses
    return out


class Output:
    """Where a gradient is written: the caller's array, or memory of its shape that the loops can write."""

    def __init__(self, logits: Array, block: Block, out: Array | None):
        self.out = np.empty(logits.shape, logits.dtype) if out is None else out
        self.memory = memory_of(self.out)
        self.is_copied = self.memory.dtype != block.logits.dtype or not np.shares_memory(self.memory, self.out)
        if block.is_along_rows:
            self.is_copied |= is_strided(self.memory)
            self.written = np.empty(block.logits.shape, block.logits.dtype) if self.is_copied else flat(self.memory)
        else:
            self.written = self.memory if self.memory.ndim == 3 else self.memory[:, :, None]

    def filled(self) -> Array:
        """The caller's array."""
        if self.is_copied:
            values = self.written.view(self.out.dtype.newbyteorder("="))
            if self.out.ndim == 3 and values.ndim == 2:
                outer, classes, inner = self.out.shape
                values = np.moveaxis(values.reshape(outer, inner, classes), 2, 1)
            self.out[...] = values.reshape(self.out.shape)
        return self.out


def gradient(block: Block, whole: Partial, scale: Array, output: Output) -> Array:
    """The gradient, from the fold's numbers of every row."""
    scale = scale.astype(block.wide, copy=False)
    if block.is_along_rows:
        table = np.stack([field.astype(np.float64) for field in whole])
        write_items(block, table, scale, output.written)
    else:
        numbers = tuple(np.asarray(whole[field], block.wide) for field in (rows.MAX, rows.REST, rows.MASS))
        loop = block.loop(columns.gradient)
        arguments = block.logits, *block.target, numbers, scale
        block.share(lambda first, stop: loop(*arguments, first, stop, output.written), block.rows)
    return output.filled()


def write_items(block: Block, table: Array, scale: Array, out: Array) -> None:
    """Writes the gradient of every item, from exponentials that are taken again."""
    loop, arguments = block.loop(slopes.gradient), (block.logits, *block.target, table, scale)
    block.share(lambda first, stop: loop(*arguments, first, stop, out), block.rows * block.parts)


def loss_and_gradient(block: Block, scale: Array, output: Output) -> tuple[Array, Array]:
    """The loss of every row and the gradient, from one read of the logits."""
    scale = scale.astype(block.wide, copy=False)
    if not block.is_along_rows:
        losses, loop = np.empty(block.rows, block.wide), block.loop(columns.loss_and_gradient)
        arguments = block.logits, *block.target, scale
        block.share(lambda first, stop: loop(*arguments, first, stop, losses, output.written), block.rows)
    elif block.rows < block.threads and block.parts > 1:  # a row is shared by threads: each must know all of it first
        table = fold(block)
        losses = finished(block, table)
        whole = whole_rows(block, table).astype(block.wide).astype(np.float64)  # as the other branch rounds them
        write_items(block, whole, scale, output.written)
    else:
        table, loop = table_of(block), block.loop(slopes.fold_and_gradient)
        arguments = block.logits, *block.target, scale
        block.share(lambda first, stop: loop(*arguments, first, stop, table, output.written), block.rows)
        losses = finished(block, table)
    return without_strangers(block, losses), output.filled()


def statistics(block: Block, label_logit: Array) -> Statistics:
    """The fold's numbers of every row, and what an evaluation asks for beside."""
    label_logit = label_logit.astype(block.wide, copy=False)
    ranks, squares, spreads = np.empty(block.rows, np.int64), *np.empty((2, block.rows), block.wide)
    if not block.is_along_rows:
        fields, loop = np.empty((rows.FIELDS, block.rows), block.wide), block.loop(columns.statistics)
        arguments = block.logits, block.told, label_logit
        rest = fields, ranks, squares, spreads
        block.share(lambda first, stop: loop(*arguments, first, stop, *rest), block.rows)
        return Statistics(Partial(*fields), ranks, squares, spreads)
    table, loop = table_of(block, rows.STATISTICS_FIELDS), block.loop(rows.fold_with_statistics)
    arguments = block.logits, block.told, label_logit
    block.share(lambda first, stop: loop(*arguments, first, stop, table), table.shape[1])
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
