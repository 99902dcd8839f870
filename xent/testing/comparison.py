"""An answer compared with exact values, within the error budget.

Leaves out which calls are made (``promises``). All that an answer is compared with is computed once for each case.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np

from ..numerics import fold
from ..numerics.fold import Partial
from ..numerics.statistics import Statistics
from .budget import (
    Budget,
    compute_dtype,
    distance,
    gradient_budget,
    k_of,
    limits,
    loss_budget,
    lse_budget,
    row_terms,
    ulp,
)
from .calls import Answer, Call, label_logits
from .edge_cases import Case
from .exact import Exact

Array = np.ndarray[Any, Any]
STATISTICS_ULPS = 16


class Fault(NamedTuple):
    """An error in an answer.

    Attributes
    ----------
    what : str
        A sentence with the answer, the exact value, and how far apart they are.
    row : int
    excess : float
        The error as a multiple of the budget; inf if the exact value is infinite or NaN and is not met.
    """

    what: str
    row: int
    excess: float


def worst_fault(
    what: str, actual: Array, exact: tuple[Array, Array], budget: Budget, k: float, mask: Any = True
) -> Fault | None:
    """The worst error that is over its budget, in the rows of the mask; None if there is none."""
    hi, lo = exact
    error, allowed = distance(actual, hi, lo), budget.allowed(k)
    # subtle: the budget of a row with infinities may be NaN
    is_over = (error > 0) & ~(error <= allowed) & np.reshape(mask, (-1,) + (1,) * (hi.ndim - 1))
    if not is_over.any():
        return None
    ratio = np.nan_to_num(error / np.maximum(allowed, 5e-324), nan=math.inf, posinf=math.inf)
    excess = np.where(is_over, ratio, 0.0)
    worst = tuple(int(index) for index in np.unravel_index(np.argmax(excess), excess.shape))
    place = f"row {worst[0]}" + (f", class {worst[1]}" if len(worst) > 1 else "")
    unit = float(np.broadcast_to(budget.unit, hi.shape)[worst])
    ulps, limit = float(error[worst]) / unit, float(np.broadcast_to(allowed, hi.shape)[worst]) / unit
    what = (
        f"{what} of {place} is {float(actual[worst])!r}, exact {float(hi[worst])!r}: "
        f"{ulps:.3g} ulp off, {limit:.3g} allowed"
    )
    return Fault(what, worst[0], excess[worst])


class Expected:
    """The exact numbers of a case for an op, and their budgets, each computed once; a cut case has rows of its base's.

    ``flushes``: the library takes subnormal numbers for 0.
    """

    def __init__(self, case: Case, op: str, flushes: bool):
        self.case, self.op, self.flushes = case, op, flushes
        self.base = None if case.base is None else expected_of(case.base, op, flushes)

    @cached_property
    def exact(self) -> Exact:
        return self.case.exact(self.op)

    @property
    def targets(self) -> Array:
        """Dense targets, (rows, classes); 0 in a row whose label is outside [0, classes)."""
        return np.nan_to_num(self.case.dense(self.op), nan=0.0)

    @cached_property
    def is_inside(self) -> Array:
        """The rows whose label is in [0, classes); all rows for soft targets."""
        labels = self.case.labels
        inside = (labels >= 0) & (labels < self.case.logits.shape[1])
        return np.asarray(inside if self.op == "sparse" else np.full(len(labels), True))

    @cached_property
    def max(self) -> Array:
        return np.asarray(self.case.logits.astype(np.float64).max(axis=1))

    @cached_property
    def is_nan(self) -> Array:
        """The rows with a NaN among their logits."""
        return np.asarray(np.isnan(self.case.logits.astype(np.float64)).any(axis=1))

    @cached_property
    def is_masked(self) -> Array:
        """The rows whose logits are all −inf."""
        return np.asarray((self.case.logits.astype(np.float64) == -math.inf).all(axis=1))

    @cached_property
    def mass(self) -> Array:
        return np.asarray([math.fsum(row) for row in self.targets.tolist()])  # rounded once

    @cached_property
    def loss_budget(self) -> Budget:
        if self.base is not None:
            return self.rows_of(self.base.loss_budget)
        return loss_budget(self.case.logits, self.targets, flushes=self.flushes)

    @cached_property
    def lse_budget(self) -> Budget:
        if self.base is not None:
            return self.rows_of(self.base.lse_budget)
        return lse_budget(self.case.logits, flushes=self.flushes)

    @cached_property
    def rest_budget(self) -> Budget:
        """The budget of log1p(sum_exp_rest): that of the loss of a label at the maximum."""
        if self.base is not None:
            return self.rows_of(self.base.rest_budget)
        x = self.case.logits.astype(np.float64)
        one_hot_of_max = np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]
        return loss_budget(self.case.logits, one_hot_of_max, flushes=self.flushes)

    @cached_property
    def gradient_budget(self) -> Budget:
        if self.base is not None:
            return self.rows_of(self.base.gradient_budget)
        is_sparse = self.op == "sparse" and (self.case.on, self.case.off) == (1.0, 0.0)
        return gradient_budget(self.case.logits, self.targets, is_sparse=is_sparse, flushes=self.flushes)

    @cached_property
    def statistics_rounding(self) -> Array:
        """What rounding and underflow may cost the sums of row statistics, (rows,)."""
        if self.base is not None and self.case.cut is not None:
            return self.base.statistics_rounding[slice(*self.case.cut)]
        logits = self.case.logits
        terms = row_terms(logits, np.zeros(logits.shape))
        exps = terms.p * (1 + terms.rest)
        rounding = 2 * (np.where(exps == 0, 0.0, exps * (1 + terms.gap)) * terms.rounding).sum(axis=1)
        return np.asarray(rounding + 800 * logits.shape[1] * float(np.finfo(compute_dtype(logits.dtype)).tiny))

    def rows_of(self, budget: Budget) -> Budget:
        """The part of the base's budget that is of this case's rows."""
        assert self.case.cut is not None
        return Budget(*(part[slice(*self.case.cut)] for part in budget))


def expected_of(case: Case, op: str, flushes: bool) -> Expected:
    """What answers on a case are compared with."""
    key = (op, flushes)
    if key not in case.expected:
        case.expected[key] = Expected(case, op, flushes)
    found: Expected = case.expected[key]
    return found


def faults(call: Call, answer: Answer, op: str, flushes: bool = False) -> Iterator[Fault]:
    """Every error in the answer to a call; ``flushes``: the library takes subnormal numbers for 0.

    The partial of a gradient is not compared: it is the answer to a call of ``partial``.
    """
    with np.errstate(all="ignore"):
        expected, possible = expected_of(call.case, op, flushes), list[Fault | None]()
        if answer.partial is not None and call.method != "gradient":
            possible += partial_faults(expected, answer.partial)
        if answer.loss is not None:
            possible.append(loss_fault(expected, answer.loss))
        if answer.gradient is not None:
            possible.append(gradient_fault(expected, answer.gradient, call.scales))
        if answer.statistics is not None:
            possible += statistics_faults(expected, answer.statistics)
    yield from (fault for fault in possible if fault is not None)


def loss_fault(expected: Expected, loss: Array) -> Fault | None:
    """The worst error of the losses; the exact one is NaN if the label is outside [0, classes)."""
    hi, lo = expected.exact.loss
    exact = np.where(expected.is_inside, hi, math.nan), np.where(expected.is_inside, lo, 0.0)
    worst = worst_fault("the loss", loss, exact, expected.loss_budget, k_of["loss"])
    return negative_zero(loss, "the loss") or worst


def negative_zero(loss: Array, what: str) -> Fault | None:
    """The first loss that is −0.0; None if there is none."""
    rows = np.flatnonzero((loss == 0) & np.signbit(loss))
    return Fault(f"{what} of row {rows[0]} is -0.0", int(rows[0]), math.inf) if len(rows) else None


def partial_faults(expected: Expected, partial: Partial) -> Iterator[Fault | None]:
    """Errors of a partial's numbers, and of the loss, the log-sum-exp and the loss at the maximum that follow."""
    exact, highest = expected.exact, expected.max
    is_other = (partial.max != highest) & (partial.max != as_seen(expected, highest))
    for row in np.flatnonzero(is_other & ~expected.is_nan)[:1]:
        what = f"the max of row {row} is {float(partial.max[row])!r}, exact {float(highest[row])!r}"
        yield Fault(what, int(row), math.inf)
    loss, where = fold.finish(xp, partial), expected.is_inside
    yield negative_zero(np.where(where, loss, 1.0), "the loss made of the partial")
    yield worst_fault("the loss made of the partial", loss, exact.loss, expected.loss_budget, k_of["loss"], where)
    lse = fold.log_partition(xp, partial)
    yield worst_fault("the log-sum-exp made of the partial", lse, exact.lse, expected.lse_budget, k_of["lse"])
    rest, where = np.log1p(partial.sum_exp_rest), ~np.isnan(exact.rest[0])
    yield worst_fault("log1p(sum_exp_rest)", rest, exact.rest, expected.rest_budget, k_of["loss"], where)
    yield from mass_faults(expected, partial)
    for row in np.flatnonzero(expected.is_masked & (partial.sum_exp_rest != -1))[:1]:
        what = f"sum_exp_rest of row {row}, all −inf, is {float(partial.sum_exp_rest[row])!r}, not -1"
        yield Fault(what, int(row), math.inf)


def mass_faults(expected: Expected, partial: Partial) -> Iterator[Fault | None]:
    """Errors of target_sum, and of target_gap in rows without a target or without a logit above −inf."""
    mass, inside, is_nan, zero = expected.mass, expected.is_inside, expected.is_nan, np.zeros_like(expected.mass)
    budget = Budget(ulp(mass, compute_dtype(expected.case.logits.dtype)), zero)
    yield worst_fault("target_sum", partial.target_sum, (mass, zero), budget, 4, inside & ~is_nan)
    if expected.op == "sparse" and expected.case.off == 0:
        yield worst_fault("target_sum, without its label,", partial.target_sum, (zero, zero), budget, 0, ~inside)
        where = ~inside & ~is_nan
        yield worst_fault("target_gap, without its label,", partial.target_gap, (zero, zero), budget, 0, where)
    limit, where = np.where(mass > 0, math.inf, 0.0), expected.is_masked & inside
    yield worst_fault("target_gap, of a row of −inf,", partial.target_gap, (limit, zero), budget, 0, where)


def gradient_fault(expected: Expected, gradient: Array, scales: Array) -> Fault | None:
    """The worst error of the gradient times the scales: 0 at a scale of 0, not compared if the label is outside."""
    scale, dtype = scales.astype(np.float64)[:, None], expected.case.logits.dtype
    unit, constant = expected.gradient_budget
    hi, lo = expected.exact.gradient
    if np.any(scale != 1):
        hi, lo = (np.where(scale == 0, 0.0, part * scale) for part in (hi, lo))
        narrow = 0.5 * ulp(hi, dtype) if dtype != compute_dtype(dtype) else 0.0
        rounding = np.where(scale == 1, 0.0, 2 * np.finfo(compute_dtype(dtype)).eps * np.abs(hi) + narrow)
        unit, constant = (np.where(scale == 0, 0.0, part * np.abs(scale)) for part in (unit, constant))
        constant = constant + np.where(scale == 0, 0.0, rounding)
    budget, mask = Budget(np.maximum(unit, 5e-324), constant), expected.is_inside | (scale[:, 0] == 0)
    return worst_fault("the gradient", gradient, (hi, lo), budget, k_of["gradient"], mask)


def as_seen(expected: Expected, logits: Array) -> Array:
    """Logits as the library sees them: 0 for a subnormal one, if it takes these for 0."""
    smallest = limits(expected.case.logits.dtype).smallest_normal
    return np.where(np.abs(logits) < smallest, 0.0, logits) if expected.flushes else logits


def ranks_of(case: Case, logits: Array, label_logit: Array) -> Array:
    """How many classes of each row come before the label."""
    before = (logits > label_logit) | ((logits == label_logit) & (np.arange(logits.shape[1]) < case.labels[:, None]))
    ranks: Array = before.sum(axis=1)
    return ranks


def statistics_faults(expected: Expected, statistics: Statistics) -> Iterator[Fault | None]:
    """Errors of the partial, the ranks and the two sums."""
    case, exact = expected.case, expected.exact
    yield from partial_faults(expected, statistics.partial)
    x, label_logit = case.logits.astype(np.float64), label_logits(case).astype(np.float64)[:, None]
    rank, seen = (
        ranks_of(case, x, label_logit),
        ranks_of(case, *(as_seen(expected, array) for array in (x, label_logit))),
    )
    has_rank = expected.is_inside & ~expected.is_nan & ~expected.is_masked
    is_other = (statistics.label_rank != rank) & (statistics.label_rank != seen)
    for row in np.flatnonzero(is_other & has_rank)[:1]:
        what = f"label_rank of row {row} is {int(statistics.label_rank[row])}, exact {int(rank[row])}"
        yield Fault(what, int(row), math.inf)
    for name, values, pair in (
        ("sum_squares", statistics.sum_squares, exact.squares),
        ("spread", statistics.spread, exact.spread),
    ):
        budget = Budget(ulp(pair[0], compute_dtype(case.logits.dtype)), expected.statistics_rounding)
        yield worst_fault(name, values, pair, budget, STATISTICS_ULPS, np.isfinite(pair[0]))
