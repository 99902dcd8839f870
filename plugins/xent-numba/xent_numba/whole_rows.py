"""What the methods compute of contiguous rows (rows, classes), as other compiled code calls it: the loops that fit.

A label outside the classes makes the loss of its row NaN. Leaves out strided blocks and threads (``blocks.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from . import column_gradients, column_statistics, columns, row_gradients, rows
from .blocks import FEW_CLASSES
from .by_type import by_type
from .compiled import in_compiled_code, part_of
from .fields import FIELDS, GAP, MASS, MAX, REST, STATISTICS_FIELDS
from .rows import parts_of, row_numbers

MEMORY = {"float16": np.int16, "bfloat16": np.uint16, "float32": np.float32, "float64": np.float64}
"""The dtypes of logits as compiled code sees them."""
WIDE = {name: np.float64 if name == "float64" else np.float32 for name in MEMORY}
"""The dtypes they are computed in."""


@njit
def as_grid(array):
    """(rows, classes) as (rows, classes, 1)."""
    return array.reshape((array.shape[0], array.shape[1], 1))


@by_type
def as_grid_targets(targets):
    """Soft targets as a grid; labels as they are."""
    return (lambda targets: targets) if targets.ndim == 1 else (lambda targets: as_grid(targets))


@by_type
def nan_out_of_range(targets, classes, losses):
    """Writes NaN where a label is outside the classes."""

    def of_labels(targets, classes, losses):
        for row in range(len(targets)):
            if targets[row] < 0 or targets[row] >= classes:
                losses[row] = np.nan

    return of_labels if targets.ndim == 1 else (lambda targets, classes, losses: None)


@njit
def write_rows(table, parts, highest, rests, gaps, masses):
    """Writes the fold's four numbers of every row, from those of its items, in the dtype of the arrays."""
    for row in range(len(highest)):
        highest[row], rests[row], gaps[row], masses[row] = row_numbers(table, row, parts)


def loss_of_rows(target: str, dtype: str, soft: bool) -> Callable[..., None]:
    """loss(x, targets, on, off, numbers, (losses,)) for logits of a dtype, with labels or soft targets."""
    column_loss = in_compiled_code(columns.loss, dtype, soft)
    fold, finish_loss = in_compiled_code(rows.fold, dtype, soft), in_compiled_code(rows.finish_loss, dtype)

    @part_of(target)
    def loss(x, targets, on, off, numbers, results):
        count, classes = x.shape
        losses = results[0]
        if classes <= FEW_CLASSES:
            column_loss(as_grid(x), as_grid_targets(targets), on, off, 0, count, losses)
        elif count > 0:
            parts = parts_of(classes)
            table = np.empty((FIELDS, count * parts))
            fold(x, targets, on, off, 0, count * parts, table)
            finish_loss(table, parts, 0, count, losses)
        nan_out_of_range(targets, classes, losses)

    return loss


def loss_and_gradient_of_rows(target: str, dtype: str, soft: bool) -> Callable[..., None]:
    """loss_and_gradient(x, targets, on, off, scales, (losses, gradient)), for the same."""
    column_loss_and_gradient = in_compiled_code(column_gradients.loss_and_gradient, dtype, soft)
    fold_and_gradient = in_compiled_code(row_gradients.fold_and_gradient, dtype, soft)
    finish_loss = in_compiled_code(rows.finish_loss, dtype)

    @part_of(target)
    def loss_and_gradient(x, targets, on, off, scales, results):
        count, classes = x.shape
        losses, out = results
        if classes <= FEW_CLASSES:
            grid = as_grid_targets(targets)
            column_loss_and_gradient(as_grid(x), grid, on, off, scales, 0, count, losses, as_grid(out))
        elif count > 0:
            parts = parts_of(classes)
            table = np.empty((FIELDS, count * parts))
            fold_and_gradient(x, targets, on, off, scales, 0, count, table, out)
            finish_loss(table, parts, 0, count, losses)
        nan_out_of_range(targets, classes, losses)

    return loss_and_gradient


def partial_of_rows(target: str, dtype: str, soft: bool) -> Callable[..., None]:
    """partial(x, targets, on, off, numbers, the fold's four numbers), for the same."""
    column_loss_and_partial = in_compiled_code(columns.loss_and_partial, dtype, soft)
    fold, wide = in_compiled_code(rows.fold, dtype, soft), WIDE[dtype]

    @part_of(target)
    def partial(x, targets, on, off, numbers, results):
        count, classes = x.shape
        highest, rests, gaps, masses = results
        if classes <= FEW_CLASSES:
            grid, losses = as_grid_targets(targets), np.empty(count, wide)
            column_loss_and_partial(as_grid(x), grid, on, off, 0, count, losses, highest, rests, gaps, masses)
        elif count > 0:
            parts = parts_of(classes)
            table = np.empty((FIELDS, count * parts))
            fold(x, targets, on, off, 0, count * parts, table)
            write_rows(table, parts, highest, rests, gaps, masses)

    return partial


def statistics_of_rows(target: str, dtype: str, soft: bool = False) -> Callable[..., None]:
    """statistics(x, labels, on, off, label_logits, results): the fold's numbers, rank, squares and spread."""
    column_statistics_loop = in_compiled_code(column_statistics.statistics, dtype)
    fold, finish = (in_compiled_code(loop, dtype) for loop in (rows.fold_with_statistics, rows.finish_statistics))
    wide = WIDE[dtype]

    @part_of(target)
    def statistics(x, labels, on, off, label_logits, results):
        count, classes = x.shape
        highest, rests, gaps, masses, ranks, squares, spreads = results
        wide_ranks = np.empty(count, np.int64)
        if classes <= FEW_CLASSES:
            fields = np.empty((FIELDS, count), wide)
            column_statistics_loop(as_grid(x), labels, label_logits, 0, count, fields, wide_ranks, squares, spreads)
            for row in range(count):
                highest[row], rests[row] = fields[MAX, row], fields[REST, row]
                gaps[row], masses[row] = fields[GAP, row], fields[MASS, row]
        elif count > 0:
            parts = parts_of(classes)
            table = np.empty((STATISTICS_FIELDS, count * parts))
            fold(x, labels, label_logits, 0, count * parts, table)
            write_rows(table, parts, highest, rests, gaps, masses)
            finish(table, parts, 0, count, wide_ranks, squares, spreads)
        for row in range(count):
            ranks[row] = wide_ranks[row]

    return statistics


OF_ROWS: dict[str, Callable[[str, str, bool], Callable[..., None]]] = {
    "loss": loss_of_rows,
    "loss_and_gradient": loss_and_gradient_of_rows,
    "partial": partial_of_rows,
    "statistics": statistics_of_rows,
}
"""of_rows(target, dtype, soft) of each method: f(x, targets, on, off, numbers, results), a part of a target.

``numbers`` is an array (rows,) that the method takes besides, or None; results are a tuple of arrays.
"""
