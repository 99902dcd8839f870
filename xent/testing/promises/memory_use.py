"""The memory of a kernel: which views it reads, what it writes, how far its offsets reach, how much it allocates."""

from __future__ import annotations

import functools
import itertools
import math
import mmap
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import arrays
from ...numerics.fold import Partial
from ..calls import Answer, Call
from ..comparison import faults
from ..edge_cases import Case, case_of, cases, named_dtype
from ..kernel_under_test import KernelUnderTest, Promise
from ..reports import Failure, NotRun, Outcome

Array = np.ndarray[Any, Any]

FAR = (1 << 31) + 8
"""Elements between rows that are farther apart than a 32-bit index reaches."""
PATIENCE_SECONDS = 20
UNWRITABLE = ("read-only", "byte-swapped", "misaligned", "one row repeated")
"""Forms of memory that ``out`` never has."""


def cases_of_every_kind(kernel: KernelUnderTest) -> list[Case]:
    """Cases of a few widths, a few with NaN or infinities, a few with labels outside [0, classes)."""
    narrow = [case for case in cases("every_width", kernel.dtype) if case.logits.shape[1] in (1, 3, 7, 16, 33, 129)]
    edges = [*cases("not_numbers", kernel.dtype)[1:4], *cases("infinities", kernel.dtype)[-8:-5]]
    return [*narrow, *edges, *(cases("strange_labels", kernel.dtype)[1:3] if kernel.op == "sparse" else ())]


def forms_in_memory(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Aligned, strided, transposed, reversed, repeated, misaligned, read-only, byte-swapped views are read right."""
    for form, case in itertools.product(kernel.library.forms, cases_of_every_kind(kernel)):
        outers = kernel.outers_of(case)
        if form == "one row repeated":
            case, outers = repeated(case), (0,)
        for outer, apart in itertools.product(outers, (False, True) if kernel.op == "dense" else (False,)):
            yield from kernel.outcomes(
                Call(method, case, form=form, outer=outer, apart=apart) for method in kernel.methods
            )


def repeated(case: Case) -> Case:
    """The first row of a case six times, with other labels."""
    logits, targets = (np.resize(array[:1], (6, array.shape[1])) for array in (case.logits, case.targets))
    labels = np.arange(6) % case.logits.shape[1]
    return Case(f"{case}, its first row repeated", logits, labels, np.array(targets), case.on, case.off)


def inputs_unchanged(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """No input is written to, nor memory beside it."""
    for case, method, outer in itertools.product(cases_of_every_kind(kernel), kernel.methods, kernel.outers[:2]):
        calls = [Call(method, case, scale=np.resize([0.0, 2.0], len(case.labels)), outer=outer)]
        if kernel.op == "sparse" and kernel.serves_smoothing:
            smoothed = Case(str(case), case.logits, case.labels, case.targets, 0.9, 0.1 / case.logits.shape[1])
            calls.insert(0, Call(method, smoothed, outer=outer))
        for call in calls:
            if kernel.accepts(call):
                answer = kernel.answer(call)
                yield answer if isinstance(answer, Failure) else None


def nothing_read_beside(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """What lies before, behind and between the rows changes nothing, whether it is NaN, infinite or large."""
    group = [case for case in cases("every_width", kernel.dtype) if case.logits.shape[1] < 70]
    group += cases("strange_labels", kernel.dtype)[:3] if kernel.op == "sparse" else ()
    largest = 6e4 if kernel.dtype == "float16" else 1e38
    forms = [form for form in ("plain", "rows apart") if form in kernel.library.forms]
    for case, poison, form, outer in itertools.product(group, (math.nan, math.inf, largest), forms, kernel.outers[:2]):
        yield from kernel.outcomes(
            Call(method, case, form=form, poison=poison, outer=outer) for method in kernel.methods
        )


def out_is_filled(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """``out`` is filled wholly, whatever it held and however it lies, and returned; nothing beside it is written."""
    methods = [method for method in kernel.methods if method in ("loss", "gradient", "loss_and_gradient")]
    if not methods or not kernel.library.is_mutable:
        raise NotRun("no method takes `out`" if not methods else f"{kernel.library.name} has no mutable arrays")
    fills = [form for form in kernel.library.forms if form not in UNWRITABLE]
    for case, fill, method in itertools.product(cases_of_every_kind(kernel), fills, methods):
        if method == "loss" and fill not in ("plain", "every other row"):
            continue
        scale = None if method == "loss" else np.resize([1.0, 0.0, 2.0], len(case.labels))
        for outer in kernel.outers_of(case):
            yield from kernel.outcomes([Call(method, case, fill=fill, outer=outer, scale=scale)])


def virtual_memory(kernel: KernelUnderTest, size: int, dtype: Any) -> Array:
    """Zeros that take no physical memory until they are written. Raises NotRun if the system has no such memory."""
    if kernel.library.name != "numpy" or sys.platform != "linux":
        raise NotRun("it takes NumPy's views of virtual memory that is never touched")
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.11 has no name for it
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
        return np.frombuffer(mmap.mmap(-1, size * dtype.itemsize, flags=flags), dtype)
    except (OSError, ValueError) as error:
        raise NotRun(f"no virtual memory of {size * dtype.itemsize / 2**30:.0f} GiB can be had: {error}") from None


def far_rows(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Rows more than 2³¹ elements apart are found: offsets are 64-bit."""
    case = next(case for case in cases("every_width", kernel.dtype) if case.logits.shape[1] == 33).rows(0, 3)
    flat, item = virtual_memory(kernel, 3 * FAR, case.logits.dtype), case.logits.dtype.itemsize
    far = np.lib.stride_tricks.as_strided(flat, (3, 33), (FAR * item, item))
    far[...] = case.logits
    if kernel.spec.guard is not None and not kernel.spec.guard(far.shape, far.strides):
        raise NotRun("its guard declines such a view")
    near = np.array(case.logits)
    for method in kernel.methods:
        if method == "statistics":
            continue
        with arrays.without_fp_warnings():
            results, expected = (answer_on_block(kernel, method, block, case) for block in (far, near))
        same = all(a.tobytes() == b.tobytes() for a, b in zip(results, expected, strict=True))
        what = "other numbers than of the same rows side by side"
        yield None if same else Failure(f"{method} of rows {FAR} elements apart", what)


def answer_on_block(kernel: KernelUnderTest, method: str, block: Array, case: Case) -> list[Array]:
    """The arrays that a method returns on a block that is passed as it is, with the targets of a case."""
    implementation = kernel.bench.kernel
    targets = [
        np.array(value) if isinstance(value, np.ndarray) else value for value in case.target_arguments(kernel.op)
    ]
    arguments = [block, *targets]
    if method == "gradient":
        arguments.append(implementation.partial(*arguments, threads=1))
    if "gradient" in method:
        arguments.append(np.ones(len(case.labels), case.targets.dtype))
    return kernel.library.copies(getattr(implementation, method)(*arguments, threads=1))


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most memory that Python and NumPy allocated during a call, above what they had before."""
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()


def require_whole_arrays(kernel: KernelUnderTest) -> None:
    """Raises NotRun if the kernel declares ``block_elements``."""
    if kernel.spec.block_elements is not None:
        raise NotRun(f"it is handed blocks of {kernel.spec.block_elements} elements")


def extra_memory(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """What a kernel that is handed everything at once takes beside is not of the size of what it is handed."""
    require_whole_arrays(kernel)
    if kernel.library.name != "numpy":
        raise NotRun("only NumPy tells what memory it takes")
    rows, classes = 128, 1 << 15
    case = case_of("128 rows of 32768", np.zeros((rows, classes)), named_dtype(kernel.dtype))
    scale, out = np.ones(rows, case.targets.dtype), np.zeros_like(case.logits)
    implementation, arguments = kernel.bench.kernel, (case.logits, *case.target_arguments(kernel.op))
    partial = implementation.partial(*arguments, threads=1)
    arguments_of = {
        "gradient": (*arguments, partial, scale),
        "loss_and_gradient": (*arguments, scale),
        "statistics": (case.logits, case.labels, scale),
    }
    for method in kernel.methods:
        call = functools.partial(getattr(implementation, method), *arguments_of.get(method, arguments), threads=1)
        if "gradient" in method:
            call = functools.partial(call, out=out)
        call()  # compiling takes memory too
        taken = peak_bytes(call)
        what = f"takes {taken / 1e6:.1f} MB beside logits of {case.logits.nbytes / 1e6:.1f}. Declare block_elements."
        yield Failure(f"{method} of {case}", what) if taken > case.logits.nbytes / 4 else None


def many_elements(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The last rows of more than 2³¹ logits are right: no count of elements is of 32 bits."""
    require_whole_arrays(kernel)
    dtype, classes = named_dtype(kernel.dtype), 1 << 16
    rows = (1 << 31) // classes + 2
    last = case_of("the last rows", np.round(np.random.default_rng(31).standard_normal((2, classes)) * 8) / 8, dtype)
    logits = virtual_memory(kernel, rows * classes, dtype).reshape(rows, classes)
    logits[-2:] = last.logits
    targets: list[Any] = [np.zeros(rows, np.int64), 1.0, 0.0]
    if kernel.op == "dense":
        targets = [virtual_memory(kernel, rows * classes, last.targets.dtype).reshape(rows, classes)]
    targets[0][-2:] = last.target_arguments(kernel.op)[0]

    def partial_of_last(count: int) -> Partial:
        with arrays.without_fp_warnings():
            of_rows = [value[-count:] if isinstance(value, np.ndarray) else value for value in targets]
            return kernel.bench.kernel.partial(logits[-count:], *of_rows, threads=2)  # type: ignore[no-any-return]

    partial_of_last(2)  # compiling takes time and memory too
    begin = time.perf_counter()
    extra_bytes = peak_bytes(lambda: partial_of_last(16)) * rows / 16
    seconds = (time.perf_counter() - begin) * rows / 16
    if seconds > PATIENCE_SECONDS or extra_bytes > 2**31:
        raise NotRun(f"it would take {seconds:.0f} s, and {extra_bytes / 2**30:.1f} GiB beside the logits")
    partial = Partial(*(field[-2:] for field in partial_of_last(rows)))
    for fault in faults(Call("partial", last), Answer(partial=partial), kernel.op):
        yield Failure(f"partial of {rows} rows of {classes} classes", fault.what, fault.excess)
    yield None


MEMORY_USE: tuple[Promise, ...] = (
    forms_in_memory,
    inputs_unchanged,
    nothing_read_beside,
    out_is_filled,
    far_rows,
    many_elements,
    extra_memory,
)
