"""From the losses of the rows to what the caller asked for; the conventions for weights, ignored rows and nothing.

| reduction | value | share of a row in the gradient |
|---|---|---|
| "none" | w ℓ, 0 where ignored | w |
| "sum" | Σ w ℓ over counted rows | w |
| "mean" = Mean("weights") | Σ w ℓ / Σ w over counted rows | w / Σ w |
| Mean("counted") | Σ w ℓ / #counted | w / #counted |
| Mean("all") | Σ w ℓ / N | w / N |
| Mean(number) | Σ w ℓ / number | w / number |
| any Mean with no row counted | ``empty`` (NaN) | 0 |

A row is counted unless ``ignore_index`` names its label or its sample weight is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import checks
from ..arrays import Array
from .fold import total, wide_dtype
from .targets import Rows


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its denominator named.

    Parameters
    ----------
    denominator : "weights", "counted", "all" or a positive number, default "weights"
        What the weighted sum is divided by: the sum of the weights of the counted rows, their number, the number of all
        rows, or a number of the caller's (tokens in a batch split over several calls).
    empty : float, default NaN
        The value where no row is counted.

    Raises
    ------
    ValueError
        If the denominator is none of these.

    Examples
    --------
    >>> import numpy as np, xent
    >>> logits, labels = np.zeros((3, 4)), np.asarray([0, 1, -100])
    >>> float(xent.sparse_cross_entropy(logits, labels, ignore_index=-100, reduction=xent.Mean("all")))
    0.9241962407465937
    """

    denominator: str | float = "weights"
    empty: float = math.nan

    def __post_init__(self) -> None:
        checks.denominator(self.denominator)
        if self.empty != self.empty:  # one NaN for all, so that equal means are equal and share their plans
            object.__setattr__(self, "empty", math.nan)

    def __reduce__(self) -> tuple[Any, ...]:
        return Mean, (self.denominator, self.empty)


def pairwise_sum(xp: Any, values: Array) -> Array:
    """Sum over everything in a fixed order, 0-d, in float64 where the library has it."""
    return total(xp, xp.astype(xp.reshape(values, (-1,)), wide_dtype(xp), copy=False))


def counted(xp: Any, values: Array, ignored: Array | None) -> Array:
    """The values of the counted rows, 0 in the others."""
    return values if ignored is None else xp.where(ignored, 0.0, values)


def denominator(xp: Any, mean: Mean, rows: Rows, like: Array, add: Any = pairwise_sum) -> Array | float:
    """What the sum is divided by; ``like`` is any (rows,) array of the compute dtype, ``add`` how it is summed."""
    if not isinstance(mean.denominator, str):
        return float(mean.denominator)
    weight = rows.weight if mean.denominator == "weights" else None
    ignored = None if mean.denominator == "all" else rows.ignored
    if weight is None and ignored is None:
        return math.prod(like.shape)
    return add(xp, counted(xp, xp.ones_like(like) if weight is None else weight, ignored))


def nothing_counted(xp: Any, rows: Rows, like: Array) -> Array | bool:
    """Whether no row is counted."""
    if math.prod(like.shape) == 0:
        return True
    return False if rows.ignored is None else xp.all(rows.ignored)


@dataclass(frozen=True, slots=True)
class Share:
    """A reduction of which these rows are one share: its sums are handed on, to be merged with those of the others.

    Parameters
    ----------
    whole : "sum", "mean" or a Mean
    below : 0-d array or number, optional
        The denominator over all shares, which the gradient of a mean needs.
    """

    whole: Any
    below: Any = None


class Sums(NamedTuple):
    """What a reduction needs of its rows; adds up over disjoint sets of them."""

    total: Array  # Σ w ℓ over the counted rows, 0-d, wide
    below: Any  # the denominator, 0 where it is no sum
    empty: Any  # whether no row is counted


def as_mean(reduction: Any) -> Mean | None:
    """The mean asked for, or None for "none" and "sum"."""
    whole = reduction.whole if isinstance(reduction, Share) else reduction
    return Mean() if whole == "mean" else whole if isinstance(whole, Mean) else None


def sums(xp: Any, loss: Array, rows: Rows, mean: Mean | None, add: Any = pairwise_sum) -> Sums:
    """The sums of losses (rows,) that are weighed already, 0 where ignored."""
    is_sum = mean is not None and isinstance(mean.denominator, str)
    below = denominator(xp, mean, rows, loss, add) if mean is not None and is_sum else 0
    return Sums(add(xp, loss), below, nothing_counted(xp, rows, loss))


def merge_sums(xp: Any, a: Sums, b: Sums) -> Sums:
    """The sums of both sets of rows."""
    return Sums(a.total + b.total, a.below + b.below, a.empty & b.empty)


def divisor(xp: Any, sums: Sums, mean: Mean) -> Any:
    """The denominator, or 1 where no row is counted: nothing is divided by it there."""
    below = sums.below if isinstance(mean.denominator, str) else mean.denominator
    if sums.empty is True:
        return 1.0
    return below if sums.empty is False or isinstance(below, int | float) else xp.where(sums.empty, 1.0, below)


def finish(xp: Any, sums: Sums, reduction: Any, dtype: Any) -> Array:
    """The value of the reduction, 0-d."""
    mean, value = as_mean(reduction), sums.total
    if mean is not None:
        value = value / divisor(xp, sums, mean)
        if sums.empty is True:
            value = xp.full_like(value, mean.empty)
        elif sums.empty is not False:
            value = xp.where(sums.empty, mean.empty, value)
    # subtle: NumPy makes scalars of 0-d arrays on the way, and what comes back is an array
    return xp.astype(value[...], dtype, copy=False)


def reduce(xp: Any, loss: Array, rows: Rows, reduction: Any, add: Any = pairwise_sum) -> Any:
    """The rows' losses (rows,), weighed, selected and reduced, in their dtype; a :class:`Share` gives its sums."""
    loss = counted(xp, loss if rows.weight is None else loss * rows.weight, rows.ignored)
    if reduction == "none":
        return loss
    found = sums(xp, loss, rows, as_mean(reduction), add)
    return found if isinstance(reduction, Share) else finish(xp, found, reduction, loss.dtype)


def scale(xp: Any, rows: Rows, reduction: Any, like: Array, add: Any = pairwise_sum) -> Array:
    """Each row's share in the gradient (rows,): its weight over the denominator; 0 if ignored, NaN if it is bad."""
    share = xp.ones_like(like) if rows.weight is None else rows.weight
    mean = as_mean(reduction)
    if mean is not None:
        share = share / (reduction.below if isinstance(reduction, Share) else denominator(xp, mean, rows, like, add))
    if rows.bad is not None:
        share = xp.where(rows.bad, math.nan, share)
    return xp.astype(counted(xp, share, rows.ignored), like.dtype, copy=False)
