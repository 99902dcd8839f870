"""sklearn.metrics' three scores of probabilities: their signatures."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ..operands import array_namespace, wide_dtype
from .arguments import (
    invalid_parameter,
    length,
    renamed,
    require_array_likes,
    require_same_length,
    undefined_metric,
    widest_float,
)
from .labels import binary_problem, multiclass_problem
from .probabilities import checked_probabilities
from .scores import average, clipped, concrete, indicators, log_losses, mean_log_loss, total_weight


def log_loss(
    y_true: Any,
    y_proba: Any = None,
    *,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
    y_pred: Any = "deprecated",
) -> Any:
    r"""``sklearn.metrics.log_loss``: the mean cross entropy of probabilities, in nats.

    .. math:: -\frac{1}{\sum_n w_n} \sum_n w_n \log \operatorname{clip}(p_{n y_n}, \varepsilon, 1 - \varepsilon)

    Parameters
    ----------
    y_true : array-like, shape (N,), or (N, C) of 0 and 1
        Labels of any type that sorts, or a matrix that marks them.
    y_proba : array-like, shape (N, C), or (N,) or (N, 1) for the greater one of two labels
    normalize : bool, default True
        Whether to divide by the sum of the weights.
    sample_weight : array-like, shape (N,), optional
    labels : array-like, shape (C,), optional
        All labels, if some are not in ``y_true``.
    y_pred : array-like
        The old name of ``y_proba``.

    Returns
    -------
    float
        A lazy 0-d array if ``y_true`` or ``y_proba`` is a Dask array.

    Raises
    ------
    ValueError
        If values, shapes or labels do not fit; on Dask, values when they are computed.
    ZeroDivisionError
        If the weights sum to 0 without being 0.
    TypeError
        If an argument is no array, or has no axis.

    References
    ----------
    .. [1] https://scikit-learn.org/stable/modules/generated/sklearn.metrics.log_loss.html

    Examples
    --------
    >>> from xent.compat.sklearn import log_loss
    >>> log_loss(["ham", "spam"], [[0.5, 0.5], [0.5, 0.5]])
    0.6931471805599453
    """
    return mean_log_loss("log_loss", y_true, renamed(y_proba, y_pred), normalize, sample_weight, labels)


def brier_score_loss(
    y_true: Any,
    y_proba: Any,
    *,
    sample_weight: Any = None,
    pos_label: Any = None,
    labels: Any = None,
    scale_by_half: Any = "auto",
) -> Any:
    r"""``sklearn.metrics.brier_score_loss``: the mean squared distance from the one-hot of the label.

    .. math:: \frac{1}{\sum_n w_n} \sum_n w_n \sum_c (t_{nc} - p_{nc})^2

    Parameters
    ----------
    y_true, y_proba, sample_weight, labels
        As in :func:`log_loss`.
    pos_label : int, float, bool or str, optional
        The label that probabilities of shape (N,) are of.
    scale_by_half : bool or "auto", default "auto"
        Whether to halve the score; "auto" does for two labels.

    Returns
    -------
    float
        A lazy 0-d array if ``y_true`` or ``y_proba`` is a Dask array.

    Raises
    ------
    ValueError
        As in :func:`log_loss`.

    References
    ----------
    .. [1] Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78(1), 1950.

    Examples
    --------
    >>> from xent.compat.sklearn import brier_score_loss
    >>> brier_score_loss([0, 1], [0.5, 1.0])
    0.125
    """
    require_array_likes("brier_score_loss", y_true=y_true, y_proba=y_proba, sample_weight=sample_weight, labels=labels)
    if not isinstance(scale_by_half, bool | np.bool) and scale_by_half != "auto":
        raise invalid_parameter("brier_score_loss", "scale_by_half", "a bool or 'auto'", scale_by_half)
    if not isinstance(pos_label, int | float | str | bool | np.bool | np.number | None):
        raise invalid_parameter("brier_score_loss", "pos_label", "a number, a str, a bool or None", pos_label)
    y_proba = checked_probabilities(y_proba, y_true)
    if y_proba.ndim == 1 or y_proba.shape[1] == 1:
        scored = binary_problem(y_true, y_proba, sample_weight, pos_label)
    else:
        scored = multiclass_problem(y_true, y_proba, sample_weight, labels)
    xp = array_namespace(scored.p)
    p = xp.astype(scored.p, wide_dtype(xp, scored.p), copy=False)
    score = average(scored, xp.sum((xp.astype(indicators(scored), p.dtype) - p) ** 2, axis=1))
    halved = p.shape[1] < 3 if isinstance(scale_by_half, str) else scale_by_half
    return concrete(score * 0.5 if halved else score)


def d2_log_loss_score(
    y_true: Any, y_proba: Any = None, *, sample_weight: Any = None, labels: Any = None, y_pred: Any = "deprecated"
) -> Any:
    r"""``sklearn.metrics.d2_log_loss_score``: the fraction of the label frequencies' log loss that is explained.

    .. math:: 1 - \frac{\text{log loss of } p}{\text{log loss of } q}, \qquad q_c = \sum_n w_n t_{nc} / \sum_n w_n

    Parameters
    ----------
    y_true, y_proba, sample_weight, labels, y_pred
        As in :func:`log_loss`.

    Returns
    -------
    float
        NaN, with a warning, for less than two rows. A lazy 0-d array if ``y_true`` or ``y_proba`` is a Dask array.

    Raises
    ------
    ValueError
        As in :func:`log_loss`.

    References
    ----------
    .. [1] Hastie, Tibshirani & Wainwright, "Statistical Learning with Sparsity", 2015, equation (3.11).

    Examples
    --------
    >>> from xent.compat.sklearn import d2_log_loss_score
    >>> d2_log_loss_score([0, 1], [0.5, 0.5])
    0.0
    """
    y_proba = renamed(y_proba, y_pred)
    require_array_likes("d2_log_loss_score", y_true=y_true, y_proba=y_proba, sample_weight=sample_weight, labels=labels)
    require_same_length(y_proba, y_true, sample_weight)
    if length(y_proba) < 2:
        warnings.warn("D^2 score is not well-defined with less than two samples.", undefined_metric(), stacklevel=2)
        return math.nan
    scored = multiclass_problem(y_true, checked_probabilities(y_proba, y_true), sample_weight, labels)
    xp = array_namespace(scored.p)
    wide = widest_float(xp)
    one_hot = xp.astype(indicators(scored), wide)
    weights = xp.ones_like(one_hot[:, 0]) if scored.weight is None else xp.astype(scored.weight, wide)
    counts, total = xp.sum(one_hot * weights[:, None], axis=0), total_weight(weights)
    baseline = -xp.sum(counts * xp.log(clipped(xp, counts / total, wide)))
    return concrete(1 - average(scored, log_losses(scored), normalize=False) / baseline)
