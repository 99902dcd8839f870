"""What XLA calls: the whole of one call, whose rows its threads share. A row's bits do not depend on who computes it.

Where there are few rows of many classes, the threads share their items (``rows.py``). Leaves out XLA's structs
(``frames.py``) and what is done with a share (``tasks.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import tasks
from .blocks import THREAD_ELEMENTS
from .compiled import named_for, part_of
from .fields import SEGMENT
from .frames import (
    address_of_task,
    answers_metadata,
    argument,
    ask_for_huge_pages,
    atomic_add,
    attribute_address,
    free,
    item_bytes_of_labels,
    malloc,
    number_of_threads,
    out_of_memory,
    result,
    sched_yield,
    schedule,
)
from .memory import load_int64, store_int64
from .rows import parts_of
from .threads import RANGES_PER_THREAD
from .whole_rows import MEMORY


def handler_of(target: str, method: str, dtype: str, soft: bool) -> Callable[[int], int]:
    """What XLA calls, to be compiled: the whole of one call, the rows shared among XLA's threads."""
    part = part_of(target)
    work, finish = tasks.work_of(target, method, dtype, soft)
    fields = tasks.FIELDS_OF[method]
    has_options, has_numbers = method != "statistics", method in ("loss_and_gradient", "statistics")
    writes_gradient = method == "loss_and_gradient"
    results, item = tasks.RESULTS_OF[method], np.dtype(MEMORY[dtype]).itemsize

    @part
    def release(task):
        """Frees a task if no other thread holds it."""
        if atomic_add(task + tasks.HOLDERS, -1) == 1:
            free(task)

    @part
    def run(task):
        """Takes shares of the rows, or of the items, until none is left, and lets go of the task."""
        shares, count = load_int64(task + tasks.SHARES), load_int64(task + tasks.COUNT)
        share = atomic_add(task + tasks.NEXT, 1)
        while share < shares:
            work(task, count * share // shares, count * (share + 1) // shares)
            atomic_add(task + tasks.DONE, 1)
            share = atomic_add(task + tasks.NEXT, 1)
        release(task)

    def task_function(task):
        run(task)

    address = address_of_task(named_for(target, task_function))

    @part
    def new_task(frame, by_items):
        """A task for a call; 0 if there is no memory."""
        logits = argument(frame, 0)
        items = logits.rows * parts_of(logits.classes) if by_items else 0
        task = malloc(tasks.TABLE + 8 * fields * items)
        if task == 0:
            return task
        store_int64(task + tasks.NEXT, 0)
        store_int64(task + tasks.DONE, 0)
        store_int64(task + tasks.BY_ITEMS, by_items)
        store_int64(task + tasks.COUNT, items if by_items else logits.rows)
        store_int64(task + tasks.ROWS, logits.rows)
        store_int64(task + tasks.CLASSES, logits.classes)
        store_int64(task + tasks.LOGITS, logits.address)
        store_int64(task + tasks.TARGETS, argument(frame, 1).address)
        store_int64(task + tasks.LABEL_BYTES, item_bytes_of_labels(frame, 1))
        if has_options:
            store_int64(task + tasks.OFF, load_int64(attribute_address(frame, 0)))
            store_int64(task + tasks.ON, load_int64(attribute_address(frame, 1)))
        if has_numbers:
            store_int64(task + tasks.NUMBERS, argument(frame, 2).address)
        for index in range(results):
            store_int64(task + tasks.RESULTS + 8 * index, result(frame, index).address)
        return task

    def handler(frame):
        if answers_metadata(frame):
            return 0
        logits, threads, shares = argument(frame, 0), 1, 1
        elements = logits.rows * logits.classes
        if elements >= 2 * THREAD_ELEMENTS:
            threads = number_of_threads(frame)
        # subtle: not a gradient, which needs the numbers of its whole row first: that would be one more loop to compile
        is_divisible = not writes_gradient and logits.classes > SEGMENT and threads > 1
        by_items = is_divisible and logits.rows < threads * RANGES_PER_THREAD
        task = new_task(frame, by_items)
        if task == 0:
            return out_of_memory(frame)
        if writes_gradient:
            gradient = result(frame, 1)
            ask_for_huge_pages(gradient.address, gradient.rows * gradient.classes * item)
        if threads > 1:
            count = load_int64(task + tasks.COUNT)
            shares = max(1, min(threads * RANGES_PER_THREAD, elements // THREAD_ELEMENTS, count))
        store_int64(task + tasks.SHARES, shares)
        others = min(threads, shares) - 1
        store_int64(task + tasks.HOLDERS, 2 + others)  # the others, and this thread in `run` and after it
        for _ in range(others):
            if not schedule(frame, address(), task):
                release(task)
        run(task)
        while atomic_add(task + tasks.DONE, 0) < shares:
            sched_yield()
        if by_items:
            finish(task)
        release(task)
        return 0

    return named_for(target, handler)
