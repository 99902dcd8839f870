r"""The exact answer of a call in extended precision, and how far off an answer may be.

.. math:: \ell = \sum_j t_j (m - x_j) + w \log(1 + r), \qquad g_j = w p_j - t_j, \qquad
          H = \log(1 + r) + \frac{1}{1 + r} \sum_j (m - x_j) e^{x_j - m}

for whole arrays at once, in NumPy's ``longdouble``: 64 bits of significand and an exponent that neither float64 nor any sum
of gaps overflows. It shares no line with xent's formulas nor with the reference of ``xent.testing``; ``tests/test_fuzz.py``
holds it to mpmath. The error budget is the written one, of ``xent.testing.budget``; what it does not speak of (weights,
probabilities, statistics) is allowed the roundings that are named beside it here.
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
    limits,
    loss_budget,
    lse_budget,
    row_terms,
    smallest,
    ulp,
)

from .calls import Call, dtype_named

wide = np.longdouble
IS_EXTENDED = np.finfo(wide).nmant >= 63
"""Whether longdouble is wider than float64 on this machine."""
inf, nan = math.inf, math.nan
STATISTICS_ULPS = 16  # of the sums of row statistics, as in xent.testing


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


class Expected(NamedTuple):
    """What a call returns: its outputs by name, and whether it has a bad label, for which it may raise."""

    numbers: dict[str, Number]
    has_bad_label: bool = False


class Rows(NamedTuple):
    """The exact numbers of rows of logits and targets, all in extended precision."""

    loss: Any
    lse: Any
    gradient: Any
    p: Any
    log_p: Any
    entropy: Any
    squares: Any
    is_undefined: Any  # a NaN, two or more +inf, or nothing but −inf
    overflows: Any  # m − x has no finite value in the compute dtype: outside the budget


def rows_of(x: np.ndarray, t: np.ndarray) -> Rows:
    """``x`` (rows, classes) in the dtype under test, ``t`` the dense targets in extended precision, smoothing included."""
    X = x.astype(wide)
    classes = X.shape[1]
    has_nan = np.isnan(X).any(axis=1)
    infinite = (X == inf).sum(axis=1)
    masked = (X == -inf).all(axis=1)
    undefined = has_nan | (infinite > 1) | masked
    clean = np.where(undefined[:, None], wide(0), X)
    m = clean.max(axis=1, keepdims=True)
    first = np.arange(classes) == clean.argmax(axis=1)[:, None]
    gap = np.where(first, wide(0), np.where(first, wide(0), m) - np.where(first, wide(0), clean))
    exps = np.where(first, wide(0), np.exp(-gap))
    rest = exps.sum(axis=1, keepdims=True)
    log_rest = np.log1p(rest)
    w = t.sum(axis=1, keepdims=True)
    others = np.where(first, wide(0), t).sum(axis=1, keepdims=True)
    loss = np.where(t == 0, wide(0), np.where(t == 0, wide(1), t) * gap).sum(axis=1) + (w * log_rest)[:, 0]
    p = np.where(first, wide(1), exps) / (1 + rest)
    gradient = np.where(first, (others - t * rest) / (1 + rest), w * p - t)
    log_p = -(gap + log_rest)
    finite_gap = np.where(exps == 0, wide(0), np.where(exps == 0, wide(0), gap) * exps)
    entropy = (log_rest + finite_gap.sum(axis=1, keepdims=True) / (1 + rest))[:, 0]
    lse = np.where(has_nan, wide(nan), np.where(infinite > 0, wide(inf), np.where(masked, -wide(inf), (m + log_rest)[:, 0])))
    most = np.asarray(limits(compute_dtype(x.dtype)).max, wide)
    overflows = (np.where(np.isfinite(gap), gap, wide(0)) > most).any(axis=1) & ~undefined
    row = undefined[:, None]
    return Rows(
        np.where(undefined, wide(nan), loss),
        lse,
        np.where(row, wide(nan), gradient),
        np.where(row, wide(nan), p),
        np.where(row, wide(nan), log_p),
        np.where(undefined, wide(nan), entropy),
        np.where(undefined, wide(nan), (p * p).sum(axis=1)),
        undefined,
        overflows,
    )


# -------------------- targets and weights


def expected(call: Call, *, flushes: bool = False, log_ulps: int = 4) -> Expected:
    """The exact outputs of a call.

    ``flushes``: the library takes subnormal numbers for 0. ``log_ulps``: how far its logarithms of probabilities are off.
    """
    with np.errstate(all="ignore"):
        if call.function == "one_hot":
            return Expected({"one_hot": one_hot(call)})
        if call.function == "binary":
            return binary(call, flushes, log_ulps)
        if call.function in ("softmax", "log_softmax", "logsumexp"):
            return Expected(normalised(call, flushes))
        return of_rows(call, flushes, log_ulps)


def flat(array: np.ndarray, axis: int) -> np.ndarray:
    """(rows, classes)"""
    moved = np.moveaxis(array, axis, -1)
    return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])


class Targets(NamedTuple):
    """The targets of the rows, and what is known of each."""

    t: Any  # (rows, classes) in extended precision, smoothed; NaN for a bad label
    is_ignored: Any
    is_bad: Any
    weight: Any  # (rows,)


def targets_of(call: Call) -> Targets:
    classes, axis, options = call.classes, call.axis, call.options
    dtype = compute_dtype(call.predictions.dtype)
    rows = call.predictions.size // classes
    ignored, bad = np.zeros(rows, bool), np.zeros(rows, bool)
    class_weight = options.get("class_weight")
    if class_weight is not None:
        class_weight = np.asarray(class_weight).astype(dtype).astype(wide)
    weight = np.ones(rows, wide)
    if call.is_dense:
        plain = flat(call.targets, axis).astype(dtype).astype(wide)
        if class_weight is not None:
            weight = (plain * class_weight).sum(axis=1)
    else:
        labels = [int(label) for label in call.targets.reshape(-1)]
        named = options.get("ignore_index")
        named = () if named is None else named if isinstance(named, tuple) else (named,)
        ignored |= np.asarray([label in named for label in labels], bool)
        outside = np.asarray([not 0 <= label < classes for label in labels], bool)
        safe = np.asarray([label if 0 <= label < classes else 0 for label in labels], int)
        plain = (np.arange(classes) == safe[:, None]).astype(wide)
        plain[outside] = 0
        if class_weight is not None:
            weight = class_weight[safe]
            weight[outside] = 1
        bad = outside
    sample = options.get("sample_weight")
    if sample is not None:
        sample = sample.reshape(-1)
        ignored |= sample == 0
        weight = weight * sample.astype(dtype).astype(wide)
    if class_weight is not None:
        ignored |= (weight == 0) & ~bad
    bad = bad & ~ignored
    smoothing = options.get("label_smoothing", 0.0)
    t = (1 - wide(smoothing)) * plain + wide(smoothing) / classes if smoothing else plain
    return Targets(t, ignored, bad, np.where(bad, wide(nan), weight))


# -------------------- losses


class Reduced(NamedTuple):
    loss: Number
    share: Any  # (rows,) in extended precision: what multiplies a row's gradient


def reduced(call: Call, loss: Any, allowed: Any, weight: Any, ignored: Any, shape: tuple[int, ...], flushes: bool) -> Reduced:
    """Losses of rows (n,), weighted and reduced, and the share of each row in the gradient."""
    dtype = compute_dtype(call.predictions.dtype)
    eps = float(np.finfo(dtype).eps)
    is_weighted = any(name in call.options for name in ("sample_weight", "class_weight"))
    loss = np.where(ignored, wide(0), loss * weight)
    overflows = bool((np.isfinite(loss) & (np.abs(loss) > 0.99 * float(np.finfo(dtype).max))).any())
    roundings = 4 * eps * np.abs(loss) + smallest(dtype, flushes=flushes) if is_weighted else 0.0
    allowed = np.where(ignored, 0.0, allowed * np.abs(weight).astype(float) + roundings)
    reduction = call.reduction
    if reduction == "none":
        return Reduced(Number(loss.reshape(shape), allowed.reshape(shape), dtype, True), np.where(ignored, wide(0), weight))
    total, spent, divisor, empty = loss.sum(), allowed.sum(), wide(1), wide(0)
    if reduction != "sum":
        mean = xent.Mean() if reduction == "mean" else reduction
        counted = ~ignored
        divisors = {"weights": weight[counted].sum(), "counted": counted.sum(), "all": len(loss)}
        divisor, empty = wide(divisors.get(mean.denominator, mean.denominator)), wide(mean.empty)
    is_empty = not len(loss) or bool(ignored.all())
    value = (empty if reduction != "sum" else wide(0)) if is_empty else total / divisor
    spent = 0.0 if is_empty else spent / float(divisor) + 4 * ulp(np.asarray(value, float), dtype, flushes=flushes)
    share = np.where(ignored, wide(0), weight / (1 if is_empty else divisor))
    return Reduced(Number(value, np.asarray(nan if overflows else spent), dtype), share)


def gradient_number(call: Call, gradient: Any, budget: Budget, share: Any, flushes: bool) -> Number:
    """A gradient (rows, classes) times the row's share, as it is returned: in the dtype of the predictions."""
    dtype, narrow = compute_dtype(call.predictions.dtype), call.predictions.dtype
    scale = share[:, None]
    exact = np.where(scale == 0, wide(0), np.where(scale == 0, wide(0), gradient) * scale)
    allowed = budget.allowed(k_of["gradient"]) * np.abs(scale).astype(float)
    is_scaled = scale != 1
    allowed = allowed + np.where(is_scaled, 4 * float(np.finfo(dtype).eps) * np.abs(exact).astype(float), 0.0)
    allowed = allowed + np.where(is_scaled, smallest(dtype, flushes=flushes), 0.0)
    if narrow != dtype:
        allowed = allowed + 0.5 * ulp(np.abs(exact).astype(float) + allowed, narrow, flushes=flushes)
    allowed = np.where(scale == 0, 0.0, allowed)
    if call.function == "binary":
        shape = call.predictions.shape
        return Number(exact.reshape(shape), allowed.reshape(shape), narrow)
    axis = call.axis
    moved = np.moveaxis(call.predictions, axis, -1).shape
    return Number(
        np.moveaxis(exact.reshape(moved), -1, axis), np.moveaxis(allowed.reshape(moved), -1, axis), narrow
    )


def of_rows(call: Call, flushes: bool, log_ulps: int) -> Expected:
    """Losses of labels and of dense targets, row statistics, and merged slices."""
    targets = targets_of(call)
    x = flat(call.predictions, call.axis)
    batch = tuple(np.delete(call.predictions.shape, call.axis))
    t = np.where(targets.is_bad[:, None] | targets.is_ignored[:, None], wide(0), targets.t)
    dense = t.astype(np.float64)
    dtype = compute_dtype(x.dtype)
    has_bad = bool(targets.is_bad.any())
    if call.kind != "logits":
        return of_probabilities(call, x, t, targets, batch, flushes, log_ulps)
    rows = rows_of(x, t)
    budget = loss_budget(x, dense, flushes=flushes)
    free = np.where(rows.overflows, nan, 1.0)  # outside the budget: anything is right
    loss = np.where(targets.is_bad, wide(nan), rows.loss)
    allowed = budget.allowed(k_of["loss"]) * free
    if call.function == "partial":
        has_mass = t.sum(axis=1) != 0
        finished = Number(np.where(has_mass, loss, wide(nan)).reshape(batch), allowed.reshape(batch), dtype, True)
        return Expected({"loss": finished, "lse": lse_number(x, rows, batch, flushes)})
    if call.function == "statistics":
        return Expected(statistics(call, x, t, targets, rows, allowed, batch, flushes), has_bad)
    result = reduced(call, loss, allowed, targets.weight, targets.is_ignored, batch, flushes)
    is_sparse = not call.is_dense and not call.options.get("label_smoothing")
    unit, constant = gradient_budget(x.astype(dtype), dense, is_sparse=is_sparse, flushes=flushes)
    slopes = Budget(unit * free[:, None], constant * free[:, None])
    gradient = np.where(targets.is_bad[:, None], wide(nan), rows.gradient)
    return Expected(
        {"loss": result.loss, "gradient": gradient_number(call, gradient, slopes, result.share, flushes)}, has_bad
    )


def lse_number(x: np.ndarray, rows: Rows, batch: tuple[int, ...], flushes: bool) -> Number:
    allowed = np.where(rows.overflows, nan, lse_budget(x, flushes=flushes).allowed(k_of["lse"]))
    return Number(rows.lse.reshape(batch), allowed.reshape(batch), compute_dtype(x.dtype))


def of_probabilities(
    call: Call, x: np.ndarray, t: Any, targets: Targets, batch: tuple[int, ...], flushes: bool, log_ulps: int
) -> Expected:
    """The losses of probabilities, or of their logarithms: −Σ t log p, each logarithm some ulps off."""
    X, dtype = x.astype(wide), compute_dtype(x.dtype)
    is_log = call.kind == "log_probabilities"
    has_nan = np.isnan(X).any(axis=1)
    is_nan = np.isnan(X)
    X = np.where(has_nan[:, None], wide(1), X)
    log_p = X if is_log else np.log(X)
    terms = np.where(t == 0, wide(0), np.where(t == 0, wide(0), t) * np.where(t == 0, wide(0), -log_p))
    loss = np.where(has_nan | targets.is_bad, wide(nan), terms.sum(axis=1))
    size = np.abs(terms).sum(axis=1).astype(float)
    least = smallest(dtype, flushes=flushes)
    allowed = log_ulps * ulp(size, dtype, flushes=flushes) + x.shape[1] * least
    has_bad = bool(targets.is_bad.any())
    if call.function == "statistics":
        return Expected(of_given(call, x, X, log_p, has_nan, loss, allowed, targets, batch, flushes, log_ulps), has_bad)
    result = reduced(call, loss, allowed, targets.weight, targets.is_ignored, batch, flushes)
    slope = np.full_like(X, -1) if is_log else -1 / x.astype(wide)
    gradient = np.where(t == 0, wide(0), t * np.where(t == 0, wide(0), slope))
    gradient = np.where(is_nan | targets.is_bad[:, None], wide(nan), gradient)
    unit = ulp(np.abs(gradient).astype(float), dtype, flushes=flushes)
    return Expected(
        {
            "loss": result.loss,
            "gradient": gradient_number(call, gradient, Budget(unit, np.zeros_like(unit)), result.share, flushes),
        },
        has_bad,
    )


def binary(call: Call, flushes: bool, log_ulps: int) -> Expected:
    """Each element a row of two classes, of logits 0 and x."""
    x, dtype = call.predictions.reshape(-1, 1), compute_dtype(call.predictions.dtype)
    shape = call.predictions.shape
    z = call.targets.astype(dtype).astype(wide).reshape(-1)
    c = call.options.get("pos_weight", 1.0)
    c = np.broadcast_to(np.asarray(c).astype(dtype).astype(wide), shape).reshape(-1)
    t = np.stack([1 - z, c * z], axis=1)
    sample = call.options.get("sample_weight")
    weight = np.ones(len(z), wide) if sample is None else sample.reshape(-1).astype(dtype).astype(wide)
    ignored = np.zeros(len(z), bool) if sample is None else sample.reshape(-1) == 0
    t = np.where(ignored[:, None], wide(0), t)
    if call.kind == "logits":
        two = np.concatenate([np.zeros_like(x), x], axis=1).astype(dtype)
        rows = rows_of(two, t)
        loss, gradient = rows.loss, rows.gradient[:, 1:]
        allowed = loss_budget(two, t.astype(np.float64), flushes=flushes).allowed(k_of["loss"])
        whole = gradient_budget(two, t.astype(np.float64), is_sparse=False, flushes=flushes)
        budget = Budget(*(part[:, 1:] for part in whole))
    else:
        loss, gradient, size = binary_of_probabilities(x[:, 0].astype(wide), t, call.kind)
        allowed = log_ulps * ulp(loss.astype(float), dtype, flushes=flushes)
        unit = ulp(size.astype(float), dtype, flushes=flushes)[:, None]
        gradient, budget = gradient[:, None], Budget(unit * log_ulps / 4, np.zeros_like(unit))
    result = reduced(call, loss, allowed, weight, ignored, shape, flushes)
    return Expected({"loss": result.loss, "gradient": gradient_number(call, gradient, budget, result.share, flushes)})


def binary_of_probabilities(x: Any, t: Any, kind: str) -> tuple[Any, Any, Any]:
    """−c z log p − (1 − z) log(1 − p), its derivative by p or by log p, and the size of the two terms of that."""
    no, yes = t[:, 0], t[:, 1]
    if kind == "probabilities":
        costs = -np.log(x), -np.log1p(-x)
        slopes = -1 / x, 1 / (1 - x)
    else:
        costs = -x, -np.where(x > -0.7, np.log(0 - np.expm1(x)), np.log1p(-np.exp(x)))
        slopes = np.full_like(x, -1), np.exp(x) / (0 - np.expm1(x))
    loss, gradient, size = (
        np.where(yes == 0, wide(0), yes * of_yes) + np.where(no == 0, wide(0), no * of_no)
        for of_yes, of_no in (costs, slopes, (np.abs(slopes[0]), np.abs(slopes[1])))
    )
    return *(np.where(np.isnan(x), wide(nan), one) for one in (loss, gradient)), size


# -------------------- statistics and softmax


def ranks(x: np.ndarray, call: Call, has_rank: Any) -> Number:
    """How many classes come before the label; −1 where there is no order or no label."""
    labels = np.asarray([int(y) if 0 <= int(y) < x.shape[1] else 0 for y in call.targets.reshape(-1)], int)
    X = x.astype(wide)
    at_label = np.take_along_axis(X, labels[:, None], axis=1)
    before = (X > at_label) | ((X == at_label) & (np.arange(x.shape[1]) < labels[:, None]))
    rank = np.where(has_rank, before.sum(axis=1), -1).astype(wide)
    return Number(rank, np.zeros(len(rank)), np.dtype(np.int64))


def statistics(
    call: Call, x: np.ndarray, t: Any, targets: Targets, rows: Rows, allowed: Any, batch: tuple[int, ...], flushes: bool
) -> dict[str, Number]:
    """The statistics of logits. The two sums may be 16 ulps off, beside what the subtraction costs; p_label is e^−loss."""
    dtype = compute_dtype(x.dtype)
    no_label = targets.is_ignored | targets.is_bad
    free = np.where(rows.overflows, nan, 1.0)
    terms = row_terms(x, np.zeros(x.shape))
    first = np.arange(x.shape[1]) == terms.p.argmax(axis=1)[:, None]
    least = 800 * x.shape[1] * float(np.finfo(dtype).tiny)
    conditioning = (np.where(terms.p == 0, 0.0, terms.p * (1 + np.where(terms.p == 0, 0.0, terms.gap))) * terms.rounding).sum(axis=1)

    def within(value: Any, ulps: float) -> Any:
        return (ulps * ulp(value.astype(float), dtype, flushes=flushes) + 2 * conditioning + least) * free

    loss = np.where(targets.is_bad, wide(nan), np.where(targets.is_ignored, wide(0), rows.loss))
    label_p = np.where(no_label, wide(nan), np.exp(-rows.loss))
    top = np.where(first, rows.p, wide(0)).max(axis=1)
    top = np.where(rows.is_undefined, wide(nan), top)
    off_by_loss = np.nan_to_num(label_p.astype(float) * allowed, nan=0.0)
    numbers = {
        "loss": Number(loss, np.where(targets.is_ignored, 0.0, allowed), dtype, True),
        "label_probability": Number(
            label_p, (off_by_loss + 4 * ulp(label_p.astype(float), dtype, flushes=flushes)) * free, dtype
        ),
        "top_probability": Number(top, within(top, 4), dtype),
        "label_rank": ranks(x, call, ~no_label & ~rows.is_undefined),
        "entropy": Number(rows.entropy, within(rows.entropy, STATISTICS_ULPS), dtype),
        "sum_p_squared": Number(rows.squares, within(rows.squares, STATISTICS_ULPS), dtype),
        "lse": lse_number(x, rows, (len(x),), flushes),
    }
    return {name: one._replace(exact=one.exact.reshape(batch), allowed=one.allowed.reshape(batch)) for name, one in numbers.items()}


def of_given(
    call: Call,
    x: np.ndarray,
    X: Any,
    log_p: Any,
    has_nan: Any,
    loss: Any,
    allowed: Any,
    targets: Targets,
    batch: tuple[int, ...],
    flushes: bool,
    log_ulps: int,
) -> dict[str, Number]:
    """The statistics of probabilities as they are given: through their logarithms, whose rounding they may be off by."""
    dtype = compute_dtype(x.dtype)
    p = np.exp(log_p) if call.kind == "log_probabilities" else X
    no_label = targets.is_ignored | targets.is_bad
    is_zero = (p == 0).all(axis=1)
    safe_log = np.where(p == 0, wide(0), log_p)
    # a logarithm is an ulp of its own off, and its distance from the largest another
    rounding = 2 * np.where(p == 0, 0.0, ulp(safe_log.astype(float), dtype)) + 2 * ulp(
        np.where(p == 0, wide(0), np.where(p == 0, wide(0), log_p).max(axis=1, keepdims=True, initial=-inf, where=p != 0) - safe_log).astype(float), dtype
    )
    weight = (p * (2 + np.abs(safe_log))).astype(float)
    least = 800 * x.shape[1] * float(np.finfo(dtype).tiny)
    conditioning = 2 * (weight * rounding).sum(axis=1)
    labels = np.asarray([int(y) if 0 <= int(y) < x.shape[1] else 0 for y in call.targets.reshape(-1)], int)
    label_p = np.take_along_axis(p, labels[:, None], axis=1)[:, 0]
    label_log = np.take_along_axis(safe_log, labels[:, None], axis=1)[:, 0]
    terms = -p * safe_log
    entropy, squares, total = terms.sum(axis=1), (p * p).sum(axis=1), p.sum(axis=1)
    top, lse = p.max(axis=1), np.log(total)
    size = np.abs(terms).sum(axis=1).astype(float)

    def within(value: Any, scale: Any, ulps: float) -> Number:
        off = ulps * ulp(np.asarray(scale, float), dtype, flushes=flushes) + conditioning * np.maximum(1.0, total.astype(float)) + least
        return Number(np.where(has_nan, wide(nan), value), off, dtype)

    label_off = 4 * ulp(label_p.astype(float), dtype, flushes=flushes) + label_p.astype(float) * (
        (2 + log_ulps) * ulp(label_log.astype(float), dtype, flushes=flushes)
    )
    relative = (conditioning / np.maximum(total.astype(float), 1e-300)) + 4 * float(np.finfo(dtype).eps)
    highest = np.where(p == 0, -inf, log_p.astype(float)).max(axis=1)
    lse_off = 4 * ulp(np.where(is_zero, 0.0, np.maximum(np.abs(highest), np.abs(lse.astype(float)))), dtype, flushes=flushes) + relative
    numbers = {
        "loss": Number(np.where(targets.is_ignored, wide(0), loss), np.where(targets.is_ignored, 0.0, allowed), dtype, True),
        "label_probability": Number(np.where(no_label | has_nan, wide(nan), label_p), label_off, dtype),
        "top_probability": within(top, top, 4),
        "label_rank": ranks(np.where(has_nan[:, None], 0, x).astype(x.dtype), call, ~no_label & ~has_nan & ~is_zero),
        "entropy": within(entropy, size, STATISTICS_ULPS),
        "sum_p_squared": within(squares, squares, STATISTICS_ULPS),
        "lse": Number(np.where(has_nan, wide(nan), lse), lse_off, dtype),
    }
    return {name: one._replace(exact=one.exact.reshape(batch), allowed=one.allowed.reshape(batch)) for name, one in numbers.items()}


def normalised(call: Call, flushes: bool) -> dict[str, Number]:
    """softmax, log_softmax, logsumexp. An entry of a softmax is a dense gradient's without its target."""
    axis = call.axis
    x, dtype = flat(call.predictions, axis), compute_dtype(call.predictions.dtype)
    batch = tuple(np.delete(call.predictions.shape, axis))
    rows = rows_of(x, np.zeros(x.shape, wide))
    if call.function == "logsumexp":
        number = lse_number(x, rows, batch, flushes)
        if call.options.get("keepdims"):
            number = Number(*(np.expand_dims(part, axis) for part in number[:2]), dtype)
        return {"logsumexp": number}
    terms = row_terms(x, np.zeros(x.shape))
    off = terms.not_p * terms.rounding + terms.others_rounding
    least = x.shape[1] * smallest(dtype, flushes=flushes)
    exact, k = (rows.p, k_of["gradient"]) if call.function == "softmax" else (rows.log_p, k_of["lse"])
    off = terms.p * off if call.function == "softmax" else off
    allowed = k * ulp(np.abs(exact).astype(float), dtype, flushes=flushes) + off + least
    allowed = np.where(rows.overflows[:, None], nan, allowed)
    moved = np.moveaxis(call.predictions, axis, -1).shape
    back = (np.moveaxis(part.reshape(moved), -1, axis) for part in (exact, allowed))
    return {call.function: Number(*back, dtype)}


def one_hot(call: Call) -> Number:
    """Each value is one of two, to the bit."""
    options = call.options
    classes, axis = options["num_classes"], options.get("axis", -1)
    labels = np.asarray([int(label) for label in call.targets.reshape(-1)], object).reshape(call.targets.shape)
    hit = np.asarray(labels[..., None] == np.arange(classes).astype(object), bool).reshape(*labels.shape, classes)
    exact = np.where(hit, wide(options.get("on_value", 1.0)), wide(options.get("off_value", 0.0)))
    exact = np.moveaxis(exact, -1, axis)
    return Number(exact, np.zeros(exact.shape), np.dtype(np.float32))


expected_once = functools.lru_cache(maxsize=8)(expected)
"""The same, kept for the doors of one call."""

__all__ = ["IS_EXTENDED", "Expected", "Number", "dtype_named", "expected", "expected_once", "rows_of", "wide"]
