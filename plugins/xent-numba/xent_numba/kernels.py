"""The kernels, as xent calls them: every method of its contract, for labels and for soft targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xent.kernels import Partial, ProbabilitySums, Problem, Statistics

from . import kept
from .hooks import numba_fails

# On a worker, say, to which a plan was sent: generic takes the kernel's place.
if not kept.some_are_kept() and numba_fails():
    raise ImportError(numba_fails())

from .blocks import Array, GradientOutput, PreparedBlock, prepare, run_along_rows
from .fields import FIELDS, MASS, MAX, PROBABILITY_FIELDS, REST, STATISTICS_FIELDS, TOP
from .loops import loop_of


def new_table(block: PreparedBlock, fields: int = FIELDS) -> Array:
    """An empty table for the numbers of every item."""
    return np.empty((fields, block.rows * block.parts))


def fold(block: PreparedBlock) -> Array:
    """The table of every item's numbers."""
    table, loop, parts = new_table(block), block.loop("rows.fold"), block.parts

    def call(x: Array, targets: Array, _: Any, first: int, stop: int, row: int) -> None:
        loop(x, targets, block.on, block.off, first, stop, table[:, row * parts :])

    run_along_rows(block, call, by_items=True)
    return table


def row_table(block: PreparedBlock, table: Array) -> Array:
    """The fold's four numbers of every row (4, rows), float64, from those of its items."""
    if block.parts == 1:
        return table[:FIELDS]
    whole = np.empty((FIELDS, block.rows))
    loop_of("rows.finish_partial", block.dtype)(table, block.parts, 0, block.rows, whole)
    return whole


def losses_of(block: PreparedBlock, table: Array) -> Array:
    """The loss of every row, from the numbers of its items."""
    losses, loop = np.empty(block.rows, block.wide), loop_of("rows.finish_loss", block.dtype)
    block.run_in_threads(lambda first, stop: loop(table, block.parts, first, stop, losses), block.rows)
    return losses


def nan_out_of_range(block: PreparedBlock, losses: Array) -> Array:
    """The losses, with NaN for labels outside the classes."""
    if not block.soft and block.rows:
        unsigned = block.targets.view(np.uint64)  # a negative label is a very large one
        if unsigned[unsigned.argmax()] >= block.classes:
            losses[unsigned >= block.classes] = np.nan
    return losses


def partial(block: PreparedBlock) -> Partial:
    """The fold's four numbers of every row."""
    if block.layout == "columns":
        return loss_and_partial(block)[1]
    return Partial(*row_table(block, fold(block)).astype(block.wide))


def loss(block: PreparedBlock, out: Array | None) -> Array:
    """The loss of every row."""
    if block.layout == "rows" and not block.is_parallel:
        losses = small_loss(block)
    elif block.layout != "columns":
        losses = losses_of(block, fold(block))
    else:
        losses, loop = np.empty(block.rows, block.wide), block.loop("columns.loss")
        block.run_in_threads(lambda first, stop: loop(*block.arguments, first, stop, losses), block.rows)
    losses = nan_out_of_range(block, losses)
    if out is None:
        return losses
    out[...] = losses
    return out


def loss_and_partial(block: PreparedBlock) -> tuple[Array, Partial]:
    """The loss of every row, and the fold's four numbers, from one read of the logits."""
    if block.layout != "columns":
        table = fold(block)
        losses, fields = losses_of(block, table), row_table(block, table).astype(block.wide)
    else:
        losses, fields = np.empty(block.rows, block.wide), np.empty((FIELDS, block.rows), block.wide)
        loop = block.loop("columns.loss_and_partial")
        block.run_in_threads(lambda first, stop: loop(*block.arguments, first, stop, losses, *fields), block.rows)
    return nan_out_of_range(block, losses), Partial(*fields)


def small_loss(block: PreparedBlock) -> Array:
    """``losses_of`` a ``fold``, without closures and threads: for small blocks these take longer than the loops."""
    table, losses = new_table(block), np.empty(block.rows, block.wide)
    if block.rows:
        block.loop("rows.fold")(block.logits, block.targets, block.on, block.off, 0, table.shape[1], table)
        loop_of("rows.finish_loss", block.dtype)(table, block.parts, 0, block.rows, losses)
    return losses


def gradient(block: PreparedBlock, whole: Partial, scale: Array, output: GradientOutput) -> Array:
    """The gradient, from the fold's numbers of every row."""
    scale = scale.astype(block.wide, copy=False)
    if block.layout != "columns":
        write_items(block, np.stack([field.astype(np.float64) for field in whole]), scale, output.written)
        return output.filled()
    numbers = tuple(np.asarray(whole[field], block.wide) for field in (MAX, REST, MASS))
    loop = block.loop("column_gradients.gradient")
    block.run_in_threads(
        lambda first, stop: loop(*block.arguments, numbers, scale, first, stop, output.written), block.rows
    )
    return output.filled()


def write_items(block: PreparedBlock, table: Array, scale: Array, out: Array) -> None:
    """Writes the gradient of every item, taking the exponentials again."""
    loop = block.loop("row_gradients.gradient")

    def call(x: Array, targets: Array, to: Array, first: int, stop: int, row: int) -> None:
        loop(x, targets, block.on, block.off, table[:, row:], scale[row:], first, stop, to)

    run_along_rows(block, call, by_items=True, out=out)


def loss_and_gradient(block: PreparedBlock, scale: Array, output: GradientOutput) -> tuple[Array, Array]:
    """The loss of every row and the gradient, from one read of the logits."""
    scale = scale.astype(block.wide, copy=False)
    if block.layout == "columns":
        losses, loop = np.empty(block.rows, block.wide), block.loop("column_gradients.loss_and_gradient")
        block.run_in_threads(
            lambda first, stop: loop(*block.arguments, scale, first, stop, losses, output.written), block.rows
        )
    elif block.rows < block.threads and block.parts > 1:  # threads divide a row: each needs the row's numbers first
        table = fold(block)
        losses = losses_of(block, table)
        whole = row_table(block, table).astype(block.wide).astype(np.float64)  # as in a Partial
        write_items(block, whole, scale, output.written)
    else:
        losses = losses_of(block, fold_and_write(block, scale, output.written))
    return nan_out_of_range(block, losses), output.filled()


def fold_and_write(block: PreparedBlock, scale: Array, out: Array) -> Array:
    """The table of every item's numbers; writes the gradient."""
    table, loop, parts = new_table(block), block.loop("row_gradients.fold_and_gradient"), block.parts

    def call(x: Array, targets: Array, to: Array, first: int, stop: int, row: int) -> None:
        loop(x, targets, block.on, block.off, scale[row:], first, stop, table[:, row * parts :], to)

    run_along_rows(block, call, by_items=False, out=out)
    return table


def statistics(block: PreparedBlock, label_logit: Array) -> Statistics:
    """The fold's numbers of every row, and what an evaluation needs as well."""
    label_logit, parts = label_logit.astype(block.wide, copy=False), block.parts
    ranks, squares, spreads = np.empty(block.rows, np.int64), *np.empty((2, block.rows), block.wide)
    if block.layout == "columns":
        fields, loop = np.empty((FIELDS, block.rows), block.wide), block.loop("column_statistics.statistics")
        arguments, results = (block.logits, block.targets, label_logit), (fields, ranks, squares, spreads)
        block.run_in_threads(lambda first, stop: loop(*arguments, first, stop, *results), block.rows)
        return Statistics(Partial(*fields), ranks, squares, spreads)
    table, loop = new_table(block, STATISTICS_FIELDS), block.loop("rows.fold_with_statistics")

    def call(x: Array, targets: Array, _: Any, first: int, stop: int, row: int) -> None:
        loop(x, targets, label_logit[row:], first, stop, table[:, row * parts :])

    run_along_rows(block, call, by_items=True)
    finish = loop_of("rows.finish_statistics", block.dtype)
    finish(table, block.parts, 0, block.rows, ranks, squares, spreads)
    return Statistics(Partial(*row_table(block, table).astype(block.wide)), ranks, squares, spreads)


def probability_sums(block: PreparedBlock) -> ProbabilitySums:
    """The sums of probabilities of every row."""
    table, label_p = new_table(block, PROBABILITY_FIELDS), np.empty(block.rows, block.wide)
    if block.layout == "columns":
        loop = block.loop("probabilities.column_sums")
        block.run_in_threads(
            lambda first, stop: loop(block.logits, block.targets, first, stop, table, label_p), block.rows
        )
    else:
        loop, parts = block.loop("probabilities.row_sums"), block.parts

        def call(x: Array, targets: Array, _: Any, first: int, stop: int, row: int) -> None:
            loop(x, targets, first, stop, table[:, row * parts :], label_p[row:])

        run_along_rows(block, call, by_items=True)
    if block.parts > 1:
        items = table.reshape(PROBABILITY_FIELDS, block.rows, block.parts)
        table = items.sum(axis=2)
        table[TOP] = items[TOP].max(axis=1)
    total, *fields, ranks = table
    top, squares, entropy = (field.astype(block.wide) for field in fields)
    return ProbabilitySums(total, top, squares, entropy, label_p, ranks.astype(np.int64))


class Sparse:
    """The kernel for labels; its methods are those of xent's contract."""

    def partial(self, logits: Array, labels: Array, on: float, off: float, *, threads: int) -> Partial:
        return partial(prepare(logits, labels, on, off, threads))

    def loss(
        self, logits: Array, labels: Array, on: float, off: float, *, threads: int, out: Array | None = None
    ) -> Array:
        return loss(prepare(logits, labels, on, off, threads), out)

    def loss_and_partial(
        self, logits: Array, labels: Array, on: float, off: float, *, threads: int
    ) -> tuple[Array, Partial]:
        return loss_and_partial(prepare(logits, labels, on, off, threads))

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
        block = prepare(logits, labels, on, off, threads, out)
        return gradient(block, partial, scale, GradientOutput(logits, block, out))

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
        block = prepare(logits, labels, on, off, threads, out)
        return loss_and_gradient(block, scale, GradientOutput(logits, block, out))

    def statistics(self, logits: Array, labels: Array, label_logit: Array, *, threads: int) -> Statistics:
        return statistics(prepare(logits, labels, 1.0, 0.0, threads), label_logit)

    def probability_sums(self, p: Array, labels: Array, *, threads: int) -> ProbabilitySums:
        return probability_sums(prepare(p, labels, 1.0, 0.0, threads))

    def whole_call(self, problem: Problem) -> Callable[..., int] | None:
        from . import whole_calls  # with Numba

        return whole_calls.whole_call(problem)


class Dense:
    """The kernel for soft targets; its methods are those of xent's contract."""

    def partial(self, logits: Array, targets: Array, *, threads: int) -> Partial:
        return partial(prepare(logits, targets, 1.0, 0.0, threads))

    def loss(self, logits: Array, targets: Array, *, threads: int, out: Array | None = None) -> Array:
        return loss(prepare(logits, targets, 1.0, 0.0, threads), out)

    def loss_and_partial(self, logits: Array, targets: Array, *, threads: int) -> tuple[Array, Partial]:
        return loss_and_partial(prepare(logits, targets, 1.0, 0.0, threads))

    def gradient(
        self, logits: Array, targets: Array, partial: Partial, scale: Array, *, threads: int, out: Array | None = None
    ) -> Array:
        block = prepare(logits, targets, 1.0, 0.0, threads, out)
        return gradient(block, partial, scale, GradientOutput(logits, block, out))

    def loss_and_gradient(
        self, logits: Array, targets: Array, scale: Array, *, threads: int, out: Array | None = None
    ) -> tuple[Array, Array]:
        block = prepare(logits, targets, 1.0, 0.0, threads, out)
        return loss_and_gradient(block, scale, GradientOutput(logits, block, out))


sparse, dense = Sparse(), Dense()
