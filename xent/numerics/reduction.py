"""The reduction of the rows' losses: the conventions for weights, ignored rows, and no row at all.

| reduction | value | scale of a row's gradient |
|---|---|---|
| "none" | w ℓ, 0 where ignored | w |
| "sum" | Σ w ℓ over counted rows | w |
| "mean" = Mean("weights") | Σ w ℓ / Σ w over counted rows | w / Σ w |
| Mean("counted") | Σ w ℓ / #counted | w / #counted |
| Mean("all") | Σ w ℓ / N | w / N |
| Mean(number) | Σ w ℓ / number | w / number |
| any Mean with no row counted | ``empty`` (NaN) | 0 |

A row is counted unless ``ignore_index`` names its label, or its sample weight or its class weight is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

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
        The divisor of the weighted sum: the sum of the weights of the counted rows, their number, the number of all
        rows, or a number of the caller's (tokens in a batch split over several calls).
    empty : float, default NaN
        The value where no row is counted.

    Raises
    ------
    ValueError
        If the denominator is none of these, or ``empty`` is no number.

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
        if hasattr(self.denominator, "item"):  # NumPy's number, which TorchDynamo would take for a tensor
            object.__setattr__(self, "denominator", self.denominator.item())
        object.__setattr__(self, "empty", checks.empty(self.empty))

    def __reduce__(self) -> tuple[Any, ...]:
        return Mean, (self.denominator, self.empty)


def pairwise_sum(xp: Any, values: Array) -> Array:
    """Sum over everything in a fixed order, 0-d, in float64 where the library has it."""
    return total(xp, xp.astype(xp.reshape(values, (-1,)), wide_dtype(xp), copy=False))


def counted(xp: Any, values: Array, ignored: Array | None) -> Array:
    """The values of the counted rows, 0 in the others."""
    return values if ignored is None else xp.where(ignored, 0.0, values)


def weighted(xp: Any, loss: Array, rows: Rows) -> Array:
    """The losses (rows,) times the rows' weights, 0 where a row is ignored."""
    return counted(xp, loss if rows.weight is None else loss * rows.weight, rows.ignored)


@dataclass(frozen=True, slots=True)
class PartialReduction:
    """A reduction of some of the rows: its result is the :class:`Sums`, to be merged with those of the other rows.

    Parameters
    ----------
    reduction : "sum", "mean" or a Mean
    denominator : 0-d array or number, optional
        The denominator over all rows, which the gradient of a mean needs.
    """

    reduction: Any
    denominator: Any = None


Reduction = Literal["none", "sum", "mean"] | Mean | PartialReduction
"""What a caller may ask for."""


class Sums(NamedTuple):
    """The sums that a reduction needs; they add up over disjoint sets of rows."""

    total: Array  # Σ w ℓ over the counted rows, 0-d, wide
    denominator: Any  # 0 where the mean has a fixed denominator, or there is no mean
    empty: Any  # whether no row is counted: True, False, or a 0-d array


MEAN = Mean()


class Reducer(NamedTuple):
    """A reduction as the caller gave it, and how values are added."""

    reduction: Any
    """"none", "sum", "mean", a :class:`Mean` or a :class:`PartialReduction`."""
    add: Callable[[Any, Array], Array] = pairwise_sum
    """(xp, values) to their sum, 0-d, wide."""

    @property
    def mean(self) -> Mean | None:
        """The mean that is asked for; None for "none" and "sum"."""
        reduction = self.reduction
        if isinstance(reduction, PartialReduction):
            reduction = reduction.reduction
        return MEAN if reduction == "mean" else reduction if isinstance(reduction, Mean) else None

    def reduce(self, xp: Any, loss: Array, rows: Rows) -> Any:
        """The rows' losses (rows,), weighted and reduced, in their dtype; the sums for a partial reduction."""
        loss = weighted(xp, loss, rows)
        if self.reduction == "none":
            return loss
        sums = self.sums(xp, loss, rows)
        return sums if isinstance(self.reduction, PartialReduction) else self.finish(xp, sums, loss.dtype)

    def sums(self, xp: Any, loss: Array, rows: Rows) -> Sums:
        """The sums of losses (rows,) that are weighted already, and 0 where ignored."""
        mean, denominator = self.mean, 0.0
        if mean is not None and isinstance(mean.denominator, str):
            denominator = self.denominator(xp, mean, rows, loss)
        is_empty = loss.shape[0] == 0 or (rows.ignored is not None and xp.all(rows.ignored))
        return Sums(self.add(xp, loss), denominator, is_empty)

    def finish(self, xp: Any, sums: Sums, dtype: Any) -> Array:
        """The value of the reduction, 0-d, from the sums over all rows."""
        # subtle: NumPy makes scalars of 0-d arrays on the way; `...` makes an array of them again
        return xp.astype(self.value(xp, sums)[...], dtype, copy=False)

    def value(self, xp: Any, sums: Sums) -> Array:
        """The same, wide."""
        mean, value = self.mean, sums.total
        if mean is not None:
            value = value / divisor(xp, mean, sums)
            if sums.empty is True:
                value = value + mean.empty  # subtle: the sum of no rows is 0, and keeps its place in a graph
            elif sums.empty is not False:
                value = xp.where(sums.empty, mean.empty, value)
        return value

    def scale(self, xp: Any, rows: Rows, like: Array) -> Array:
        """The factor of each row's gradient (rows,): its weight over the denominator; 0 if ignored, NaN if bad.

        ``like`` is any (rows,) array of the compute dtype.
        """
        scale = xp.ones_like(like) if rows.weight is None else rows.weight
        mean = self.mean
        if isinstance(self.reduction, PartialReduction):
            scale = scale if mean is None else scale / self.reduction.denominator
        elif mean is not None:
            scale = scale / self.denominator(xp, mean, rows, like)
        if rows.bad is not None:
            scale = xp.where(rows.bad, math.nan, scale)
        return xp.astype(counted(xp, scale, rows.ignored), like.dtype, copy=False)

    def denominator(self, xp: Any, mean: Mean, rows: Rows, like: Array) -> Array | float:
        """The denominator of a mean over these rows; ``like`` is any (rows,) array of the compute dtype."""
        if not isinstance(mean.denominator, str):
            return float(mean.denominator)
        weight = rows.weight if mean.denominator == "weights" else None
        ignored = None if mean.denominator == "all" else rows.ignored
        if weight is None and ignored is None:
            return like.shape[0]
        return self.add(xp, counted(xp, xp.ones_like(like) if weight is None else weight, ignored))


def merge_sums(xp: Any, a: Sums, b: Sums) -> Sums:
    """The sums over both sets of rows."""
    return Sums(a.total + b.total, a.denominator + b.denominator, a.empty & b.empty)


def divisor(xp: Any, mean: Mean, sums: Sums) -> Any:
    """The denominator of a mean, or 1 where no row is counted and the mean is its ``empty``."""
    denominator = sums.denominator if isinstance(mean.denominator, str) else mean.denominator
    if sums.empty is True:
        return 1.0
    if sums.empty is False or isinstance(denominator, int | float):
        return denominator
    return xp.where(sums.empty, 1.0, denominator)
