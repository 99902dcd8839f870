"""The bits of a kernel: the same in any block, on any number of threads, in every run, beside any other callers."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..calls import Answer, Array, Call, one_nan
from ..edge_cases import odd_neighbours
from ..execution import answer_in_reused_memory
from ..kernel_under_test import KernelUnderTest, Promise
from ..reports import Failure, NotRun, Outcome


def require_determinism(kernel: KernelUnderTest) -> None:
    """Raises NotRun if the kernel is not declared deterministic."""
    if not kernel.spec.deterministic:
        raise NotRun("it is declared deterministic=False")


def answers(kernel: KernelUnderTest, *calls: Call) -> list[Answer] | Failure:
    """The answers to calls, or the first failure."""
    results = []
    for call in calls:
        answer = kernel.answer(call)
        if isinstance(answer, Failure):
            return answer
        results.append(answer)
    return results


def other_bits(what: str, a: Call, b: Call) -> Failure:
    """The failure that the bits of two calls differ."""
    return Failure(f"{a} and {b}", what, calls=(a, b))


def row_locality(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """A row's numbers are the same bits in every block of 1 to 33 rows, at every place in it."""
    require_determinism(kernel)
    for classes, outer, method in itertools.product((3, 7, 33, 130, 700), kernel.outers[:2], kernel.methods):
        whole = Call(method, odd_neighbours(kernel.dtype, 40, classes), outer=outer)
        answer = kernel.answer(whole)
        if isinstance(answer, Failure):
            yield answer
            continue
        fields = [one_nan(field) for field in answer.fields()]
        for size in range(1, 34) if classes < 200 else (1, 2, 3, 5, 8, 33):
            for first in range(0, 41 - size, 1 if classes == 7 else 1 + size // 3):
                part = whole.rows(first, first + size)
                yield same_rows(kernel, whole, fields, part, first, first + size)
        for slabs in (2, 5, 8) if outer else ():  # the same rows, with other neighbours in the block
            yield same_rows(kernel, whole, fields, replace(whole, outer=slabs), 0, 40)


def same_rows(kernel: KernelUnderTest, whole: Call, fields: list[Array], part: Call, start: int, stop: int) -> Outcome:
    """The outcome of a call on some rows of another, whose answer has these fields and must have the same bits."""
    answer = kernel.answer(part)
    if isinstance(answer, Failure):
        return answer
    if answer.bits() == [field[start:stop].tobytes() for field in fields]:
        return None
    return other_bits(f"rows {start} to {stop - 1} have other bits than in a block of 40", whole, part)


def loss_with_partial(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The losses and the partial of `loss_and_partial` have the bits of `loss` and of `partial`."""
    if not {"loss", "loss_and_partial"} <= kernel.spec.methods:
        raise NotRun("it declares no loss and loss_and_partial")
    require_determinism(kernel)
    for classes, outer in itertools.product((1, 3, 33, 64, 130, 700, 40_001), kernel.outers[:2]):
        case = odd_neighbours(kernel.dtype, 40 if classes < 1000 else 3, classes)
        calls = [Call(method, case, outer=outer) for method in ("loss_and_partial", "partial", "loss")]
        found = answers(kernel, *calls) if all(map(kernel.accepts, calls)) else []
        if isinstance(found, Failure):
            yield found
        elif found:
            both, partial, loss = (answer.bits() for answer in found)
            yield None if both == partial + loss else Failure(str(calls[0]), "other bits than from two calls")


def threads(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The same bits for any number of threads."""
    require_determinism(kernel)
    for (rows, classes), method in itertools.product(((67, 130), (5, 5000), (5, 40_001), (400, 1000)), kernel.methods):
        case = odd_neighbours(kernel.dtype, rows, classes)
        for outer in kernel.outers[:2]:
            alone, *others = (Call(method, case, threads=count, outer=outer) for count in (1, 2, 3, 8))
            if not kernel.accepts(alone):
                continue
            for call in others:
                results = answers(kernel, alone, call)
                if isinstance(results, Failure):
                    yield results
                else:
                    same = results[0].bits() == results[1].bits()
                    yield None if same else other_bits("other bits than on one thread", alone, call)


def deterministic(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The same bits run after run."""
    require_determinism(kernel)
    for (rows, classes), method in itertools.product(((9, 70), (300, 1000)), kernel.methods):
        call = Call(method, odd_neighbours(kernel.dtype, rows, classes), threads=2)
        if kernel.accepts(call):
            results = answers(kernel, *[call] * 5)
            if isinstance(results, Failure):
                yield results
            else:
                same = all(answer.bits() == results[0].bits() for answer in results)
                yield None if same else other_bits("other bits in another run", call, call)


def concurrent_callers(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Eight threads that call at once get what one gets."""
    require_determinism(kernel)
    calls = [
        Call(method, odd_neighbours(kernel.dtype, rows, classes, seed))
        for rows, classes in ((64, 700), (64, 33), (3, 9000), (40, 7))
        for seed in (0, 1)  # two cases of each shape, in case memory is shared by shape
        for method in kernel.methods
    ]
    calls = [call for call in calls if kernel.accepts(call)]
    alone = [kernel.answer(call) for call in calls] * 4
    calls = calls * 4
    barrier, interval = threading.Barrier(8), sys.getswitchinterval()

    def answers_from(first: int) -> list[Answer | Failure]:
        barrier.wait()
        return [kernel.answer(call) for call in calls[first:] + calls[:first]]

    sys.setswitchinterval(1e-5)  # so that threads switch in the middle of a call
    try:
        with ThreadPoolExecutor(8) as pool:
            rounds = list(pool.map(answers_from, range(8)))
    finally:
        sys.setswitchinterval(interval)
    for first, results in enumerate(rounds):
        in_turn = zip(calls[first:] + calls[:first], results, alone[first:] + alone[:first], strict=True)
        for call, answer, expected in in_turn:
            if isinstance(answer, Failure):
                yield answer
            elif not isinstance(expected, Failure):
                same = answer.bits() == expected.bits()
                yield None if same else other_bits("other bits while other threads call", call, call)


def new_values(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """New values in the same memory get a new answer: nothing is kept of arrays that were seen before."""
    if not kernel.library.is_mutable:
        raise NotRun(f"{kernel.library.name} has no mutable arrays")
    first, second = (odd_neighbours(kernel.dtype, 12, 9, seed) for seed in (0, 1))
    for method in kernel.methods:
        expected = answers(kernel, Call(method, first), Call(method, second))
        if isinstance(expected, Failure):
            yield expected
            continue
        answer = answer_in_reused_memory(kernel.bench, Call(method, first), second)
        same = answer.bits() == expected[1].bits()
        where = f"{Call(method, second)} in the memory of another call"
        yield None if same else Failure(where, "the answer is that of what was there before")


REPRODUCIBILITY: tuple[Promise, ...] = (
    row_locality,
    loss_with_partial,
    threads,
    deterministic,
    concurrent_callers,
    new_values,
)
