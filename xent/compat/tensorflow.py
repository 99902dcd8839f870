r"""TensorFlow's cross entropies on any array: the losses of ``tf.nn``, ``tf.one_hot`` and two raw operations.

Names, signatures, defaults and answers are those of TensorFlow 2.21, eagerly and on the CPU. A bad label is NaN on a
GPU, as there, and in a trace. Where TensorFlow disagrees with itself, not kept is the true gradient of targets that do
not sum to 1, which it has under ``enable_op_determinism``. Where TensorFlow and xent disagree:

| case | xent | TensorFlow, and here |
|---|---|---|
| float16, bfloat16 | float32 | the dtype of the logits |
| targets that do not sum to 1 | gradient (Σt) p − t | gradient p − t, the same loss |
| targets of another shape | ValueError | broadcast over the rows or the classes of the logits, as matrices |
| −inf logit at target 0 | contributes 0 | NaN loss, finite gradient; with labels it contributes 0 |
| a +inf logit | 0 at it, +inf elsewhere | NaN loss and gradient |
| sigmoid, weighted: an infinite logit | the limit, 0 or +inf | NaN where there is ∞ − ∞ or 0 · ∞; finite gradient |
| weighted: a logit of exactly 0 | its gradient | another: the derivatives of \|x\| and of max(−x, 0) are taken for 0 |
| weighted: ``pos_weight`` | a number, or one for each output | any shape that broadcasts to the logits |
| ``one_hot`` without a dtype | float32 | that of the values; int32 of Python's ints |
| lists, pandas | TypeError | taken: Python's own floats as float32, all else in its dtype |
| NumPy's targets and weights beside other logits | TypeError | moved to the library and device of the logits |

Not followed:

| case | TensorFlow | here |
|---|---|---|
| tiny losses | 0 | to full relative accuracy |
| float16 and bfloat16 inside | rounded: the raw operations, the sigmoid, bfloat16 with labels | float32 |
| label out of range on the CPU | InvalidArgumentError | LabelError, a ValueError and an IndexError |
| other integer labels than int32 and int64, sigmoid targets of another dtype, class axis −2 | an error | taken |
| gradient of targets that were broadcast | an error of shapes | that of the broadcast targets, summed |
| gradient of the raw sparse operation's ``backprop`` on arrays without autodiff | | none |
| −inf logit at a negative target | −inf | xent's answer: targets are t ≥ 0 |
| a target that is NaN or infinite | only its own gradient is | the gradient of its row is NaN |
| zero classes, ``depth`` 0 | zeros, empty; with labels an error | ValueError |
| NumPy's floats for indices, or for labels of the raw operation | cut to integers; ``tf.nn`` refuses | TypeError |
| TensorFlow's tensors | taken | TypeError: no gradient would come back; pass ``.numpy()`` |
| NumPy's logits beside Dask's labels | | TypeError, as in xent |
| ``one_hot`` of Dask's indices, their number unknown | | ValueError, as in xent |
| ``one_hot``: text and complex values | taken | an error |
| ``one_hot``: class axis −2, dtype int or bool; lists for ``pos_weight``, integer labels beside it | an error | taken |
| errors | ValueError or InvalidArgumentError, which is TensorFlow's | ValueError; TypeError for a dtype; xent's words |
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np

import xent

from .operands import (
    ArrayT,
    array_namespace,
    as_array,
    as_arrays,
    cast_like,
    dtype_name,
    dtype_of_name,
    fit_together,
    from_python,
    is_array_api_obj,
    is_jax_array,
    is_torch_array,
    nan_where,
    nan_where_invalid,
    stop_gradient,
    unwrap,
    widen,
    without_fp_warnings,
)

__all__ = [
    "one_hot",
    "raw_ops",
    "sigmoid_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits_v1",
    "sparse_softmax_cross_entropy_with_logits",
    "weighted_cross_entropy_with_logits",
]

Array = Any


@without_fp_warnings
def softmax_cross_entropy_with_logits(
    labels: Array, logits: ArrayT, axis: int | None = -1, name: str | None = None
) -> ArrayT:
    r"""``tf.nn.softmax_cross_entropy_with_logits``: the loss of soft targets, row by row, in nats.

    .. math:: \ell = \sum_j t_j \Bigl(\log \sum_k e^{x_k} - x_j\Bigr)

    Parameters
    ----------
    labels : array, shape (\*batch, C), real
        Or of a shape that broadcasts to (rows, C), as (C,) or (1, C), where the class axis is the last. It has a
        gradient: ``-log_softmax(logits)``.
    logits : array, shape (\*batch, C), real floating
    axis : int, default -1
        None is the last axis, too.
    name : ignored

    Returns
    -------
    array, shape (\*batch,), dtype of the logits

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.cross_entropy`.

    References
    ----------
    .. [1] TensorFlow 2.21, python/ops/nn_ops.py and core/kernels/xent_op.h.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat import tensorflow as tf
    >>> tf.softmax_cross_entropy_with_logits(np.asarray([0.5, 0.5]), np.zeros((1, 2))).tolist()
    [0.6931471805599453]
    """
    labels, logits, axis = broadcast_rows(*as_arrays(labels, logits), -1 if axis is None else axis)
    return cast_like(softmax_loss(labels, logits, axis), logits)


def softmax_cross_entropy_with_logits_v1(
    labels: Array = None,
    logits: ArrayT | None = None,
    dim: int | None = -1,
    name: str | None = None,
    axis: int | None = None,
) -> ArrayT:
    r"""``tf.compat.v1.nn.softmax_cross_entropy_with_logits``: the same, with the targets constant to autodiff.

    Parameters
    ----------
    labels, logits : array, as in :func:`softmax_cross_entropy_with_logits`
    dim : int, default -1
        The class axis; None is the last, too.
    axis : int, optional
        Its other name, which TensorFlow takes only with ``dim=None``.

    Returns
    -------
    array, shape (\*batch,), dtype of the logits

    Raises
    ------
    ValueError
        If labels or logits are missing, or both ``dim`` and ``axis`` are given.
    """
    if labels is None or logits is None:
        raise ValueError(
            "softmax_cross_entropy_with_logits_v1: `labels` and `logits` must be given, got one of them at most. "
            "Pass both."
        )
    if dim is not None and axis is not None:
        raise ValueError(
            f"softmax_cross_entropy_with_logits_v1: `axis` must be given with dim=None, got dim={dim}. Pass dim={axis}."
        )
    labels, logits = as_arrays(labels, logits)
    return softmax_cross_entropy_with_logits(stop_gradient(labels), logits, dim if axis is None else axis)


@without_fp_warnings
def sparse_softmax_cross_entropy_with_logits(labels: Array, logits: ArrayT, name: str | None = None) -> ArrayT:
    r"""``tf.nn.sparse_softmax_cross_entropy_with_logits``: the loss of labels, row by row, in nats.

    Parameters
    ----------
    labels : array, shape (\*batch,), any integer dtype, in ``[0, C)``
    logits : array, shape (\*batch, C), real floating
    name : ignored

    Returns
    -------
    array, shape (\*batch,), dtype of the logits

    Raises
    ------
    LabelError, TypeError, ValueError
        As :func:`xent.sparse_cross_entropy`.

    References
    ----------
    .. [1] TensorFlow 2.21, core/kernels/sparse_xent_op.h.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.compat import tensorflow as tf
    >>> tf.sparse_softmax_cross_entropy_with_logits([1], np.zeros((1, 2))).tolist()
    [0.6931471805599453]
    """
    labels, logits = as_arrays(labels, logits)
    return cast_like(sparse_loss(labels, logits), logits)


@without_fp_warnings
def sigmoid_cross_entropy_with_logits(
    labels: Array = None, logits: ArrayT | None = None, name: str | None = None
) -> ArrayT:
    r"""``tf.nn.sigmoid_cross_entropy_with_logits``: the loss of independent yes-or-no targets, in nats.

    .. math:: \ell = \max(x, 0) - x z + \log(1 + e^{-|x|})

    Parameters
    ----------
    labels : array, any shape, real
    logits : array, the same shape, real floating
    name : ignored

    Returns
    -------
    array, shape and dtype of the logits

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.binary_cross_entropy`.

    References
    ----------
    .. [1] TensorFlow 2.21, python/ops/nn_impl.py.

    Examples
    --------
    >>> from xent.compat import tensorflow as tf
    >>> tf.sigmoid_cross_entropy_with_logits(labels=[1.0], logits=[0.0]).tolist()
    [0.6931471824645996]
    """
    if labels is None or logits is None:
        raise ValueError(
            "sigmoid_cross_entropy_with_logits: `labels` and `logits` must be given, got one of them at most. "
            "Pass both."
        )
    labels, logits = as_arrays(labels, logits)
    return cast_like(sigmoid_loss(labels, logits), logits)


@without_fp_warnings
def weighted_cross_entropy_with_logits(
    labels: Array, logits: ArrayT, pos_weight: Array, name: str | None = None
) -> ArrayT:
    r"""``tf.nn.weighted_cross_entropy_with_logits``: the same with a factor q on the loss of a yes.

    .. math:: \ell = (1 - z) x + l\, \bigl(\log(1 + e^{-|x|}) + \max(-x, 0)\bigr), \qquad l = 1 + (q - 1) z

    Parameters
    ----------
    labels, logits : array, as in :func:`sigmoid_cross_entropy_with_logits`
    pos_weight : number, or array of a shape that broadcasts with theirs
    name : ignored

    Returns
    -------
    array, the common shape, dtype of the logits

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.binary_cross_entropy`.

    References
    ----------
    .. [1] TensorFlow 2.21, python/ops/nn_impl.py.

    Examples
    --------
    >>> from xent.compat import tensorflow as tf
    >>> tf.weighted_cross_entropy_with_logits([1.0], [0.0], 2).tolist()
    [1.3862943649291992]
    """
    labels, logits = as_arrays(labels, logits)
    if not same_shape(labels, logits):
        raise ValueError(
            f"weighted_cross_entropy_with_logits: `labels` must have the shape of the logits, {tuple(logits.shape)}, "
            f"got {tuple(labels.shape)}. Spread them first."
        )
    xp = array_namespace(logits)
    factor: Any = float(pos_weight) if isinstance(pos_weight, int | float) else as_array(pos_weight, logits)
    sizes = tuple(getattr(factor, "shape", ()))
    if sizes and not fit_together(factor, logits):
        raise ValueError(
            f"weighted_cross_entropy_with_logits: `pos_weight` must broadcast with the logits, {tuple(logits.shape)}, "
            f"got {sizes}. Pass one number, or one for each output."
        )
    if sizes in ((), tuple(logits.shape[-1:])):
        loss = xent.binary_cross_entropy(logits, labels, pos_weight=factor)
    elif any(size != size for size in (*logits.shape, *sizes)):  # Dask's, which can be neither broadcast nor flat
        terms = {xp.ones_like: factor * labels, xp.zeros_like: 1 - labels}  # the weight of a yes, and of a no
        losses = [(xent.binary_cross_entropy(logits, target(logits)), weight) for target, weight in terms.items()]
        loss = sum(weight * xp.where(weight == 0, xp.zeros_like(term), term) for term, weight in losses)
    else:
        shape = np.broadcast_shapes(tuple(logits.shape), sizes)
        labels, logits, factor = (xp.broadcast_to(array, shape) for array in (labels, logits, factor))
        flat = [xp.reshape(array, (-1,)) for array in (logits, labels, factor)]  # a factor for each of the last axis
        loss = xp.reshape(xent.binary_cross_entropy(flat[0], flat[1], pos_weight=flat[2]), shape)
    targets = xp.astype(labels, loss.dtype)
    scale = 1 + (factor - 1) * targets
    if is_differentiated(logits):
        # subtle: autodiff of TensorFlow's formula takes the derivatives of |x| and of relu(−x) at 0 to be 0.
        loss = loss + 0.5 * scale * xp.where(logits == 0, xp.astype(logits, loss.dtype), 0.0)
    undefined = xp.where(logits > 0, targets == 1, (1 - targets) * scale >= 0)
    loss = nan_where_invalid(xp, loss, undefined & xp.isinf(logits), gradient=False)
    return cast_like(loss, logits)


def one_hot(
    indices: Array,
    depth: int,
    on_value: Any = None,
    off_value: Any = None,
    axis: int | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> Array:
    r"""``tf.one_hot``: ``on_value`` at each index, else ``off_value``; all off for an index outside ``[0, depth)``.

    Parameters
    ----------
    indices : array, shape (\*batch,), bool or any integer dtype
    depth : int, at least 1
    on_value, off_value : number, default 1 and 0
    axis : int, default -1
        The place of the new axis.
    dtype : dtype of the indices' library or its name, default that of the values
        Which is int32 for Python's ints, and int64 for those that need it. Python's float is float32.
    name : ignored

    Returns
    -------
    array, shape (\*batch, depth)

    Raises
    ------
    TypeError
        If the two values are of different dtypes, a value is a float for an integer dtype, or the indices are floats.
    ValueError
        If ``depth`` or ``axis`` does not fit.

    Examples
    --------
    >>> from xent.compat import tensorflow as tf
    >>> tf.one_hot([1, -1], 3, on_value=5).tolist()
    [[0, 5, 0], [0, 0, 0]]
    """
    indices = unwrap(indices)
    indices = indices if is_array_api_obj(indices) else from_python(indices)
    xp = array_namespace(indices)
    if "bool" in str(indices.dtype):
        indices = xp.astype(indices, xp.uint8)
    if isinstance(depth, float):
        raise TypeError(f"one_hot: `depth` must be an int, got {depth!r}. Pass int(depth).")
    values = [value for value in (on_value, off_value) if value is not None]
    if any(isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0 for value in values):
        raise ValueError(
            f"one_hot: `on_value` and `off_value` must be numbers, got {on_value!r} and {off_value!r}. Pass one."
        )
    dtypes = {value_dtype(value) for value in values}
    if len(dtypes) > 1 and dtype is None:
        raise TypeError(
            f"one_hot: `off_value` must have the dtype of `on_value`, got {' and '.join(sorted(dtypes))}. Pass a dtype."
        )
    if dtype is None:
        dtype = dtypes.pop() if dtypes else "float32"
    dtype = dtype_of_name(xp, "float32" if dtype is float else dtype)
    if any("float" in value for value in dtypes) and "int" in str(dtype):
        name = getattr(dtype, "__name__", dtype)
        raise TypeError(f"one_hot: the values must fit the dtype, got a float for {name}. Pass integers.")
    on_value, off_value = 1 if on_value is None else on_value, 0 if off_value is None else off_value
    return xent.one_hot(
        indices, depth, on_value=on_value, off_value=off_value, axis=-1 if axis is None else axis, dtype=dtype
    )


class LossAndBackprop(NamedTuple):
    """The result of the raw operations: ``loss`` (N,) and ``backprop`` (N, C), its gradient in the logits."""

    loss: Array
    backprop: Array


class raw_ops:
    """``tf.raw_ops``: the two operations under the losses; arguments by name."""

    @staticmethod
    @without_fp_warnings
    def SoftmaxCrossEntropyWithLogits(*, features: Array, labels: Array, name: str | None = None) -> LossAndBackprop:
        r"""``tf.raw_ops.SoftmaxCrossEntropyWithLogits``: the loss of soft targets, and p − t.

        Parameters
        ----------
        features, labels : array, shape (N, C), or shapes that broadcast to it, real floating
        name : ignored

        Returns
        -------
        LossAndBackprop
            Of the dtype of the features. ``backprop`` is p − t whatever the targets sum to.

        Raises
        ------
        TypeError, ValueError
            As :func:`xent.cross_entropy`.

        Examples
        --------
        >>> import numpy as np
        >>> from xent.compat import tensorflow as tf
        >>> x, t = np.zeros((1, 2)), np.asarray([[2.0, 0.0]])
        >>> tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=x, labels=t).backprop.tolist()
        [[-1.5, 0.5]]
        """
        labels, features = as_arrays(labels, features)
        xp = array_namespace(features)
        if not same_shape(labels, features):
            labels, features = broadcast_with(labels, features), broadcast_with(features, labels)
        require_matrix("SoftmaxCrossEntropyWithLogits", features)
        loss, probabilities = softmax_loss(labels, features), xent.softmax(features)
        backprop = probabilities - xp.astype(labels, loss.dtype)
        nan = nan_where(xp, xp.any(features == math.inf, axis=-1), loss)[..., None]  # Dask expands no unknown shape
        return LossAndBackprop(cast_like(loss, features), cast_like(backprop + nan, features))

    @staticmethod
    @without_fp_warnings
    def SparseSoftmaxCrossEntropyWithLogits(
        *, features: Array, labels: Array, name: str | None = None
    ) -> LossAndBackprop:
        r"""``tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits``: the loss of labels, and p − onehot.

        Parameters
        ----------
        features : array, shape (N, C), real floating
        labels : array, shape (N,), any integer dtype, in ``[0, C)``
        name : ignored

        Returns
        -------
        LossAndBackprop
            Of the dtype of the features; from one read of them unless autodiff traces them.

        Raises
        ------
        LabelError, TypeError, ValueError
            As :func:`xent.sparse_cross_entropy`.

        Examples
        --------
        >>> import numpy as np
        >>> from xent.compat import tensorflow as tf
        >>> tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=np.zeros((1, 2)), labels=[1]).backprop.tolist()
        [[0.5, -0.5]]
        """
        labels, features = as_arrays(labels, features)
        xp = array_namespace(features)
        require_matrix("SparseSoftmaxCrossEntropyWithLogits", features)
        if is_differentiated(features):
            loss = sparse_loss(labels, features)
            backprop = xent.softmax(features) - xent.one_hot(labels, features.shape[-1], dtype=loss.dtype)
        else:
            loss, backprop = xent.value_and_grad(xent.sparse_cross_entropy)(features, labels)
            loss = nan_where_invalid(xp, loss, xp.any(features == math.inf, axis=-1), gradient=False)
        nan = nan_where(xp, xp.isnan(loss), loss)[..., None]
        return LossAndBackprop(cast_like(loss, features), cast_like(backprop + nan, features))


# -------------------- losses in float32 or float64, for the functions above and for Keras', which run on them


def softmax_loss(labels: Array, logits: Array, axis: int = -1) -> Array:
    """The loss of targets of the logits' shape, with TensorFlow's derivatives."""
    xp, differentiated = array_namespace(logits), is_differentiated(logits)
    if differentiated:
        logits = widen(logits)  # two derivatives are added, and rounded once
    loss = xent.cross_entropy(logits, labels, axis=axis)
    if differentiated:
        # subtle: adds 0, and (1 − Σt) p to the derivative in the logits, which makes it p − t.
        total = xp.sum(xp.astype(labels, loss.dtype), axis=axis)
        lse = xent.logsumexp(logits, axis=axis)
        loss = loss + (1 - stop_gradient(total)) * (lse - stop_gradient(lse))
    zero_times_infinity = xp.any((logits == -math.inf) & (labels == 0), axis=axis)
    loss = nan_where_invalid(xp, loss, xp.any(logits == math.inf, axis=axis), gradient=True)
    return nan_where_invalid(xp, loss, zero_times_infinity, gradient=False)


def sparse_loss(labels: Array, logits: Array, axis: int = -1) -> Array:
    """The loss of labels, with TensorFlow's NaN for infinite logits."""
    xp = array_namespace(logits)
    loss = xent.sparse_cross_entropy(logits, labels, axis=axis)
    return nan_where_invalid(xp, loss, xp.any(logits == math.inf, axis=axis), gradient=True)


def sigmoid_loss(labels: Array, logits: Array) -> Array:
    """The loss of yes-or-no targets, with TensorFlow's NaN for infinite logits."""
    xp = array_namespace(logits)
    loss = xent.binary_cross_entropy(logits, labels)
    undefined = xp.isinf(logits) & xp.where(logits > 0, labels >= 0, labels == 0)
    return nan_where_invalid(xp, loss, undefined, gradient=False)


def is_differentiated(array: Array) -> bool:
    """Whether autodiff may ask for a derivative in this array: one of torch or JAX that is traced or has a tangent."""
    if is_torch_array(array):
        dual = sys.modules["torch"].autograd.forward_ad.unpack_dual
        return array.requires_grad or dual(array).tangent is not None
    return is_jax_array(array) and isinstance(array, sys.modules["jax"].core.Tracer)


# -------------------- shapes and dtypes


def broadcast_rows(labels: Array, logits: Array, axis: int) -> tuple[Array, Array, int]:
    """Labels and logits of one shape, and their class axis: labels broadcast as matrices of rows and classes do."""
    xp = array_namespace(logits)
    if same_shape(labels, logits):
        return labels, logits, axis
    last = axis in (-1, logits.ndim - 1)
    if 0 in (labels.ndim, logits.ndim) or not (last or labels.ndim == logits.ndim):
        raise shape_error(labels, logits)
    if not last:
        labels, logits = (xp.moveaxis(array, axis, -1) for array in (labels, logits))
    *batch, logits_classes = logits.shape
    *labels_batch, labels_classes = labels.shape
    if any(size != size for size in batch):
        return broadcast_with(labels, logits), broadcast_with(logits, labels), -1
    rows, labels_rows = math.prod(batch), math.prod(labels_batch)
    classes = logits_classes if labels_classes == 1 else labels_classes
    if labels_rows not in (1, rows) or logits_classes not in (1, classes):
        raise shape_error(labels, logits)
    labels = xp.broadcast_to(xp.reshape(labels, (labels_rows, labels_classes)), (rows, classes))
    return xp.reshape(labels, (*batch, classes)), xp.broadcast_to(logits, (*batch, classes)), -1


def shape_error(labels: Array, logits: Array) -> ValueError:
    """The error for targets that do not broadcast to the logits."""
    return ValueError(
        "softmax_cross_entropy_with_logits: `labels` must broadcast to the rows and the classes of the logits, "
        f"{tuple(logits.shape)}, got {tuple(labels.shape)}. Give them the shape of the logits."
    )


def broadcast_with(array: Array, like: Array) -> Array:
    """The array broadcast to the shape of both; Dask's broadcast_to refuses an unknown size, its ``where`` does not."""
    return array_namespace(array).where(like == like, array, array)


def require_matrix(operation: str, features: Array) -> None:
    """Raises ValueError unless the features are a matrix."""
    if features.ndim != 2:
        raise ValueError(
            f"{operation}: `features` must have shape (N, C), got {tuple(features.shape)}. Reshape them to rows."
        )


def same_shape(first: Array, second: Array) -> bool:
    """Whether the shapes agree, as far as they are known: an unknown size is NaN, and not 1."""
    pairs = zip(first.shape, second.shape, strict=False)
    return first.ndim == second.ndim and all(a == b or ((a != a or b != b) and 1 not in (a, b)) for a, b in pairs)


def value_dtype(value: Any) -> str:
    """The name of the dtype that TensorFlow gives a number."""
    if hasattr(value, "dtype"):
        return dtype_name(value.dtype)
    if type(value) is int and not -(2**31) <= value < 2**31:
        return "int64"
    return {bool: "bool", int: "int32"}.get(type(value), "float32")


def __dir__() -> list[str]:
    return [*__all__]
