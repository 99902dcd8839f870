"""One call of a target as a task that threads share: what they do with ranges of its rows, or of its items.

A task is int64 fields in memory, from its address on, and a table of numbers behind them. Whoever lets go of it last
frees it. Leaves out XLA's structs (``frames.py``), the loops (``whole_rows.py``) and registration (``ffi.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import rows
from .compiled import in_compiled_code, part_of
from .fields import FIELDS, STATISTICS_FIELDS
from .frames import array_at, labels_at, load_double
from .memory import load_int64
from .rows import parts_of
from .whole_rows import MEMORY, OF_ROWS, WIDE, nan_out_of_range, write_rows

NEXT, DONE, HOLDERS, SHARES, COUNT, BY_ITEMS, ROWS, CLASSES, LOGITS, TARGETS, LABEL_BYTES, ON, OFF, NUMBERS, RESULTS = (
    range(0, 15 * 8, 8)
)
TABLE = RESULTS + 7 * 8
"""The fields of a task: there are at most seven results, and the table is behind them."""
RESULTS_OF = {"loss": 1, "loss_and_gradient": 2, "partial": 4, "statistics": 7}
"""How many results a method has."""
FIELDS_OF = {"loss": FIELDS, "loss_and_gradient": FIELDS, "partial": FIELDS, "statistics": STATISTICS_FIELDS}
"""How many numbers of an item."""


class Work(NamedTuple):
    """What is done with tasks of a method; parts of a target."""

    run: Callable[[int, int, int], None]  # run(task, first, stop): the rows or items in [first, stop)
    finish: Callable[[int], None]  # finish(task): the results, from the numbers of all items


def work_of(target: str, method: str, dtype: str, soft: bool) -> Work:
    """What is done with the tasks of a target."""
    part, memory, wide = part_of(target), MEMORY[dtype], WIDE[dtype]
    item, wide_item, fields = np.dtype(memory).itemsize, np.dtype(wide).itemsize, FIELDS_OF[method]
    compute = OF_ROWS[method](target, dtype, soft)
    # subtle: every function that calls the loops has all of their code optimised again, so there are few of them

    # -------------------- arrays, of some rows of a task

    @part
    def labels_of(task, first, stop):
        """Labels, int64."""
        address, item_bytes = load_int64(task + TARGETS), load_int64(task + LABEL_BYTES)
        return labels_at(address + item_bytes * first, item_bytes, stop - first)

    @part
    def soft_targets_of(task, first, stop):
        classes = load_int64(task + CLASSES)
        return array_at(load_int64(task + TARGETS) + first * classes * wide_item, (stop - first, classes), wide)

    @part
    def matrix_at(field, task, first, stop):
        """Logits or a gradient."""
        classes = load_int64(task + CLASSES)
        return array_at(load_int64(task + field) + first * classes * item, (stop - first, classes), memory)

    @part
    def numbers_at(field, task, first, stop):
        """Numbers in the dtype that is computed in."""
        return array_at(load_int64(task + field) + first * wide_item, stop - first, wide)

    @part
    def numbers_of(task, first, stop):
        return numbers_at(NUMBERS, task, first, stop)

    @part
    def loss_of(task, first, stop):
        return (numbers_at(RESULTS, task, first, stop),)

    @part
    def loss_and_gradient_of(task, first, stop):
        return numbers_at(RESULTS, task, first, stop), matrix_at(RESULTS + 8, task, first, stop)

    @part
    def partial_of(task, first, stop):
        return (
            numbers_at(RESULTS, task, first, stop),
            numbers_at(RESULTS + 8, task, first, stop),
            numbers_at(RESULTS + 16, task, first, stop),
            numbers_at(RESULTS + 24, task, first, stop),
        )

    @part
    def statistics_of(task, first, stop):
        ranks = array_at(load_int64(task + RESULTS + 32) + first * 4, stop - first, np.int32)
        sums = numbers_at(RESULTS + 40, task, first, stop), numbers_at(RESULTS + 48, task, first, stop)
        return partial_of(task, first, stop) + (ranks,) + sums  # noqa: RUF005  # Numba does not compile the other form

    results: dict[str, Any] = {
        "loss": loss_of,
        "loss_and_gradient": loss_and_gradient_of,
        "partial": partial_of,
        "statistics": statistics_of,
    }
    results_of, targets_of = results[method], soft_targets_of if soft else labels_of

    @part
    def item_table(task):
        """The numbers of all items."""
        items = load_int64(task + ROWS) * parts_of(load_int64(task + CLASSES))
        return array_at(task + TABLE, (fields, items), np.float64)

    # -------------------- steps

    if method == "statistics":
        fold_statistics, finish_statistics = (
            in_compiled_code(loop, dtype) for loop in (rows.fold_with_statistics, rows.finish_statistics)
        )

        @part
        def run(task, first, stop):
            if load_int64(task + BY_ITEMS) == 0:
                x, labels = matrix_at(LOGITS, task, first, stop), targets_of(task, first, stop)
                compute(x, labels, 1.0, 0.0, numbers_of(task, first, stop), results_of(task, first, stop))
            else:
                count = load_int64(task + ROWS)
                x, labels = matrix_at(LOGITS, task, 0, count), targets_of(task, 0, count)
                fold_statistics(x, labels, numbers_of(task, 0, count), first, stop, item_table(task))

        @part
        def finish(task):
            count, parts, table = load_int64(task + ROWS), parts_of(load_int64(task + CLASSES)), item_table(task)
            highest, rests, gaps, masses, ranks, squares, spreads = results_of(task, 0, count)
            write_rows(table, parts, highest, rests, gaps, masses)
            wide_ranks = np.empty(count, np.int64)
            finish_statistics(table, parts, 0, count, wide_ranks, squares, spreads)
            for row in range(count):
                ranks[row] = wide_ranks[row]

        return Work(run, finish)

    if method == "loss_and_gradient":

        @part
        def run_loss_and_gradient(task, first, stop):
            x, targets = matrix_at(LOGITS, task, first, stop), targets_of(task, first, stop)
            numbers, outputs = numbers_of(task, first, stop), results_of(task, first, stop)
            compute(x, targets, load_double(task + ON), load_double(task + OFF), numbers, outputs)

        @part
        def finish_nothing(task):
            """A gradient is written by whole rows."""

        return Work(run_loss_and_gradient, finish_nothing)

    fold, finish_loss = in_compiled_code(rows.fold, dtype, soft), in_compiled_code(rows.finish_loss, dtype)

    @part
    def run_loss(task, first, stop):
        on, off = load_double(task + ON), load_double(task + OFF)
        if load_int64(task + BY_ITEMS) == 0:
            x, targets = matrix_at(LOGITS, task, first, stop), targets_of(task, first, stop)
            compute(x, targets, on, off, None, results_of(task, first, stop))
        else:
            count = load_int64(task + ROWS)
            x, targets = matrix_at(LOGITS, task, 0, count), targets_of(task, 0, count)
            fold(x, targets, on, off, first, stop, item_table(task))

    @part
    def finish_losses(task):
        count, classes = load_int64(task + ROWS), load_int64(task + CLASSES)
        losses = results_of(task, 0, count)[0]
        finish_loss(item_table(task), parts_of(classes), 0, count, losses)
        nan_out_of_range(targets_of(task, 0, count), classes, losses)

    @part
    def finish_partial(task):
        highest, rests, gaps, masses = results_of(task, 0, load_int64(task + ROWS))
        write_rows(item_table(task), parts_of(load_int64(task + CLASSES)), highest, rests, gaps, masses)

    return Work(run_loss, finish_losses if method == "loss" else finish_partial)
