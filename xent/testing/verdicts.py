"""What is right and what is not: an answer held against exact values, within the error budget.

Leaves out which calls are made (``promises.py``).
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
from .budget import Budget, compute_dtype, distance, gradient_budget, k_of, limits, loss_budget, lse_budget, terms, ulp
from .calls import Answer, Call, label_logits

Array = np.ndarray[Any, Any]
STATISTICS_ULPS = 16


class Fault(NamedTuple):
    """Something that an answer has wrong.

    Attributes
    ----------
    what : str
        A sentence: what came, what is exact, how far apart.
    row : int
    excess : float
        By how many times the budget it is off; inf where something infinite, or a NaN, is not met.
    """

    what: str
    row: int
    excess: float


def worst(
    what: str, actual: Array, exact: tuple[Array, Array], budget: Budget, k: float, mask: Any = True
) -> Fault | None:
    """The worst of the answers that are over their budget; None where none is. Only where the mask says so."""
    hi, lo = exact
    error, allowed = distance(actual, hi, lo), budget.allowed(k)
    wrong = (error > 0) & ~(error <= allowed)  # subtle: the budget of a row with infinities may be NaN
    excess = np.where(wrong, np.nan_to_num(error / np.maximum(allowed, 5e-324), nan=math.inf, posinf=math.inf), 0.0)
    excess = np.where(np.broadcast_to(np.reshape(mask, (-1,) + (1,) * (hi.ndim - 1)), hi.shape), excess, 0.0)
    if not np.any(excess > 0):
        return None
    at = tuple(int(one) for one in np.unravel_index(np.argmax(excess), excess.shape))
    place = f"row {at[0]}" + (f", class {at[1]}" if len(at) > 1 else "")
    ulps, limit = (float(one[at]) / float(np.broadcast_to(budget.unit, hi.shape)[at]) for one in (error, allowed))
    got, wanted = float(actual[at]), float(hi[at])
    return Fault(
        f"{what} of {place} is {got!r}, exact {wanted!r}: {ulps:.3g} ulp off, {limit:.3g} allowed", at[0], excess[at]
    )


def faults(call: Call, answer: Answer, op: str, flushes: bool = False) -> Iterator[Fault]:
    """Everything that is wrong in the answer to a call; ``flushes``: the library takes subnormal numbers for 0."""
    with np.errstate(all="ignore"):
        found = [
            *(partial_faults(call, answer.partial, op, flushes) if answer.partial is not None else ()),
            loss_fault(call, answer.loss, op, flushes) if answer.loss is not None else None,
            gradient_fault(call, answer.gradient, op, flushes) if answer.gradient is not None else None,
            *(statistics_faults(call, answer.statistics, op, flushes) if answer.statistics is not None else ()),
        ]
    yield from (one for one in found if one is not None)


def is_inside(call: Call, op: str) -> Array:
    """Which rows have their label among the classes; all of them for soft targets."""
    labels = call.case.labels
    return np.asarray((op == "dense") | ((labels >= 0) & (labels < call.case.logits.shape[1])))


def loss_fault(call: Call, loss: Array, op: str, flushes: bool) -> Fault | None:
    """Losses of whole rows; NaN where a label is none of the classes."""
    case = call.case
    inside = is_inside(call, op)
    hi, lo = case.exact(op).loss
    exact = np.where(inside, hi, math.nan), np.where(inside, lo, 0.0)
    budget = loss_budget(case.logits, np.nan_to_num(case.dense(op), nan=0.0), flushes=flushes)
    return negative_zero(loss, "the loss") or worst("the loss", loss, exact, budget, k_of["loss"])


def negative_zero(loss: Array, what: str) -> Fault | None:
    """A loss of −0.0, which no distribution has."""
    rows = np.flatnonzero((loss == 0) & np.signbit(loss))
    return Fault(f"{what} of row {rows[0]} is -0.0", int(rows[0]), math.inf) if len(rows) else None


def partial_faults(call: Call, partial: Partial, op: str, flushes: bool) -> Iterator[Fault | None]:
    """The four numbers, by what is made of them: the loss, the log-sum-exp, and the loss of a label at the maximum."""
    case, exact, inside = call.case, call.case.exact(op), is_inside(call, op)
    plain = case.logits.astype(np.float64)
    is_nan = np.isnan(plain).any(axis=1)
    largest = plain.max(axis=1)
    if flushes:
        largest = np.where(np.abs(largest) < limits(case.logits.dtype).smallest_normal, 0.0, largest)
    for row in np.flatnonzero((partial.max != largest) & (partial.max != plain.max(axis=1)) & ~is_nan)[:1]:
        got, wanted = float(partial.max[row]), float(plain[row].max())
        yield Fault(f"the max of row {row} is {got!r}, exact {wanted!r}", int(row), math.inf)
    targets = np.nan_to_num(case.dense(op), nan=0.0)
    loss, budget = fold.finish(xp, partial), loss_budget(case.logits, targets, flushes=flushes)
    yield negative_zero(np.where(inside, loss, 1.0), "the loss made of the partial")
    yield worst("the loss made of the partial", loss, exact.loss, budget, k_of["loss"], inside)
    lse, budget = fold.log_partition(xp, partial), lse_budget(case.logits, flushes=flushes)
    yield worst("the log-sum-exp made of the partial", lse, exact.lse, budget, k_of["lse"])
    at_max = np.arange(plain.shape[1]) == plain.argmax(axis=1)[:, None]
    rest = np.log1p(partial.sum_exp_rest)
    usable = ~np.isnan(exact.rest[0])
    budget = loss_budget(case.logits, at_max, flushes=flushes)
    yield worst("log1p(sum_exp_rest)", rest, exact.rest, budget, k_of["loss"], usable)
    yield from mass_faults(call, partial, op, inside & ~is_nan, ~inside)
    nothing = (plain == -math.inf).all(axis=1)
    for row in np.flatnonzero(nothing & (partial.sum_exp_rest != -1))[:1]:
        got = float(partial.sum_exp_rest[row])
        yield Fault(f"sum_exp_rest of row {row}, all −inf, is {got!r}, not -1", int(row), math.inf)


def mass_faults(call: Call, partial: Partial, op: str, inside: Array, outside: Array) -> Iterator[Fault | None]:
    """The target's sum, and its gap where there is no target or no logit above −inf."""
    case, compute = call.case, compute_dtype(call.case.logits.dtype)
    mass = np.nan_to_num(case.dense(op), nan=0.0).sum(axis=1)
    budget = Budget(ulp(mass, compute), np.zeros_like(mass))
    yield worst("target_sum", partial.target_sum, (mass, 0 * mass), budget, 4, inside)
    if op == "sparse" and case.off == 0:
        nothing = (0.0 * mass, 0.0 * mass)
        yield worst("target_sum, without its label,", partial.target_sum, nothing, budget, 0, outside)
        unspoilt = outside & ~np.isnan(case.logits.astype(np.float64)).any(axis=1)
        yield worst("target_gap, without its label,", partial.target_gap, nothing, budget, 0, unspoilt)
    masked = (case.logits.astype(np.float64) == -math.inf).all(axis=1) & inside
    limit = np.where(mass > 0, math.inf, 0.0)
    yield worst("target_gap, of a row of −inf,", partial.target_gap, (limit, 0 * mass), budget, 0, masked)


def gradient_fault(call: Call, gradient: Array, op: str, flushes: bool) -> Fault | None:
    """Gradients times the rows' scales; exactly 0 where the scale is 0; anything where the label is none."""
    case, scale = call.case, call.scales.astype(np.float64)[:, None]
    targets = np.nan_to_num(case.dense(op), nan=0.0)
    is_sparse = op == "sparse" and (case.on, case.off) == (1.0, 0.0)
    budget = gradient_budget(case.logits, targets, is_sparse=is_sparse, flushes=flushes)
    hi, lo = (np.where(scale == 0, 0.0, part * scale) for part in case.exact(op).gradient)
    narrow = 0.5 * ulp(hi, case.logits.dtype) if case.logits.dtype != compute_dtype(case.logits.dtype) else 0.0
    rounding = np.where(scale == 1, 0.0, 2 * np.finfo(compute_dtype(case.logits.dtype)).eps * np.abs(hi) + narrow)
    unit, beyond = (np.where(scale == 0, 0.0, part * np.abs(scale)) for part in budget)
    allowed = Budget(np.maximum(unit, 5e-324), beyond + np.where(scale == 0, 0.0, rounding))
    mask = is_inside(call, op) | (scale[:, 0] == 0)
    return worst("the gradient", gradient, (hi, lo), allowed, k_of["gradient"], mask)


def statistics_faults(call: Call, statistics: Statistics, op: str, flushes: bool) -> Iterator[Fault | None]:
    """The partial, the ranks exactly, and the sums."""
    case = call.case
    yield from partial_faults(call, statistics.partial, op, flushes)
    x, ours = case.logits.astype(np.float64), label_logits(case).astype(np.float64)[:, None]
    before = (x > ours) | ((x == ours) & (np.arange(x.shape[1]) < case.labels[:, None]))
    lost = np.isnan(x).any(axis=1) | (x == -math.inf).all(axis=1)
    ranked = is_inside(call, op) & ~lost  # of no label there is no rank
    for row in np.flatnonzero((statistics.label_rank != before.sum(axis=1)) & ranked)[:1]:
        got, wanted = int(statistics.label_rank[row]), int(before[row].sum())
        yield Fault(f"label_rank of row {row} is {got}, exact {wanted}", int(row), math.inf)
    exact, of = case.exact(op), terms(case.logits, np.zeros(x.shape))
    exps = of.p * (1 + of.rest)
    rounding = 2 * (np.where(exps == 0, 0.0, exps * (1 + of.gap)) * of.rounding).sum(axis=1)
    floor = x.shape[1] * float(np.finfo(compute_dtype(case.logits.dtype)).tiny)
    for name, values, pair in (
        ("sum_squares", statistics.sum_squares, exact.squares),
        ("spread", statistics.spread, exact.spread),
    ):
        budget = Budget(ulp(pair[0], compute_dtype(case.logits.dtype)), rounding + floor * 800)
        yield worst(name, values, pair, budget, STATISTICS_ULPS, np.isfinite(pair[0]))
