"""The scores of checked arrays: losses of rows, clipped as scikit-learn does, and their means.

Leaves out scikit-learn's signatures (``functions.py``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import xent

from ..operands import array_namespace, is_dask_array, is_label
from .arguments import Scored, epsilon, invalid_parameter, require_array_likes
from .labels import multiclass_problem
from .probabilities import checked_probabilities

Array = Any


def mean_log_loss(
    function: str,
    y_true: Any,
    y_proba: Any,
    normalize: Any,
    sample_weight: Any,
    labels: Any,
    eps: float | None = None,
) -> Any:
    """The log loss of probabilities clipped at ``eps``; None is the ε of their dtype."""
    require_array_likes(function, y_true=y_true, y_proba=y_proba, sample_weight=sample_weight, labels=labels)
    if not isinstance(normalize, bool | np.bool):
        raise invalid_parameter(function, "normalize", "a bool", normalize)
    scored = multiclass_problem(y_true, checked_probabilities(y_proba, y_true), sample_weight, labels)
    return concrete(average(scored, log_losses(scored, eps), bool(normalize)))


def log_losses(scored: Scored, eps: float | None = None) -> Array:
    """The cross entropy of each row, of probabilities clipped to [ε, 1 − ε]."""
    xp, dtype = array_namespace(scored.p), scored.p.dtype
    if scored.truth.ndim == 1:
        losses = xent.sparse_cross_entropy(scored.p, scored.truth, kind="probabilities")
        return clipped_losses(xp, losses, dtype, eps)
    return xent.cross_entropy(clipped(xp, scored.p, dtype, eps), scored.truth, kind="probabilities")


def clipped(xp: Any, p: Array, dtype: Any, eps: float | None = None) -> Array:
    """The probabilities in [ε, 1 − ε]."""
    eps = epsilon(xp, dtype) if eps is None else eps
    return xp.where(p < eps, eps, xp.where(p > 1 - eps, 1 - eps, p))


def clipped_losses(xp: Any, losses: Array, dtype: Any, eps: float | None = None) -> Array:
    """The labels' losses as if their probabilities were clipped: O(rows)."""
    eps = epsilon(xp, dtype) if eps is None else eps
    least, most = -math.log1p(-eps), -math.log(eps) if eps > 0 else math.inf
    return xp.where(losses > most, most, xp.where(losses < least, least, losses))


def indicators(scored: Scored) -> Array:
    """Whether each class is the label of its row, (N, C)."""
    return is_label(scored.truth, scored.p.shape[1], 1) if scored.truth.ndim == 1 else scored.truth


def average(scored: Scored, rows: Array, normalize: bool = True) -> Array:
    """The weighted mean or sum of the rows."""
    xp = array_namespace(rows)
    if scored.weight is None:
        return xp.mean(rows) if normalize else xp.sum(rows)
    total = xp.sum(rows * scored.weight)
    return total / total_weight(scored.weight) if normalize else total


def total_weight(weight: Array) -> Array:
    """The sum of the weights; raises ZeroDivisionError, as NumPy's average does, if it is known to be 0."""
    total = array_namespace(weight).sum(weight)
    if not is_dask_array(total) and total == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return total


def concrete(score: Array) -> Any:
    """The score as a float; a lazy one as it is."""
    return score if is_dask_array(score) else float(score)
