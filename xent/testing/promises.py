"""What is promised of every kernel, one function a promise; its name is the check's, its first line says it.

A promise takes a :class:`~xent.testing.subject.Subject` and gives an outcome for each case that it tries. What a kernel
answers about numbers is here; what it does to memory is in ``conduct.py``, what must be the same bits in ``bits.py``,
what it declares in ``declaration.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from .calls import Call
from .edges import FOR_ONE_OP, Case, cases
from .subject import NotRun, Outcome, Subject

Promise = Callable[[Subject], Iterator[Outcome]]


def of_group(subject: Subject, group: str) -> Iterator[Outcome]:
    """Every case of a group, by every method, in every layout."""
    if FOR_ONE_OP.get(group, subject.op) != subject.op:
        raise NotRun(f"it is about {FOR_ONE_OP[group]} kernels")
    if group == "smoothed" and not subject.smooths:
        raise NotRun(f"it declines label smoothing: {'; '.join(subject.reasons(subject.problem(label_smoothing=0.1)))}")
    yield from subject.judged(subject.in_every_way(cases(group, subject.dtype)))


def every_width(subject: Subject) -> Iterator[Outcome]:
    """Ordinary rows of 1 to 1025 classes are right: no tail of a loop is lost."""
    yield from of_group(subject, "every_width")


def many_rows(subject: Subject) -> Iterator[Outcome]:
    """The last of 129 to 70001 rows are as right as the first."""
    yield from of_group(subject, "many_rows")


def many_classes(subject: Subject) -> Iterator[Outcome]:
    """Tens of thousands of classes are as accurate as few, equal ones too: no float32 total runs on."""
    yield from of_group(subject, "many_classes")


def tiny_losses(subject: Subject) -> Iterator[Outcome]:
    """A loss of 1e-30 has as many right digits as one of 1: the maximum is counted out."""
    yield from of_group(subject, "tiny_losses")


def offsets(subject: Subject) -> Iterator[Outcome]:
    """What all logits have in common costs no digit, and overflows nothing."""
    yield from of_group(subject, "offsets")


def ties(subject: Subject) -> Iterator[Outcome]:
    """Of several logits at the maximum one is counted out, and the gradient is right at all of them."""
    yield from of_group(subject, "ties")


def wide_gaps(subject: Subject) -> Iterator[Outcome]:
    """A label far under the maximum costs that gap."""
    yield from of_group(subject, "wide_gaps")


def underflow(subject: Subject) -> Iterator[Outcome]:
    """Exponentials that underflow, and logits that are subnormal, are as good as the dtype lets them be."""
    yield from of_group(subject, "underflow")


def infinities(subject: Subject) -> Iterator[Outcome]:
    """−inf costs nothing without target mass and +inf with it; one +inf has all the probability, two give NaN."""
    yield from of_group(subject, "infinities")


def not_numbers(subject: Subject) -> Iterator[Outcome]:
    """A NaN makes its own row NaN, whatever its payload, and no other."""
    yield from of_group(subject, "not_numbers")


def masked_tiles(subject: Subject) -> Iterator[Outcome]:
    """Leading classes of −inf are as if they were not there; a row of nothing else is NaN, and its partial says why."""
    yield from of_group(subject, "masked_tiles")


def strange_labels(subject: Subject) -> Iterator[Outcome]:
    """A label outside [0, classes) is not among them: no gap, no mass, no read; NaN where no partial is returned."""
    yield from of_group(subject, "strange_labels")


def smoothed(subject: Subject) -> Iterator[Outcome]:
    """Two-valued targets, on · [j = label] + off, are right, at on = 0 too."""
    yield from of_group(subject, "smoothed")


def soft_targets(subject: Subject) -> Iterator[Outcome]:
    """Soft targets of any sum are right, repeated, tiny and zero ones too; the gradient is Σt · p − t."""
    yield from of_group(subject, "soft_targets")


def no_rows(subject: Subject) -> Iterator[Outcome]:
    """A block without rows gives answers without rows."""
    empty = subject.ordinary(6, 7).rows(0, 0)
    for outer in subject.outers[:2]:
        for count in (1, 2):
            calls = (Call(method, empty, outer=outer, threads=count) for method in subject.methods)
            yield from subject.judged(calls)


def merged_spans(subject: Subject) -> Iterator[Outcome]:
    """The partials of spans of the classes merge into that of the row, and each span's gradient is the row's."""
    group = [*cases("infinities", subject.dtype)[-8:], *cases("strange_labels", subject.dtype)[1:4]]
    group += [one for one in cases("every_width", subject.dtype) if one.logits.shape[1] in (5, 16, 33, 129)]
    group += [*cases("smoothed" if subject.op == "sparse" else "soft_targets", subject.dtype)[:6]]
    group += cases("masked_tiles", subject.dtype)[:3]
    yield from subject.judged(
        Call(method, case, cuts=cuts, outer=outer)
        for case in group
        for method in subject.methods
        if method in ("partial", "gradient", "statistics")
        for cuts in spans_of(case)
        for outer in subject.outers_of(case)[:3]
    )


def spans_of(case: Case) -> Iterable[tuple[int, ...]]:
    """Where to cut the classes of a case."""
    classes = case.logits.shape[1]
    cuts = {(1,), (classes - 1,), (classes // 2,), (classes // 3, classes // 2, classes - 1)}
    return sorted(cut for cut in cuts if all(0 < one < classes for one in cut) and len(set(cut)) == len(cut))


def scales(subject: Subject) -> Iterator[Outcome]:
    """The gradient is multiplied by the row's scale, NaN too; a scale of 0 gives exactly 0, whatever the row holds."""
    methods = [one for one in subject.methods if "gradient" in one]
    if not methods:
        raise NotRun("it declares no gradient")
    group = [*cases("not_numbers", subject.dtype), *cases("infinities", subject.dtype)[-4:]]
    group += [*cases("every_width", subject.dtype)[4::4], *cases("masked_tiles", subject.dtype)[-4:]]
    if subject.op == "sparse" and subject.smooths:
        group += [one for one in cases("smoothed", subject.dtype) if one.name.endswith("smoothed")]
    large = (1.0, 2.0) if subject.dtype == "float16" else (1e5, 1e30)
    steps = np.asarray([0.0, 1.0, -0.5, 3.0, 1e-3, 0.0, 0.25, np.nan, *large])
    for case in group:
        for some in ([0.0], steps, steps[::-1]):
            chosen = np.resize(some, len(case.labels))
            for outer in subject.outers_of(case):
                yield from subject.judged(Call(method, case, scale=chosen, outer=outer) for method in methods)


def random_rows(subject: Subject) -> Iterator[Outcome]:
    """Rows of random widths, spreads and offsets are right."""
    yield from of_group(subject, "random_rows")


NUMBERS: tuple[Promise, ...] = (
    every_width,
    many_rows,
    many_classes,
    tiny_losses,
    offsets,
    ties,
    wide_gaps,
    underflow,
    infinities,
    not_numbers,
    masked_tiles,
    strange_labels,
    smoothed,
    soft_targets,
    no_rows,
    merged_spans,
    scales,
    random_rows,
)
