r"""The exact numbers of rows in extended precision.

.. math:: \ell = \sum_j t_j (m - x_j) + w \log(1 + r), \qquad g_j = w p_j - t_j, \qquad
          H = \log(1 + r) + \frac{1}{1 + r} \sum_j (m - x_j) e^{x_j - m}

for whole arrays at once, in NumPy's ``longdouble``: 64 bits of significand, and an exponent that neither float64 nor
any sum of gaps overflows. It shares no line with xent's formulas nor with the reference of ``xent.testing``;
``tests/test_fuzz.py`` holds it to mpmath.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from xent.testing.budget import compute_dtype, limits

wide = np.longdouble
IS_EXTENDED = np.finfo(wide).nmant >= 63
"""Whether longdouble is wider than float64 on this machine."""
inf, nan = math.inf, math.nan


class Rows(NamedTuple):
    """The exact numbers of rows of logits and targets, all in extended precision.

    Attributes
    ----------
    loss, lse, entropy, squares : array, shape (rows,)
    gradient, p, log_p : array, shape (rows, classes)
    is_undefined : array of bool, shape (rows,)
        A NaN, two or more +inf, or nothing but −inf.
    overflows : array of bool, shape (rows,)
        m − x has no finite value in the compute dtype, which is outside the budget.
    """

    loss: Any
    lse: Any
    gradient: Any
    p: Any
    log_p: Any
    entropy: Any
    squares: Any
    is_undefined: Any
    overflows: Any


def product(a: Any, b: Any) -> Any:
    """a · b, and 0 where a is, whatever b is."""
    return np.where(a == 0, wide(0), a * np.where(a == 0, wide(0), b))


def nan_where(condition: Any, array: Any) -> Any:
    return np.where(condition, wide(nan), array)


def rows_of(logits: np.ndarray, t: np.ndarray) -> Rows:
    """``logits`` (rows, classes) in the dtype under test; ``t`` the dense targets, smoothed, in extended precision."""
    x = logits.astype(wide)
    has_nan = np.isnan(x).any(axis=1)
    infinite = np.sum(x == inf, axis=1)
    masked = np.all(x == -inf, axis=1)
    undefined = has_nan | (infinite > 1) | masked
    x = np.where(undefined[:, None], wide(0), x)
    m = x.max(axis=1, keepdims=True)
    first = np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]
    gap = np.where(first, wide(0), np.where(first, wide(0), m) - np.where(first, wide(0), x))
    exps = np.where(first, wide(0), np.exp(-gap))
    rest = exps.sum(axis=1, keepdims=True)
    log_rest = np.log1p(rest)
    w, others = t.sum(axis=1, keepdims=True), np.where(first, wide(0), t).sum(axis=1, keepdims=True)
    p = np.where(first, wide(1), exps) / (1 + rest)
    gradient = np.where(first, (others - t * rest) / (1 + rest), w * p - t)
    spread = product(exps, gap).sum(axis=1, keepdims=True)
    lse = np.where(infinite > 0, wide(inf), np.where(masked, -wide(inf), (m + log_rest)[:, 0]))
    largest = np.asarray(limits(compute_dtype(logits.dtype)).max, wide)
    row = undefined[:, None]
    return Rows(
        loss=nan_where(undefined, product(t, gap).sum(axis=1) + (w * log_rest)[:, 0]),
        lse=nan_where(has_nan, lse),
        gradient=nan_where(row, gradient),
        p=nan_where(row, p),
        log_p=nan_where(row, -(gap + log_rest)),
        entropy=nan_where(undefined, (log_rest + spread / (1 + rest))[:, 0]),
        squares=nan_where(undefined, (p * p).sum(axis=1)),
        is_undefined=undefined,
        overflows=np.any(np.isfinite(gap) & (gap > largest), axis=1) & ~undefined,
    )


def binary_of_probabilities(x: Any, t: Any, kind: str) -> tuple[Any, Any, Any]:
    """The loss of elements, its derivative by p or by log p, and the size of the two terms of that.

    .. math:: -t_1 \\log p - t_0 \\log(1 - p)

    ``x`` (n,) is p or log p, ``t`` (n, 2) the masses of no and of yes.
    """
    no, yes = t[:, 0], t[:, 1]
    if kind == "probabilities":
        costs, slopes = (-np.log(x), -np.log1p(-x)), (-1 / x, 1 / (1 - x))
    else:
        below = np.where(x > -0.7, np.log(0 - np.expm1(x)), np.log1p(-np.exp(x)))
        costs, slopes = (-x, -below), (np.full_like(x, -1), np.exp(x) / (0 - np.expm1(x)))
    sizes = np.abs(slopes[0]), np.abs(slopes[1])
    loss, gradient, size = (product(yes, of_yes) + product(no, of_no) for of_yes, of_no in (costs, slopes, sizes))
    return nan_where(np.isnan(x), loss), nan_where(np.isnan(x), gradient), size


def ranks(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the label: larger numbers, and equal ones of a smaller index."""
    x = x.astype(wide)
    at_label = np.take_along_axis(x, labels[:, None], axis=1)
    is_before = np.arange(x.shape[1]) < labels[:, None]
    return np.sum((x > at_label) | ((x == at_label) & is_before), axis=1)
