"""torch.nn.functional's cross entropies, on any array: its names, signatures, defaults and answers.

``input`` is (C,), (N, C) or (N, C, d1, ...): the class axis is 1, or 0 where there is no other. A target of the shape
of the input is taken for probabilities, any other for labels. Answers come in torch's dtype, half precision too, and
autograd through these functions is autograd through xent's. torch's answers to infinities take one more look at the
logits, and a mask of their size. Where torch and xent disagree:

| case | xent | torch, and here |
|---|---|---|
| probabilities and ``weight`` | a factor on the whole row | a factor on each class; the mean is over the rows |
| smoothing and ``weight`` | a factor on the whole smoothed row | a factor on each class of the smoothed target |
| ``label_smoothing`` < 0 | ValueError | as 0 |
| a +inf logit | 0 at it, +inf elsewhere | NaN loss and gradient |
| −inf logit at target probability 0 | contributes 0 | NaN loss, finite gradient |
| weight 0 and a loss of +inf | 0 | NaN |
| ``nll_loss``, NaN beside the label | NaN | not looked at |
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
| zero classes | IndexError or NaN | ValueError |
| mean where the weights of the labels sum to 0 | NaN or ±inf, its gradient NaN | NaN, 0 |
| a NaN among the class weights, on Dask | NaN for its labels | NaN for all |
| the class weights' derivative, from labels or of binary losses | RuntimeError | there |
| ``nll_loss`` on Dask | O(N) | a pass over the classes |
| gradient of a binary target, p at 0 or 1, or an infinite logit | infinite | ±100, or NaN-free limits |
| errors | torch's | where xent raises, xent's: LabelError is an IndexError; TypeError for a wrong dtype |
"""

from __future__ import annotations

import math
import operator
import sys
import warnings
from typing import Any, NamedTuple

from array_api_compat import array_namespace, is_dask_array

import xent

from .. import arrays, checks
from ..dispatch.selection import unwrap
from .operands import expanded, fits, is_integer, is_label, is_readable, wide_dtype, wide_labels

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "nll_loss"]

Array = Any
LEAST = 1e-12
"""What torch divides by, at least, in the derivatives of ``binary_cross_entropy``."""


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
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
        If a label is out of range: :class:`xent.LabelError`, where xent raises it.
    RuntimeError
        If ``label_smoothing`` is above 1, a target of the input's shape is not floating, or ``ignore_index`` ≥ 0 comes
        with probabilities.
    TypeError, ValueError
        As in :func:`xent.sparse_cross_entropy`, or for an unknown reduction.

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
    asked = reduction_of(size_average, reduce, reduction)
    input, target, weight = arrays_of("cross_entropy", input, target, weight=weight)
    ignore_index = index_of("cross_entropy", ignore_index)
    xp, axis = array_namespace(input), class_axis(input)
    if label_smoothing > 1:
        raise RuntimeError(
            f"cross_entropy: `label_smoothing` must be at most 1, got {label_smoothing!r}. Pass a share."
        )
    share = max(label_smoothing, 0.0)
    if fits(target, input.shape):
        if is_integer(target) or ignore_index >= 0:
            raise RuntimeError(
                "cross_entropy: `target` must be floating and `ignore_index` negative where the target has the input's "
                f"shape, got {target.dtype} and {ignore_index}. Pass probabilities, or labels without the class axis."
            )
        losses = soft(xp, input, smoothed(target, share, input), weight)
        return reduced(xp, losses, xp.ones_like(losses), asked, xp.result_type(input, target))
    target = one_label(input, target)
    if weight is not None and share > 0:
        counts = label_weight("cross_entropy", input, target, weight, ignore_index)
        hot = xp.astype(is_label(target, input.shape[axis], axis), input.dtype)
        losses = soft(xp, input, smoothed(hot, share, input), weight, ignored(xp, target, ignore_index))
        return reduced(xp, losses, counts, asked, input.dtype)
    losses = xent.sparse_cross_entropy(input, target, axis=axis, ignore_index=ignore_index, label_smoothing=share)
    losses = spoilt(xp, losses, input, ignored(xp, target, ignore_index))
    counts = label_weight("cross_entropy", input, target, weight, ignore_index)
    return reduced(xp, weighted(xp, losses, counts), counts, asked, input.dtype)


def nll_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Array:
    r"""``torch.nn.functional.nll_loss``: of log-probabilities.

    .. math:: \ell_n = -w_{y_n} x_{n y_n}

    Parameters
    ----------
    input : array, shape (C,), (N, C) or (N, C, d1, ...), real floating
        What the labels do not name is not looked at.
    target : array, shape () or (N,) or (N, d1, ...), any integer dtype
    weight, size_average, ignore_index, reduce, reduction
        As in :func:`cross_entropy`.

    Returns
    -------
    array, shape () or that of the labels, dtype of the input

    Raises
    ------
    IndexError, TypeError, ValueError
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
    asked = reduction_of(size_average, reduce, reduction)
    input, target, weight = arrays_of("nll_loss", input, target, weight=weight)
    ignore_index = index_of("nll_loss", ignore_index)
    target = one_label(input, target)
    xp, axis = array_namespace(input), class_axis(input)
    floating("nll_loss", input, "log-probabilities")
    rows = (*input.shape[:axis], *input.shape[axis + 1 :])
    if not fits(target, rows):
        raise ValueError(f"nll_loss: `target` must have shape {rows}, got {tuple(target.shape)}. Pass one label a row.")
    if is_dask_array(input):  # it cannot gather along an axis
        beside = xp.where(is_label(target, input.shape[axis], axis), input, 0.0)
        losses = xent.sparse_cross_entropy(
            beside, target, axis=axis, kind="log_probabilities", ignore_index=ignore_index
        )
    else:
        named = labels_of("nll_loss", input.shape[axis], target, ignore_index)
        found = xp.take_along_axis(input, expanded(named.safe, axis), axis=axis)
        losses = -counted(xp, xp.astype(xp.squeeze(found, axis=axis), wide_dtype(xp, input), copy=False), named)
    counts = label_weight("nll_loss", input, target, weight, ignore_index)
    return reduced(xp, weighted(xp, losses, counts), counts, asked, input.dtype)


def binary_cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Array:
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
        If a value lies outside [0, 1] and can be looked at; NaN instead on Dask, JAX or a GPU, and under a transform
        of torch's.
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
    asked = reduction_of(size_average, reduce, reduction)
    input, target, weight = arrays_of("binary_cross_entropy", input, target, weight=weight)
    xp = array_namespace(input)
    same_shape("binary_cross_entropy", input, target)
    floating("binary_cross_entropy", input, "probabilities")
    p = in_range(xp, xp.astype(input, wide_dtype(xp, input), copy=False), "input")
    t, fixed = in_range(xp, xp.astype(target, p.dtype, copy=False), "target"), constant(p)
    variance = p * (1 - p)
    extreme = variance < LEAST
    q = p if fixed is p else xp.where(extreme, fixed, p)
    losses = t * cost(xp, xp.log, q, 0.0) + (1 - t) * cost(xp, xp.log1p, -q, -1.0)
    if fixed is not p:  # subtle: of the value 0, with torch's derivatives where the logarithm's are not
        step, u = xp.where(extreme, p - fixed, 0.0), constant(t)
        curve = (fixed * fixed - 2 * fixed * u + u) / (constant(variance) + LEAST) ** 2
        losses = losses + (fixed - t) / LEAST * step + xp.where(extreme, curve, 0.0) / 2 * step * step
    losses = losses if weight is None else losses * spread("binary_cross_entropy", xp, weight, input)
    return reduced(xp, losses, xp.ones_like(losses), asked, input.dtype)


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
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
    TypeError, ValueError
        As in :func:`xent.binary_cross_entropy`, or for an unknown reduction.
    RuntimeError
        If a weight does not broadcast to the input.

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
    asked = reduction_of(size_average, reduce, reduction)
    input, target, weight, pos_weight = arrays_of(function, input, target, weight=weight, pos_weight=pos_weight)
    xp = array_namespace(input)
    same_shape(function, input, target)
    if pos_weight is None or tuple(pos_weight.shape) in ((), tuple(input.shape[-1:])):
        losses = xent.binary_cross_entropy(input, target, pos_weight=pos_weight)
    else:  # subtle: flat, xent's one number for each output is one for each element
        x, t, c = (xp.reshape(one, (-1,)) for one in (input, target, spread(function, xp, pos_weight, input)))
        losses = xp.reshape(xent.binary_cross_entropy(x, t, pos_weight=c), tuple(input.shape))
    lost = ((input == -math.inf) & (target <= 1)) | ((input == math.inf) & (target == 1))
    losses = losses + xp.where(lost, math.nan, xp.zeros_like(losses))
    if weight is not None:
        losses = weighted(xp, losses, spread(function, xp, weight, input))
    return reduced(xp, losses, xp.ones_like(losses), asked, input.dtype if is_integer(target) else target.dtype)


# -------------------- what is asked for


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
    if input.ndim == 0:
        raise ValueError("`input` must have a class axis, got a 0-d array. Pass shape (C,) or (N, C, ...).")
    return 0 if input.ndim == 1 else 1


def arrays_of(function: str, input: Any, target: Any, **weights: Any) -> list[Any]:
    """The arrays, xarray's unwrapped: of one library, where NumPy's may stay beside Dask's."""
    found = {"input": unwrap(input), "target": unwrap(target)}
    found |= {name: unwrap(weight) for name, weight in weights.items()}
    for name, value in found.items():
        if value is None and name in weights:
            continue
        checks.array(function, name, value)
        home, other = arrays.library(found["input"]), arrays.library(value)
        if other != home and (home, other) != ("dask", "numpy"):
            raise TypeError(
                f"{function}: `{name}` must be of the library of `input` ({home}), got {arrays.describe(value)}. "
                "Nothing is moved between libraries: convert one of the two."
            )
    return list(found.values())


def index_of(function: str, ignore_index: Any) -> int:
    try:
        return operator.index(ignore_index)
    except TypeError:
        raise TypeError(
            f"{function}: `ignore_index` must be an int, got {ignore_index!r}. Pass -100, which is no label, for none."
        ) from None


def one_label(input: Array, target: Array) -> Array:
    """The target; where the input has no rows, and it is one label in an array of one, that label."""
    return target[0] if input.ndim == 1 and tuple(target.shape) == (1,) and is_integer(target) else target


def floating(function: str, input: Array, words: str) -> None:
    if is_integer(input):
        raise TypeError(f"{function}: `input` must be real floating, got {input.dtype}. Pass {words}.")


def same_shape(function: str, input: Array, target: Array) -> None:
    if not fits(target, input.shape):
        raise ValueError(
            f"{function}: `target` must have the shape of `input`, {tuple(input.shape)}, got {tuple(target.shape)}. "
            "Reshape one of the two."
        )


def spread(function: str, xp: Any, weight: Array, input: Array) -> Array:
    """The weight of each element."""
    wide = weight * xp.ones_like(input)
    if not fits(wide, input.shape):
        raise RuntimeError(
            f"{function}: a weight must broadcast to the shape of `input`, {tuple(input.shape)}, "
            f"got {tuple(weight.shape)}. Pass a smaller one."
        )
    return wide


def in_range(xp: Any, values: Array, name: str) -> Array:
    """The values, NaN where they are outside [0, 1]; an error where they can be looked at for nothing."""
    inside = (values >= 0) & (values <= 1)
    if is_readable(values):
        if not bool(xp.all(inside)):
            raise RuntimeError(f"binary_cross_entropy: all elements of {name} should be between 0 and 1.")
        return values
    return xp.where(inside, values, math.nan)


# -------------------- rows


def column(function: str, weight: Array, input: Array) -> Array:
    """The weight of each class, (C,), with the axes that follow the class axis."""
    classes = input.shape[class_axis(input)]
    if tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"{function}: `weight` must have shape {(classes,)} (one for each class), got {tuple(weight.shape)}. "
            "Pass all classes."
        )
    following = input.ndim - class_axis(input) - 1
    return weight[(slice(None), *[None] * following)]


def smoothed(targets: Array, share: float, input: Array) -> Array:
    return targets if share == 0 else (1 - share) * targets + share / input.shape[class_axis(input)]


def ignored(xp: Any, labels: Array, ignore_index: int) -> Array:
    """Which rows carry the ignored label: none where its dtype cannot hold it."""
    held = xp.iinfo(labels.dtype)
    return labels == ignore_index if held.min <= ignore_index <= held.max else xp.zeros_like(labels, dtype=xp.bool)


class Labels(NamedTuple):
    """Indices in range, and where they stand for no class: an ignored row, or a bad label that cannot be told of."""

    safe: Array
    skip: Array
    bad: Array


def labels_of(function: str, classes: int, labels: Array, ignore_index: int) -> Labels:
    """The labels as indices: an error where one is bad and can be looked at."""
    xp = array_namespace(labels)
    if classes == 0:
        raise ValueError(f"{function}: `input` must have at least one class, got none. Pass all classes.")
    if not is_integer(labels) or "bool" in str(labels.dtype):
        raise TypeError(f"{function}: `target` must be integers, got {labels.dtype}. Cast them.")
    skip = ignored(xp, labels, ignore_index)
    wide = wide_labels(labels, classes)
    inside = (wide >= 0) & (wide < classes)
    bad = ~inside & ~skip
    if is_readable(bad):
        checks.labels(function, bad, labels, classes)
    return Labels(xp.where(inside & ~skip, wide, 0), skip, bad)


def counted(xp: Any, found: Array, labels: Labels) -> Array:
    """What was found at the labels: 0 where they are ignored, NaN where they are bad."""
    return xp.where(labels.skip, 0.0, xp.where(labels.bad, math.nan, found))


def label_weight(function: str, input: Array, labels: Array, weight: Array | None, ignore_index: int) -> Array:
    """What each row counts for: the weight of its label, 0 where it is ignored."""
    xp = array_namespace(input)
    if weight is None:
        ones = xp.ones_like(labels, dtype=wide_dtype(xp, input))
        return xp.where(ignored(xp, labels, ignore_index), 0.0, ones)
    if is_integer(weight):
        raise RuntimeError(f"{function}: `weight` must be real floating, got {weight.dtype}. Cast it.")
    each = column(function, weight, input)
    if is_dask_array(input):  # subtle: it gathers along no axis, and broadcasts to no shape that it does not know
        return xent.sparse_cross_entropy(  # minus the "log-probability" of the label is its weight
            xp.zeros_like(input) - each,
            labels,
            axis=class_axis(input),
            kind="log_probabilities",
            ignore_index=ignore_index,
        )
    named = labels_of(function, input.shape[class_axis(input)], labels, ignore_index)
    wide = xp.astype(weight, wide_dtype(xp, weight), copy=False)
    found = xp.reshape(xp.take(wide, xp.reshape(named.safe, (-1,)), axis=0), tuple(labels.shape))
    return counted(xp, found, named)


def soft(xp: Any, input: Array, targets: Array, weight: Array | None, skip: Array | None = None) -> Array:
    """The rows' losses of weighed targets, with torch's answers to infinities."""
    axis = class_axis(input)
    targets = targets if weight is None else targets * column("cross_entropy", weight, input)
    kept = None if skip is None else ~skip
    losses = xent.cross_entropy(input, targets, axis=axis, sample_weight=kept)
    lost = xp.any((input == -math.inf) & (targets == 0), axis=axis)
    lost = lost if kept is None else lost & kept
    return spoilt(xp, losses, input, skip) + xp.where(lost, math.nan, xp.zeros_like(losses))


def spoilt(xp: Any, losses: Array, input: Array, skip: Array | None) -> Array:
    """The rows' losses: NaN, as their gradients, where a logit is +inf."""
    infinite = xp.any(input == math.inf, axis=class_axis(input))
    infinite = infinite if skip is None else infinite & ~skip
    return losses * xp.where(infinite, math.nan, xp.ones_like(losses))  # subtle: a sum would leave the gradient whole


def weighted(xp: Any, losses: Array, weight: Array) -> Array:
    """The product: NaN, without a warning, where an infinite loss has weight 0."""
    return xp.where((weight == 0) & xp.isinf(losses), math.nan, losses) * weight


def cost(xp: Any, logarithm: Any, value: Array, zero: float) -> Array:
    """Minus the logarithm, at most 100; ``zero`` is where it is infinite."""
    known = ~(value <= zero)
    found = -logarithm(xp.where(known, value, zero + 1))
    return xp.where(known & ~(found > 100), found, 100.0)


def constant(array: Array) -> Array:
    """The array without a derivative; itself where its library has none."""
    if hasattr(array, "detach"):
        return array.detach()
    jax = sys.modules.get("jax")
    return jax.lax.stop_gradient(array) if jax is not None and isinstance(array, jax.Array) else array


def reduced(xp: Any, losses: Array, counts: Array, reduction: str, dtype: Any) -> Array:
    """The losses in the dtype, or their sum, or that over the sum of what they count for."""
    if reduction != "none":
        losses, below = xp.sum(losses), xp.sum(counts)
        if reduction == "mean":
            losses = xp.where(below == 0, math.nan, losses / xp.where(below == 0, 1.0, below))
    return xp.astype(losses[...], dtype, copy=False)
