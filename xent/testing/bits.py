"""The same bits: of a row in any block, on any number of threads, run after run, whoever else calls."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .calls import Answer, Call, Rewritten
from .edges import odd_neighbours
from .promises import Promise
from .snippets import snippet
from .subject import Failure, NotRun, Outcome, Subject


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


def promised_bits(subject: Subject) -> None:
    """Ends a promise about bits where none is made."""
    if not subject.spec.deterministic:
        raise NotRun("it is declared deterministic=False")


def row_locality(subject: Subject) -> Iterator[Outcome]:
    """A row's numbers are the same bits in every block of 1 to 33 rows, at every place in it."""
    promised_bits(subject)
    for classes, outer, method in itertools.product((3, 7, 33, 130, 700), subject.outers[:2], subject.methods):
        call = Call(method, odd_neighbours(subject.dtype, 40, classes), outer=outer)
        whole = answers(subject, call)
        if isinstance(whole, Failure):
            yield whole
            continue
        for size in range(1, 34) if classes < 200 else (1, 2, 3, 5, 8, 33):
            for first in range(0, 41 - size, 1 if classes == 7 else 1 + size // 3):
                part = call.rows(first, first + size)
                yield alike(subject, call, part, whole[0], first, first + size)
        for many in (2, 5, 8) if outer else ():  # the same rows with others beside them in the block
            other = replace(call, outer=many)
            yield alike(subject, call, other, whole[0], 0, 40)


def alike(subject: Subject, whole: Call, part: Call, answer: Answer, start: int, stop: int) -> Outcome:
    """Whether a call answers of its rows what another did."""
    found = answers(subject, part)
    if isinstance(found, Failure):
        return found
    what = f"rows {start} to {stop - 1} have other bits than in a block of 40"
    return None if found[0].bits() == answer.bits(start, stop) else differ(subject, what, whole, part)


def threads(subject: Subject) -> Iterator[Outcome]:
    """The same bits for any number of threads."""
    promised_bits(subject)
    for (rows, classes), method in itertools.product(((67, 130), (5, 5000), (5, 40_001), (400, 1000)), subject.methods):
        case = odd_neighbours(subject.dtype, rows, classes)
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
        call = Call(method, odd_neighbours(subject.dtype, rows, classes), threads=2)
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
        Call(method, odd_neighbours(subject.dtype, rows, classes, seed))
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


def new_values(subject: Subject) -> Iterator[Outcome]:
    """New values in the same memory get a new answer: nothing is kept of arrays that were seen before."""
    if not subject.library.is_mutable:
        raise NotRun(f"{subject.library.name} has no mutable arrays")
    first, second = (odd_neighbours(subject.dtype, 12, 9, seed) for seed in (0, 1))
    for method in subject.methods:
        alone = answers(subject, Call(method, first), Call(method, second))
        if isinstance(alone, Failure):
            yield alone
            continue
        found = Rewritten(subject.bench, Call(method, first)).again(second)
        same = found.bits() == alone[1].bits()
        where = f"{Call(method, second)} in the memory of another call"
        yield None if same else Failure(where, "the answer is that of what was there before")


BITS: tuple[Promise, ...] = (
    row_locality,
    threads,
    deterministic,
    concurrent_callers,
    new_values,
)
