"""What a kernel does to memory: which views it reads, what it writes, how far it reaches, what it takes."""

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

from .. import arrays
from ..numerics.fold import Partial
from .calls import Answer, Call
from .edges import Case, case_of, cases, named_dtype
from .promises import Promise
from .subject import Failure, NotRun, Outcome, Subject
from .verdicts import faults

Array = np.ndarray[Any, Any]

FAR = (1 << 31) + 8
"""Elements between rows that stand farther apart than a 32-bit index reaches."""
PATIENCE_SECONDS = 20
UNWRITABLE = ("read-only", "byte-swapped", "misaligned", "one row repeated")
"""Forms of memory that no kernel is handed to write to."""


def some_cases(subject: Subject) -> list[Case]:
    """Cases of a few widths with a NaN, infinities and strange labels among them."""
    narrow = [one for one in cases("every_width", subject.dtype) if one.logits.shape[1] in (1, 3, 7, 16, 33, 129)]
    edges = [*cases("not_numbers", subject.dtype)[1:4], *cases("infinities", subject.dtype)[-8:-5]]
    return [*narrow, *edges, *(cases("strange_labels", subject.dtype)[1:3] if subject.op == "sparse" else ())]


def forms_in_memory(subject: Subject) -> Iterator[Outcome]:
    """Aligned, strided, transposed, reversed, repeated, misaligned, read-only, byte-swapped views are read right."""
    for form, case in itertools.product(subject.library.forms, some_cases(subject)):
        if form == "one row repeated":
            case = repeated(subject, case)
        outers = (0,) if form == "one row repeated" else subject.outers_of(case)
        for outer, apart in itertools.product(outers, (False, True)[: 1 + (subject.op == "dense")]):
            yield from subject.judged(
                Call(method, case, form=form, outer=outer, apart=apart) for method in subject.methods
            )


def repeated(subject: Subject, case: Case) -> Case:
    """The first row of a case, six times, with labels of their own."""
    logits, targets = (np.resize(one[:1], (6, one.shape[1])) for one in (case.logits, case.targets))
    labels = np.arange(6) % case.logits.shape[1]
    return Case(f"{case}, its first row repeated", logits, labels, np.array(targets), case.on, case.off)


def inputs_unchanged(subject: Subject) -> Iterator[Outcome]:
    """No input is written to, nor memory beside it."""
    for case, method, outer in itertools.product(some_cases(subject), subject.methods, subject.outers[:2]):
        if subject.op == "sparse" and subject.smooths:
            smooth = Case(str(case), case.logits, case.labels, case.targets, 0.9, 0.1 / case.logits.shape[1])
            yield from kept(subject, Call(method, smooth, outer=outer))
        yield from kept(subject, Call(method, case, scale=np.resize([0.0, 2.0], len(case.labels)), outer=outer))


def kept(subject: Subject, call: Call) -> Iterator[Outcome]:
    """What comes of a call whose inputs alone are looked at afterwards."""
    if subject.admits(call):
        answer = subject.answered(call)
        yield answer if isinstance(answer, Failure) else None


def nothing_read_beside(subject: Subject) -> Iterator[Outcome]:
    """What lies before, behind and between the rows changes nothing, whether it is NaN, infinite or large."""
    group = [one for one in cases("every_width", subject.dtype) if one.logits.shape[1] < 70]
    group += cases("strange_labels", subject.dtype)[:3] if subject.op == "sparse" else ()
    largest = 6e4 if subject.dtype == "float16" else 1e38
    for case, poison in itertools.product(group, (math.nan, math.inf, largest)):
        for form in ("plain", "rows apart") if "rows apart" in subject.library.forms else ("plain",):
            for outer in subject.outers[:2]:
                calls = (Call(method, case, form=form, poison=poison, outer=outer) for method in subject.methods)
                yield from subject.judged(calls)


def out_is_filled(subject: Subject) -> Iterator[Outcome]:
    """``out`` is filled wholly, whatever it held and however it lies, and returned; nothing beside it is written."""
    methods = [one for one in subject.methods if one in ("loss", "gradient", "loss_and_gradient")]
    if not methods or not subject.library.is_mutable:
        raise NotRun("no method takes `out`" if not methods else f"{subject.library.name} has no mutable arrays")
    fills = [form for form in subject.library.forms if form not in UNWRITABLE]
    for case, fill, method in itertools.product(some_cases(subject), fills, methods):
        if method == "loss" and fill not in ("plain", "every other row"):
            continue
        scale = None if method == "loss" else np.resize([1.0, 0.0, 2.0], len(case.labels))
        for outer in subject.outers_of(case):
            yield from subject.judged([Call(method, case, fill=fill, outer=outer, scale=scale)])


def virtual_memory(subject: Subject, size: int, dtype: Any) -> Array:
    """So many zeros that take no memory until they are written; NotRun where that cannot be had."""
    if subject.library.name != "numpy" or sys.platform != "linux":
        raise NotRun("it takes NumPy's views of virtual memory that is never touched")
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.11 has no name for it
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
        return np.frombuffer(mmap.mmap(-1, size * dtype.itemsize, flags=flags), dtype)
    except (OSError, ValueError) as error:
        raise NotRun(f"no virtual memory of {size * dtype.itemsize / 2**30:.0f} GiB can be had: {error}") from None


def far_rows(subject: Subject) -> Iterator[Outcome]:
    """Rows more than 2³¹ elements apart are found: offsets are 64-bit."""
    case = next(one for one in cases("every_width", subject.dtype) if one.logits.shape[1] == 33).rows(0, 3)
    flat, item = virtual_memory(subject, 3 * FAR, case.logits.dtype), case.logits.dtype.itemsize
    block = np.lib.stride_tricks.as_strided(flat, (3, 33), (FAR * item, item))
    block[...] = case.logits
    if subject.spec.guard is not None and not subject.spec.guard(block.shape, block.strides):
        raise NotRun("its guard declines such a view")
    near = np.array(case.logits)
    for method in subject.methods:
        if method not in ("partial", "loss", "gradient", "loss_and_gradient"):
            continue
        with arrays.without_fp_warnings():
            found, expected = (Answered(subject, method, one, case).fields() for one in (block, near))
        same = all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))
        what = "other numbers than of the same rows side by side"
        yield None if same else Failure(f"{method} of rows {FAR} elements apart", what)


class Answered:
    """A call of a method on a block as it is, without copies."""

    def __init__(self, subject: Subject, method: str, block: Array, case: Case):
        self.kernel = subject.bench.kernel
        self.told = [np.array(one) if isinstance(one, np.ndarray) else one for one in case.told(subject.op)]
        self.block, self.method, self.scale = block, method, np.ones(len(case.labels), case.targets.dtype)

    def fields(self) -> list[Array]:
        """What comes back, array by array."""
        arguments = [self.block, *self.told]
        if self.method == "gradient":
            arguments.append(self.kernel.partial(*arguments, threads=1))
        if "gradient" in self.method:
            arguments.append(self.scale)
        found = getattr(self.kernel, self.method)(*arguments, threads=1)
        return [np.array(one) for one in (found if isinstance(found, tuple) else (found,))]


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most memory that Python and NumPy had from the system during a call, above what they had before."""
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


def extra_memory(subject: Subject) -> Iterator[Outcome]:
    """What a kernel that is handed everything at once takes beside is not of the size of what it is handed."""
    if subject.spec.block_elements is not None:
        raise NotRun(f"it is handed blocks of {subject.spec.block_elements} elements")
    if subject.library.name != "numpy":
        raise NotRun("only NumPy tells what memory it takes")
    rows, classes = 128, 1 << 15
    case = case_of("128 rows of 32768", np.zeros((rows, classes)), named_dtype(subject.dtype))
    scale, out = np.ones(rows, case.targets.dtype), np.zeros_like(case.logits)
    told, kernel = case.told(subject.op), subject.bench.kernel
    partial = kernel.partial(case.logits, *told, threads=1)
    more: dict[str, tuple[Any, ...]] = {"gradient": (partial, scale), "loss_and_gradient": (scale,)}
    for method in subject.methods:
        call = functools.partial(getattr(kernel, method), case.logits, *told, *more.get(method, ()), threads=1)
        if method == "statistics":
            call = functools.partial(kernel.statistics, case.logits, case.labels, scale, threads=1)
        keywords = {"out": out} if "gradient" in method else {}
        call(**keywords)  # what it compiles is not its memory
        taken = peak_bytes(functools.partial(call, **keywords))
        what = f"takes {taken / 1e6:.1f} MB beside logits of {case.logits.nbytes / 1e6:.1f}. Declare block_elements."
        yield Failure(f"{method} of {case}", what) if taken > case.logits.nbytes / 4 else None


def many_elements(subject: Subject) -> Iterator[Outcome]:
    """The last rows of more than 2³¹ logits are right: no count of elements is of 32 bits."""
    if subject.spec.block_elements is not None:
        raise NotRun(f"it is handed blocks of {subject.spec.block_elements} elements")
    dtype, classes = named_dtype(subject.dtype), 1 << 16
    rows = (1 << 31) // classes + 2
    last = case_of("the last rows", np.round(np.random.default_rng(31).standard_normal((2, classes)) * 8) / 8, dtype)
    logits = virtual_memory(subject, rows * classes, dtype).reshape(rows, classes)
    logits[-2:] = last.logits
    told: list[Any] = [np.zeros(rows, np.int64), 1.0, 0.0]
    if subject.op == "dense":
        told = [virtual_memory(subject, rows * classes, last.targets.dtype).reshape(rows, classes)]
    told[0][-2:] = last.told(subject.op)[0]

    def partial(count: int) -> Partial:
        with arrays.without_fp_warnings():
            some = [one[-count:] if isinstance(one, np.ndarray) else one for one in told]
            return subject.bench.kernel.partial(logits[-count:], *some, threads=2)  # type: ignore[no-any-return]

    partial(2)  # what it compiles is neither its time nor its memory
    begin = time.perf_counter()
    beside = peak_bytes(lambda: partial(16)) * rows / 16
    needed = (time.perf_counter() - begin) * rows / 16
    if needed > PATIENCE_SECONDS or beside > 2**31:
        raise NotRun(f"it would take {needed:.0f} s, and {beside / 2**30:.1f} GiB beside the logits")
    found = Partial(*(field[-2:] for field in partial(rows)))
    for fault in faults(Call("partial", last), Answer(partial=found), subject.op):
        yield Failure(f"partial of {rows} rows of {classes} classes", fault.what, fault.excess)
    yield None


CONDUCT: tuple[Promise, ...] = (
    forms_in_memory,
    inputs_unchanged,
    nothing_read_beside,
    out_is_filled,
    far_rows,
    many_elements,
    extra_memory,
)
