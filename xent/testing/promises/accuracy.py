"""The numbers of a kernel: every case right within the error budget."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..calls import Call
from ..edge_cases import OP_OF_GROUP, Case, cases
from ..kernel_under_test import KernelUnderTest, Promise
from ..registration import plugin_statements
from ..reports import NotRun, Outcome


def outcomes_of_group(kernel: KernelUnderTest, group: str) -> Iterator[Outcome]:
    """The outcomes of every method on every case of a group, in every layout."""
    if OP_OF_GROUP.get(group, kernel.op) != kernel.op:
        raise NotRun(f"it is about {OP_OF_GROUP[group]} kernels")
    if group == "smoothed" and not kernel.serves_smoothing:
        reasons = kernel.reasons_against(kernel.problem(label_smoothing=0.1))
        raise NotRun(f"it declines label smoothing: {'; '.join(reasons)}")
    yield from kernel.outcomes(kernel.calls_on(cases(group, kernel.dtype)))


def every_width(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Ordinary rows of 1 to 1025 classes are right: no tail of a loop is lost."""
    yield from outcomes_of_group(kernel, "every_width")


def many_rows(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The last of 129 to 70001 rows are as right as the first."""
    yield from outcomes_of_group(kernel, "many_rows")


def many_classes(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Tens of thousands of classes are as accurate as few, equal ones too: no float32 total runs on."""
    yield from outcomes_of_group(kernel, "many_classes")


def equal_terms(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Equal terms, which repeat the same rounding, are as accurate as others, at every class count from 2 to 300."""
    yield from kernel.outcomes(
        Call(method, case, outer=kernel.outers[number % len(kernel.outers)])  # the layouts in turn
        for number, case in enumerate(cases("equal_terms", kernel.dtype))
        for method in kernel.methods
    )


def tiny_losses(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """A loss of 1e-30 has as many right digits as one of 1: the maximum is counted out."""
    yield from outcomes_of_group(kernel, "tiny_losses")


def offsets(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """What all logits have in common costs no digit, and overflows nothing."""
    yield from outcomes_of_group(kernel, "offsets")


def ties(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Of several logits at the maximum one is counted out, and the gradient is right at all of them."""
    yield from outcomes_of_group(kernel, "ties")


def wide_gaps(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """A label far under the maximum costs that gap."""
    yield from outcomes_of_group(kernel, "wide_gaps")


def underflow(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Exponentials that underflow, and logits that are subnormal, are as good as the dtype lets them be."""
    yield from outcomes_of_group(kernel, "underflow")


def infinities(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """−inf costs nothing without target mass and +inf with it; one +inf has all the probability, two give NaN."""
    yield from outcomes_of_group(kernel, "infinities")


def not_numbers(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """A NaN makes its own row NaN, whatever its payload, and no other."""
    yield from outcomes_of_group(kernel, "not_numbers")


def masked_tiles(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Leading classes of −inf are as if they were not there; a row of nothing else is NaN, and its partial says why."""
    yield from outcomes_of_group(kernel, "masked_tiles")


def strange_labels(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """A label outside [0, classes) is not among them: no gap, no mass, no read; NaN where no partial is returned."""
    yield from outcomes_of_group(kernel, "strange_labels")


def smoothed(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Two-valued targets, on · [j = label] + off, are right, at on = 0 too."""
    yield from outcomes_of_group(kernel, "smoothed")


def soft_targets(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Soft targets of any sum are right, repeated, tiny and zero ones too; the gradient is Σt · p − t."""
    yield from outcomes_of_group(kernel, "soft_targets")


def no_rows(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """A block without rows gives answers without rows."""
    empty = kernel.ordinary_case(6, 7).rows(0, 0)
    for outer in kernel.outers[:2]:
        for threads in (1, 2):
            yield from kernel.outcomes(Call(method, empty, outer=outer, threads=threads) for method in kernel.methods)


def merged_spans(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The partials of spans of the classes merge into that of the row, and each span's gradient is the row's."""
    group = [*cases("infinities", kernel.dtype)[-8:], *cases("strange_labels", kernel.dtype)[1:4]]
    group += [case for case in cases("every_width", kernel.dtype) if case.logits.shape[1] in (5, 16, 33, 129)]
    group += [*cases("smoothed" if kernel.op == "sparse" else "soft_targets", kernel.dtype)[:6]]
    group += cases("masked_tiles", kernel.dtype)[:3]
    yield from kernel.outcomes(
        Call(method, case, cuts=cuts, outer=outer)
        for case in group
        for method in kernel.methods
        if method in ("partial", "gradient", "statistics")
        for cuts in cuts_of(case)
        for outer in kernel.outers_of(case)[:3]
    )


def cuts_of(case: Case) -> list[tuple[int, ...]]:
    """The places at which the classes of a case are cut into spans: several ways of it."""
    classes = case.logits.shape[1]
    ways = {(1,), (classes - 1,), (classes // 2,), (classes // 3, classes // 2, classes - 1)}
    return sorted(cuts for cuts in ways if all(0 < cut < classes for cut in cuts) and len(set(cuts)) == len(cuts))


def scales(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The gradient is multiplied by the row's scale, NaN too; a scale of 0 gives exactly 0, whatever the row holds."""
    methods = [method for method in kernel.methods if "gradient" in method]
    if not methods:
        raise NotRun("it declares no gradient")
    group = [*cases("not_numbers", kernel.dtype), *cases("infinities", kernel.dtype)[-4:]]
    group += [*cases("every_width", kernel.dtype)[4::4], *cases("masked_tiles", kernel.dtype)[-4:]]
    if kernel.op == "sparse" and kernel.serves_smoothing:
        group += [case for case in cases("smoothed", kernel.dtype) if case.name.endswith("smoothed")]
    large = (1.0, 2.0) if kernel.dtype == "float16" else (1e5, 1e30)
    steps = np.asarray([0.0, 1.0, -0.5, 3.0, 1e-3, 0.0, 0.25, np.nan, *large])
    for case in group:
        for values in ([0.0], steps, steps[::-1]):
            scale = np.resize(values, len(case.labels))
            for outer in kernel.outers_of(case):
                yield from kernel.outcomes(Call(method, case, scale=scale, outer=outer) for method in methods)


def random_rows(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Rows of random widths, spreads and offsets are right."""
    yield from outcomes_of_group(kernel, "random_rows")


def extra_cases(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The cases that the plugin itself adds are right."""
    added = [statement for statement in plugin_statements(kernel.spec) if isinstance(statement, Case)]
    of_dtype = [case for case in added if case.logits.dtype.name == kernel.dtype]
    if not of_dtype:
        raise NotRun("its plugin adds none in xent_conformance")
    yield from kernel.outcomes(kernel.calls_on(of_dtype))


ACCURACY: tuple[Promise, ...] = (
    every_width,
    many_rows,
    many_classes,
    equal_terms,
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
    extra_cases,
)
