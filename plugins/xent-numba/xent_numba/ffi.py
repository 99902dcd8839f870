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
from numba import types
from numba.core import ccallback

from .blocks import THREAD_ELEMENTS
from .compiled import FLAGS, cache_of, named_for, part_of
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
    labels_at,
    load_double,
    malloc,
    number_of_threads,
    out_of_memory,
    result,
    sched_yield,
    schedule,
)
from .memory import load_int64, store_int64
from .threads import RANGES_PER_THREAD, run_uninterrupted
from .whole_rows import MEMORY, WIDE, loss_and_gradient_of_rows, loss_of_rows

NEXT, DONE, HOLDERS, SHARES, ROWS, CLASSES, LOGITS, TARGETS, LABEL_BYTES, ON, OFF, SCALES, LOSSES, GRADIENT = range(
    0, 14 * 8, 8
)
"""The fields of a task: int64, from its address on. The last holder frees it."""
TASK_BYTES = 14 * 8


def work_of(target: str, method: str, dtype: str, soft: bool) -> Callable[[int, int, int], None]:
    """work(task, first, stop), which computes the rows in [first, stop) of a task of the method."""
    part, memory, wide = part_of(target), MEMORY[dtype], WIDE[dtype]
    item, wide_item = np.dtype(memory).itemsize, np.dtype(wide).itemsize

    @part
    def labels_of(task, first, stop):
        """The labels of some rows, int64."""
        address, item_bytes = load_int64(task + TARGETS), load_int64(task + LABEL_BYTES)
        return labels_at(address + item_bytes * first, item_bytes, stop - first)

    @part
    def soft_targets_of(task, first, stop):
        """The soft targets of some rows."""
        classes = load_int64(task + CLASSES)
        return array_at(load_int64(task + TARGETS) + first * classes * wide_item, (stop - first, classes), wide)

    targets_of = soft_targets_of if soft else labels_of

    @part
    def rows_at(field, task, first, stop):
        """Some rows of the logits or of the gradient."""
        classes = load_int64(task + CLASSES)
        return array_at(load_int64(task + field) + first * classes * item, (stop - first, classes), memory)

    @part
    def numbers_at(field, task, first, stop):
        """Some rows' losses or scales."""
        return array_at(load_int64(task + field) + first * wide_item, stop - first, wide)

    compute = (loss_of_rows if method == "loss" else loss_and_gradient_of_rows)(target, dtype, soft)

    @part
    def loss(task, first, stop):
        x, targets = rows_at(LOGITS, task, first, stop), targets_of(task, first, stop)
        losses = numbers_at(LOSSES, task, first, stop)
        compute(x, targets, load_double(task + ON), load_double(task + OFF), losses)

    @part
    def loss_and_gradient(task, first, stop):
        x, targets = rows_at(LOGITS, task, first, stop), targets_of(task, first, stop)
        losses, scales = numbers_at(LOSSES, task, first, stop), numbers_at(SCALES, task, first, stop)
        out = rows_at(GRADIENT, task, first, stop)
        compute(x, targets, load_double(task + ON), load_double(task + OFF), scales, losses, out)

    return loss if method == "loss" else loss_and_gradient


def handler_of(target: str, method: str, dtype: str, soft: bool) -> Callable[[int], int]:
    """What XLA calls, to be compiled: the whole of one call, the rows shared among XLA's threads."""
    part = part_of(target)
    work, item = work_of(target, method, dtype, soft), np.dtype(MEMORY[dtype]).itemsize
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
