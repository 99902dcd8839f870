"""What a kernel does to memory, and beside other calls: promises that are not about digits."""

from __future__ import annotations

import functools
import itertools
import math
import mmap
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .. import arrays
from ..kernels import Partial
from .calls import Answer, Call
from .edges import Case, case_of, cases, named_dtype
from .promises import Promise
from .snippets import snippet
from .subject import Failure, NotRun, Outcome, Subject
from .verdicts import faults

Array = np.ndarray[Any, Any]

FAR = (1 << 31) + 8
"""Elements between rows that stand farther apart than a 32-bit index reaches."""
PATIENCE_SECONDS = 20


def some_cases(subject: Subject) -> list[Case]:
    """Cases of a few widths with a NaN, infinities and strange labels among them."""
    narrow = [one for one in cases("every_width", subject.dtype) if one.logits.shape[1] in (1, 3, 7, 16, 33, 129)]
    edges = [*cases("not_numbers", subject.dtype)[1:4], *cases("infinities", subject.dtype)[-8:-5]]
    return [*narrow, *edges, *(cases("strange_labels", subject.dtype)[1:3] if subject.op == "sparse" else ())]


def forms_in_memory(subject: Subject) -> Iterator[Outcome]:
    """Strided, transposed, reversed, misaligned, read-only and byte-swapped views are read as the arrays they are."""
    for form in subject.library.forms:
        for case, outer in itertools.product(some_cases(subject), subject.outers[:2]):
            yield from subject.judged(Call(method, case, form=form, outer=outer) for method in subject.methods)


def inputs_unchanged(subject: Subject) -> Iterator[Outcome]:
    """No input is written to, nor memory beside it."""
    for case, method in itertools.product(some_cases(subject), subject.methods):
        if subject.op == "sparse" and subject.smooths:
            smooth = Case(str(case), case.logits, case.labels, case.targets, 0.9, 0.1 / case.logits.shape[1])
            yield from kept(subject, Call(method, smooth))
        yield from kept(subject, Call(method, case, scale=np.resize([0.0, 2.0], len(case.labels))))


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
            calls = (Call(method, case, form=form, poison=poison) for method in subject.methods)
            yield from subject.judged(calls)


def out_is_filled(subject: Subject) -> Iterator[Outcome]:
    """``out`` is filled wholly, whatever it held and however it lies, and returned; nothing beside it is written."""
    methods = [one for one in subject.methods if one in ("loss", "gradient", "loss_and_gradient")]
    if not methods or not subject.library.is_mutable:
        raise NotRun("no method takes `out`" if not methods else f"{subject.library.name} has no mutable arrays")
    fills = [form for form in subject.library.forms if form not in ("read-only", "byte-swapped", "misaligned")]
    for case, fill, outer in itertools.product(some_cases(subject), fills, subject.outers[:2]):
        for method in methods:
            if method != "loss" or fill in ("plain", "every other row"):
                scale = None if method == "loss" else np.resize([1.0, 0.0, 2.0], len(case.labels))
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
    with arrays.quiet():
        told = [np.array(one) if isinstance(one, np.ndarray) else one for one in case.told(subject.op)]
        found, near = (subject.bench.kernel.partial(one, *told, threads=1) for one in (block, np.array(case.logits)))
    same = all(a.tobytes() == b.tobytes() for a, b in zip(found, near, strict=True))
    what = "other numbers than of the same rows side by side"
    yield None if same else Failure(f"partial of rows {FAR} elements apart", what)


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
        with arrays.quiet():
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


# -------------------- the same bits


def differ(subject: Subject, what: str, a: Call, b: Call) -> Failure:
    """The failure that two calls do not agree."""
    return Failure(f"{a} and {b}", what, snippet=snippet(subject.spec, subject.library, a, b))


def answers(subject: Subject, *calls: Call) -> list[Answer] | Failure:
    """The answers to some calls, or the first failure."""
    found = []
    for call in calls:
        answer = subject.answered(call)
        if isinstance(answer, Failure):
            return answer
        found.append(answer)
    return found


def block_of_rows(subject: Subject, rows: int, classes: int, seed: int = 0) -> Case:
    """Rows with many kinds of neighbours: ordinary, confident, masked, NaN, infinite."""
    x = np.random.default_rng([rows, classes, seed]).standard_normal((rows, classes)) * 3
    x[::5] -= 30 * (np.arange(classes) != classes // 2)
    x[1::7, 0] = np.nan
    x[2::7, : classes // 2] = -np.inf
    x[3::11, classes - 1] = np.inf
    return case_of(f"{rows} rows with odd neighbours", x, named_dtype(subject.dtype))


def promised_bits(subject: Subject) -> None:
    """Ends a promise about bits where none is made."""
    if not subject.spec.deterministic:
        raise NotRun("it is declared deterministic=False")


def row_locality(subject: Subject) -> Iterator[Outcome]:
    """A row's numbers are the same bits in every block of 1 to 33 rows, at every place in it."""
    promised_bits(subject)
    for classes, method in itertools.product((3, 7, 33, 130), subject.methods):
        call = Call(method, block_of_rows(subject, 40, classes))
        whole = answers(subject, call)
        if isinstance(whole, Failure):
            yield whole
            continue
        for size in range(1, 34):
            for first in range(0, 40 - size, 1 if classes == 7 else 1 + size // 3):
                part = answers(subject, call.rows(first, first + size))
                if isinstance(part, Failure):
                    yield part
                    break
                same = part[0].bits() == whole[0].bits(first, first + size)
                what = f"rows {first} to {first + size - 1} have other bits by themselves than in a block of 40"
                yield None if same else differ(subject, what, call, call.rows(first, first + size))


def threads(subject: Subject) -> Iterator[Outcome]:
    """The same bits for any number of threads."""
    promised_bits(subject)
    for (rows, classes), method in itertools.product(((67, 130), (5, 5000), (2, 40_001), (400, 1000)), subject.methods):
        case = block_of_rows(subject, rows, classes)
        for outer in subject.outers[:2]:
            one, *others = (Call(method, case, threads=count, outer=outer) for count in (1, 2, 3, 8))
            if not subject.admits(one):
                continue
            for other in others:
                found = answers(subject, one, other)
                if isinstance(found, Failure):
                    yield found
                else:
                    same = found[0].bits() == found[1].bits()
                    yield None if same else differ(subject, "other bits than on one thread", one, other)


def deterministic(subject: Subject) -> Iterator[Outcome]:
    """The same bits run after run."""
    promised_bits(subject)
    for (rows, classes), method in itertools.product(((9, 70), (300, 1000)), subject.methods):
        call = Call(method, block_of_rows(subject, rows, classes), threads=2)
        if subject.admits(call):
            found = answers(subject, *[call] * 5)
            if isinstance(found, Failure):
                yield found
            else:
                same = all(one.bits() == found[0].bits() for one in found)
                yield None if same else differ(subject, "other bits in another run", call, call)


def concurrent_callers(subject: Subject) -> Iterator[Outcome]:
    """Eight threads that call at once get what one gets."""
    promised_bits(subject)
    calls = [
        Call(method, block_of_rows(subject, rows, classes, seed))
        for rows, classes in ((64, 700), (64, 33), (3, 9000), (40, 7))
        for seed in (0, 1)  # others of the same shape, in whatever memory is shared
        for method in subject.methods
    ]
    calls = [call for call in calls if subject.admits(call)] * 4
    alone = [subject.answered(call) for call in calls[: len(calls) // 4]] * 4
    gate, interval = threading.Barrier(8), sys.getswitchinterval()

    def turn(number: int) -> list[Answer | Failure]:
        gate.wait()
        return [subject.answered(call) for call in calls[number:] + calls[:number]]

    sys.setswitchinterval(1e-5)  # so that whatever two calls share is met halfway
    try:
        with ThreadPoolExecutor(8) as pool:
            rounds = list(pool.map(turn, range(8)))
    finally:
        sys.setswitchinterval(interval)
    for number, found in enumerate(rounds):
        expected = alone[number:] + alone[:number]
        asked = calls[number:] + calls[:number]
        for call, here, there in zip(asked, found, expected, strict=True):
            if isinstance(here, Failure):
                yield here
            elif not isinstance(there, Failure):
                same = here.bits() == there.bits()
                yield None if same else differ(subject, "other bits while other threads call", call, call)


CONDUCT: tuple[Promise, ...] = (
    forms_in_memory,
    inputs_unchanged,
    nothing_read_beside,
    out_is_filled,
    far_rows,
    many_elements,
    extra_memory,
    row_locality,
    threads,
    deterministic,
    concurrent_callers,
)
