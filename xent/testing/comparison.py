"""An answer compared with exact values, within the error budget.

Leaves out which calls are made (``promises``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    is_over = (error > 0) & ~(error <= allowed)  # subtle: the budget of a row with infinities may be NaN
    excess = np.where(is_over, np.nan_to_num(error / np.maximum(allowed, 5e-324), nan=math.inf, posinf=math.inf), 0.0)
    excess = np.where(np.broadcast_to(np.reshape(mask, (-1,) + (1,) * (hi.ndim - 1)), hi.shape), excess, 0.0)
    if not np.any(excess > 0):
        return None
    worst = tuple(int(index) for index in np.unravel_index(np.argmax(excess), excess.shape))
    place = f"row {worst[0]}" + (f", class {worst[1]}" if len(worst) > 1 else "")
    unit = float(np.broadcast_to(budget.unit, hi.shape)[worst])
    ulps, limit = float(error[worst]) / unit, float(np.broadcast_to(allowed, hi.shape)[worst]) / unit
    what = (
        f"{what} of {place} is {float(actual[worst])!r}, exact {float(hi[worst])!r}: "
        f"{ulps:.3g} ulp off, {limit:.3g} allowed"
    )
    return Fault(what, worst[0], excess[worst])


def faults(call: Call, answer: Answer, op: str, flushes: bool = False) -> Iterator[Fault]:
    """Every error in the answer to a call; ``flushes``: the library takes subnormal numbers for 0."""
    with np.errstate(all="ignore"):
        possible = [
            *(partial_faults(call, answer.partial, op, flushes) if answer.partial is not None else ()),
            loss_fault(call, answer.loss, op, flushes) if answer.loss is not None else None,
            gradient_fault(call, answer.gradient, op, flushes) if answer.gradient is not None else None,
            *(statistics_faults(call, answer.statistics, op, flushes) if answer.statistics is not None else ()),
        ]
    yield from (fault for fault in possible if fault is not None)


def is_inside(call: Call, op: str) -> Array:
    """The rows whose label is in [0, classes); all rows for soft targets."""
    labels = call.case.labels
    return np.asarray((op == "dense") | ((labels >= 0) & (labels < call.case.logits.shape[1])))


def loss_fault(call: Call, loss: Array, op: str, flushes: bool) -> Fault | None:
    """The worst error of the losses; the exact one is NaN if the label is outside [0, classes)."""
    case = call.case
    inside = is_inside(call, op)
    hi, lo = case.exact(op).loss
    exact = np.where(inside, hi, math.nan), np.where(inside, lo, 0.0)
    budget = loss_budget(case.logits, np.nan_to_num(case.dense(op), nan=0.0), flushes=flushes)
    return negative_zero(loss, "the loss") or worst_fault("the loss", loss, exact, budget, k_of["loss"])


def negative_zero(loss: Array, what: str) -> Fault | None:
    """The first loss that is −0.0; None if there is none."""
    rows = np.flatnonzero((loss == 0) & np.signbit(loss))
    return Fault(f"{what} of row {rows[0]} is -0.0", int(rows[0]), math.inf) if len(rows) else None


def partial_faults(call: Call, partial: Partial, op: str, flushes: bool) -> Iterator[Fault | None]:
    """Errors of a partial's numbers, and of the loss, the log-sum-exp and the loss at the maximum that follow."""
    case, exact, inside = call.case, call.case.exact(op), is_inside(call, op)
    x = case.logits.astype(np.float64)
    is_nan = np.isnan(x).any(axis=1)
    highest = x.max(axis=1)
    flushed = highest
    if flushes:
        flushed = np.where(np.abs(highest) < limits(case.logits.dtype).smallest_normal, 0.0, highest)
    for row in np.flatnonzero((partial.max != highest) & (partial.max != flushed) & ~is_nan)[:1]:
        what = f"the max of row {row} is {float(partial.max[row])!r}, exact {float(highest[row])!r}"
        yield Fault(what, int(row), math.inf)
    targets = np.nan_to_num(case.dense(op), nan=0.0)
    loss, budget = fold.finish(xp, partial), loss_budget(case.logits, targets, flushes=flushes)
    yield negative_zero(np.where(inside, loss, 1.0), "the loss made of the partial")
    yield worst_fault("the loss made of the partial", loss, exact.loss, budget, k_of["loss"], inside)
    lse, budget = fold.log_partition(xp, partial), lse_budget(case.logits, flushes=flushes)
    yield worst_fault("the log-sum-exp made of the partial", lse, exact.lse, budget, k_of["lse"])
    one_hot_of_max = np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]
    rest = np.log1p(partial.sum_exp_rest)
    is_defined = ~np.isnan(exact.rest[0])
    budget = loss_budget(case.logits, one_hot_of_max, flushes=flushes)
    yield worst_fault("log1p(sum_exp_rest)", rest, exact.rest, budget, k_of["loss"], is_defined)
    yield from mass_faults(call, partial, op, inside & ~is_nan, ~inside)
    is_masked = (x == -math.inf).all(axis=1)
    for row in np.flatnonzero(is_masked & (partial.sum_exp_rest != -1))[:1]:
        what = f"sum_exp_rest of row {row}, all −inf, is {float(partial.sum_exp_rest[row])!r}, not -1"
        yield Fault(what, int(row), math.inf)


def mass_faults(call: Call, partial: Partial, op: str, inside: Array, outside: Array) -> Iterator[Fault | None]:
    """Errors of target_sum, and of target_gap in rows without a target or without a logit above −inf."""
    case, x = call.case, call.case.logits.astype(np.float64)
    mass = np.nan_to_num(case.dense(op), nan=0.0).sum(axis=1)
    budget, zero = Budget(ulp(mass, compute_dtype(case.logits.dtype)), np.zeros_like(mass)), np.zeros_like(mass)
    yield worst_fault("target_sum", partial.target_sum, (mass, zero), budget, 4, inside)
    if op == "sparse" and case.off == 0:
        has_no_nan = ~np.isnan(x).any(axis=1)
        yield worst_fault("target_sum, without its label,", partial.target_sum, (zero, zero), budget, 0, outside)
        where = outside & has_no_nan
        yield worst_fault("target_gap, without its label,", partial.target_gap, (zero, zero), budget, 0, where)
    is_masked = (x == -math.inf).all(axis=1) & inside
    limit = np.where(mass > 0, math.inf, 0.0)
    yield worst_fault("target_gap, of a row of −inf,", partial.target_gap, (limit, zero), budget, 0, is_masked)


def gradient_fault(call: Call, gradient: Array, op: str, flushes: bool) -> Fault | None:
    """The worst error of the gradient times the scales: 0 at a scale of 0, not checked if the label is outside."""
    case, scale = call.case, call.scales.astype(np.float64)[:, None]
    targets = np.nan_to_num(case.dense(op), nan=0.0)
    is_sparse = op == "sparse" and (case.on, case.off) == (1.0, 0.0)
    budget = gradient_budget(case.logits, targets, is_sparse=is_sparse, flushes=flushes)
    hi, lo = (np.where(scale == 0, 0.0, part * scale) for part in case.exact(op).gradient)
    narrow = 0.5 * ulp(hi, case.logits.dtype) if case.logits.dtype != compute_dtype(case.logits.dtype) else 0.0
    rounding = np.where(scale == 1, 0.0, 2 * np.finfo(compute_dtype(case.logits.dtype)).eps * np.abs(hi) + narrow)
    unit, constant = (np.where(scale == 0, 0.0, part * np.abs(scale)) for part in budget)
    allowed = Budget(np.maximum(unit, 5e-324), constant + np.where(scale == 0, 0.0, rounding))
    mask = is_inside(call, op) | (scale[:, 0] == 0)
    return worst_fault("the gradient", gradient, (hi, lo), allowed, k_of["gradient"], mask)


def statistics_faults(call: Call, statistics: Statistics, op: str, flushes: bool) -> Iterator[Fault | None]:
    """Errors of the partial, the ranks and the two sums."""
    case = call.case
    yield from partial_faults(call, statistics.partial, op, flushes)
    x, label_logit = case.logits.astype(np.float64), label_logits(case).astype(np.float64)[:, None]
    before = (x > label_logit) | ((x == label_logit) & (np.arange(x.shape[1]) < case.labels[:, None]))
    rank = before.sum(axis=1)
    has_rank = is_inside(call, op) & ~(np.isnan(x).any(axis=1) | (x == -math.inf).all(axis=1))
    for row in np.flatnonzero((statistics.label_rank != rank) & has_rank)[:1]:
        what = f"label_rank of row {row} is {int(statistics.label_rank[row])}, exact {int(rank[row])}"
        yield Fault(what, int(row), math.inf)
    exact, terms = case.exact(op), row_terms(case.logits, np.zeros(x.shape))
    exps = terms.p * (1 + terms.rest)
    rounding = 2 * (np.where(exps == 0, 0.0, exps * (1 + terms.gap)) * terms.rounding).sum(axis=1)
    underflow = 800 * x.shape[1] * float(np.finfo(compute_dtype(case.logits.dtype)).tiny)
    for name, values, pair in (
        ("sum_squares", statistics.sum_squares, exact.squares),
        ("spread", statistics.spread, exact.spread),
    ):
        budget = Budget(ulp(pair[0], compute_dtype(case.logits.dtype)), rounding + underflow)
        yield worst_fault(name, values, pair, budget, STATISTICS_ULPS, np.isfinite(pair[0]))
