r"""What a row's numbers are, to fifty digits, by the decimal arithmetic of Python's own library.

.. math:: \ell = \sum_j t_j (m - x_j) + w \log(1 + r), \qquad g_j = w p_j - t_j

with no sum that cancels. A value comes as two float64 numbers, ``hi + lo``. Rows without a softmax, and those with an
infinite logit, are as ``numerics/reference.py`` has them. Targets are t ≥ 0.
"""

from __future__ import annotations

import decimal
import math
from decimal import Decimal
from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np

from ..numerics import reference

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


def row_of(x: list[float], t: list[float]) -> tuple[Decimal, Decimal, Decimal, list[Decimal], Decimal, Decimal]:
    """One row's numbers in the order of :class:`Exact`; its logits are finite or −inf, and not all of them −inf."""
    highest = max(x)
    m, first = Decimal(highest), x.index(highest)
    gaps = [m - Decimal(one) if one != -math.inf else None for one in x]
    exps: dict[Decimal | None, Decimal] = {None: Decimal(0)}
    for gap in gaps:
        if gap not in exps and gap is not None:
            exps[gap] = (-gap).exp()
    besides = [exps[gap] for index, gap in enumerate(gaps) if index != first]
    targets = [Decimal(one) for one in t]
    rest, others = sum(besides, Decimal(0)), sum(targets[:first] + targets[first + 1 :], Decimal(0))
    total, mass, log_total = 1 + rest, others + targets[first], log1p(rest)
    gradient = [mass * exps[gap] / total - target for gap, target in zip(gaps, targets, strict=True)]
    gradient[first] = (others - targets[first] * rest) / total
    at_gaps = Decimal(0)
    for gap, target in zip(gaps, targets, strict=True):
        if target != 0:
            at_gaps += target * (Decimal("Infinity") if gap is None else gap)
    squares = 1 + sum((one * one for one in besides), Decimal(0))
    spread = sum((gap * exps[gap] for gap in gaps if gap is not None), Decimal(0))
    return at_gaps + mass * log_total, m + log_total, log_total, gradient, squares, spread


def pair(values: Any) -> tuple[Array, Array]:
    """Decimals, nested in lists, as two float64 arrays."""
    decimals = np.asarray(values, dtype=object)
    hi = decimals.astype(np.float64)
    rest = [
        float(one - Decimal(float(top))) if np.isfinite(top) else 0.0
        for one, top in zip(decimals.flat, hi.flat, strict=True)
    ]
    return hi, np.asarray(rest, np.float64).reshape(hi.shape)


def exact(logits: Array, targets: Array) -> Exact:
    """The numbers of rows of logits and dense targets, smoothing included, both (rows, classes) and taken as they are.

    A NaN among the targets of a row stands for a label that is none: its loss and gradient are NaN.
    """
    with np.errstate(all="ignore"):  # a signalling NaN is one like any other
        x, t = logits.astype(np.float64), targets.astype(np.float64)
    limit, nothing = Decimal("NaN"), [Decimal("NaN")] * x.shape[1]
    rows = []
    with decimal.localcontext(CONTEXT):
        for logit, target in zip(x, t, strict=True):
            plain = not (np.isnan(logit).any() or (logit == math.inf).any() or (logit == -math.inf).all())
            known = np.nan_to_num(target, nan=0.0)
            one = row_of(logit.tolist(), known.tolist()) if plain else (limit, limit, limit, nothing, limit, limit)
            rows.append(one)
        found = [pair([row[field] for row in rows]) for field in range(len(Exact._fields))]
    loss, lse, rest, gradient, squares, spread = found
    gradient = gradient[0].reshape(x.shape), gradient[1].reshape(x.shape)  # of no rows, too
    with np.errstate(all="ignore"):
        limits = reference.cross_entropy(xp, x, t), reference.logsumexp(xp, x), reference.gradient(xp, x, t)
    odd = np.isnan(loss[0]) | np.isnan(t).any(axis=1)
    for (hi, lo), limit_of in zip((loss, lse, gradient), limits, strict=True):
        where = np.isnan(lse[0]) if hi is lse[0] else odd
        hi[where], lo[where] = limit_of[where], 0.0
    return Exact(loss, lse, rest, gradient, squares, spread)
