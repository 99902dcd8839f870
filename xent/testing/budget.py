r"""The error budget: the tolerance of every comparison with an exact answer. It is defined here and nowhere else.

.. math:: |\text{actual} - \text{exact}| \le k \, \mathrm{ulp}(\text{scale})
          + \sum_j \Bigl|\frac{\partial\,\text{exact}}{\partial x_j}\Bigr| \, u_j + \max(w, 1) \, C \, s, \qquad
          u_j = \mathrm{ulp}\bigl(\min(m - x_j, \max(|x_j|, |m|))\bigr)

The scale of a loss is the loss; of an lse max(\|m\|, log1p r); of a gradient's entry the row's largest entry where the
targets are labels without smoothing, else the entry's own max(w p, t). k is 4, for gradients 8.

The second term is what rounding m - x costs in the compute dtype. It is small at a common offset, where the
subtraction is exact. The derivative is the gradient for the loss, p for the lse, and w p_i ([i = j] - p_j) for entry i
of the gradient.

In the third term s is the smallest subnormal number, or the smallest normal one if the library flushes subnormals.
float16 and bfloat16 gradients get half an ulp of their own dtype on top. Rows whose m - x overflows are outside the
budget. An exact value that is not finite must be met exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

k_of = {"loss": 4, "lse": 4, "gradient": 8}


def compute_dtype(dtype: Any) -> Any:
    """The dtype that the library computes in and returns: float64 for float64, float32 for all others."""
    return np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)


def limits(dtype: Any) -> Any:
    """The machine limits of a dtype, bfloat16's too."""
    if np.dtype(dtype).kind == "f":
        return np.finfo(dtype)
    import ml_dtypes  # installed wherever an array of such a dtype exists

    return ml_dtypes.finfo(dtype)


def ulp(value: Array, dtype: Any, *, flushes: bool = False) -> Array:
    """The distance between neighbours of ``dtype`` at |value|, never under :func:`smallest`."""
    info = limits(dtype)
    _, exponent = np.frexp(np.abs(value))
    exponent = np.where(value == 0, info.minexp, exponent)
    spacing = np.ldexp(1.0, np.maximum(exponent - 1, info.minexp) - info.nmant)
    return np.asarray(np.maximum(spacing, smallest(dtype, flushes=flushes)))


def smallest(dtype: Any, *, flushes: bool = False) -> float:
    """The smallest subnormal number; the smallest normal one if subnormals are flushed."""
    info = limits(dtype)
    return float(info.smallest_normal if flushes else info.smallest_subnormal)


class Budget(NamedTuple):
    """An answer may be ``k * unit + constant`` off: the ulps that k counts, and what is allowed for any k."""

    unit: Array
    constant: Array

    def allowed(self, k: float) -> Array:
        return k * self.unit + self.constant


class RowTerms(NamedTuple):
    """The terms that every budget is made of, in float64, each (rows, 1) or (rows, classes)."""

    t: Array  # targets, smoothing included
    w: Array  # their sum
    highest: Array
    rest: Array  # the sum of exp(x - m) over all but the first maximum
    gap: Array  # m - x
    p: Array
    not_p: Array  # 1 - p, without cancellation
    gradient: Array  # w p - t, without cancellation at the maximum
    rounding: Array  # u of the formula; 0 where a logit is infinite
    others_rounding: Array  # sum of p * rounding over all classes but this one


def row_terms(logits: Array, targets: Array) -> RowTerms:
    """The terms of rows of logits, in the dtype under test, and of dense targets, smoothing included."""
    x, t = logits.astype(np.float64), targets.astype(np.float64)
    classes = x.shape[-1]
    is_first_max = np.arange(classes) == np.argmax(x, axis=-1)[:, None]
    highest = np.max(x, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        gap = np.where(is_first_max, 0.0, highest - x)
        exps = np.where(is_first_max, 0.0, np.exp(-gap))
        rest = exps.sum(axis=-1, keepdims=True)
        p = np.where(is_first_max, 1.0, exps) / (1 + rest)
        not_p = np.where(is_first_max, rest / (1 + rest), 1 - p)
        w = t.sum(axis=-1, keepdims=True)
        others_t = np.where(is_first_max, 0.0, t).sum(axis=-1, keepdims=True)
        gradient = np.where(is_first_max, (others_t - t * rest) / (1 + rest), w * p - t)
        operand = np.maximum(np.abs(x), np.abs(highest))
        subtraction = ulp(np.minimum(gap, operand), compute_dtype(logits.dtype))
        rounding = np.where(np.isfinite(gap) & np.isfinite(operand), subtraction, 0.0)
        max_rounding = np.where(is_first_max, p * rounding, 0.0).sum(axis=-1, keepdims=True)
        rest_rounding = np.where(is_first_max, 0.0, p * rounding).sum(axis=-1, keepdims=True)
        others_rounding = rest_rounding + np.where(is_first_max, 0.0, max_rounding - p * rounding)
    return RowTerms(t, w, highest, rest, gap, p, not_p, gradient, rounding, others_rounding)


def underflow(logits: Array, row: RowTerms, flushes: bool) -> Array:
    """The third term, (rows, 1): what underflow may drop from a row, C exponentials of less than s each."""
    least = smallest(compute_dtype(logits.dtype), flushes=flushes)
    return np.asarray(np.maximum(row.w, 1.0) * logits.shape[-1] * least)


def loss_budget(logits: Array, targets: Array, *, flushes: bool = False) -> Budget:
    """The budget of each row's loss, (rows,). ``targets`` are dense, smoothing included."""
    row = row_terms(logits, targets)
    with np.errstate(invalid="ignore"):
        loss = np.where(row.t == 0, 0.0, row.t * row.gap).sum(axis=-1) + row.w[:, 0] * np.log1p(row.rest[:, 0])
    conditioning = (np.abs(row.gradient) * row.rounding).sum(axis=-1)
    unit = ulp(loss, compute_dtype(logits.dtype), flushes=flushes)
    return Budget(unit, conditioning + underflow(logits, row, flushes)[:, 0])


def lse_budget(logits: Array, *, flushes: bool = False) -> Budget:
    """The budget of each row's log-sum-exp, (rows,), relative to max(|m|, log1p r)."""
    row = row_terms(logits, np.zeros(logits.shape))
    scale = np.maximum(np.abs(row.highest), np.log1p(row.rest))[:, 0]
    conditioning = (row.p * row.rounding).sum(axis=-1)
    unit = ulp(scale, compute_dtype(logits.dtype), flushes=flushes)
    return Budget(unit, conditioning + underflow(logits, row, flushes)[:, 0])


def gradient_budget(logits: Array, targets: Array, *, is_sparse: bool, flushes: bool = False) -> Budget:
    """The budget of each entry, (rows, classes). ``is_sparse``: the targets are labels without smoothing."""
    row = row_terms(logits, targets)
    entry = np.abs(row.gradient)
    scale = np.maximum(row.w * row.p, row.t)
    if is_sparse:
        scale = np.broadcast_to(entry.max(axis=-1, keepdims=True), entry.shape)
    unit = ulp(scale, compute_dtype(logits.dtype), flushes=flushes)
    constant = row.w * row.p * (row.not_p * row.rounding + row.others_rounding) + underflow(logits, row, flushes)
    if logits.dtype != compute_dtype(logits.dtype):
        # subtle: the value that is rounded to the narrow dtype is off by its own budget, and may be in the next binade.
        rounded = entry + k_of["gradient"] * unit + constant
        constant = constant + 0.5 * ulp(rounded, logits.dtype, flushes=flushes)
    return Budget(unit, constant)


def distance(actual: Array, hi: Array, lo: Array) -> Array:
    """How far ``actual`` is from ``hi + lo``: 0 at the same infinity or NaN, +inf if exactly one of them is finite."""
    wide = np.asarray(actual).astype(np.float64)
    with np.errstate(invalid="ignore"):
        # subtle: actual - hi is exact within a factor of two, and its rounding is far under the distance elsewhere.
        difference = np.abs((wide - hi) - lo)
    finite = np.isfinite(wide) & np.isfinite(hi)
    same = (wide == hi) | (np.isnan(wide) & np.isnan(hi))
    return np.where(finite, difference, np.where(same, 0.0, np.inf))
