"""The kernels, as xent calls them: every method of its contract, for labels and for soft targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from xent.kernels import Partial, Statistics

from . import columns, rows, slopes
from .blocks import Array, Block, Output, block_of, each
from .compiled import compiled


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
    if not block.soft and block.rows:
        unsigned = block.told.view(np.uint64)  # a negative label is a very large one
        if unsigned[unsigned.argmax()] >= block.classes:
            losses[unsigned >= block.classes] = np.nan
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
    if block.layout == "rows" and not block.is_shared:
        losses = at_once(block)
    elif block.layout != "columns":
        losses = finished(block, fold(block))
    else:
        losses, loop = np.empty(block.rows, block.wide), block.loop(columns.loss)
        block.share(lambda first, stop: loop(block.logits, *block.target, first, stop, losses), block.rows)
    losses = without_strangers(block, losses)
    if out is None:
        return losses
    out[...] = losses
    return out


def at_once(block: Block) -> Array:
    """``finished`` of ``fold``, without what only large blocks need: that would take longer than the loops."""
    table, losses = table_of(block), np.empty(block.rows, block.wide)
    if block.rows:
        block.loop(rows.fold)(block.logits, block.told, block.on, block.off, 0, table.shape[1], table)
        compiled(rows.finish_loss, block.dtype)(table, block.parts, 0, block.rows, losses)
    return losses


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
