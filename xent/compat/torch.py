"""torch.nn.functional's cross entropies, on any array: its names, signatures, defaults and answers.

``input`` is (C,), (N, C) or (N, C, d1, ...): the class axis is 1, or 0 where there is no other. A target of the shape
of the input holds probabilities, any other labels. The result has torch's dtype, half precision too, and
autograd through these functions is autograd through xent's. torch's answers to infinities cost one more pass over the
logits, and a mask of their size. Where torch and xent disagree:

| case | xent | torch, and here |
|---|---|---|
| probabilities and ``weight`` | a factor on the whole row | a factor on each class; the mean is over the rows |
| smoothing and ``weight`` | a factor on the whole smoothed row | a factor on each class of the smoothed target |
| ``label_smoothing`` < 0 | ValueError | as 0 |
| a +inf logit | 0 at it, +inf elsewhere | NaN loss and gradient |
| −inf logit at target probability 0 | contributes 0 | NaN loss, finite gradient |
| weight 0 and a loss of +inf | 0 | NaN |
| ``nll_loss``, NaN beside the label | NaN | not read |
| probability 0 or 1 of the other answer | +inf | 100; the p (1 − p) of both derivatives is at least 1e-12 |
| (C,) logits, a label of shape (1,) | ValueError | the one label |
| binary, infinite logits | the limit, 0 or +inf | NaN at +inf for a yes, at −inf always; finite gradient |
| float16, bfloat16 | float32 | the input's dtype; of binary logits the target's |

Not followed:

| case | torch | here |
|---|---|---|
| NaN or an infinity in a row that is ignored or of weight 0 | its gradient is NaN | 0 |
| tiny losses | 0 | to full relative accuracy |
| float16 and bfloat16 inside | rounded on a CPU, overflows at C = 1e5; float32 on a GPU | float32 |
| labels out of range on a GPU | an assertion that loses the GPU | the row is NaN |
| probabilities outside [0, 1], on Dask, JAX or a GPU, under torch.func or compiled | RuntimeError, or as above | NaN |
| labels of other integer dtypes, weights of other floating ones, binary targets of integers | RuntimeError | taken |
| uint8 label 156 with smoothing and ``ignore_index`` −100 | ignored | counted |
| ``label_smoothing`` 1 and −inf at the label | NaN | +inf |
| zero classes, of no rows, of ignored labels or of probabilities | 0 or NaN | an IndexError, as for labels |
| class weights of shape (1, C), for images | taken | RuntimeError: weights have shape (C,) |
| (C,) logits, a label of shape (1,), smoothed | RuntimeError | the one label |
| ``linear_cross_entropy``, ``LinearCrossEntropyLoss`` | a layer and its loss in one | not here: xent has no such loss |
| mean where the weights of the labels sum to 0 | NaN or ±inf, its gradient NaN | NaN, 0 |
| a NaN among the class weights, on Dask | NaN for its labels | NaN for all |
| the class weights' derivative, from labels or of binary losses | RuntimeError | computed |
| ``nll_loss`` on Dask | O(N) | a pass over the classes |
| gradient of a binary target, p at 0 or 1 | infinite | ±100 |
| the words of errors, and the first of several | torch's | xent's words, which say what to pass; the type is torch's |
"""

from __future__ import annotations

import math
import operator
import warnings
from typing import Any, NamedTuple

import numpy as np

import xent

from .operands import (
    ArrayT,
    array_namespace,
    describe,
    expand_dims,
    fit_together,
    has_shape,
    is_dask_array,
    is_integer,
    is_label,
    is_numpy_array,
    is_readable,
    library,
    nan_where,
    nan_where_invalid,
    require_array,
    stop_gradient,
    unwrap,
    wide_dtype,
    widen_labels,
)

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "nll_loss"]

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


# -------------------- the arguments


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction, from its name or from the two flags that it has replaced."""
    if size_average is not None or reduce is not None:
        summed = "sum" if size_average is False else "mean"
        reduction = "none" if reduce is False else summed
        text = f"size_average and reduce args will be deprecated, please use reduction={reduction!r} instead."
        warnings.warn(text, stacklevel=3)
    if reduction == "elementwise_mean":
        warnings.warn("reduction='elementwise_mean' is deprecated: pass reduction='mean'.", stacklevel=3)
        return "mean"
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"{reduction} is not a valid value for reduction: pass 'none', 'sum' or 'mean'.")
    return reduction


def class_axis(input: Array) -> int:
    """The class axis: 1, or 0 for an input of one axis."""
    return 0 if input.ndim == 1 else 1


def checked_arrays(function: str, input: Any, target: Any, **weights: Any) -> list[Any]:
    """The arguments without xarray's wrappers: arrays of one library, but NumPy's may stand beside Dask's."""
    arguments = {"input": unwrap(input), "target": unwrap(target)}
    arguments |= {name: unwrap(weight) for name, weight in weights.items()}
    input = arguments["input"]
    for name, value in arguments.items():
        if value is None and name in weights:
            continue
        require_array(function, name, value)
        if array_namespace(value) is not array_namespace(input) and not (
            is_numpy_array(value) and is_dask_array(input)
        ):
            raise TypeError(
                f"{function}: `{name}` must be of the library of `input` ({library(input)}), got {describe(value)}. "
                "Nothing is moved between libraries: convert one of the two."
            )
    return list(arguments.values())


def index_of(function: str, ignore_index: Any) -> int:
    """The ignored label as an int."""
    try:
        return operator.index(ignore_index)
    except TypeError:
        raise TypeError(
            f"{function}: `ignore_index` must be an int, got {ignore_index!r}. Pass -100, which is no label, for none."
        ) from None


def one_label(input: Array, target: Array) -> Array:
    """The target; for an input of one axis, the one label of a target of shape (1,)."""
    return target[0] if input.ndim == 1 and tuple(target.shape) == (1,) and is_integer(target) else target


def require_classes(function: str, input: Array, labels: Array | None, weight: Array | None) -> None:
    """Raises, in torch's order, unless input, labels, or None for probabilities, and weights of the classes fit."""
    axis = class_axis(input)
    if input.ndim == 0:
        raise no_class(function, input)
    require_floating(function, input)
    if labels is not None:
        batch = (*input.shape[:axis], *input.shape[axis + 1 :])
        if not has_shape(labels, batch):
            other_rows = labels.ndim == 1 if axis == 0 else tuple(labels.shape[:1]) != tuple(input.shape[:1])
            raise (ValueError if other_rows else RuntimeError)(
                f"{function}: `target` must have shape {batch}, got {tuple(labels.shape)}. Pass one label a row."
            )
        if not is_integer(labels) or "bool" in str(labels.dtype):
            raise RuntimeError(f"{function}: `target` must be integers, got {describe(labels)}. Cast them.")
        if weight is not None and is_integer(weight):
            raise RuntimeError(f"{function}: `weight` must be real floating, got {describe(weight)}. Cast it.")
    if weight is not None and tuple(weight.shape) != (input.shape[axis],):
        raise RuntimeError(
            f"{function}: `weight` must have shape {(input.shape[axis],)} (one for each class), "
            f"got {tuple(weight.shape)}. Pass all classes."
        )
    if input.shape[axis] == 0:
        raise no_class(function, input)


def no_class(function: str, input: Array) -> xent.LabelError:
    """The error for no class: a ValueError and an IndexError, of which torch raises one or the other."""
    return xent.LabelError(
        f"{function}: `input` must have at least one class, got shape {tuple(input.shape)}. "
        "Pass shape (C,) or (N, C, ...)."
    )


def require_floating(function: str, input: Array) -> None:
    """Raises NotImplementedError, a RuntimeError, for an input of integers."""
    if is_integer(input):
        raise NotImplementedError(
            f"{function}: `input` must be real floating, got {describe(input)}. Cast it to float32."
        )


def require_same_shape(function: str, input: Array, target: Array) -> None:
    """Raises ValueError unless the shapes are equal."""
    if not has_shape(target, input.shape):
        raise ValueError(
            f"{function}: `target` must have the shape of `input`, {tuple(input.shape)}, got {tuple(target.shape)}. "
            "Reshape one of the two."
        )


def broadcast_weight(function: str, xp: Any, weight: Array, input: Array) -> Array:
    """The weight of each element of the input."""
    elements = weight * xp.ones_like(input) if fit_together(weight, input) else weight
    if not has_shape(elements, input.shape):
        raise RuntimeError(
            f"{function}: a weight must broadcast to the shape of `input`, {tuple(input.shape)}, "
            f"got {tuple(weight.shape)}. Pass a smaller one."
        )
    return elements


def in_unit_interval(xp: Any, values: Array, name: str) -> Array:
    """The values; outside [0, 1] an error if they can be read, and else NaN."""
    inside = (values >= 0) & (values <= 1)
    if is_readable(values):
        if not bool(xp.all(inside)):
            raise RuntimeError(f"binary_cross_entropy: all elements of {name} should be between 0 and 1.")
        return values
    return xp.where(inside, values, nan_where(xp, ~inside, values))


# -------------------- labels and weights


class LabelIndices(NamedTuple):
    """Labels to gather by: in range, and which rows are ignored or have a bad label that could not be read."""

    index: Array
    ignored: Array
    bad: Array


def label_indices(function: str, classes: int, labels: Array, ignore_index: int) -> LabelIndices:
    """The labels as indices; raises LabelError for a bad one if it can be read."""
    xp = array_namespace(labels)
    ignored = is_ignored(xp, labels, ignore_index)
    wide = widen_labels(labels, classes)
    inside = (wide >= 0) & (wide < classes)
    bad = ~inside & ~ignored
    if is_readable(bad) and bool(xp.any(bad)):
        raise label_error(function, classes, labels, bad)
    return LabelIndices(xp.where(inside & ~ignored, wide, 0), ignored, bad)


def label_error(function: str, classes: int, labels: Array, bad: Array) -> xent.LabelError:
    """The error for bad labels: their number, and the position and value of the first one."""
    xp = array_namespace(labels)
    flags = xp.astype(xp.reshape(bad, (-1,)), xp.int32)
    count, first = int(xp.sum(flags)), int(xp.argmax(flags))
    value = int(xp.reshape(labels, (-1,))[first])
    position = tuple(int(index) for index in np.unravel_index(first, tuple(bad.shape)))
    message = (
        f"{function}: `labels` must lie in [0, {classes}), got {count} outside; "
        f"the first, at position {position[0] if len(position) == 1 else position}, is {value}. "
        "Mend them, name them in ignore_index, or give them sample_weight 0."
    )
    return xent.LabelError(message, count, position, value)


def is_ignored(xp: Any, labels: Array, ignore_index: int) -> Array:
    """Whether each row has the ignored label: none has it if the labels' dtype cannot hold it."""
    held = xp.iinfo(labels.dtype)
    return labels == ignore_index if held.min <= ignore_index <= held.max else xp.zeros_like(labels, dtype=xp.bool)


def where_valid(xp: Any, gathered: Array, labels: LabelIndices) -> Array:
    """The values gathered at the labels: 0 for ignored rows, NaN for bad labels."""
    return xp.where(labels.ignored, 0.0, xp.where(labels.bad, nan_where(xp, labels.bad, gathered), gathered))


def class_weights(weight: Array, input: Array) -> Array:
    """The weight of each class, (C,), with the axes that follow the class axis."""
    following = input.ndim - class_axis(input) - 1
    return weight[(slice(None), *[None] * following)]


def label_weights(function: str, input: Array, labels: Array, weight: Array | None, ignore_index: int) -> Array:
    """The weight of each row in a mean: that of its label, 0 if the label is ignored."""
    xp = array_namespace(input)
    if weight is None:
        ones = xp.ones_like(labels, dtype=wide_dtype(xp, input))
        return xp.where(is_ignored(xp, labels, ignore_index), 0.0, ones)
    if is_dask_array(input):  # subtle: it gathers along no axis, and broadcasts to no shape that it does not know
        return xent.sparse_cross_entropy(  # minus the "log-probability" of the label is its weight
            xp.zeros_like(input) - class_weights(weight, input),
            labels,
            axis=class_axis(input),
            kind="log_probabilities",
            ignore_index=ignore_index,
        )
    indices = label_indices(function, input.shape[class_axis(input)], labels, ignore_index)
    wide = xp.astype(weight, wide_dtype(xp, weight), copy=False)
    gathered = xp.reshape(xp.take(wide, xp.reshape(indices.index, (-1,)), axis=0), tuple(labels.shape))
    return where_valid(xp, gathered, indices)


# -------------------- losses


def smoothed(targets: Array, smoothing: float, input: Array) -> Array:
    """The targets, smoothed evenly over the classes."""
    return targets if smoothing == 0 else (1 - smoothing) * targets + smoothing / input.shape[class_axis(input)]


def dense_losses(xp: Any, input: Array, targets: Array, weight: Array | None, ignored: Array | None = None) -> Array:
    """The losses of class-weighted targets, row by row, with torch's NaN for infinite logits."""
    axis = class_axis(input)
    targets = targets if weight is None else targets * class_weights(weight, input)
    counted = None if ignored is None else ~ignored
    losses = xent.cross_entropy(input, targets, axis=axis, sample_weight=counted)
    infinite = xp.any(input == math.inf, axis=axis)
    zero_times_infinity = xp.any((input == -math.inf) & (targets == 0), axis=axis)
    if counted is not None:
        infinite, zero_times_infinity = infinite & counted, zero_times_infinity & counted
    losses = nan_where_invalid(xp, losses, infinite, gradient=True)
    return nan_where_invalid(xp, losses, zero_times_infinity, gradient=False)


def weigh(xp: Any, losses: Array, weight: Array) -> Array:
    """The weighted losses; NaN, without NumPy's warning, for an infinite loss of weight 0."""
    invalid = (weight == 0) & xp.isinf(losses)
    return xp.where(invalid, nan_where(xp, invalid, losses), losses) * weight


def negative_log(xp: Any, logarithm: Any, value: Array, pole: float) -> Array:
    """Minus the logarithm, at most 100; the logarithm is infinite at the pole."""
    regular = ~(value <= pole)
    result = -logarithm(xp.where(regular, value, pole + 1))
    return xp.where(regular & ~(result > 100), result, 100.0)


def reduce_losses(xp: Any, losses: Array, weights: Array, reduction: str, dtype: Any) -> Array:
    """The losses, their sum, or their sum over that of the weights, in the dtype."""
    if reduction != "none":
        losses, denominator = xp.sum(losses), xp.sum(weights)
        if reduction == "mean":
            empty = denominator == 0
            losses = xp.where(empty, nan_where(xp, empty, losses), losses / xp.where(empty, 1.0, denominator))
    return xp.astype(losses[...], dtype, copy=False)
