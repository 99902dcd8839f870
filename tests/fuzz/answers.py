"""The exact answers of a call, and how far off an answer may be.

The error budget is the written one, of ``xent.testing.budget``. What that does not speak of (weights, probabilities,
statistics) is allowed the roundings that are named beside it here.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

import xent
from xent.testing.budget import (
    Budget,
    compute_dtype,
    gradient_budget,
    k_of,
    loss_budget,
    lse_budget,
    row_terms,
    smallest,
    ulp,
)

from .calls import Call
from .exact_numbers import Rows, binary_of_probabilities, nan_where, product, ranks, rows_of, wide

inf, nan = math.inf, math.nan
WEIGHT_ULPS = 4  # of the product of two weights, and of that with the loss
STATISTICS_ULPS = 16  # of the sums of row statistics, as in xent.testing


class Arithmetic(NamedTuple):
    """What is known of a library's arithmetic.

    Attributes
    ----------
    flushes : bool
        Subnormal numbers are taken for 0.
    log_ulps : int
        How far its logarithms of probabilities are off.
    """

    flushes: bool = False
    log_ulps: int = 4

    def ulp(self, value: Any, dtype: np.dtype) -> Any:
        return ulp(np.abs(np.asarray(value)).astype(float), dtype, flushes=self.flushes)

    def smallest(self, dtype: np.dtype) -> float:
        return smallest(dtype, flushes=self.flushes)

    def seen(self, x: np.ndarray) -> np.ndarray:
        """The numbers as they are compared."""
        return np.where(np.abs(x) < self.smallest(compute_dtype(x.dtype)), 0, x) if self.flushes else x


class Number(NamedTuple):
    """An exact output.

    Attributes
    ----------
    exact : array of longdouble
    allowed : array of float64
        How far off an answer may be; NaN where anything is right.
    dtype : the dtype that is promised
    is_loss : whether −0.0 is wrong
    """

    exact: Any
    allowed: Any
    dtype: np.dtype
    is_loss: bool = False

    def reshape(self, shape: tuple[int, ...]) -> "Number":
        return self._replace(exact=np.reshape(self.exact, shape), allowed=np.reshape(self.allowed, shape))


class Answer(NamedTuple):
    """What a call returns: its outputs by name, and whether it has a bad label, for which it may raise."""

    numbers: dict[str, Number]
    has_bad_label: bool = False


EXACT = Arithmetic()


@functools.lru_cache(maxsize=8)  # for the doors of one call
def answer_of(call: Call, arithmetic: Arithmetic = EXACT) -> Answer:
    """The exact outputs of a call."""
    with np.errstate(all="ignore"):
        if call.function == "one_hot":
            return Answer({"one_hot": one_hot(call)})
        if call.function == "binary":
            return binary(call, arithmetic)
        if call.function in ("softmax", "log_softmax", "logsumexp"):
            return Answer({call.function: normalised(call, arithmetic)})
        if call.kind == "logits":
            return of_logits(call, arithmetic)
        return of_probabilities(call, arithmetic)


# -------------------- rows


def flat(array: np.ndarray, axis: int) -> np.ndarray:
    """(rows, classes)"""
    moved = np.moveaxis(array, axis, -1)
    return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])


def unflat(array: Any, call: Call) -> Any:
    """(rows, classes) to the shape of the predictions."""
    moved = np.moveaxis(call.predictions, call.axis, -1).shape
    return np.moveaxis(array.reshape(moved), -1, call.axis)


def batch_of(call: Call) -> tuple[int, ...]:
    """The shape without the class axis."""
    return call.predictions.shape[: call.axis] + call.predictions.shape[call.axis + 1 :]


class Targets(NamedTuple):
    """The targets of the rows, and what is known of each.

    Attributes
    ----------
    t : array, shape (rows, classes)
        In extended precision, smoothed; 0 in a row that is ignored or has a bad label.
    is_ignored, is_bad : array of bool, shape (rows,)
    weight : array, shape (rows,)
    labels : array of int, shape (rows,)
        0 in the place of a bad one; all 0 of dense targets.
    """

    t: Any
    is_ignored: Any
    is_bad: Any
    weight: Any
    labels: Any


def targets_of(call: Call) -> Targets:
    classes, options = call.classes, call.options
    dtype = compute_dtype(call.predictions.dtype)
    rows = call.predictions.size // classes
    is_ignored, is_bad, labels = np.zeros(rows, bool), np.zeros(rows, bool), np.zeros(rows, int)
    if call.is_dense:
        t = flat(call.targets, call.axis).astype(dtype).astype(wide)
    else:
        given = [int(label) for label in call.targets.reshape(-1)]
        named = options.get("ignore_index")
        named = () if named is None else named if isinstance(named, tuple) else (named,)
        is_ignored |= np.asarray([label in named for label in given], bool)
        is_bad |= np.asarray([not 0 <= label < classes for label in given], bool)
        labels = np.where(is_bad, 0, np.asarray([0 if bad else y for y, bad in zip(given, is_bad, strict=True)], int))
        t = np.where(is_bad[:, None], wide(0), np.arange(classes) == labels[:, None])
    weight = np.ones(rows, wide)
    if options.get("class_weight") is not None:
        weight = (t * np.asarray(options["class_weight"]).astype(dtype).astype(wide)).sum(axis=1)
        is_ignored |= (weight == 0) & ~is_bad
    if options.get("sample_weight") is not None:
        sample = options["sample_weight"].reshape(-1)
        is_ignored |= sample == 0
        weight = weight * sample.astype(dtype).astype(wide)
    is_bad &= ~is_ignored
    smoothing = options.get("label_smoothing", 0.0)
    t = (1 - wide(smoothing)) * t + wide(smoothing) / classes if smoothing else t
    t = np.where((is_bad | is_ignored)[:, None], wide(0), t)
    return Targets(t, is_ignored, is_bad, nan_where(is_bad, weight), labels)


# -------------------- losses and gradients


class Reduced(NamedTuple):
    loss: Number
    share: Any  # (rows,) in extended precision: what multiplies a row's gradient


def reduced(
    call: Call, arithmetic: Arithmetic, loss: Any, allowed: Any, weight: Any, is_ignored: Any, shape: tuple[int, ...]
) -> Reduced:
    """Losses of rows (n,), weighted and reduced, and the share of each row in the gradient.

    A sum or a mean may be off by what its rows may, and by 4 ulp.
    """
    dtype, reduction = compute_dtype(call.predictions.dtype), call.reduction
    eps, largest = float(np.finfo(dtype).eps), float(np.finfo(dtype).max)
    plain, loss = loss, np.where(is_ignored, wide(0), loss * weight)
    allowed = allowed * np.abs(weight).astype(float)
    # a loss that its dtype cannot hold, weighted or not
    is_too_large = [np.isfinite(one) & (np.abs(one) > 0.99 * largest) for one in (plain, loss)]
    allowed = np.where(is_too_large[0] | is_too_large[1], nan, allowed)
    if "sample_weight" in call.options or "class_weight" in call.options:
        allowed = allowed + WEIGHT_ULPS * eps * np.abs(loss).astype(float) + arithmetic.smallest(dtype)
    allowed = np.where(is_ignored, 0.0, allowed)
    share = np.where(is_ignored, wide(0), weight)
    if reduction == "none":
        return Reduced(Number(loss, allowed, dtype, True).reshape(shape), share)
    value, divisor, empty = loss.sum(), wide(1), wide(0)
    if reduction != "sum":
        mean = xent.Mean() if reduction == "mean" else reduction
        divisors = {"weights": weight[~is_ignored].sum(), "counted": (~is_ignored).sum(), "all": len(loss)}
        divisor, empty = wide(divisors.get(mean.denominator, mean.denominator)), wide(mean.empty)
    if is_ignored.all():  # no rows at all, too
        return Reduced(Number(empty, np.asarray(0.0), dtype), share)
    if np.sum(np.where(np.isfinite(loss), np.abs(loss), wide(0))) > 0.99 * largest:  # as of a row
        allowed = np.full_like(allowed, nan)
    value = value / divisor
    spent = allowed.sum() / float(divisor) + 4 * arithmetic.ulp(value, dtype)
    return Reduced(Number(value, np.asarray(spent), dtype), share / divisor)


def gradient_number(call: Call, arithmetic: Arithmetic, gradient: Any, budget: Budget, share: Any) -> Number:
    """A gradient (rows, classes) times the row's share, as it is returned: in the dtype of the predictions."""
    dtype, narrow = compute_dtype(call.predictions.dtype), call.predictions.dtype
    scale = share[:, None]
    exact = product(scale, gradient)
    allowed = budget.allowed(k_of["gradient"]) * np.abs(scale).astype(float)
    roundings = WEIGHT_ULPS * float(np.finfo(dtype).eps) * np.abs(exact).astype(float) + arithmetic.smallest(dtype)
    allowed = allowed + np.where(scale == 1, 0.0, roundings)
    if narrow != dtype:
        allowed = allowed + 0.5 * arithmetic.ulp(np.abs(exact).astype(float) + allowed, narrow)
    return Number(exact, np.where(scale == 0, 0.0, allowed), narrow)


def of_logits(call: Call, arithmetic: Arithmetic) -> Answer:
    """Losses of labels and of dense targets, row statistics, and merged slices."""
    targets, x, batch = targets_of(call), flat(call.predictions, call.axis), batch_of(call)
    dtype, dense = compute_dtype(x.dtype), targets.t.astype(np.float64)
    rows = rows_of(x, targets.t)
    free = np.where(rows.overflows, nan, 1.0)  # outside the budget: anything is right
    allowed = loss_budget(x, dense, flushes=arithmetic.flushes).allowed(k_of["loss"]) * free
    loss = nan_where(targets.is_bad, rows.loss)
    if call.function == "partial":
        finished = Number(nan_where(targets.t.sum(axis=1) == 0, loss), allowed, dtype, True)
        return Answer({"loss": finished.reshape(batch), "lse": lse_number(x, rows, arithmetic).reshape(batch)})
    has_bad_label = bool(targets.is_bad.any())
    if call.function == "statistics":
        numbers = statistics(x, rows, targets, allowed, arithmetic)
        return Answer({name: one.reshape(batch) for name, one in numbers.items()}, has_bad_label)
    result = reduced(call, arithmetic, loss, allowed, targets.weight, targets.is_ignored, batch)
    is_sparse = not call.is_dense and not call.options.get("label_smoothing")
    budget = gradient_budget(x.astype(dtype), dense, is_sparse=is_sparse, flushes=arithmetic.flushes)
    budget = Budget(*(part * free[:, None] for part in budget))
    gradient = nan_where(targets.is_bad[:, None], rows.gradient)
    slopes = gradient_number(call, arithmetic, gradient, budget, result.share)
    slopes = slopes._replace(exact=unflat(slopes.exact, call), allowed=unflat(slopes.allowed, call))
    return Answer({"loss": result.loss, "gradient": slopes}, has_bad_label)


def lse_number(x: np.ndarray, rows: Rows, arithmetic: Arithmetic) -> Number:
    allowed = lse_budget(x, flushes=arithmetic.flushes).allowed(k_of["lse"])
    return Number(rows.lse, np.where(rows.overflows, nan, allowed), compute_dtype(x.dtype))


def of_probabilities(call: Call, arithmetic: Arithmetic) -> Answer:
    """The losses of probabilities, or of their logarithms: −Σ t log p, each logarithm some ulps off."""
    targets, given, batch = targets_of(call), flat(call.predictions, call.axis), batch_of(call)
    x, t, dtype = given.astype(wide), targets.t, compute_dtype(given.dtype)
    is_nan = np.isnan(x)
    has_nan = is_nan.any(axis=1)
    log_p = np.where(has_nan[:, None], wide(0), x if call.kind == "log_probabilities" else np.log(x))
    terms = product(t, 0 - log_p)
    loss = nan_where(has_nan | targets.is_bad, terms.sum(axis=1))
    size = np.abs(terms).sum(axis=1)
    allowed = arithmetic.log_ulps * arithmetic.ulp(size, dtype) + x.shape[1] * arithmetic.smallest(dtype)
    has_bad_label = bool(targets.is_bad.any())
    if call.function == "statistics":
        numbers = statistics_of_probabilities(
            call, given, log_p, has_nan, Number(loss, allowed, dtype, True), targets, arithmetic
        )
        return Answer({name: one.reshape(batch) for name, one in numbers.items()}, has_bad_label)
    result = reduced(call, arithmetic, loss, allowed, targets.weight, targets.is_ignored, batch)
    slope = np.full_like(x, -1) if call.kind == "log_probabilities" else -1 / x
    gradient = nan_where(is_nan | targets.is_bad[:, None], product(t, slope))
    unit = arithmetic.ulp(gradient, dtype)
    slopes = gradient_number(call, arithmetic, gradient, Budget(unit, 0 * unit), result.share)
    slopes = slopes._replace(exact=unflat(slopes.exact, call), allowed=unflat(slopes.allowed, call))
    return Answer({"loss": result.loss, "gradient": slopes}, has_bad_label)


def binary(call: Call, arithmetic: Arithmetic) -> Answer:
    """Each element is a row of two classes, of logits 0 and x."""
    x, dtype, shape = call.predictions.reshape(-1), compute_dtype(call.predictions.dtype), call.predictions.shape
    z = call.targets.astype(dtype).astype(wide).reshape(-1)
    c = np.asarray(call.options.get("pos_weight", 1.0)).astype(dtype).astype(wide)
    t = np.stack([1 - z, np.broadcast_to(c, shape).reshape(-1) * z], axis=1)
    sample = call.options.get("sample_weight", np.ones(shape)).reshape(-1)
    is_ignored = sample == 0
    t = np.where(is_ignored[:, None], wide(0), t)
    if call.kind == "logits":
        two = np.stack([np.zeros_like(x), x], axis=1).astype(dtype)
        rows, dense = rows_of(two, t), t.astype(np.float64)
        loss, gradient = rows.loss, rows.gradient[:, 1:]
        allowed = loss_budget(two, dense, flushes=arithmetic.flushes).allowed(k_of["loss"])
        whole = gradient_budget(two, dense, is_sparse=False, flushes=arithmetic.flushes)
        budget = Budget(*(part[:, 1:] for part in whole))
    else:
        loss, gradient, size = binary_of_probabilities(x.astype(wide), t, call.kind)
        allowed = arithmetic.log_ulps * arithmetic.ulp(loss, dtype)
        unit = arithmetic.ulp(size, dtype)[:, None] * arithmetic.log_ulps / 4
        gradient, budget = gradient[:, None], Budget(unit, 0 * unit)
    weight = sample.astype(dtype).astype(wide)
    result = reduced(call, arithmetic, loss, allowed, weight, is_ignored, shape)
    slopes = gradient_number(call, arithmetic, gradient, budget, result.share)
    return Answer({"loss": result.loss, "gradient": slopes.reshape(shape)})


# -------------------- statistics, softmax, one-hot


def of_label(targets: Targets, loss: Number, probability: Number, rank: Any) -> dict[str, Number]:
    """What a statistic of the label is, and what it is without one."""
    has_none = targets.is_ignored | targets.is_bad
    exact, allowed = np.where(targets.is_ignored, wide(0), loss.exact), np.where(targets.is_ignored, 0.0, loss.allowed)
    rank = np.where(has_none, -1, rank).astype(wide)
    return {
        "loss": loss._replace(exact=nan_where(targets.is_bad, exact), allowed=allowed),
        "label_probability": probability._replace(exact=nan_where(has_none, probability.exact)),
        "label_rank": Number(rank, np.zeros(len(rank)), np.dtype(np.int64)),
    }


def statistics(x: np.ndarray, rows: Rows, targets: Targets, allowed: Any, arithmetic: Arithmetic) -> dict[str, Number]:
    """The statistics of logits: two sums may be 16 ulp off, beside what the subtraction costs; p_label is e^−loss."""
    dtype, free = compute_dtype(x.dtype), np.where(rows.overflows, nan, 1.0)
    terms = row_terms(x, np.zeros(x.shape))
    sizes = np.where(terms.p == 0, 0.0, terms.p * (1 + np.where(terms.p == 0, 0.0, terms.gap)))
    conditioning = 2 * (sizes * terms.rounding).sum(axis=1) + 800 * x.shape[1] * float(np.finfo(dtype).tiny)

    def within(value: Any, ulps: int) -> Number:
        return Number(value, (ulps * arithmetic.ulp(value, dtype) + conditioning) * free, dtype)

    loss = rows.loss
    probability = np.exp(-loss)
    off = np.nan_to_num(probability.astype(float) * allowed, nan=0.0) + 4 * arithmetic.ulp(probability, dtype)
    return {
        **of_label(
            targets,
            Number(loss, allowed, dtype, True),
            Number(probability, off * free, dtype),
            np.where(rows.is_undefined, -1, ranks(arithmetic.seen(x), targets.labels)),
        ),
        "lse": lse_number(x, rows, arithmetic),
        "top_probability": within(rows.p.max(axis=1), 4),
        "entropy": within(rows.entropy, STATISTICS_ULPS),
        "sum_p_squared": within(rows.squares, STATISTICS_ULPS),
    }


def statistics_of_probabilities(
    call: Call, given: np.ndarray, log_p: Any, has_nan: Any, loss: Number, targets: Targets, arithmetic: Arithmetic
) -> dict[str, Number]:
    """The statistics of probabilities as they are given: through logarithms, whose rounding they may be off by."""
    dtype, classes = compute_dtype(given.dtype), given.shape[1]
    p = np.where(has_nan[:, None], wide(1), np.exp(log_p) if call.kind == "log_probabilities" else given.astype(wide))
    finite_log = np.where(p == 0, wide(0), log_p)
    highest = np.max(log_p, axis=1, keepdims=True, initial=-inf, where=p != 0)
    is_zero = np.all(p == 0, axis=1)
    # a logarithm is an ulp of its own off, and its distance from the largest another
    distance = np.where(p == 0, wide(0), np.where(np.isfinite(highest), highest, wide(0)) - finite_log)
    rounding = 2 * arithmetic.ulp(finite_log, dtype) + 2 * arithmetic.ulp(distance, dtype)
    off_by_logs = 2 * (p * (2 + np.abs(finite_log))).astype(float) * rounding
    total, entropy, squares = p.sum(axis=1), product(p, 0 - log_p).sum(axis=1), (p * p).sum(axis=1)
    least = 800 * classes * float(np.finfo(dtype).tiny)
    off = np.maximum(1.0, total.astype(float)) * off_by_logs.sum(axis=1) + least

    def within(value: Any, size: Any, ulps: int) -> Number:
        return Number(nan_where(has_nan, value), ulps * arithmetic.ulp(size, dtype) + off, dtype)

    at_label = np.take_along_axis(p, targets.labels[:, None], axis=1)[:, 0]
    log_at_label = np.take_along_axis(finite_log, targets.labels[:, None], axis=1)[:, 0]
    label_off = 4 * arithmetic.ulp(at_label, dtype)
    label_off += at_label.astype(float) * (2 + arithmetic.log_ulps) * arithmetic.ulp(log_at_label, dtype)
    lse = np.log(total)
    lse_scale = np.where(is_zero, wide(0), np.maximum(np.abs(highest[:, 0]), np.abs(lse)))
    lse_off = off / np.maximum(total.astype(float), 1e-300) + 4 * float(np.finfo(dtype).eps)
    has_rank = ~has_nan & ~is_zero
    return {
        **of_label(
            targets,
            loss,
            Number(nan_where(has_nan, at_label), label_off, dtype),
            np.where(has_rank, ranks(given, targets.labels), -1),
        ),
        "lse": Number(nan_where(has_nan, lse), 4 * arithmetic.ulp(lse_scale, dtype) + lse_off, dtype),
        "top_probability": within(p.max(axis=1), p.max(axis=1), 4),
        "entropy": within(entropy, np.abs(product(p, log_p)).sum(axis=1), STATISTICS_ULPS),
        "sum_p_squared": within(squares, squares, STATISTICS_ULPS),
    }


def normalised(call: Call, arithmetic: Arithmetic) -> Number:
    """softmax, log_softmax, logsumexp. An entry of a softmax is that of a dense gradient without a target."""
    x, dtype = flat(call.predictions, call.axis), compute_dtype(call.predictions.dtype)
    rows = rows_of(x, np.zeros(x.shape, wide))
    if call.function == "logsumexp":
        number = lse_number(x, rows, arithmetic).reshape(batch_of(call))
        if call.options.get("keepdims"):
            shape = call.predictions.shape
            return number.reshape((*shape[: call.axis], 1, *shape[call.axis + 1 :]))
        return number
    terms = row_terms(x, np.zeros(x.shape))
    off = terms.not_p * terms.rounding + terms.others_rounding
    exact, k = (rows.p, k_of["gradient"]) if call.function == "softmax" else (rows.log_p, k_of["lse"])
    off = (terms.p * off if call.function == "softmax" else off) + x.shape[1] * arithmetic.smallest(dtype)
    allowed = np.where(rows.overflows[:, None], nan, k * arithmetic.ulp(exact, dtype) + off)
    return Number(unflat(exact, call), unflat(allowed, call), dtype)


def one_hot(call: Call) -> Number:
    """Each value is one of two, to the bit."""
    options, shape = call.options, call.targets.shape
    labels = [int(label) for label in call.targets.reshape(-1)]
    hit = np.asarray([[label == one for one in range(options["num_classes"])] for label in labels], bool)
    exact = np.where(hit, wide(options.get("on_value", 1.0)), wide(options.get("off_value", 0.0)))
    exact = np.moveaxis(exact.reshape(*shape, options["num_classes"]), -1, options.get("axis", -1))
    return Number(exact, np.zeros(exact.shape), np.dtype(np.float32))
