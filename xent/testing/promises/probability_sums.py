"""Sums of probabilities: what a kernel says of rows that are probabilities already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...arrays import without_fp_warnings
from ...numerics.probabilities import ProbabilitySums
from ..budget import compute_dtype, ulp
from ..calls import Array
from ..kernel_under_test import KernelUnderTest, Promise
from ..memory import lay
from ..reports import Failure, NotRun, Outcome

SHAPES = ((0, 3), (1, 1), (9, 2), (40, 5), (33, 64), (17, 131), (5, 1000), (2, 70_000))
ULPS = 4
"""How far a sum of terms of one sign may be off its exact value."""
FORMS = ("plain", "one element on", "rows apart", "every other class", "Fortran order")


def probability_sums(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """`probability_sums` has every sum of probabilities within 4 ulp, the exact rank, and NaN for what are none."""
    if "probability_sums" not in kernel.spec.methods:
        raise NotRun("it declares no probability_sums")
    for rows, classes in SHAPES:
        p, labels = probabilities(kernel.dtype, rows, classes)
        sums = of_kernel(kernel, p, labels)
        yield from faults(p, labels, sums)
        for form in FORMS:
            if form in kernel.library.forms and p.size:
                same = is_same(of_kernel(kernel, p, labels, form, threads=3), sums)
                yield None if same else Failure(f"p of {rows, classes}, {form}", "has other bits than in plain memory")
        for row in range(min(rows, 3)):
            alone = of_kernel(kernel, p[row : row + 1], labels[row : row + 1])
            same = is_same(alone, ProbabilitySums(*(field[row : row + 1] for field in sums)))
            yield None if same else Failure(f"row {row} of {rows, classes}", "has other bits alone than among others")


def probabilities(dtype: str, rows: int, classes: int) -> tuple[Array, Array]:
    """Rows of every confidence, and among them ones with a 0, all of them 0, NaN and negative; and labels."""
    rng = np.random.default_rng([rows, classes])
    logits = rng.standard_normal((rows, classes)) * np.resize([0.0, 1.0, 6.0, 60.0], rows)[:, None]
    p = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    p /= p.sum(axis=1, keepdims=True)
    for row, value in ((4, 0.0), (5, np.nan), (6, -0.25)):
        p[row : row + 1, -1] = value
    p[7:8] = 0.0
    narrow = compute_dtype(np.dtype(dtype)) if dtype in ("float16", "bfloat16") else np.dtype(dtype)
    return p.astype(narrow), rng.integers(0, classes, rows)


def of_kernel(
    kernel: KernelUnderTest, p: Array, labels: Array, form: str = "plain", threads: int = 1
) -> ProbabilitySums:
    """What the kernel says, as arrays of NumPy's."""
    memory = lay(p, form, kernel.library, 3.0)
    with without_fp_warnings():
        sums = kernel.bench.kernel.probability_sums(memory.array, kernel.library.asarray(labels), threads=threads)
    return ProbabilitySums(*kernel.library.copies(tuple(sums)))


def is_same(a: ProbabilitySums, b: ProbabilitySums) -> bool:
    """Whether both say the same of each row, to the bit where it is made of probabilities."""
    rows = ~(np.isnan(a.entropy) & np.isnan(b.entropy))
    return all(one[rows].tobytes() == other[rows].tobytes() for one, other in zip(a, b, strict=True))


def faults(p: Array, labels: Array, sums: ProbabilitySums) -> Iterator[Outcome]:
    """An outcome for each field, and one for the rows that are no probabilities."""
    where, is_none = f"p of {p.shape}", (np.isnan(p) | (p < 0)).any(axis=1)
    told = np.isnan(sums.entropy)
    yield (
        None if (told == is_none).all() else Failure(where, "entropy is NaN elsewhere than where p is NaN or negative")
    )
    p, labels, sums = p[~is_none], labels[~is_none], ProbabilitySums(*(field[~is_none] for field in sums))
    exact: Any = p.astype(np.longdouble)
    logs = np.log(np.where(p == 0, 1, exact))
    for name, found, right in (
        ("total", sums.total, exact.sum(axis=1)),
        ("sum_squares", sums.sum_squares, (exact * exact).sum(axis=1)),
        ("entropy", sums.entropy, -(exact * logs).sum(axis=1)),
    ):
        least = p.shape[1] * float(np.finfo(p.dtype).tiny)
        excess = np.abs(found - right) / (ULPS * ulp(right.astype(np.float64), p.dtype) + least)
        worst = float(excess.max(initial=0))
        yield None if worst <= 1 else Failure(where, f"{name} is off by {worst:.3g} times {ULPS} ulp", worst)
    top, level = p.max(axis=1, initial=0), np.take_along_axis(p, labels[:, None], axis=1)
    ahead = (p > level) | ((p == level) & (np.arange(p.shape[1]) < labels[:, None]))
    yield None if np.array_equal(sums.max, top) else Failure(where, "max is not the largest p")
    yield None if np.array_equal(sums.label_p, level[:, 0]) else Failure(where, "label_p is not the label's p")
    same = np.array_equal(sums.label_rank, ahead.sum(axis=1))
    yield None if same else Failure(where, "label_rank does not count the classes before the label")


PROBABILITY_SUMS: tuple[Promise, ...] = (probability_sums,)
