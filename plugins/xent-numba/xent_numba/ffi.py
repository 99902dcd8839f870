"""The kernels as targets of XLA's foreign function interface: what JAX calls on a processor, compiled or not.

A target is the machine code of the loops behind a C function made by Numba: no interpreter, no lock, no copy. XLA's own
threads take shares of the rows; as everywhere, a row's bits do not depend on who computes it.

Leaves out the layout of XLA's structs (``frames.py``) and all that JAX does with a target (xent's ``backends/jax``).
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import ccallback

from . import columns, row_gradients, rows
from .blocks import FEW_CLASSES, THREAD_ELEMENTS
from .compiled import FLAGS, cache_of, in_compiled_code
from .frames import (
    MAJOR,
    address_of_task,
    answers_metadata,
    argument,
    array_at,
    ask_for_huge_pages,
    atomic_add,
    attribute_address,
    free,
    item_bytes_of_labels,
    load_double,
    load_int32,
    malloc,
    number_of_threads,
    out_of_memory,
    result,
    sched_yield,
    schedule,
)
from .memory import load_int64, store_int64
from .rows import parts_of
from .threads import RANGES_PER_THREAD, run_uninterrupted

NEXT, DONE, HOLDERS, SHARES, ROWS, CLASSES, LOGITS, TARGETS, LABEL_BYTES, ON, OFF, SCALES, LOSSES, GRADIENT = range(
    0, 14 * 8, 8
)
"""The fields of a task: int64, from its address on. The last holder frees it."""
TASK_BYTES = 14 * 8
MEMORY = {"float16": np.int16, "bfloat16": np.uint16, "float32": np.float32, "float64": np.float64}


def part_of(target: str) -> Callable[[Callable[..., Any]], Any]:
    """A decorator for a function of one target, compiled under a name of its own.

    subtle: Numba tells functions of one name and one signature apart by a number that counts in each process. Two that
    were cached by two processes may have the same one, and a process that loads both would run one for the other.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        return njit(**FLAGS)(named_for(target, function))

    return compiled


def named_for(target: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, whose symbol now has the target's name in it."""
    function.__qualname__ = f"{target}.{function.__name__}"
    return function


def works(target: str, dtype: str, soft: bool) -> dict[str, Callable[[int, int, int], None]]:
    """For each method, work(task, first, stop), which computes the rows in [first, stop) of a task."""
    part = part_of(target)
    memory, wide = MEMORY[dtype], np.float64 if dtype == "float64" else np.float32
    item, wide_item = np.dtype(memory).itemsize, np.dtype(wide).itemsize
    column_loss = in_compiled_code(columns.loss, dtype, soft)
    column_loss_and_gradient = in_compiled_code(columns.loss_and_gradient, dtype, soft)
    fold, finish_loss = in_compiled_code(rows.fold, dtype, soft), in_compiled_code(rows.finish_loss, dtype)
    fold_and_gradient = in_compiled_code(row_gradients.fold_and_gradient, dtype, soft)

    @part
    def labels_of(task, first, stop):
        """The labels of some rows, int64."""
        address, item_bytes = load_int64(task + TARGETS), load_int64(task + LABEL_BYTES)
        if item_bytes == 8:
            return array_at(address + 8 * first, stop - first, np.int64)
        labels = np.empty(stop - first, np.int64)
        for row in range(first, stop):
            labels[row - first] = load_int32(address + 4 * row)
        return labels

    @part
    def soft_targets_of(task, first, stop):
        """The soft targets of some rows."""
        classes = load_int64(task + CLASSES)
        return array_at(load_int64(task + TARGETS) + first * classes * wide_item, (stop - first, classes), wide)

    @part
    def nan_at_label(labels, classes, losses):
        """Writes NaN where a label is outside the classes."""
        for row in range(len(labels)):
            if labels[row] < 0 or labels[row] >= classes:
                losses[row] = np.nan

    @part
    def nan_at_no_target(targets, classes, losses):
        """Nothing: soft targets have no class."""

    targets_of, nan_out_of_range = (soft_targets_of, nan_at_no_target) if soft else (labels_of, nan_at_label)

    @part
    def as_grid(array):
        return array.reshape((array.shape[0], array.shape[1], 1))

    @part
    def same(array):
        return array

    as_grid_targets = as_grid if soft else same

    @part
    def loss(task, first, stop):
        count, classes, on, off = (
            stop - first,
            load_int64(task + CLASSES),
            load_double(task + ON),
            load_double(task + OFF),
        )
        x = array_at(load_int64(task + LOGITS) + first * classes * item, (count, classes), memory)
        targets = targets_of(task, first, stop)
        losses = array_at(load_int64(task + LOSSES) + first * wide_item, count, wide)
        if classes <= FEW_CLASSES:
            column_loss(as_grid(x), as_grid_targets(targets), on, off, 0, count, losses)
        else:
            parts = parts_of(classes)
            table = np.empty((rows.FIELDS, count * parts))
            fold(x, targets, on, off, 0, count * parts, table)
            finish_loss(table, parts, 0, count, losses)
        nan_out_of_range(targets, classes, losses)

    @part
    def loss_and_gradient(task, first, stop):
        count, classes, on, off = (
            stop - first,
            load_int64(task + CLASSES),
            load_double(task + ON),
            load_double(task + OFF),
        )
        x = array_at(load_int64(task + LOGITS) + first * classes * item, (count, classes), memory)
        out = array_at(load_int64(task + GRADIENT) + first * classes * item, (count, classes), memory)
        targets = targets_of(task, first, stop)
        losses = array_at(load_int64(task + LOSSES) + first * wide_item, count, wide)
        scales = array_at(load_int64(task + SCALES) + first * wide_item, count, wide)
        if classes <= FEW_CLASSES:
            column_loss_and_gradient(
                as_grid(x), as_grid_targets(targets), on, off, scales, 0, count, losses, as_grid(out)
            )
        else:
            parts = parts_of(classes)
            table = np.empty((rows.FIELDS, count * parts))
            fold_and_gradient(x, targets, on, off, scales, 0, count, table, out)
            finish_loss(table, parts, 0, count, losses)
        nan_out_of_range(targets, classes, losses)

    return {"loss": loss, "loss_and_gradient": loss_and_gradient}


def handler_of(target: str, method: str, dtype: str, soft: bool) -> Callable[[int], int]:
    """What XLA calls, to be compiled: the whole of one call, the rows shared among XLA's threads."""
    part = part_of(target)
    work, item = works(target, dtype, soft)[method], np.dtype(MEMORY[dtype]).itemsize
    writes_gradient = method == "loss_and_gradient"

    @part
    def run(task):
        """Takes shares of the rows until none is left."""
        shares, count = load_int64(task + SHARES), load_int64(task + ROWS)
        share = atomic_add(task + NEXT, 1)
        while share < shares:
            work(task, count * share // shares, count * (share + 1) // shares)
            atomic_add(task + DONE, 1)
            share = atomic_add(task + NEXT, 1)

    @part
    def release(task):
        """Frees a task if no other thread holds it."""
        if atomic_add(task + HOLDERS, -1) == 1:
            free(task)

    def run_and_release(task):
        run(task)
        release(task)

    address = address_of_task(named_for(target, run_and_release))

    def handler(frame):
        if answers_metadata(frame):
            return 0
        task = malloc(TASK_BYTES)
        if task == 0:
            return out_of_memory(frame)
        logits, losses = argument(frame, 0), result(frame, 0)
        store_int64(task + NEXT, 0)
        store_int64(task + DONE, 0)
        store_int64(task + ROWS, logits.rows)
        store_int64(task + CLASSES, logits.classes)
        store_int64(task + LOGITS, logits.address)
        store_int64(task + TARGETS, argument(frame, 1).address)
        store_int64(task + LABEL_BYTES, item_bytes_of_labels(frame, 1))
        store_int64(task + OFF, load_int64(attribute_address(frame, 0)))
        store_int64(task + ON, load_int64(attribute_address(frame, 1)))
        store_int64(task + LOSSES, losses.address)
        if writes_gradient:
            gradient = result(frame, 1)
            store_int64(task + SCALES, argument(frame, 2).address)
            store_int64(task + GRADIENT, gradient.address)
            ask_for_huge_pages(gradient.address, gradient.rows * gradient.classes * item)
        elements, threads = logits.rows * logits.classes, 1
        if elements >= 2 * THREAD_ELEMENTS:
            threads = number_of_threads(frame)
        shares = min(threads * RANGES_PER_THREAD, elements // THREAD_ELEMENTS, logits.rows) if threads > 1 else 1
        shares = max(1, shares)
        store_int64(task + SHARES, shares)
        others = min(threads, shares) - 1
        store_int64(task + HOLDERS, 1 + others)
        for _ in range(others):
            if not schedule(frame, address(), task):
                release(task)
        run(task)
        while atomic_add(task + DONE, 0) < shares:
            sched_yield()
        release(task)
        return 0

    return named_for(target, handler)


lock = threading.Lock()
targets: dict[str, Any] = {}
"""What is registered, by name: XLA holds addresses only."""


def ffi_target(op: str, method: str, dtype: str) -> str:
    """The name of a target, registered with JAX for processors; compiled at its first use and cached on disk."""
    name = f"xent_numba_{op}_{method}_{dtype}"
    if name not in targets:
        run_uninterrupted(lambda: register(name, op, method, dtype))
    return name


def register(name: str, op: str, method: str, dtype: str) -> None:
    """Compiles and registers a target, unless it is there already."""
    import jax

    with lock:
        if name in targets:
            return
        handler = handler_of(name, method, dtype, op == "dense")
        compiled = ccallback.CFunc(handler, ((types.int64,), types.int64), {}, dict(FLAGS))
        cache = cache_of(handler_of, name)
        if cache is not None:
            compiled._cache = cache
        compiled.compile()
        address = jax.ffi.pycapsule(ctypes.c_void_p(compiled.address))
        jax.ffi.register_ffi_target(name, address, platform="cpu", api_version=1)
        targets[name] = compiled


@functools.cache
def check() -> str:
    """Why there can be no targets; empty if there can."""
    import jax

    if sys.maxsize < 2**32 or sys.platform == "win32":
        return "XLA's call frames are read on 64-bit Linux and macOS only"
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    found = re.search(r"#define XLA_FFI_API_MAJOR (\d+)", header.read_text()) if header.is_file() else None
    if found is None or int(found[1]) != MAJOR:
        return f"XLA's foreign function interface has version {found[1] if found else 'unknown'}, not {MAJOR}"
    return ""


class Kernel:
    """The kernel for labels or for soft targets, as xent's schedule for JAX calls it."""

    def __init__(self, op: str):
        self.op = op

    def ffi_target(self, method: str, dtype: str) -> str:
        """The name of the target for a method, "loss" or "loss_and_gradient", and a dtype of the logits."""
        return ffi_target(self.op, method, dtype)


sparse, dense = Kernel("sparse"), Kernel("dense")
