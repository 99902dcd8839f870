r"""The exact numbers of a row, to fifty digits, by the decimal arithmetic of Python's own library.

.. math:: \ell = \sum_j t_j (m - x_j) + w \log(1 + r), \qquad g_j = w p_j - t_j

with no sum that cancels. A value is a pair of float64 numbers, ``hi + lo``. The numbers of rows without a softmax, and
of rows with an infinite logit, are those of ``reference.py``. Targets are t ≥ 0.
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
        log(1 + r): the loss of a label at the maximum.
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
    return r - r * r / 2 + r**3 / 3 - r**4 / 4  # the next term is r⁵ / 5: under one part in 10⁴⁸


def split(value: Decimal) -> tuple[float, float]:
    """A decimal as two floats, hi + lo."""
    hi = float(value)
    return (hi, float(value - Decimal(hi))) if math.isfinite(hi) else (hi, 0.0)


def row_of(x: list[float], t: list[float]) -> list[Any]:
    """One row's numbers in the order of :class:`Exact`, each split; its logits are finite or −inf, and not all −inf.

    Equal pairs of logit and target are computed once, so that many classes of few values cost little.
    """
    highest = max(x)
    m, first = Decimal(highest), x.index(highest)
    pairs = collections.Counter(zip(x, t, strict=True))
    gaps = {logit: m - Decimal(logit) if logit != -math.inf else None for logit in set(x)}
    exps = {logit: Decimal(0) if gap is None else (-gap).exp() for logit, gap in gaps.items()}
    max_target = Decimal(t[first])
    other_pairs = pairs - collections.Counter([(x[first], t[first])])
    rest = sum((count * exps[logit] for (logit, _), count in other_pairs.items()), Decimal(0))
    other_targets = sum((count * Decimal(target) for (_, target), count in other_pairs.items()), Decimal(0))
    total, mass, log_total = 1 + rest, other_targets + max_target, log1p(rest)
    slopes = {pair: split(mass * exps[pair[0]] / total - Decimal(pair[1])) for pair in pairs}
    gradient = [slopes[pair] for pair in zip(x, t, strict=True)]
    gradient[first] = split((other_targets - max_target * rest) / total)
    target_gap = Decimal(0)
    for (logit, target), count in pairs.items():
        gap = gaps[logit]
        if target != 0:
            target_gap += count * Decimal(target) * (Decimal("Infinity") if gap is None else gap)
    squares = 1 + sum((count * exps[logit] ** 2 for (logit, _), count in other_pairs.items()), Decimal(0))
    spread = sum((count * (gaps[logit] or 0) * exps[logit] for (logit, _), count in pairs.items()), Decimal(0))
    loss, lse = target_gap + mass * log_total, m + log_total
    return [split(loss), split(lse), split(log_total), gradient, split(squares), split(spread)]


def exact(logits: Array, targets: Array) -> Exact:
    """The numbers of rows of logits and dense targets, smoothing included, both (rows, classes) and taken as they are.

    A NaN among the targets of a row stands for a label that is none: its loss and gradient are NaN.
    """
    with np.errstate(all="ignore"):  # the cast of a signalling NaN warns
        x, t = logits.astype(np.float64), targets.astype(np.float64)
    undefined: list[Any] = [(math.nan, 0.0)] * len(Exact._fields)
    undefined[Exact._fields.index("gradient")] = [(math.nan, 0.0)] * x.shape[1]
    finite_targets = np.nan_to_num(t, nan=0.0)
    is_regular = ~(np.isnan(x).any(axis=1) | (x == math.inf).any(axis=1) | (x == -math.inf).all(axis=1))
    numbers_of: dict[bytes, list[Any]] = {}  # equal rows are computed once
    rows = []
    with decimal.localcontext(CONTEXT):
        for logit_row, target_row, regular in zip(x, finite_targets, is_regular, strict=True):
            key = logit_row.tobytes() + target_row.tobytes()
            if key not in numbers_of:
                numbers_of[key] = row_of(logit_row.tolist(), target_row.tolist()) if regular else undefined
            rows.append(numbers_of[key])
    shapes = [x.shape if name == "gradient" else x.shape[:1] for name in Exact._fields]
    fields = [
        np.moveaxis(np.asarray([row[number] for row in rows], np.float64).reshape(*shape, 2), -1, 0)
        for number, shape in enumerate(shapes)
    ]
    result = Exact(*((hi.copy(), lo.copy()) for hi, lo in fields))
    with np.errstate(all="ignore"):
        loss, lse = reference.cross_entropy(xp, x, t), reference.logsumexp(xp, x)
        gradient = reference.gradient(xp, x, t)
    has_no_loss = np.isnan(result.loss[0]) | np.isnan(t).any(axis=1)
    has_no_lse = np.isnan(result.lse[0])
    for (hi, lo), limit, where in (
        (result.loss, loss, has_no_loss),
        (result.lse, lse, has_no_lse),
        (result.gradient, gradient, has_no_loss),
    ):
        hi[where], lo[where] = limit[where], 0.0
    return result
