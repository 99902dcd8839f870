"""Losses and gradients of contiguous rows (rows, classes), as other compiled code calls them: the loops that fit.

A label outside the classes makes the loss of its row NaN. Leaves out strided blocks and threads (``blocks.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from . import column_gradients, columns, row_gradients, rows
from .blocks import FEW_CLASSES
from .by_type import by_type
from .compiled import in_compiled_code, part_of
from .rows import parts_of

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


def loss_of_rows(target: str, dtype: str, soft: bool) -> Callable[..., None]:
    """loss(x, targets, on, off, losses) for logits of a dtype, with labels or soft targets, a part of a target."""
    column_loss = in_compiled_code(columns.loss, dtype, soft)
    fold, finish_loss = in_compiled_code(rows.fold, dtype, soft), in_compiled_code(rows.finish_loss, dtype)

    @part_of(target)
    def loss(x, targets, on, off, losses):
        count, classes = x.shape
        if classes <= FEW_CLASSES:
            column_loss(as_grid(x), as_grid_targets(targets), on, off, 0, count, losses)
        elif count > 0:
            parts = parts_of(classes)
            table = np.empty((rows.FIELDS, count * parts))
            fold(x, targets, on, off, 0, count * parts, table)
            finish_loss(table, parts, 0, count, losses)
        nan_out_of_range(targets, classes, losses)

    return loss


def loss_and_gradient_of_rows(target: str, dtype: str, soft: bool) -> Callable[..., None]:
    """loss_and_gradient(x, targets, on, off, scales, losses, out), for the same."""
    column_loss_and_gradient = in_compiled_code(column_gradients.loss_and_gradient, dtype, soft)
    fold_and_gradient = in_compiled_code(row_gradients.fold_and_gradient, dtype, soft)
    finish_loss = in_compiled_code(rows.finish_loss, dtype)

    @part_of(target)
    def loss_and_gradient(x, targets, on, off, scales, losses, out):
        count, classes = x.shape
        if classes <= FEW_CLASSES:
            grid = as_grid_targets(targets)
            column_loss_and_gradient(as_grid(x), grid, on, off, scales, 0, count, losses, as_grid(out))
        elif count > 0:
            parts = parts_of(classes)
            table = np.empty((rows.FIELDS, count * parts))
            fold_and_gradient(x, targets, on, off, scales, 0, count, table, out)
            finish_loss(table, parts, 0, count, losses)
        nan_out_of_range(targets, classes, losses)

    return loss_and_gradient
