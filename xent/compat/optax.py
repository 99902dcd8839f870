"""optax's cross entropies, on any array: its names, signatures, defaults and answers.

Every function gives the loss of each example; there is no reduction. Divergences, rankings and contrastive losses of
optax.losses are no cross entropies and are not here. Where optax and xent disagree:

| case | xent | optax, and here |
|---|---|---|
| ``axis`` | one | several too, or None for all; a label is then an index into them, flat; () for each by itself |
| a number for labels | TypeError | the target of all, without a say in the dtype |
| NumPy's arrays beside the logits | TypeError | taken |
| logits and targets of other shapes | ValueError | broadcast, both ways |
| ``where`` | there is none | classes, or with one axis less examples, that are left out; 0 where all are |
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
| an axis twice, labels | TypeError | ValueError |
| an integer of NumPy for ``axis`` with labels | ValueError | taken |
| the gradient of a target that is left out | NaN | 0 |
| float8 | taken | TypeError |
| forward mode of ``safe_softmax_cross_entropy`` at −inf | NaN | right |
| errors | optax's and JAX's | xent's |
"""

from __future__ import annotations

import math
import operator
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj, is_dask_array, is_numpy_array

import xent

from ..dispatch.selection import unwrap
from .operands import beside, expanded, fits, is_integer, is_label, wide_dtype, wide_labels

__all__ = [
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]

Array = Any


def softmax_cross_entropy(
    logits: Array, labels: Array, axis: int | tuple[int, ...] | None = -1, where: Array | None = None
) -> Array:
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
        What takes part.

    Returns
    -------
    array, shape (\*batch,)
        In the dtype of the logits, promoted with that of floating targets. Lazy where the logits are.

    Raises
    ------
    TypeError, ValueError
        As in :func:`xent.cross_entropy`; and for an axis that is not there, or named twice, or a mask that is not of
        bools.

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
    xp, logits, labels, where = operands("softmax_cross_entropy", logits, labels, where)
    dtype = promoted(xp, logits, labels)
    logits, labels, mask, along = laid_out("softmax_cross_entropy", logits, labels, axis, where)
    return xp.astype(soft(xp, logits, xp.astype(labels, dtype, copy=False), mask, along), dtype, copy=False)


def softmax_cross_entropy_with_integer_labels(
    logits: Array, labels: Array, axis: int | tuple[int, ...] = -1, where: Array | None = None
) -> Array:
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
    xp, logits, labels, where = operands(function, logits, labels, where)
    if not is_integer(labels) or "bool" in str(labels.dtype):
        raise TypeError(f"{function}: `labels` must be integers, got {labels.dtype}. Cast them.")
    dtype = logits.dtype
    logits, _, mask, along = laid_out(function, logits, None, axis, where)
    labels, logits, mask = with_rows(function, labels, logits, mask, along)
    classes = logits.shape[along]
    labels = wide_labels(labels, classes)
    labels = xp.where(labels < 0, labels + classes, labels)
    inside = (labels >= 0) & (labels < classes)
    labels = xp.where(inside, labels, 0)
    if mask is None:
        losses = xent.sparse_cross_entropy(logits, labels, axis=along)
        lost = xp.any(logits == math.inf, axis=along) & (losses == 0)
        losses = losses + xp.where(lost, math.nan, xp.zeros_like(losses))
        first = xp.astype(logits[(*[slice(None)] * along, 0)], losses.dtype, copy=False)
        # subtle: what a bad label's row adds to the loss of class 0 leaves the gradient of its log-partition function
        return xp.astype(losses + xp.where(inside, 0.0, first + math.nan), dtype, copy=False)
    live = xp.any(mask, axis=along)
    hit = is_label(labels, classes, along) & expanded(live, along)
    minus = xent.sparse_cross_entropy(xp.where(hit, logits, 0.0), labels, axis=along, kind="log_probabilities")
    losses = xent.logsumexp(shown(xp, logits, mask, along), axis=along) + xp.where(inside, minus, math.nan)
    return xp.astype(xp.where(live, losses, 0.0), dtype, copy=False)


def safe_softmax_cross_entropy(logits: Array, labels: Array) -> Array:
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
    xp, logits, labels = operands("safe_softmax_cross_entropy", logits, labels)
    dtype = promoted(xp, logits, labels)
    logits, labels, _, axis = laid_out("safe_softmax_cross_entropy", logits, labels, -1, None)
    labels = xp.astype(labels, dtype, copy=False)
    losses = spoilt(xp, xent.cross_entropy(logits, labels, axis=axis), logits, axis)
    return xp.astype(xp.where(xp.any(labels != 0, axis=axis), losses, 0.0), dtype, copy=False)


def poly_loss_cross_entropy(
    logits: Array,
    labels: Array,
    *,
    epsilon: float = 2.0,
    axis: int | tuple[int, ...] | None = -1,
    where: Array | None = None,
) -> Array:
    r"""``optax.poly_loss_cross_entropy``: cross entropy and a multiple of what is not predicted.

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
    xp, logits, labels, where, epsilon = operands("poly_loss_cross_entropy", logits, labels, where, epsilon)
    if is_integer(labels):
        raise TypeError(f"poly_loss_cross_entropy: `labels` must be floating, got {labels.dtype}. Cast them.")
    dtype = promoted(xp, logits, labels)
    logits, labels, mask, along = laid_out("poly_loss_cross_entropy", logits, labels, axis, where)
    labels = xp.astype(labels, dtype, copy=False)
    losses = soft(xp, logits, labels, mask, along)
    seen = labels if mask is None else xp.where(mask, labels, 0.0)
    missed = xp.sum(seen * (1 - xent.softmax(shown(xp, logits, mask, along), axis=along)), axis=along)
    return xp.astype(losses + epsilon * missed, dtype, copy=False)


def sigmoid_binary_cross_entropy(logits: Array, labels: Array) -> Array:
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
    xp, logits, labels = operands("sigmoid_binary_cross_entropy", logits, labels)
    logits, labels = together(xp, logits, xp.astype(labels, logits.dtype, copy=False))
    losses = xent.binary_cross_entropy(logits, labels)
    lost = ((logits == math.inf) & (labels == 1)) | ((logits == -math.inf) & (labels == 0))
    return xp.astype(losses + xp.where(lost, math.nan, xp.zeros_like(losses)), logits.dtype, copy=False)


def sigmoid_focal_loss(logits: Array, labels: Array, *, alpha: Any = None, gamma: Any = 2.0) -> Array:
    r"""``optax.sigmoid_focal_loss``: binary cross entropy that counts less where the prediction is right.

    .. math:: \ell = \bigl( (1 - t) p + t (1 - p) \bigr)^\gamma \bigl( -t \log p - (1 - t) \log(1 - p) \bigr)

    times :math:`\alpha t + (1 - \alpha)(1 - t)` where there is an α.

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
    xp, logits, labels, alpha, gamma = operands("sigmoid_focal_loss", logits, labels, alpha, gamma)
    dtype, wide = logits.dtype, wide_dtype(xp, logits)
    logits, labels = (xp.astype(one, wide, copy=False) for one in together(xp, logits, labels))
    losses = sigmoid_binary_cross_entropy(logits, labels)
    rises = logits >= 0
    distance = xp.where(rises, logits, -logits)
    near = xp.where(rises, 1 - labels, labels)  # the share of the answer that the logit leans to being wrong
    certain = near == 0
    mixed = xp.where(certain, 1.0, near + (1 - near) * xp.exp(-distance))
    wrong = xp.where(certain, -distance, xp.log(mixed)) - xp.log1p(xp.exp(-distance))
    losses = losses * xp.exp(gamma * wrong)
    if alpha is not None:
        losses = losses * (alpha * labels + (1 - alpha) * (1 - labels))
    return xp.astype(losses, dtype, copy=False)


# -------------------- what is given


def operands(function: str, logits: Any, labels: Any, *others: Any) -> tuple[Any, ...]:
    """The namespace, logits and labels as its arrays, and the others as they are or as its arrays too."""
    logits, labels = unwrap(logits), unwrap(labels)
    for name, value in (("logits", logits), ("labels", labels)):
        if not is_array_api_obj(value) and not (value is labels and isinstance(value, bool | int | float)):
            raise TypeError(f"{function}: `{name}` must be an array, got {type(value).__name__}. Convert it.")
    xp = array_namespace(logits)
    if not is_array_api_obj(labels):  # subtle: a Python float has no say in the dtype, and an int is no float
        kind = {"dtype": logits.dtype} if isinstance(labels, float) else {}
        labels = xp.asarray(labels, **kind, **beside(logits))
    return xp, logits, *(moved(xp, unwrap(one), logits) for one in (labels, *others))


def moved(xp: Any, value: Any, logits: Array) -> Any:
    """NumPy's arrays in the library of the logits, as JAX takes them; Dask takes them as they are."""
    if not is_numpy_array(value) or is_numpy_array(logits) or is_dask_array(logits):
        return value
    return xp.asarray(value, **beside(logits))


def promoted(xp: Any, logits: Array, labels: Array) -> Any:
    """The dtype of the result; one-hots of integers have no say in it."""
    return logits.dtype if is_integer(labels) else xp.result_type(logits, labels)


# -------------------- shapes


def together(xp: Any, *arrays: Array) -> list[Array]:
    """The arrays broadcast to one shape; a size that Dask does not know, NaN, is another that it does not know."""
    shapes = {tuple(size if size == size else None for size in array.shape) for array in arrays}
    if len(shapes) == 1:
        return list(arrays)
    if any(None in shape for shape in shapes):  # subtle: Dask broadcasts to no such shape, but element by element
        every = sum((xp.zeros_like(array, dtype=xp.int8) for array in arrays), xp.asarray(0, dtype=xp.int8)) == 0
        return [xp.where(every, array, array) for array in arrays]
    return list(xp.broadcast_arrays(*arrays))


def class_axes(function: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """The class axes of so many, counted from the front."""
    axes = tuple(range(ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(operator.index(one) for one in axes)
    if any(not -ndim <= one < ndim for one in axes):
        raise ValueError(f"{function}: `axis` must lie in [{-ndim}, {ndim}), got {axis}. Name an axis of the logits.")
    if len({one % ndim for one in axes}) < len(axes):
        raise ValueError(f"{function}: `axis` must name each axis once, got {axis}. Drop what is double.")
    return tuple(one % ndim for one in axes)


def laid_out(function: str, logits: Array, labels: Array | None, axis: Any, where: Array | None) -> tuple[Any, ...]:
    """Logits, labels and mask of one shape, several class axes made one, and that axis counted from the front."""
    xp, axes = array_namespace(logits), class_axes(function, axis, logits.ndim)
    if where is not None and "bool" not in str(where.dtype):
        raise ValueError(f"{function}: `where` must be of bools, got {where.dtype}. Compare it.")
    if where is not None and where.ndim != logits.ndim:
        for one in sorted(axes):
            where = expanded(where, one)
    given = [logits, labels, where]
    known = together(xp, *(one for one in given if one is not None))
    more = known[0].ndim - logits.ndim
    named = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if more and (axis is None or any(one >= 0 for one in named)):
        raise ValueError(
            f"{function}: `axis` must count from the end where the labels have more axes than the logits, got {axis} "
            f"of {tuple(known[0].shape)} and {tuple(logits.shape)}. Pass axis - {logits.ndim}."
        )
    if any(known[0].shape[one + more] != logits.shape[one] for one in axes):
        raise ValueError(
            f"{function}: `logits` must have as many classes as `labels`, got {tuple(logits.shape)}. Pass all logits."
        )
    axes = tuple(one + more for one in axes)
    if not axes:  # each element is the one class of its own row
        known, axes = [expanded(one, one.ndim) for one in known], (known[0].ndim,)
    if len(axes) > 1:
        batch = tuple(one for one in range(known[0].ndim) if one not in axes)
        shape = (*(known[0].shape[one] for one in batch), -1)
        known, axes = [xp.reshape(xp.permute_dims(one, (*batch, *axes)), shape) for one in known], (len(batch),)
    found = iter(known)
    return (*(None if one is None else next(found) for one in given), axes[0])


def with_rows(function: str, labels: Array, logits: Array, mask: Array | None, axis: int) -> tuple[Any, ...]:
    """Labels, logits and mask of the same examples; each may be broadcast to the others."""
    xp, rows = array_namespace(logits), (*logits.shape[:axis], *logits.shape[axis + 1 :])
    if labels.ndim != len(rows):
        raise ValueError(
            f"{function}: `labels` must have shape {rows}, got {tuple(labels.shape)}. Pass one label an example."
        )
    if fits(labels, rows):
        return labels, logits, mask
    spread = together(xp, expanded(labels, axis), logits, *([] if mask is None else [mask]))
    return spread[0][(*[slice(None)] * axis, 0)], spread[1], None if mask is None else spread[2]


# -------------------- rows


def soft(xp: Any, logits: Array, targets: Array, mask: Array | None, axis: int) -> Array:
    """The losses of targets, with optax's answers to infinities; 0 where nothing takes part."""
    lost, live = (logits == -math.inf) & (targets == 0), None
    if mask is not None:
        lost, live = lost & mask, xp.any(mask, axis=axis)
        logits, targets = xp.where(mask, logits, -math.inf), xp.where(mask, targets, 0.0)
    losses = spoilt(xp, xent.cross_entropy(logits, targets, axis=axis, sample_weight=live), logits, axis)
    return losses + xp.where(xp.any(lost, axis=axis), math.nan, xp.zeros_like(losses))


def spoilt(xp: Any, losses: Array, logits: Array, axis: int) -> Array:
    """The losses: NaN, as their gradients, where a logit is +inf."""
    return losses * xp.where(xp.any(logits == math.inf, axis=axis), math.nan, xp.ones_like(losses))


def shown(xp: Any, logits: Array, mask: Array | None, axis: int) -> Array:
    """The logits, −inf where they take no part; 0 in a row where none does, so that no gradient is NaN."""
    if mask is None:
        return logits
    live = expanded(xp.any(mask, axis=axis), axis)
    return xp.where(live, xp.where(mask, logits, -math.inf), 0.0)
