"""optax's cross entropies, on any array: its names, signatures, defaults and answers.

Every function gives the loss of each example; there is no reduction. Divergences, rankings and contrastive losses of
optax.losses are no cross entropies and are not here. Where optax and xent disagree:

| case | xent | optax, and here |
|---|---|---|
| ``axis`` | one | several too, or None for all; a label is then an index into them, flat; () for each by itself |
| a number for labels | TypeError | the target of every class; it does not change the dtype |
| NumPy's arrays beside the logits, NumPy's logits beside labels | TypeError | taken |
| logits and targets of other shapes | ValueError | broadcast, both ways |
| ``where`` | no such argument | classes, or with one axis less examples, that are left out; 0 where all are |
| ``where`` leaves out the label's class | | the loss is lse − x_y all the same, and may be negative |
| labels in [−C, 0) | LabelError | counted from the end |
| other labels out of range | LabelError | NaN loss, and the gradient of the log-partition function |
| −inf logit at target 0 | contributes 0 | NaN loss, finite gradient; 0 in ``safe_softmax_cross_entropy`` |
| targets all 0 in a row of NaN or −inf | NaN | the same, but 0 in ``safe_softmax_cross_entropy`` |
| a +inf logit, targets | 0 at it, +inf elsewhere | NaN loss and gradient |
| a +inf logit, labels | 0 at it | NaN at it |
| binary, infinite logits | the limit, 0 or +inf | NaN instead of 0, finite gradient |
| float16, bfloat16 | float32 | the dtype of the logits, promoted with that of floating targets |

Not followed:

| case | optax | here |
|---|---|---|
| tiny losses; a common offset of 1e6 with labels | 0; off by 28 % | to full relative accuracy, without ``where`` |
| float16 and bfloat16 inside | rounded; C = 1e5 overflows | float32 |
| a +inf logit, labels, gradient | NaN at it | the one-hot of it, minus that of the label |
| two +inf logits, a label elsewhere | +inf | NaN |
| zero classes | −inf or 0 | ValueError |
| logits of one class broadcast to more | each example is sure of its one class | ValueError |
| labels of more axes than the logits, ``axis`` None or from the front | a sum over that axis of both | ValueError |
| ``where`` of more axes than the logits | spread over them | ValueError |
| an axis twice, labels | TypeError | ValueError |
| an integer of NumPy for ``axis`` with labels | ValueError | taken |
| the gradient of a target that is left out | NaN | 0 |
| float8 | taken | TypeError |
| forward mode of ``safe_softmax_cross_entropy`` at −inf | NaN | right |
| the words of errors, and the first of several | optax's and JAX's | xent's words; the type is theirs |
"""

from __future__ import annotations

import math
import operator
from typing import Any

import xent

from .operands import (
    ArrayT,
    array_namespace,
    beside,
    describe,
    device_keyword,
    expand_dims,
    fit_together,
    has_shape,
    is_array_api_obj,
    is_integer,
    is_label,
    is_numpy_array,
    nan_where_invalid,
    unwrap,
    wide_dtype,
    widen_labels,
    without_fp_warnings,
)

__all__ = [
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]

Array = Any


@without_fp_warnings
def softmax_cross_entropy(
    logits: ArrayT, labels: Array, axis: int | tuple[int, ...] | None = -1, where: Array | None = None
) -> ArrayT:
    r"""``optax.softmax_cross_entropy``: of soft targets, in nats.

    .. math:: \ell_n = \sum_c t_{nc} \Bigl( \log \sum_k e^{x_{nk}} - x_{nc} \Bigr)

    Parameters
    ----------
    logits : array, shape (\*batch, C), real floating
    labels : array that broadcasts with the logits, or a number, real
        The targets t.
    axis : int, tuple of int or None, default -1
        The class axis, or several that are one together, or all.
    where : array of bool, shape of the logits or of the batch, optional
        The classes, or the examples, that count.

    Returns
    -------
    array, shape (\*batch,)
        In the dtype of the logits, promoted with that of floating targets. Lazy where the logits are.

    Raises
    ------
    TypeError, ValueError
        As in :func:`xent.cross_entropy`; and for an axis that the logits do not have, or that is named twice, or a
        mask that is not of bools.

    References
    ----------
    .. [1] https://optax.readthedocs.io/en/latest/api/losses.html

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.optax import softmax_cross_entropy
    >>> softmax_cross_entropy(np.zeros((2, 4)), np.asarray([0.0, 1.0, 0.0, 0.0])).tolist()
    [1.3862943611198906, 1.3862943611198906]
    """
    xp, logits, labels, where = arrays_beside_logits("softmax_cross_entropy", logits, labels, where)
    dtype = result_dtype(xp, logits, labels)
    logits, labels, mask, class_axis = with_one_class_axis("softmax_cross_entropy", logits, labels, axis, where)
    losses = masked_cross_entropy(xp, logits, xp.astype(labels, dtype, copy=False), mask, class_axis)
    return xp.astype(losses, dtype, copy=False)


@without_fp_warnings
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayT, labels: Array, axis: int | tuple[int, ...] = -1, where: Array | None = None
) -> ArrayT:
    r"""``optax.softmax_cross_entropy_with_integer_labels``: of labels, in nats.

    .. math:: \ell_n = \log \sum_k e^{x_{nk}} - x_{n y_n}

    Parameters
    ----------
    logits : array, shape (\*batch, C), real floating
    labels : array, shape (\*batch,) or one that broadcasts with it, any integer dtype
        Negative ones count from the end; one that is out of range even so has loss NaN.
    axis, where
        As in :func:`softmax_cross_entropy`; ``axis`` is not None.

    Returns
    -------
    array, shape (\*batch,), dtype of the logits

    Raises
    ------
    TypeError, ValueError
        As in :func:`xent.sparse_cross_entropy`.

    References
    ----------
    .. [1] https://optax.readthedocs.io/en/latest/api/losses.html

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.optax import softmax_cross_entropy_with_integer_labels
    >>> softmax_cross_entropy_with_integer_labels(np.zeros((2, 4)), np.asarray([3, -1])).tolist()
    [1.3862943611198906, 1.3862943611198906]
    """
    function = "softmax_cross_entropy_with_integer_labels"
    if axis is None:
        raise ValueError(f"{function}: `axis` must be an int or a tuple, got None. Name the axes.")
    xp, logits, labels, where = arrays_beside_logits(function, logits, labels, where)
    if not is_integer(labels) or "bool" in str(labels.dtype):
        raise TypeError(f"{function}: `labels` must be integers, got {labels.dtype}. Cast them.")
    dtype = logits.dtype
    logits, _, mask, class_axis = with_one_class_axis(function, logits, None, axis, where)
    labels, logits, mask = broadcast_examples(function, labels, logits, mask, class_axis)
    classes = logits.shape[class_axis]
    labels = widen_labels(labels, classes)
    labels = xp.where(labels < 0, labels + classes, labels)
    inside = (labels >= 0) & (labels < classes)
    labels = xp.where(inside, labels, 0)
    if mask is None:
        losses = xent.sparse_cross_entropy(logits, labels, axis=class_axis)
        infinite_label = xp.any(logits == math.inf, axis=class_axis) & (losses == 0)
        losses = nan_where_invalid(xp, losses, infinite_label, gradient=False)
        first = xp.astype(logits[(*[slice(None)] * class_axis, 0)], losses.dtype, copy=False)
        # subtle: adding the logit of class 0 to its loss leaves the gradient of the log-partition function
        losses = nan_where_invalid(xp, losses + xp.where(inside, 0.0, first), ~inside, gradient=False)
        return xp.astype(losses, dtype, copy=False)
    counted = xp.any(mask, axis=class_axis)
    at_label = xp.where(is_label(labels, classes, class_axis) & expand_dims(counted, class_axis), logits, 0.0)
    negative_logit = xent.sparse_cross_entropy(at_label, labels, axis=class_axis, kind="log_probabilities")
    losses = xent.logsumexp(masked_logits(xp, logits, mask, class_axis), axis=class_axis)
    losses = nan_where_invalid(xp, losses + xp.where(inside, negative_logit, 0.0), ~inside, gradient=False)
    return xp.astype(xp.where(counted, losses, 0.0), dtype, copy=False)


@without_fp_warnings
def safe_softmax_cross_entropy(logits: ArrayT, labels: Array) -> ArrayT:
    r"""``optax.safe_softmax_cross_entropy``: of soft targets, with 0 for a class whose target is 0.

    Parameters
    ----------
    logits, labels : array
        As in :func:`softmax_cross_entropy`, classes last.

    Returns
    -------
    array, shape (\*batch,)
        As in :func:`softmax_cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As in :func:`xent.cross_entropy`.

    References
    ----------
    .. [1] https://optax.readthedocs.io/en/latest/api/losses.html

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.optax import safe_softmax_cross_entropy
    >>> float(safe_softmax_cross_entropy(np.asarray([0.0, 0.0, -np.inf]), np.asarray([1.0, 0.0, 0.0])))
    0.6931471805599453
    """
    xp, logits, labels = arrays_beside_logits("safe_softmax_cross_entropy", logits, labels)
    dtype = result_dtype(xp, logits, labels)
    logits, labels, _, axis = with_one_class_axis("safe_softmax_cross_entropy", logits, labels, -1, None)
    labels = xp.astype(labels, dtype, copy=False)
    infinite = xp.any(logits == math.inf, axis=axis)
    losses = nan_where_invalid(xp, xent.cross_entropy(logits, labels, axis=axis), infinite, gradient=True)
    return xp.astype(xp.where(xp.any(labels != 0, axis=axis), losses, 0.0), dtype, copy=False)


@without_fp_warnings
def poly_loss_cross_entropy(
    logits: ArrayT,
    labels: Array,
    *,
    epsilon: float = 2.0,
    axis: int | tuple[int, ...] | None = -1,
    where: Array | None = None,
) -> ArrayT:
    r"""``optax.poly_loss_cross_entropy``: cross entropy and a multiple of the targets' missed probability.

    .. math:: \ell_n = \sum_c t_{nc} \bigl( -\log p_{nc} + \epsilon (1 - p_{nc}) \bigr)

    Parameters
    ----------
    logits, labels : array
        As in :func:`softmax_cross_entropy`; the labels are floating.
    epsilon : float, default 2
    axis, where
        As in :func:`softmax_cross_entropy`.

    Returns
    -------
    array, shape (\*batch,)
        As in :func:`softmax_cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As in :func:`xent.cross_entropy`, and for labels that are not floating.

    References
    ----------
    .. [1] Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.optax import poly_loss_cross_entropy
    >>> float(poly_loss_cross_entropy(np.zeros(4), np.asarray([1.0, 0.0, 0.0, 0.0])))
    2.886294361119891
    """
    xp, logits, labels, where, epsilon = arrays_beside_logits("poly_loss_cross_entropy", logits, labels, where, epsilon)
    if is_integer(labels):
        raise TypeError(f"poly_loss_cross_entropy: `labels` must be floating, got {labels.dtype}. Cast them.")
    dtype = result_dtype(xp, logits, labels)
    logits, labels, mask, class_axis = with_one_class_axis("poly_loss_cross_entropy", logits, labels, axis, where)
    labels = xp.astype(labels, dtype, copy=False)
    losses = masked_cross_entropy(xp, logits, labels, mask, class_axis)
    targets = labels if mask is None else xp.where(mask, labels, 0.0)
    p = xent.softmax(masked_logits(xp, logits, mask, class_axis), axis=class_axis)
    missed = xp.sum(targets * (1 - p), axis=class_axis)
    return xp.astype(losses + epsilon * missed, dtype, copy=False)


@without_fp_warnings
def sigmoid_binary_cross_entropy(logits: ArrayT, labels: Array) -> ArrayT:
    r"""``optax.sigmoid_binary_cross_entropy``: of independent yes-or-no targets, element by element.

    .. math:: \ell = t \log(1 + e^{-x}) + (1 - t) \log(1 + e^{x})

    Parameters
    ----------
    logits : array, real floating
    labels : array that broadcasts with the logits, real

    Returns
    -------
    array, the shape of both, dtype of the logits

    Raises
    ------
    TypeError, ValueError
        As in :func:`xent.binary_cross_entropy`.

    References
    ----------
    .. [1] https://optax.readthedocs.io/en/latest/api/losses.html

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.optax import sigmoid_binary_cross_entropy
    >>> sigmoid_binary_cross_entropy(np.zeros(2), np.asarray(1)).tolist()
    [0.6931471805599453, 0.6931471805599453]
    """
    xp, logits, labels = arrays_beside_logits("sigmoid_binary_cross_entropy", logits, labels)
    logits, labels = broadcast("sigmoid_binary_cross_entropy", xp, logits, xp.astype(labels, logits.dtype, copy=False))
    losses = xent.binary_cross_entropy(logits, labels)
    certain = ((logits == math.inf) & (labels == 1)) | ((logits == -math.inf) & (labels == 0))
    return xp.astype(nan_where_invalid(xp, losses, certain, gradient=False), logits.dtype, copy=False)


@without_fp_warnings
def sigmoid_focal_loss(logits: ArrayT, labels: Array, *, alpha: Any = None, gamma: Any = 2.0) -> ArrayT:
    r"""``optax.sigmoid_focal_loss``: binary cross entropy that counts less where the prediction is right.

    .. math:: \ell = \bigl( (1 - t) p + t (1 - p) \bigr)^\gamma \bigl( -t \log p - (1 - t) \log(1 - p) \bigr)

    times :math:`\alpha t + (1 - \alpha)(1 - t)` if α is not None.

    Parameters
    ----------
    logits, labels : array
        As in :func:`sigmoid_binary_cross_entropy`, labels in [0, 1].
    alpha, gamma : number, or array that broadcasts with the logits, default None and 2

    Returns
    -------
    array, the shape of both, dtype of the logits

    Raises
    ------
    TypeError, ValueError
        As in :func:`xent.binary_cross_entropy`.

    References
    ----------
    .. [1] Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat.optax import sigmoid_focal_loss
    >>> float(sigmoid_focal_loss(np.asarray(0.0), np.asarray(1.0)))
    0.17328679513998632
    """
    xp, logits, labels, alpha, gamma = arrays_beside_logits("sigmoid_focal_loss", logits, labels, alpha, gamma)
    dtype, wide = logits.dtype, wide_dtype(xp, logits)
    logits, labels = broadcast("sigmoid_focal_loss", xp, logits, labels)
    logits, labels = (xp.astype(array, wide, copy=False) for array in (logits, labels))
    losses = sigmoid_binary_cross_entropy(logits, labels)
    positive = logits >= 0
    magnitude = xp.where(positive, logits, -logits)
    unlikely = xp.where(positive, 1 - labels, labels)  # the target of the answer that the logit speaks against
    right = unlikely == 0
    mixed = xp.where(right, 1.0, unlikely + (1 - unlikely) * xp.exp(-magnitude))
    log_wrong = xp.where(right, -magnitude, xp.log(mixed)) - xp.log1p(xp.exp(-magnitude))
    losses = losses * xp.exp(gamma * log_wrong)
    if alpha is not None:
        losses = losses * (alpha * labels + (1 - alpha) * (1 - labels))
    return xp.astype(losses, dtype, copy=False)


# -------------------- the arguments


def arrays_beside_logits(function: str, logits: Any, labels: Any, *others: Any) -> tuple[Any, ...]:
    """The namespace of the logits, logits and labels as its arrays, and the others as its arrays or as they are."""
    logits, labels = unwrap(logits), unwrap(labels)
    for name, value in (("logits", logits), ("labels", labels)):
        if not is_array_api_obj(value) and not (value is labels and isinstance(value, bool | int | float)):
            raise TypeError(f"{function}: `{name}` must be an array, got {type(value).__name__}. Convert it.")
    xp = array_namespace(logits)
    if not is_array_api_obj(labels):  # subtle: a Python float takes the dtype of the logits, and an int is no float
        dtype = {"dtype": logits.dtype} if isinstance(labels, float) else {}
        labels = xp.asarray(labels, **dtype, **device_keyword(logits))
    elif is_numpy_array(logits):
        logits = beside(logits, labels)
        xp = array_namespace(logits)
    if is_integer(logits):
        raise TypeError(f"{function}: `logits` must be real floating, got {describe(logits)}. Cast them to float32.")
    return xp, logits, *(beside(unwrap(value), logits) for value in (labels, *others))


def result_dtype(xp: Any, logits: Array, labels: Array) -> Any:
    """The dtype of the result, which one-hots of integers do not change."""
    return logits.dtype if is_integer(labels) else xp.result_type(logits, labels)


# -------------------- shapes


def broadcast(function: str, xp: Any, *arrays: Array, error: type[Exception] = TypeError) -> list[Array]:
    """The arrays broadcast to one shape, or JAX's error; sizes that Dask does not know, NaN, are taken to be equal."""
    shapes = [tuple(size if size == size else None for size in array.shape) for array in arrays]
    if len({*shapes}) == 1:
        return list(arrays)
    if any(None in shape for shape in shapes):  # subtle: Dask broadcasts to no such shape, but element by element
        everywhere = sum((xp.zeros_like(array, dtype=xp.int8) for array in arrays), xp.asarray(0, dtype=xp.int8)) == 0
        return [xp.where(everywhere, array, array) for array in arrays]
    if not fit_together(*arrays):
        raise error(f"{function}: shapes must broadcast, got {' and '.join(map(str, shapes))}. Reshape one.")
    return list(xp.broadcast_arrays(*arrays))


def class_axes(function: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """The class axes, counted from the front."""
    axes = tuple(range(ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(operator.index(index) for index in axes)
    if any(not -ndim <= index < ndim for index in axes):
        raise ValueError(f"{function}: `axis` must lie in [{-ndim}, {ndim}), got {axis}. Name an axis of the logits.")
    if len({index % ndim for index in axes}) < len(axes):
        raise ValueError(f"{function}: `axis` must name each axis once, got {axis}. Drop what is double.")
    return tuple(index % ndim for index in axes)


def with_one_class_axis(
    function: str, logits: Array, labels: Array | None, axis: Any, where: Array | None
) -> tuple[Any, ...]:
    """Logits, labels and mask of one shape, with all class axes merged to one, and that axis from the front."""
    xp, axes = array_namespace(logits), class_axes(function, axis, logits.ndim)
    if any(logits.shape[index] == 0 for index in axes):
        raise ValueError(f"{function}: `logits` must have at least one class, got {tuple(logits.shape)}. Pass C ≥ 1.")
    if where is not None and "bool" not in str(where.dtype):
        raise ValueError(f"{function}: `where` must be of bools, got {where.dtype}. Compare it.")
    if where is not None and where.ndim not in (logits.ndim, logits.ndim - len(axes)):
        raise ValueError(
            f"{function}: `where` must have the axes of the logits or of the examples, got {tuple(where.shape)} beside "
            f"{tuple(logits.shape)}. Spread one of the two."
        )
    if where is not None and where.ndim != logits.ndim:
        for index in sorted(axes):
            where = expand_dims(where, index)
    arguments = [logits, labels, where]
    arrays = [logits] if labels is None else broadcast(function, xp, logits, labels)
    if where is not None:
        arrays = broadcast(function, xp, *arrays, where, error=ValueError)
    added = arrays[0].ndim - logits.ndim
    named = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if added and (axis is None or any(index >= 0 for index in named)):
        raise ValueError(
            f"{function}: `axis` must count from the end where the labels have more axes than the logits, got {axis} "
            f"of {tuple(arrays[0].shape)} and {tuple(logits.shape)}. Pass axis - {logits.ndim}."
        )
    if any(arrays[0].shape[index + added] != logits.shape[index] for index in axes):
        raise ValueError(
            f"{function}: `logits` must have as many classes as `labels`, got {tuple(logits.shape)}. Pass all logits."
        )
    axes = tuple(index + added for index in axes)
    if not axes:  # each element is the one class of its own row
        arrays, axes = [expand_dims(array, array.ndim) for array in arrays], (arrays[0].ndim,)
    if len(axes) > 1:
        batch = tuple(index for index in range(arrays[0].ndim) if index not in axes)
        shape = (*(arrays[0].shape[index] for index in batch), -1)
        arrays, axes = [xp.reshape(xp.permute_dims(array, (*batch, *axes)), shape) for array in arrays], (len(batch),)
    remaining = iter(arrays)
    return (*(None if argument is None else next(remaining) for argument in arguments), axes[0])


def broadcast_examples(
    function: str, labels: Array, logits: Array, mask: Array | None, axis: int
) -> tuple[Array, Array, Array | None]:
    """Labels, logits and mask of the same examples; each may be broadcast to the others."""
    xp, batch = array_namespace(logits), (*logits.shape[:axis], *logits.shape[axis + 1 :])
    if labels.ndim != len(batch) or not fit_together(expand_dims(labels, axis), logits):
        raise ValueError(
            f"{function}: `labels` must have shape {batch}, got {tuple(labels.shape)}. Pass one label an example."
        )
    if has_shape(labels, batch):
        return labels, logits, mask
    labels, logits, *masks = broadcast(
        function, xp, expand_dims(labels, axis), logits, *([] if mask is None else [mask])
    )
    return labels[(*[slice(None)] * axis, 0)], logits, masks[0] if masks else None


# -------------------- losses


def masked_cross_entropy(xp: Any, logits: Array, targets: Array, mask: Array | None, axis: int) -> Array:
    """The losses of soft targets, with optax's NaN for infinite logits; 0 for an example whose mask is all False."""
    invalid, counted = (logits == -math.inf) & (targets == 0), None
    if mask is not None:
        invalid, counted = invalid & mask, xp.any(mask, axis=axis)
        logits, targets = xp.where(mask, logits, -math.inf), xp.where(mask, targets, 0.0)
    losses = xent.cross_entropy(logits, targets, axis=axis, sample_weight=counted)
    losses = nan_where_invalid(xp, losses, xp.any(logits == math.inf, axis=axis), gradient=True)
    return nan_where_invalid(xp, losses, xp.any(invalid, axis=axis), gradient=False)


def masked_logits(xp: Any, logits: Array, mask: Array | None, axis: int) -> Array:
    """The logits, −inf where the mask is False; 0 in an example whose mask is all False, so that no gradient is NaN."""
    if mask is None:
        return logits
    counted = expand_dims(xp.any(mask, axis=axis), axis)
    return xp.where(counted, xp.where(mask, logits, -math.inf), 0.0)


def __dir__() -> list[str]:
    return [*__all__]
