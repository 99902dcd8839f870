r"""TensorFlow's cross entropies on any array: the losses of ``tf.nn``, ``tf.one_hot`` and two raw operations.

Names, signatures, defaults and answers are those of TensorFlow 2.21, eagerly and on the CPU. A bad label is NaN on a
GPU, as there, and in a trace. Where TensorFlow disagrees with itself, not kept is the true gradient of targets that do
not sum to 1, which it has under ``enable_op_determinism``. Where TensorFlow and xent disagree:

| case | xent | TensorFlow, and here |
|---|---|---|
| float16, bfloat16 | float32 | the dtype of the logits |
| targets that do not sum to 1 | gradient (Σt) p − t | gradient p − t, the same loss |
| targets of another shape | ValueError | spread over the rows or the classes of the logits, as matrices |
| −inf logit at target 0 | contributes 0 | NaN loss, finite gradient; with labels it contributes 0 |
| a +inf logit | 0 at it, +inf elsewhere | NaN loss and gradient |
| sigmoid, weighted: an infinite logit | the limit, 0 or +inf | NaN where there is ∞ − ∞ or 0 · ∞; finite gradient |
| weighted: a logit of exactly 0 | its gradient | another: the derivatives of \|x\| and of max(−x, 0) are taken for 0 |
| weighted: ``pos_weight`` | a number, or one for each output | whatever spreads over the logits |
| ``one_hot`` without a dtype | float32 | that of the values; int32 of Python's ints |
| lists, pandas | TypeError | taken: Python's own floats for float32, all else in its dtype |
| NumPy's targets and weights beside other logits | TypeError | taken to where the logits are |

Not followed:

| case | TensorFlow | here |
|---|---|---|
| tiny losses | 0 | to full relative accuracy |
| float16 and bfloat16 inside | rounded: the raw operations, the sigmoid, bfloat16 with labels | float32 |
| label out of range on the CPU | InvalidArgumentError | LabelError, a ValueError and an IndexError |
| other integer labels than int32 and int64, sigmoid targets of another dtype, class axis −2 | an error | taken |
| gradient of targets that were spread | an error of shapes | that of the spread, summed |
| gradient of the raw sparse operation's ``backprop`` on arrays without autodiff | | there is none |
| −inf logit at a negative target | −inf | whatever xent has: targets are t ≥ 0 |
| a target that is NaN or infinite | only its own gradient is | the gradient of its row is NaN |
| gradient of a sigmoid target at an infinite logit, where the loss is NaN | ∓inf | 0 |
| zero classes, ``depth`` 0 | zeros, empty; with labels an error | ValueError |
| TensorFlow's tensors | taken | TypeError: no gradient would come back; pass ``.numpy()`` |
| NumPy's logits beside Dask's labels | | TypeError, as in xent |
| ``one_hot`` of Dask's indices, their number unknown | | ValueError, as in xent |
| ``one_hot``: text and complex values | taken | an error |
| ``one_hot``: class axis −2, dtype int or bool; lists for ``pos_weight``, integer labels beside it | an error | taken |
| errors | TensorFlow's | where xent raises, xent's |
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from array_api_compat import (
    array_namespace,
    is_array_api_obj,
    is_jax_array,
    is_numpy_array,
    is_torch_array,
)

import xent

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
Given = ParamSpec("Given")
Made = TypeVar("Made")


def quietly(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """The function without NumPy's warnings: −inf, +inf and NaN are ordinary here. TorchDynamo traces no errstate."""

    @functools.wraps(function)
    def called(*args: Given.args, **keywords: Given.kwargs) -> Made:
        with contextlib.nullcontext() if is_compiling() else np.errstate(all="ignore"):
            return function(*args, **keywords)

    return called


def is_compiling() -> bool:
    """Whether TorchDynamo traces the caller."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


@quietly
def softmax_cross_entropy_with_logits(
    labels: Array, logits: Array, axis: int | None = -1, name: str | None = None
) -> Array:
    r"""``tf.nn.softmax_cross_entropy_with_logits``: the loss of soft targets, row by row, in nats.

    .. math:: \ell = \sum_j t_j \Bigl(\log \sum_k e^{x_k} - x_j\Bigr)

    Parameters
    ----------
    labels : array, shape (\*batch, C), real
        Or of a shape that spreads to (rows, C), as (C,) or (1, C), where the class axis is the last. Gradients flow
        into it: ``-log_softmax(logits)``.
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
    labels, logits, axis = spread(*arrays_of(labels, logits), -1 if axis is None else axis)
    return narrow(soft(labels, logits, axis), logits)


def softmax_cross_entropy_with_logits_v1(
    labels: Array = None,
    logits: Array = None,
    dim: int | None = -1,
    name: str | None = None,
    axis: int | None = None,
) -> Array:
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
    labels, logits = arrays_of(labels, logits)
    return softmax_cross_entropy_with_logits(constant(labels), logits, dim if axis is None else axis)


@quietly
def sparse_softmax_cross_entropy_with_logits(labels: Array, logits: Array, name: str | None = None) -> Array:
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
    labels, logits = arrays_of(labels, logits)
    return narrow(sparse(labels, logits), logits)


@quietly
def sigmoid_cross_entropy_with_logits(labels: Array = None, logits: Array = None, name: str | None = None) -> Array:
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
    labels, logits = arrays_of(labels, logits)
    return narrow(sigmoid(labels, logits), logits)


@quietly
def weighted_cross_entropy_with_logits(
    labels: Array, logits: Array, pos_weight: Array, name: str | None = None
) -> Array:
    r"""``tf.nn.weighted_cross_entropy_with_logits``: the same with a factor q on the loss of a yes.

    .. math:: \ell = (1 - z) x + l\, \bigl(\log(1 + e^{-|x|}) + \max(-x, 0)\bigr), \qquad l = 1 + (q - 1) z

    Parameters
    ----------
    labels, logits : array, as in :func:`sigmoid_cross_entropy_with_logits`
    pos_weight : number, or array of a shape that spreads with theirs
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
    labels, logits = arrays_of(labels, logits)
    if not is_shaped_as(labels, logits):
        raise ValueError(
            f"weighted_cross_entropy_with_logits: `labels` must have the shape of the logits, {tuple(logits.shape)}, "
            f"got {tuple(labels.shape)}. Spread them first."
        )
    xp = array_namespace(logits)
    factor: Any = float(pos_weight) if isinstance(pos_weight, int | float) else as_array(pos_weight, logits)
    sizes = tuple(getattr(factor, "shape", ()))
    if sizes in ((), tuple(logits.shape[-1:])):
        loss = xent.binary_cross_entropy(logits, labels, pos_weight=factor)
    elif any(size != size for size in (*logits.shape, *sizes)):  # Dask's, where no size can be spread or be flat
        shares = {xp.ones_like: factor * labels, xp.zeros_like: 1 - labels}  # of a yes, and of a no
        sides = [(xent.binary_cross_entropy(logits, of(logits)), share) for of, share in shares.items()]
        loss = sum(share * xp.where(share == 0, xp.zeros_like(side), side) for side, share in sides)
    else:
        shape = np.broadcast_shapes(tuple(logits.shape), sizes)
        labels, logits, factor = (xp.broadcast_to(one, shape) for one in (labels, logits, factor))
        flat = [xp.reshape(one, (-1,)) for one in (logits, labels, factor)]  # a factor for each of the last axis
        loss = xp.reshape(xent.binary_cross_entropy(flat[0], flat[1], pos_weight=flat[2]), shape)
    told = xp.astype(labels, loss.dtype)
    share = 1 + (factor - 1) * told
    if is_differentiated(logits):
        # subtle: autodiff of TensorFlow's formula takes the derivatives of |x| and of relu(−x) at 0 to be 0.
        loss = loss + 0.5 * share * xp.where(logits == 0, xp.astype(logits, loss.dtype), 0.0)
    spoilt = xp.where(logits > 0, told == 1, (1 - told) * share >= 0)
    return narrow(loss + nan_where(spoilt & xp.isinf(logits), loss), logits)


def one_hot(
    indices: Array,
    depth: int,
    on_value: Any = None,
    off_value: Any = None,
    axis: int | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> Array:
    r"""``tf.one_hot``: ``on_value`` at each index, ``off_value`` besides; all off for an index outside ``[0, depth)``.

    Parameters
    ----------
    indices : array, shape (\*batch,), bool or any integer dtype
    depth : int, at least 1
    on_value, off_value : number, default 1 and 0
    axis : int, default -1
        Where the new axis goes.
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
    indices = unwrapped(indices)
    indices = indices if is_array_api_obj(indices) else from_python(indices)
    xp = array_namespace(indices)
    if "bool" in str(indices.dtype):
        indices = xp.astype(indices, xp.uint8)
    kinds = {kind_of(value) for value in (on_value, off_value) if value is not None}
    if len(kinds) > 1 and dtype is None:
        raise TypeError(
            f"one_hot: `off_value` must have the dtype of `on_value`, got {' and '.join(sorted(kinds))}. Pass a dtype."
        )
    asked = "float32" if dtype is float else dtype
    dtype = dtype_named(xp, (kinds.pop() if kinds else "float32") if dtype is None else asked)
    if any("float" in kind for kind in kinds) and "int" in str(dtype):
        name = getattr(dtype, "__name__", dtype)
        raise TypeError(f"one_hot: the values must fit the dtype, got a float for {name}. Pass integers.")
    on_value, off_value = 1 if on_value is None else on_value, 0 if off_value is None else off_value
    return xent.one_hot(
        indices, depth, on_value=on_value, off_value=off_value, axis=-1 if axis is None else axis, dtype=dtype
    )


class LossAndBackprop(NamedTuple):
    """What the raw operations return: ``loss`` (N,) and ``backprop`` (N, C), its gradient in the logits."""

    loss: Array
    backprop: Array


class raw_ops:
    """``tf.raw_ops``: the two operations under the losses; arguments by name."""

    @staticmethod
    @quietly
    def SoftmaxCrossEntropyWithLogits(*, features: Array, labels: Array, name: str | None = None) -> LossAndBackprop:
        r"""``tf.raw_ops.SoftmaxCrossEntropyWithLogits``: the loss of soft targets, and p − t.

        Parameters
        ----------
        features, labels : array, shape (N, C), or shapes that spread to it, real floating
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
        labels, features = arrays_of(labels, features)
        xp = array_namespace(features)
        if not is_shaped_as(labels, features):
            labels, features = spread_to(labels, features), spread_to(features, labels)
        is_matrix("SoftmaxCrossEntropyWithLogits", features)
        loss, probabilities = soft(labels, features), xent.softmax(features)
        backprop = probabilities - xp.astype(labels, loss.dtype)
        lost = nan_where(xp.any(features == math.inf, axis=-1), loss)[..., None]  # Dask expands no unknown shape
        return LossAndBackprop(narrow(loss, features), narrow(backprop + lost, features))

    @staticmethod
    @quietly
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
            Of the dtype of the features; from one read of them where nothing is differentiated.

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
        labels, features = arrays_of(labels, features)
        xp = array_namespace(features)
        is_matrix("SparseSoftmaxCrossEntropyWithLogits", features)
        if is_differentiated(features):
            loss = sparse(labels, features)
            backprop = xent.softmax(features) - xent.one_hot(labels, features.shape[-1], dtype=loss.dtype)
        else:
            loss, backprop = xent.value_and_grad(xent.sparse_cross_entropy)(features, labels)
            loss = loss + nan_where(xp.any(features == math.inf, axis=-1), loss)
        lost = nan_where(xp.isnan(loss), loss)[..., None]
        return LossAndBackprop(narrow(loss, features), narrow(backprop + lost, features))


# What follows is for the functions above and for Keras', which runs on them. Losses are float32 or float64 here.


def soft(labels: Array, logits: Array, axis: int = -1) -> Array:
    """The loss of targets of the logits' shape, with TensorFlow's derivatives."""
    xp, differentiated = array_namespace(logits), is_differentiated(logits)
    if differentiated:
        logits = wide(logits)  # two derivatives are added, and rounded once
    loss = xent.cross_entropy(logits, labels, axis=axis)
    if differentiated:
        # subtle: adds 0, and (1 − Σt) p to the derivative in the logits, which makes it p − t.
        total = xp.sum(xp.astype(labels, loss.dtype), axis=axis)
        lse = xent.logsumexp(logits, axis=axis)
        loss = loss + (1 - constant(total)) * (lse - constant(lse))
    spoilt = xp.any((logits == -math.inf) & (labels == 0), axis=axis)
    # subtle: a product takes the gradient along to NaN, a sum leaves it as it is.
    loss = loss * (1 + nan_where(xp.any(logits == math.inf, axis=axis), loss))
    return loss + nan_where(spoilt, loss)


def sparse(labels: Array, logits: Array, axis: int = -1) -> Array:
    """The loss of labels, with TensorFlow's NaN for infinite logits."""
    xp = array_namespace(logits)
    loss = xent.sparse_cross_entropy(logits, labels, axis=axis)
    return loss * (1 + nan_where(xp.any(logits == math.inf, axis=axis), loss))


def sigmoid(labels: Array, logits: Array) -> Array:
    """The loss of yes-or-no targets, with TensorFlow's NaN for infinite logits."""
    xp = array_namespace(logits)
    loss = xent.binary_cross_entropy(logits, labels)
    return loss + nan_where(xp.isinf(logits) & xp.where(logits > 0, labels >= 0, labels == 0), loss)


def spread(labels: Array, logits: Array, axis: int) -> tuple[Array, Array, int]:
    """Labels and logits of one shape, and their class axis: labels are spread as matrices of rows and classes are."""
    xp = array_namespace(logits)
    if is_shaped_as(labels, logits):
        return labels, logits, axis
    if axis not in (-1, logits.ndim - 1):
        labels, logits = (xp.moveaxis(one, axis, -1) for one in (labels, logits))
    batch = logits.shape[:-1]
    if any(size != size for size in batch):
        return spread_to(labels, logits), spread_to(logits, labels), -1
    matrix = math.prod(batch), max(labels.shape[-1], logits.shape[-1])
    labels = xp.reshape(xp.broadcast_to(xp.reshape(labels, (-1, labels.shape[-1])), matrix), (*batch, matrix[1]))
    return labels, xp.broadcast_to(logits, (*batch, matrix[1])), -1


def spread_to(array: Array, like: Array) -> Array:
    """The array over the shape of the other; Dask's broadcast_to knows no unknown size, its ``where`` does."""
    return array_namespace(array).where(like == like, array, array)


def is_matrix(operation: str, features: Array) -> None:
    """Raises unless the features are a matrix."""
    if features.ndim != 2:
        raise ValueError(
            f"{operation}: `features` must have shape (N, C), got {tuple(features.shape)}. Reshape them to rows."
        )


def is_shaped_as(first: Array, second: Array) -> bool:
    """Whether the shapes agree, as far as they are known: an unknown size is NaN, and not 1."""
    pairs = zip(first.shape, second.shape, strict=False)
    return first.ndim == second.ndim and all(a == b or ((a != a or b != b) and 1 not in (a, b)) for a, b in pairs)


def nan_where(rows: Array, like: Array) -> Array:
    """NaN in these places, 0 in the others: a constant of the dtype of ``like``."""
    xp = array_namespace(rows)
    return xp.where(rows, math.nan, xp.zeros_like(like))


def wide(array: Array) -> Array:
    """The array in float32 at least."""
    xp = array_namespace(array)
    return xp.astype(array, xp.float32) if str(array.dtype).endswith("float16") else array


def narrow(loss: Array, like: Array) -> Array:
    """The loss in the dtype of ``like``."""
    return array_namespace(loss).astype(loss, like.dtype, copy=False)


def is_differentiated(array: Array) -> bool:
    """Whether a derivative in this array may be asked for: of torch or JAX, and not plain numbers."""
    if is_torch_array(array):
        dual = sys.modules["torch"].autograd.forward_ad.unpack_dual
        return array.requires_grad or dual(array).tangent is not None
    return is_jax_array(array) and isinstance(array, sys.modules["jax"].core.Tracer)


def constant(array: Array) -> Array:
    """The array as a constant to autodiff."""
    if is_torch_array(array):
        return array.detach()
    return sys.modules["jax"].lax.stop_gradient(array) if is_jax_array(array) else array


def arrays_of(targets: Array, predictions: Array) -> tuple[Array, Array]:
    """Both as arrays: a list becomes NumPy's, or joins the other's library."""
    targets, predictions = unwrapped(targets), unwrapped(predictions)
    if not is_array_api_obj(predictions):
        predictions = as_array(predictions, targets) if is_array_api_obj(targets) else from_python(predictions)
    return as_array(targets, predictions), predictions


def unwrapped(value: Any) -> Any:
    """The array inside an xarray DataArray; anything else as it is."""
    return value.data if hasattr(value, "dims") and type(value).__module__.startswith("xarray.") else value


def from_python(value: Any) -> Array:
    """NumPy's array of what is none: float32 for Python's own floats, and else the dtype that it has."""
    types = leaf_types(value)
    if any(one.__module__.partition(".")[0] in ("tensorflow", "keras") for one in types):
        raise TypeError(
            "xent.compat: an array must not be a TensorFlow tensor, got one. "
            "No gradient would flow back into it: pass its .numpy()."
        )
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 and types <= {bool, int, float} else array


def leaf_types(value: Any) -> set[type]:
    """The types of what nested lists and tuples hold."""
    if isinstance(value, list | tuple):
        return set().union(*map(leaf_types, value))
    return {type(value)}


def as_array(value: Any, like: Array) -> Array:
    """The value as an array beside ``like``, whose library lists and NumPy's arrays join."""
    xp, value = array_namespace(like), unwrapped(value)
    if isinstance(value, list | tuple | int | float) and is_compiling():  # where NumPy's arrays are torch's
        return xp.asarray(value, **device_of(like))
    if not is_array_api_obj(value):
        value = from_python(value)
    elif not is_numpy_array(value) or isinstance(value, np.ma.MaskedArray):
        if array_namespace(value) is not xp:
            raise TypeError(
                f"xent.compat: arrays must be of one library, got {type(value)} beside {type(like)}. "
                "Nothing is moved between libraries but what NumPy holds beside predictions: convert one of the two."
            )
        return value
    return value if is_numpy_array(like) else xp.asarray(lent(value, like), **device_of(like))


def lent(value: Array, like: Array) -> Array:
    """NumPy's array as the library of ``like`` takes it: torch in plain memory only, JAX in its widest integers."""
    value = np.asarray(value)
    if is_torch_array(like):
        dtype = value.dtype.newbyteorder("=") if value.dtype.name != "bfloat16" else np.float32
        return value.astype(dtype, order="C", copy=not value.flags.carray)
    if is_jax_array(like) and value.dtype.kind in "iu" and value.dtype.itemsize == 8:
        # subtle: JAX cuts the upper bits off, which would make a label out of range another label.
        most = np.iinfo(array_namespace(like).asarray(0).dtype)
        return np.clip(value, max(int(most.min), np.iinfo(value.dtype).min), int(most.max))
    return value


def number(value: float, like: Array) -> Array:
    """The number as an array of the dtype of ``like``: to NumPy's ``where``, a bfloat16 and a number make a float64."""
    return array_namespace(like).asarray(value, dtype=like.dtype, **device_of(like))


def device_of(like: Array) -> dict[str, Any]:
    """The keyword that makes a new tensor where this one is; other libraries follow the arrays they meet."""
    return {"device": like.device} if is_torch_array(like) else {}


def dtype_named(xp: Any, dtype: Any) -> Any:
    """The library's dtype of this name; NumPy's own list leaves out bfloat16."""
    if not isinstance(dtype, str):
        return dtype
    return getattr(xp, dtype, None) or np.dtype(dtype)


def kind_of(value: Any) -> str:
    """The name of the dtype that TensorFlow gives a number."""
    if hasattr(value, "dtype"):
        return str(value.dtype).rpartition(".")[2]
    if type(value) is int and not -(2**31) <= value < 2**31:
        return "int64"
    return {bool: "bool", int: "int32"}.get(type(value), "float32")
