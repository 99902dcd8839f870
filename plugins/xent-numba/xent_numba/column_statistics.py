r"""What an evaluation needs besides the fold, with rows side by side: squares, spread and rank, as in ``rows.py``."""

from __future__ import annotations

import numpy as np
from numba import njit

from .column_targets import gaps_and_masses, grid_targets_of
from .columns import (
    Numbers,
    all_finite,
    fold_nonfinite_rows,
    is_finite,
    largest,
    level_of,
    load_vector,
    rests_of,
    store_fold,
    store_numbers,
    workspace_bytes,
    workspace_of,
)
from .exponential import biased_exp, one_over_bias
from .fields import FIELDS, RANK, SPREAD, SQUARES, STATISTICS_FIELDS
from .grids import DOUBLE, LINE, grid_of
from .lanes import equal, fill, fma, greater, logical_and, where
from .memory import keep_alive, load, load_scalar, prefetch, width
from .segments import CHUNK
from .totals import add_lanes, by_row, rounded_rows, widened_rows, zero_total
from .values import load_values, values_of


@njit(forceinline=True)
def sum_statistics(wide, tile, classes, level, label_logits, labels, ahead):
    """(sum_exp_rest, Σ e², Σ (level − x) e, how many logits rank before the label's) of each row, float64.

    The tile stays as it is.
    """
    zero, one, far = fill(wide, 0.0), fill(wide, 1.0), fill(wide, 1e4)
    others, squares, spread, rank, ties = zero_total(), zero_total(), zero_total(), zero, zero
    index = 0
    while index < classes:
        stop = min(classes, index + CHUNK)
        lanes, squared, spreads = zero, zero, zero
        while index < stop:
            logits = load(wide, tile + index * 64)
            prefetch(ahead.address + index * ahead.step)
            gap = level - logits
            exps = biased_exp(logits - level)
            at_maximum = equal(logits, level)
            lanes = lanes + where(at_maximum, zero, exps)
            ties = ties + where(at_maximum, one, zero)
            squared = fma(exps, exps, squared)
            # subtle: 0 · inf is NaN; beyond 1e4 the exponential is 0 in every dtype
            spreads = spreads + where(greater(gap, far), zero, gap * exps)
            is_before = logical_and(equal(logits, label_logits), greater(labels, fill(wide, np.float64(index))))
            rank = rank + where(greater(logits, label_logits), one, where(is_before, one, zero))
            index += 1
        others, squares, spread = add_lanes(others, lanes), add_lanes(squares, squared), add_lanes(spread, spreads)
    unbias = fill(DOUBLE, one_over_bias(wide))
    squares, spread = by_row(squares, wide), by_row(spread, wide)
    squares = squares[0] * unbias * unbias, squares[1] * unbias * unbias
    spread = spread[0] * unbias, spread[1] * unbias
    return rests_of(wide, others, ties), squares, spread, widened_rows(rank)


def statistics(x, labels, label_logits, first, stop, partials, ranks, squares, spreads):
    """Writes the fold's numbers (4, rows), rank, squares and spread of the rows in [first, stop)."""
    grid, targets, levels = grid_of(x), grid_targets_of(1.0, 0.0, labels), values_of(label_logits)
    memory = np.empty(workspace_bytes(x.shape[1]), np.uint8)
    work, wide, classes = workspace_of(memory, x.shape[1]), label_logits.dtype, x.shape[1]
    for row in range(first, stop, width(wide)):
        target, ahead = load_vector(grid, targets, row, stop, work, wide)
        highest = largest(wide, work.tile, classes)
        level = level_of(wide, highest)
        gap, mass = gaps_and_masses(wide, work.tile, classes, level, target)
        label_level = load_values(levels, row, stop, work.scratch)
        rest, square, spread, rank = sum_statistics(wide, work.tile, classes, level, label_level, target.labels, ahead)
        finite = is_finite(wide, highest, rounded_rows(rest, wide))
        store_fold(Numbers(highest, rest, gap, mass, finite), work.numbers)
        store_numbers(square, SQUARES, work.numbers)
        store_numbers(spread, SPREAD, work.numbers)
        store_numbers(rank, RANK, work.numbers)
        if not all_finite(wide, finite):
            fold_nonfinite_rows(grid, targets, row, stop, work, wide, finite, STATISTICS_FIELDS)
        for lane in range(min(width(wide), stop - row)):
            at, index = work.numbers + lane * 8, row + lane
            for field in range(FIELDS):
                partials[field, index] = load_scalar(DOUBLE, at + field * LINE)
            ranks[index] = np.int64(load_scalar(DOUBLE, at + RANK * LINE))
            squares[index] = load_scalar(DOUBLE, at + SQUARES * LINE)
            spreads[index] = load_scalar(DOUBLE, at + SPREAD * LINE)
    keep_alive(memory)
