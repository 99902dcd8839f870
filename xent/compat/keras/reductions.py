"""The weighted losses of rows, reduced as Keras does."""

from __future__ import annotations

from typing import Any

from ..operands import array_namespace
from .arguments import require_fit

Array = Any


def same_rank(first: Array, second: Array) -> tuple[Array, Array]:
    """Both of one rank, if they differ by a last axis of size 1 only: it is squeezed, or added to one of rank 1."""
    if second.ndim == first.ndim + 1:
        second, first = same_rank(second, first)
    elif first.ndim == second.ndim + 1 and first.shape[-1] == 1:
        xp = array_namespace(first)
        if second.ndim == 1:
            second = xp.expand_dims(second, axis=-1)
        else:
            first = xp.squeeze(first, axis=-1)
    return first, second


def weigh_and_reduce(values: Array, sample_weight: Array | None, mask: Array | None, reduction: str | None) -> Array:
    """The losses times their weights and their mask, reduced."""
    xp = array_namespace(values)
    weight = mask if sample_weight is None else sample_weight
    if mask is not None and sample_weight is not None:
        mask, sample_weight = same_rank(mask, sample_weight)
        require_fit("Loss", "`sample_weight`", sample_weight, mask)
        weight = mask * sample_weight
    if weight is not None:
        values, weight = same_rank(values, weight)
        require_fit("Loss", "`sample_weight`", weight, values)
        values = values * weight
    if reduction in (None, "none") or values.shape in ((), (0,)):
        return values
    if reduction == "mean_with_sample_weight" and weight is not None:
        return ratio(xp.sum(values), xp.sum(weight))
    if reduction == "sum" or 0 in values.shape:
        return xp.sum(values)
    return xp.mean(values) if mask is None else ratio(xp.sum(values), xp.sum(mask))


def ratio(total: Array, divisor: Array) -> Array:
    """total / divisor, 0 where the divisor is 0."""
    xp = array_namespace(total)
    empty = divisor == 0
    return xp.where(empty, xp.zeros_like(total), total / xp.where(empty, xp.ones_like(divisor), divisor))
