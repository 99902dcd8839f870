"""torch.nn.functional's four cross entropies: their signatures, and the losses that they are made of."""

from __future__ import annotations

import math
from typing import Any

import xent

from ..operands import (
    ArrayT,
    array_namespace,
    expand_dims,
    has_shape,
    is_dask_array,
    is_integer,
    is_label,
    nan_where_invalid,
    stop_gradient,
    wide_dtype,
)
from .arguments import (
    broadcast_weight,
    checked_arrays,
    class_axis,
    in_unit_interval,
    index_of,
    one_label,
    reduction_of,
    require_classes,
    require_floating,
    require_same_shape,
)
from .labels import (
    is_ignored,
    label_indices,
    label_weights,
    where_valid,
)
from .losses import (
    dense_losses,
    negative_log,
    reduce_losses,
    smoothed,
    weigh,
)

Array = Any

LEAST_VARIANCE = 1e-12
"""The least p (1 − p) that torch divides by in the derivatives of ``binary_cross_entropy``."""


def cross_entropy(
    input: ArrayT,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> ArrayT:
    r"""``torch.nn.functional.cross_entropy``: of logits, in nats.

    .. math:: \ell_n = \sum_c w_c t_{nc} \Bigl( \log \sum_k e^{x_{nk}} - x_{nc} \Bigr)

    where t is the one-hot of a label, or the target itself, smoothed.

    Parameters
    ----------
    input : array, shape (C,), (N, C) or (N, C, d1, ...), real floating
    target : array
        Labels, shape () or (N,) or (N, d1, ...), any integer dtype; or probabilities, floating, of the input's shape.
    weight : array, shape (C,), optional
    size_average, reduce : bool, optional
        Deprecated by torch; they choose the reduction, with a warning.
    ignore_index : int, default -100
        The label whose rows have loss and gradient 0 and do not count.
    reduction : "none", "sum" or "mean", default "mean"
        The mean of labels is Σ w ℓ / Σ w, that of probabilities is over the rows.
    label_smoothing : float up to 1, default 0

    Returns
    -------
    array, shape () or that of the labels, dtype of the input
        Of input and target together for probabilities. Lazy where the input is.

    Raises
    ------
    IndexError
        If a label is out of range, or there is no class: :class:`xent.LabelError`.
    ValueError
        If there are more or fewer labels than rows, or the reduction is unknown.
    RuntimeError
        If ``label_smoothing`` is above 1, ``ignore_index`` is ≥ 0 for probabilities, or shapes or dtypes do not fit in
        another way.
    TypeError
        If an argument is no array, or one of another library.

    References
    ----------
    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.torch import cross_entropy
    >>> float(cross_entropy(np.zeros((2, 4)), np.asarray([2, -100])))
    1.3862943611198906
    """
    reduction = reduction_of(size_average, reduce, reduction)
    input, target, weight = checked_arrays("cross_entropy", input, target, weight=weight)
    ignore_index = index_of("cross_entropy", ignore_index)
    soft = has_shape(target, input.shape)
    if soft and (is_integer(target) or ignore_index >= 0):
        raise RuntimeError(
            "cross_entropy: `target` must be floating and `ignore_index` negative where the target has the input's "
            f"shape, got {target.dtype} and {ignore_index}. Pass probabilities, or labels without the class axis."
        )
    if label_smoothing > 1:
        raise RuntimeError(
            f"cross_entropy: `label_smoothing` must be at most 1, got {label_smoothing!r}. Pass a share."
        )
    smoothing = label_smoothing if label_smoothing > 0 else 0.0
    target = target if soft else one_label(input, target)
    require_classes("cross_entropy", input, None if soft else target, weight)
    xp, axis = array_namespace(input), class_axis(input)
    if soft:
        losses = dense_losses(xp, input, smoothed(target, smoothing, input), weight)
        floating = [input, target] if weight is None or is_integer(weight) else [input, target, weight]
        return reduce_losses(xp, losses, xp.ones_like(losses), reduction, xp.result_type(*floating))
    if weight is not None and smoothing > 0:
        row_weights = label_weights("cross_entropy", input, target, weight, ignore_index)
        ignored = is_ignored(xp, target, ignore_index)
        one_hot = xp.astype(is_label(target, input.shape[axis], axis), input.dtype)
        losses = dense_losses(xp, input, smoothed(one_hot, smoothing, input), weight, ignored)
        return reduce_losses(xp, losses, row_weights, reduction, input.dtype)
    losses = xent.sparse_cross_entropy(input, target, axis=axis, ignore_index=ignore_index, label_smoothing=smoothing)
    infinite = xp.any(input == math.inf, axis=axis) & ~is_ignored(xp, target, ignore_index)
    losses = nan_where_invalid(xp, losses, infinite, gradient=True)
    row_weights = label_weights("cross_entropy", input, target, weight, ignore_index)
    return reduce_losses(xp, weigh(xp, losses, row_weights), row_weights, reduction, input.dtype)


def nll_loss(
    input: ArrayT,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> ArrayT:
    r"""``torch.nn.functional.nll_loss``: of log-probabilities.

    .. math:: \ell_n = -w_{y_n} x_{n y_n}

    Parameters
    ----------
    input : array, shape (C,), (N, C) or (N, C, d1, ...), real floating
        Only the entries at the labels are read.
    target : array, shape () or (N,) or (N, d1, ...), any integer dtype
    weight, size_average, ignore_index, reduce, reduction
        As in :func:`cross_entropy`.

    Returns
    -------
    array, shape () or that of the labels, dtype of the input

    Raises
    ------
    IndexError, ValueError, RuntimeError, TypeError
        As in :func:`cross_entropy`.

    References
    ----------
    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.nll_loss.html

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.torch import nll_loss
    >>> float(nll_loss(np.asarray([[-0.5, -2.0]]), np.asarray([1])))
    2.0
    """
    reduction = reduction_of(size_average, reduce, reduction)
    input, target, weight = checked_arrays("nll_loss", input, target, weight=weight)
    ignore_index = index_of("nll_loss", ignore_index)
    target = one_label(input, target)
    require_classes("nll_loss", input, target, weight)
    xp, axis = array_namespace(input), class_axis(input)
    if is_dask_array(input):  # it cannot gather along an axis
        at_label = xp.where(is_label(target, input.shape[axis], axis), input, 0.0)
        losses = xent.sparse_cross_entropy(
            at_label, target, axis=axis, kind="log_probabilities", ignore_index=ignore_index
        )
    else:
        labels = label_indices("nll_loss", input.shape[axis], target, ignore_index)
        at_label = xp.take_along_axis(input, expand_dims(labels.index, axis), axis=axis)
        at_label = xp.astype(xp.squeeze(at_label, axis=axis), wide_dtype(xp, input), copy=False)
        losses = -where_valid(xp, at_label, labels)
    row_weights = label_weights("nll_loss", input, target, weight, ignore_index)
    return reduce_losses(xp, weigh(xp, losses, row_weights), row_weights, reduction, input.dtype)


def binary_cross_entropy(
    input: ArrayT,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> ArrayT:
    r"""``torch.nn.functional.binary_cross_entropy``: of probabilities, with logarithms not under −100.

    .. math:: \ell = -w \bigl( t \log p + (1 - t) \log (1 - p) \bigr), \qquad
              \frac{\partial \ell}{\partial p} = w \frac{p - t}{\max(p (1 - p), 10^{-12})}

    Parameters
    ----------
    input, target : array, of one shape, in [0, 1]
    weight : array that broadcasts to that shape, optional
    size_average, reduce, reduction
        As in :func:`cross_entropy`; the mean is over all elements, whatever their weights.

    Returns
    -------
    array, shape () or that of the input, dtype of the input

    Raises
    ------
    RuntimeError
        If a value lies outside [0, 1] and can be read; the result is NaN instead on Dask, JAX or a GPU, and under a
        transform of torch's. If the input is not floating, or a weight does not broadcast to it.
    ValueError
        If the shapes differ, or the reduction is unknown.

    References
    ----------
    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy.html

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.torch import binary_cross_entropy
    >>> float(binary_cross_entropy(np.asarray([0.0, 1.0]), np.asarray([1.0, 1.0])))
    50.0
    """
    reduction = reduction_of(size_average, reduce, reduction)
    input, target, weight = checked_arrays("binary_cross_entropy", input, target, weight=weight)
    xp = array_namespace(input)
    require_same_shape("binary_cross_entropy", input, target)
    require_floating("binary_cross_entropy", input)
    p = in_unit_interval(xp, xp.astype(input, wide_dtype(xp, input), copy=False), "input")
    t = in_unit_interval(xp, xp.astype(target, p.dtype, copy=False), "target")
    fixed = stop_gradient(p)
    variance = p * (1 - p)
    extreme = variance < LEAST_VARIANCE
    q = p if fixed is p else xp.where(extreme, fixed, p)
    losses = t * negative_log(xp, xp.log, q, 0.0) + (1 - t) * negative_log(xp, xp.log1p, -q, -1.0)
    if fixed is not p:  # subtle: of the value 0, with torch's derivatives where the logarithm's are not
        step, u = xp.where(extreme, p - fixed, 0.0), stop_gradient(t)
        curvature = (fixed * fixed - 2 * fixed * u + u) / (stop_gradient(variance) + LEAST_VARIANCE) ** 2
        losses = losses + (fixed - t) / LEAST_VARIANCE * step + xp.where(extreme, curvature, 0.0) / 2 * step * step
    losses = losses if weight is None else losses * broadcast_weight("binary_cross_entropy", xp, weight, input)
    return reduce_losses(xp, losses, xp.ones_like(losses), reduction, input.dtype)


def binary_cross_entropy_with_logits(
    input: ArrayT,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> ArrayT:
    r"""``torch.nn.functional.binary_cross_entropy_with_logits``: of logits of independent yes-or-no answers.

    .. math:: \ell = w \bigl( t\, c\, \log(1 + e^{-x}) + (1 - t) \log(1 + e^{x}) \bigr)

    Parameters
    ----------
    input, target : array, of one shape
    weight, pos_weight : array that broadcasts to that shape, optional
        w and c.
    size_average, reduce, reduction
        As in :func:`binary_cross_entropy`.

    Returns
    -------
    array, shape () or that of the input, dtype of the target
        Of the input for a target of integers.

    Raises
    ------
    ValueError
        If the shapes differ, or the reduction is unknown.
    RuntimeError
        If the input is not floating, or a weight does not broadcast to it.

    References
    ----------
    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy_with_logits.html

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.torch import binary_cross_entropy_with_logits
    >>> float(binary_cross_entropy_with_logits(np.zeros(2), np.asarray([0.0, 1.0])))
    0.6931471805599453
    """
    function = "binary_cross_entropy_with_logits"
    reduction = reduction_of(size_average, reduce, reduction)
    input, target, weight, pos_weight = checked_arrays(function, input, target, weight=weight, pos_weight=pos_weight)
    xp = array_namespace(input)
    require_same_shape(function, input, target)
    require_floating(function, input)
    if pos_weight is None or tuple(pos_weight.shape) in ((), tuple(input.shape[-1:])):
        losses = xent.binary_cross_entropy(input, target, pos_weight=pos_weight)
    else:  # subtle: flat, xent's one number for each output is one for each element
        positive = broadcast_weight(function, xp, pos_weight, input)
        x, t, c = (xp.reshape(array, (-1,)) for array in (input, target, positive))
        losses = xp.reshape(xent.binary_cross_entropy(x, t, pos_weight=c), tuple(input.shape))
    invalid = ((input == -math.inf) & (target <= 1)) | ((input == math.inf) & (target == 1))
    losses = nan_where_invalid(xp, losses, invalid, gradient=False)
    if weight is not None:
        losses = weigh(xp, losses, broadcast_weight(function, xp, weight, input))
    dtype = input.dtype if is_integer(target) else target.dtype
    return reduce_losses(xp, losses, xp.ones_like(losses), reduction, dtype)
