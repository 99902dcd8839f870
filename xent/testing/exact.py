r"""What a row's numbers are, to fifty digits, by the decimal arithmetic of Python's own library.

.. math:: \ell = \sum_j t_j (m - x_j) + w \log(1 + r), \qquad g_j = w p_j - t_j

with no sum that cancels. A value comes as two float64 numbers, ``hi + lo``. Rows without a softmax, and those with an
infinite logit, are as ``reference.py`` has them. Targets are t ≥ 0.
"""

from __future__ import annotations

import collections
import decimal
import math
from decimal import Decimal
from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np

from . import reference

Array = np.ndarray[Any, Any]
CONTEXT = decimal.Context(prec=50, Emin=-999999, Emax=999999)
SERIES_BELOW = Decimal("1e-12")


class Exact(NamedTuple):
    """The numbers of rows, each as (hi, lo).

    Attributes
    ----------
    loss, lse : pair of arrays, shape (rows,)
    rest : pair of arrays, shape (rows,)
        log(1 + r): what the loss would be of a label at the maximum.
    gradient : pair of arrays, shape (rows, classes)
    squares, spread : pair of arrays, shape (rows,)
        Σ exp(2(x − m)) and Σ (m − x) exp(x − m) over all classes.
    """

    loss: tuple[Array, Array]
    lse: tuple[Array, Array]
    rest: tuple[Array, Array]
    gradient: tuple[Array, Array]
    squares: tuple[Array, Array]
    spread: tuple[Array, Array]


def log1p(r: Decimal) -> Decimal:
    """log(1 + r), for r ≥ 0 of any size."""
    if r > SERIES_BELOW:
        return (1 + r).ln()
    return r - r * r / 2 + r**3 / 3 - r**4 / 4  # beyond it r⁵ / 5: under one part in 10⁴⁸


def split(value: Decimal) -> tuple[float, float]:
    """A decimal as two floats, hi + lo."""
    hi = float(value)
    return (hi, float(value - Decimal(hi))) if math.isfinite(hi) else (hi, 0.0)


def row_of(x: list[float], t: list[float]) -> list[Any]:
    """One row's numbers in the order of :class:`Exact`, each split; its logits are finite or −inf, and not all −inf.

    Equal logits and targets are taken once, so that many classes of few values cost little.
    """
    highest = max(x)
    m, first = Decimal(highest), x.index(highest)
    pairs = collections.Counter(zip(x, t, strict=True))
    gaps = {one: m - Decimal(one) if one != -math.inf else None for one in set(x)}
    exps = {one: Decimal(0) if gap is None else (-gap).exp() for one, gap in gaps.items()}
    at_first = Decimal(t[first])
    besides = pairs - collections.Counter([(x[first], t[first])])
    rest = sum((count * exps[logit] for (logit, _), count in besides.items()), Decimal(0))
    others = sum((count * Decimal(target) for (_, target), count in besides.items()), Decimal(0))
    total, mass, log_total = 1 + rest, others + at_first, log1p(rest)
    slopes = {pair: split(mass * exps[pair[0]] / total - Decimal(pair[1])) for pair in pairs}
    gradient = [slopes[pair] for pair in zip(x, t, strict=True)]
    gradient[first] = split((others - at_first * rest) / total)
    at_gaps = Decimal(0)
    for (logit, target), count in pairs.items():
        gap = gaps[logit]
        if target != 0:
            at_gaps += count * Decimal(target) * (Decimal("Infinity") if gap is None else gap)
    squares = 1 + sum((count * exps[logit] ** 2 for (logit, _), count in besides.items()), Decimal(0))
    spread = sum((count * (gaps[one] or 0) * exps[one] for (one, _), count in pairs.items()), Decimal(0))
    numbers = (at_gaps + mass * log_total, m + log_total, log_total, None, squares, spread)
    return [gradient if one is None else split(one) for one in numbers]


def exact(logits: Array, targets: Array) -> Exact:
    """The numbers of rows of logits and dense targets, smoothing included, both (rows, classes) and taken as they are.

    A NaN among the targets of a row stands for a label that is none: its loss and gradient are NaN.
    """
    with np.errstate(all="ignore"):  # a signalling NaN is one like any other
        x, t = logits.astype(np.float64), targets.astype(np.float64)
    unknown: list[Any] = [(math.nan, 0.0)] * 6
    unknown[3] = [(math.nan, 0.0)] * x.shape[1]
    known = np.nan_to_num(t, nan=0.0)
    plain = ~(np.isnan(x).any(axis=1) | (x == math.inf).any(axis=1) | (x == -math.inf).all(axis=1))
    seen: dict[bytes, list[Any]] = {}  # of the same rows over and over, each once
    rows = []
    with decimal.localcontext(CONTEXT):
        for logit, target, is_plain in zip(x, known, plain, strict=True):
            key = logit.tobytes() + target.tobytes()
            if key not in seen:
                seen[key] = row_of(logit.tolist(), target.tolist()) if is_plain else unknown
            rows.append(seen[key])
    shapes = [x.shape if name == "gradient" else x.shape[:1] for name in Exact._fields]
    found = [
        np.moveaxis(np.asarray([row[field] for row in rows], np.float64).reshape(*shape, 2), -1, 0)
        for field, shape in enumerate(shapes)
    ]
    loss, lse, rest, gradient, squares, spread = ((hi.copy(), lo.copy()) for hi, lo in found)
    with np.errstate(all="ignore"):
        limits = reference.cross_entropy(xp, x, t), reference.logsumexp(xp, x), reference.gradient(xp, x, t)
    odd = np.isnan(loss[0]) | np.isnan(t).any(axis=1)
    for (hi, lo), limit_of in zip((loss, lse, gradient), limits, strict=True):
        where = np.isnan(lse[0]) if hi is lse[0] else odd
        hi[where], lo[where] = limit_of[where], 0.0
    return Exact(loss, lse, rest, gradient, squares, spread)
