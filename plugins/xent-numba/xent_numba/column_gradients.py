r"""The gradient with rows side by side: softmax minus target, by the formula of ``row_gradients.py``.

The gradient of a vector's rows replaces their exponentials in the tile, and is written from there. What is read of a
row is in the tile before anything of the vector is written, so that the output may be the logits' own memory.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .column_targets import LaneFactors, gradients_to_tile, grid_targets_of, row_target
from .columns import (
    Numbers,
    all_finite,
    exponentiate_tile,
    fold_vector,
    is_finite,
    level_of,
    load_vector,
    losses_of,
    store_fold,
    workspace_bytes,
    workspace_of,
)
from .grids import DOUBLE, LINE, grid_of, lines_of, row_address, store_row_addresses, store_tile
from .lanes import equal, fill, where
from .memory import itemsize, keep_alive, load_scalar, store, store_scalar, width
from .row_gradients import Row, write_nonfinite
from .rows import GAP, MASS, MAX, REST
from .totals import rounded_rows, widened_rows
from .values import load_values, store_values, values_of


@njit(forceinline=True)
def write_vector(grid, targets, row, stop, work, wide, numbers, scale, target, output, adjacent):
    """Writes the gradient of a vector's rows, from their exponentials in the tile."""
    zero, rest, mass = fill(wide, 0.0), rounded_rows(numbers.rest, wide), rounded_rows(numbers.mass, wide)
    # subtle: where the scale is 0 the row's factors are, whatever its numbers
    row_scale = where(equal(scale, zero), zero, scale / (fill(wide, 1.0) + rest))
    factors = LaneFactors(mass * row_scale, zero - scale, mass, rest, row_scale)
    gradients_to_tile(wide, work.tile, grid.classes, factors, target)
    if not all_finite(wide, numbers.finite):
        store_fold(
            Numbers(numbers.highest, widened_rows(rest), widened_rows(scale), widened_rows(mass), 0), work.numbers
        )
        nonfinite_rows_to_tile(grid, targets, row, stop, work, wide, numbers.finite)
    store_tile(output, adjacent, work.output, wide, work.tile)


@njit
def nonfinite_rows_to_tile(grid, targets, row, stop, work, wide, finite):
    """Writes to the tile the gradient of those rows of a vector that are not finite; their scales are GAP's place."""
    store(wide, work.scratch, finite)
    for lane in range(width(wide)):
        if load_scalar(wide, work.scratch + lane * itemsize(wide)) == 0:
            index, at, out = min(row + lane, stop - 1), work.numbers + lane * 8, work.tile + lane * itemsize(wide)
            scale = load_scalar(DOUBLE, at + GAP * LINE)
            if scale == 0.0:
                for number in range(grid.classes):
                    store_scalar(wide, out + number * 64, 0.0)
            else:
                peak, rest = load_scalar(DOUBLE, at + MAX * LINE), load_scalar(DOUBLE, at + REST * LINE)
                numbers = Row(peak, rest, load_scalar(DOUBLE, at + MASS * LINE), scale)
                start, stride, target = row_address(grid, index), grid.class_stride, row_target(index, targets)
                write_nonfinite(grid.dtype, start, stride, grid.classes, target, numbers, wide, out, 64)


def gradient(x, array, on, off, partial, scales, first, stop, out):
    """Writes the gradient of the rows in [first, stop), from (max, sum_exp_rest, target_sum) of each."""
    grid, targets, output = grid_of(x), grid_targets_of(on, off, array), grid_of(out)
    highest, rests, masses = values_of(partial[0]), values_of(partial[1]), values_of(partial[2])
    scale_values, wide = values_of(scales), scales.dtype
    memory = np.empty(workspace_bytes(x.shape[1]), np.uint8)
    work = workspace_of(memory, x.shape[1])
    for row in range(first, stop, width(wide)):
        peak, rest = load_values(highest, row, stop, work.scratch), load_values(rests, row, stop, work.scratch)
        mass = load_values(masses, row, stop, work.scratch)
        adjacent = store_row_addresses(output, row, stop, work.output)
        target, ahead = load_vector(grid, targets, row, stop, work, wide)
        lines = lines_of(output, adjacent, work.output)
        exponentiate_tile(wide, work.tile, grid.classes, level_of(wide, peak), ahead, lines)
        nothing = fill(DOUBLE, 0.0), fill(DOUBLE, 0.0)
        numbers = Numbers(peak, widened_rows(rest), nothing, widened_rows(mass), is_finite(wide, peak, rest))
        scale = load_values(scale_values, row, stop, work.scratch)
        write_vector(grid, targets, row, stop, work, wide, numbers, scale, target, output, adjacent)
    keep_alive(memory)


def loss_and_gradient(x, array, on, off, scales, first, stop, losses, out):
    """Writes the losses and the gradient of the rows in [first, stop): one read and one write of their size."""
    grid, targets, output = grid_of(x), grid_targets_of(on, off, array), grid_of(out)
    loss_values, scale_values, wide = values_of(losses), values_of(scales), scales.dtype
    memory = np.empty(workspace_bytes(x.shape[1]), np.uint8)
    work = workspace_of(memory, x.shape[1])
    for row in range(first, stop, width(wide)):
        adjacent = store_row_addresses(output, row, stop, work.output)
        lines = lines_of(output, adjacent, work.output)
        numbers, target = fold_vector(grid, targets, row, stop, work, wide, lines)
        store_values(loss_values, row, stop, losses_of(wide, numbers, work.scratch), work.scratch)
        scale = load_values(scale_values, row, stop, work.scratch)
        write_vector(grid, targets, row, stop, work, wide, numbers, scale, target, output, adjacent)
    keep_alive(memory)
