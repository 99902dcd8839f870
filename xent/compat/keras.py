r"""Keras' cross entropies on any array: the functions and classes of ``keras.losses``, and ``keras.ops``' three.

Names, signatures, defaults and answers are those of Keras 3.15 with ``floatx`` float32 and ``epsilon`` 1e-7. Its four
backends answer differently; kept is TensorFlow's answer, the default's, on every library:

| case | numpy, torch, jax | tensorflow, and here |
|---|---|---|
| sparse, from probabilities | p / Σp, then clipped | clipped, then p / Σp |
| gradient of soft targets from logits | (Σt) p − t | p − t |
| label out of range | numpy, jax: −0.0; torch: IndexError, and 0 for −100 | an error |
| sparse, −inf logit beside the label | numpy, jax: NaN | contributes 0 |
| binary, from logits | numpy: clips the probability | as ``tf.nn`` |
| sparse, class axis not the last | torch: served; numpy, jax: an error | an error; here served |

Where Keras and xent disagree:

| case | xent | Keras, and here |
|---|---|---|
| probabilities | as they are; 0 costs +inf | clipped to [1e-7, 1 − 1e-7], with gradient 0 outside |
| probabilities of soft targets | need not sum to 1 | p / Σp, then clipped |
| float16, bfloat16 | float32 | functions: the dtype of ``y_pred``; there 1 − 1e-7 is 1 |
| binary, half precision, p = 1 for a yes | 0 | NaN: 0 · log 0 |
| float64 | float64 | functions: float64; classes: float32 |
| ``y_true`` | any real; labels are integers | cast to the dtype of ``y_pred``, labels to integers |
| ``y_true`` of the classes | | cast to float32 first: labels above 2²⁴ are other labels |
| ``label_smoothing`` | in [0, 1]; a / C | any number; divided by the size of the last axis, whatever ``axis`` is |
| categorical focal, from logits | | the probabilities are clipped too, so that no loss is over 16.2 α |
| binary focal, from logits | | nothing is clipped; infinite logits cost what they cost in ``tf.nn`` |
| generalised, label out of range | LabelError | 1 / q, as if its probability were 0 |
| mean | Σ w ℓ / Σ w | Σ w ℓ / N; ``mean_with_sample_weight`` is xent's, but one number w is itself the divisor |
| mean of no counted rows | NaN | 0; an empty array where there are no rows at all |
| ``sample_weight`` of other shapes | ValueError | broadcast over the losses; (N, 1) makes (N,) losses (N, 1) |
| ``sample_weight`` 0 | the row is ignored | 0 times its loss: NaN if that is not finite |
| labels (N, 1) | ValueError | squeezed |
| lists, pandas | TypeError | taken: Python's own floats as float32, all else in its dtype |
| NumPy's targets and weights beside other predictions | TypeError | moved to their library and device |

From logits, see also :mod:`xent.compat.tensorflow`, which is called. Not followed, besides what is missing:

| case | Keras | here |
|---|---|---|
| tiny losses | 0 | to full relative accuracy |
| ``_keras_mask``, ``_keras_logits`` of given predictions, replicas of a strategy | read | not read |
| ``ignore_class`` and weights in ``keras.metrics`` | a mask on the result | arrays bear none: rows count, as 0 |
| TensorFlow's tensors: sparse, categorical, binary | taken | taken, as by ``Model.fit``: computed by NumPy, not XLA |
| TensorFlow's tensors: all others; symbolic ones | taken | TypeError: no gradient would come back |
| ``Model.fit``: weights beside an object of a class | of the rows | of its result: ``reduction=None`` weighs rows |
| zero classes | 0; labels: an error | ValueError |
| errors | ValueError; of TensorFlow's kernels InvalidArgumentError | ValueError; TypeError for a dtype; xent's words |
| ``set_floatx``, ``set_epsilon`` | obeyed | not known here; classes take ``dtype=`` |
| configuration of the sparse class | forgets ``axis`` | has it |
| ``keras.saving``, subclasses of ``Loss``, trees of predictions | served | not known |
| labels with a fraction | compared with ``ignore_class``, then cut | cut, then compared |
| ``ops``, target of another dtype than the output | an error | taken |
| integer ``y_pred`` of the functions, the generalised apart | an error, or by backend | TypeError |
| labels beside float16 | compared with ``ignore_class`` in float16, where 2049 is 2048 | as integers |
| ``ignore_class``, one row broadcast over more weights | their mean | divided by the one row |
| ``alpha``, an array of float64 | the loss is float64 | it has the dtype of ``y_pred`` |
| focal, γ under 1, gradient where p is rounded to a certain right answer | NaN | torch: 0 for γ = 0; else NaN, later |
| lists as predictions of labels | AttributeError | taken |
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np

import xent

from . import tensorflow as tf
from . import tensors
from .operands import (
    ArrayT,
    array_namespace,
    as_array,
    as_arrays,
    cast_like,
    device_keyword,
    dtype_of_name,
    fit_together,
    has_shape,
    nan_where,
    nan_where_invalid,
    scalar_like,
    widen,
    without_fp_warnings,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "keras1_categorical_crossentropy",
    "ops",
    "sparse_categorical_crossentropy",
]

Array = Any
EPSILON = 1e-7
FLOATX = "float32"
REDUCTIONS = ("sum_over_batch_size", "sum", None, "none", "mean", "mean_with_sample_weight")


@without_fp_warnings
def categorical_crossentropy(
    y_true: Array, y_pred: ArrayT, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> ArrayT:
    r"""``keras.losses.categorical_crossentropy``: the loss of soft targets, row by row, in nats.

    .. math:: \ell = -\sum_j t_j \log \operatorname{clip}\Bigl(\frac{p_j}{\sum_k p_k}, \epsilon, 1 - \epsilon\Bigr)

    Parameters
    ----------
    y_true : array, shape (\*batch, C), real
    y_pred : array, shape (\*batch, C), real floating
        Probabilities, or logits where ``from_logits``: then there is neither a division nor a clip.
    from_logits : bool, default False
    label_smoothing : float, default 0
        The proportion a of the target that is uniform: t = (1 − a) t + a / (size of the last axis).
    axis : int, default -1

    Returns
    -------
    array, shape (\*batch,), dtype of ``y_pred``

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.cross_entropy`.

    Warns
    -----
    SyntaxWarning
        If the last axis has one class.

    References
    ----------
    .. [1] Keras 3.15, src/losses/losses.py and src/backend/tensorflow/nn.py.

    Examples
    --------
    The loss never exceeds −log ε.

    >>> from xent.compat import keras
    >>> keras.categorical_crossentropy([[0, 1]], [[1.0, 0.0]]).tolist()
    [16.11809539794922]
    """
    if tensors.is_tensor(y_pred):
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        return of_tensors(categorical_crossentropy, slope_of_targets, y_true, y_pred, **options)
    y_true, y_pred = soft_targets("categorical_crossentropy", y_true, y_pred, label_smoothing, axis)
    return ops.categorical_crossentropy(y_true, y_pred, from_logits, axis)


@without_fp_warnings
def sparse_categorical_crossentropy(
    y_true: Array, y_pred: ArrayT, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> ArrayT:
    r"""``keras.losses.sparse_categorical_crossentropy``: the loss of labels, row by row, in nats.

    .. math:: \ell = \log \sum_j q_j - \log q_y, \qquad q = \operatorname{clip}(p, \epsilon, 1 - \epsilon)

    Parameters
    ----------
    y_true : array, shape (\*batch,) or with the class axis of size 1, real
        Labels in ``[0, C)``; floats are cut to integers.
    y_pred : array, shape (\*batch, C), real floating
        Probabilities, or logits where ``from_logits``: then x is the logarithm of q.
    from_logits : bool, default False
    ignore_class : int, optional
        The label whose rows have loss and gradient exactly 0, whatever they hold.
    axis : int, default -1

    Returns
    -------
    array, shape (\*batch,), dtype of ``y_pred``

    Raises
    ------
    LabelError, TypeError, ValueError
        As :func:`xent.sparse_cross_entropy`.

    References
    ----------
    .. [1] Keras 3.15, src/losses/losses.py and src/backend/tensorflow/nn.py.

    Examples
    --------
    >>> from xent.compat import keras
    >>> keras.sparse_categorical_crossentropy([1, -1], [[0.5, 0.5], [1.0, 0.0]], ignore_class=-1).tolist()
    [0.6931471824645996, 0.0]
    """
    if tensors.is_tensor(y_pred):
        options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        return of_tensors(sparse_categorical_crossentropy, slope_of_labels, y_true, y_pred, **options)
    y_true, y_pred = floating_pair("sparse_categorical_crossentropy", y_true, y_pred)
    if ignore_class is None:
        return ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits, axis)
    xp, labels = array_namespace(y_pred), class_indices(y_true, y_pred, axis)
    counted, zero = labels != ignore_class, scalar_like(0.0, y_pred)
    column = counted[..., None] if axis == -1 else xp.expand_dims(counted, axis=axis)  # Dask expands no unknown shape
    y_pred = xp.where(column, y_pred, zero)
    loss = ops.sparse_categorical_crossentropy(xp.where(counted, labels, 0), y_pred, from_logits, axis)
    return xp.where(counted, loss, zero)


@without_fp_warnings
def binary_crossentropy(
    y_true: Array, y_pred: ArrayT, from_logits: bool = False, label_smoothing: float = 0.0, axis: Any = -1
) -> ArrayT:
    r"""``keras.losses.binary_crossentropy``: the mean over an axis of the losses of yes-or-no targets, in nats.

    .. math:: \ell = -z \log p - (1 - z) \log(1 - p), \qquad p \in [\epsilon, 1 - \epsilon]

    Parameters
    ----------
    y_true : array, shape (\*batch, D), real
    y_pred : array, shape (\*batch, D), real floating
        Probabilities of yes, or logits where ``from_logits``.
    from_logits : bool, default False
    label_smoothing : float, default 0
        The proportion a of the target that is uniform: z = (1 − a) z + a / 2.
    axis : int, tuple or list of int, or None, default -1
        The mean is over it.

    Returns
    -------
    array, shape (\*batch,), dtype of ``y_pred``

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.binary_cross_entropy`.

    References
    ----------
    .. [1] Keras 3.15, src/losses/losses.py and src/backend/tensorflow/nn.py.

    Examples
    --------
    >>> from xent.compat import keras
    >>> keras.binary_crossentropy([[1, 0]], [[0.5, 0.5]]).tolist()
    [0.6931471824645996]
    """
    if tensors.is_tensor(y_pred):
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        return of_tensors(binary_crossentropy, slope_of_binary_targets, y_true, y_pred, **options)
    y_true, y_pred = binary_targets("binary_crossentropy", y_true, y_pred, label_smoothing)
    return mean(binary_loss(y_true, y_pred, from_logits), axis, y_pred)


@without_fp_warnings
def categorical_focal_crossentropy(
    y_true: Array,
    y_pred: ArrayT,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> ArrayT:
    r"""``keras.losses.categorical_focal_crossentropy``: rows that are already right weigh less, in nats.

    .. math:: \ell = -\sum_j \alpha (1 - p_j)^\gamma\, t_j \log p_j

    Parameters
    ----------
    y_true, y_pred, from_logits, label_smoothing, axis
        As in :func:`categorical_crossentropy`; here logits become probabilities, which are clipped.
    alpha : number, or C of them, default 0.25
        A factor on each class, along the last axis.
    gamma : float, default 2

    Returns
    -------
    array, shape (\*batch,), dtype of ``y_pred``

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.softmax`, or if the shapes do not fit.

    References
    ----------
    .. [1] Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5.

    Examples
    --------
    >>> from xent.compat import keras
    >>> keras.categorical_focal_crossentropy([[0, 1]], [[0.5, 0.5]]).tolist()
    [0.043321698904037476]
    """
    y_true, y_pred = soft_targets(
        "categorical_focal_crossentropy", y_true, y_pred, label_smoothing, axis, same_shape=False
    )
    xp = array_namespace(y_pred)
    p = softmax(y_pred, axis) if from_logits else y_pred
    p = widen(clipped_probabilities(p / xp.sum(p, axis=axis, keepdims=True)))
    require_fit("categorical_focal_crossentropy", "the targets", y_true, p)
    factor = alpha
    if not isinstance(alpha, int | float):
        factor = xp.astype(as_array(alpha, p), p.dtype)
        require_fit("categorical_focal_crossentropy", "`alpha`", factor, p)
    return cast_like(xp.sum(factor * (1 - p) ** gamma * -widen(y_true) * xp.log(p), axis=axis), y_pred)


@without_fp_warnings
def binary_focal_crossentropy(
    y_true: Array,
    y_pred: ArrayT,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: Any = -1,
) -> ArrayT:
    r"""``keras.losses.binary_focal_crossentropy``: outputs that are already right weigh less, in nats.

    .. math:: (1 - p_z)^\gamma\, \ell, \qquad p_z = z p + (1 - z)(1 - p)

    where ℓ is :func:`binary_crossentropy` of an element. Of probabilities, only the p in ℓ is clipped; of logits, none.

    Parameters
    ----------
    y_true, y_pred, from_logits, label_smoothing, axis
        As in :func:`binary_crossentropy`; of logits, p is the sigmoid.
    apply_class_balancing : bool, default False
        Whether a yes is weighed by alpha, and a no by 1 − alpha.
    alpha : float, default 0.25
    gamma : float, default 2

    Returns
    -------
    array, shape (\*batch,), dtype of ``y_pred``

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.binary_cross_entropy`.

    References
    ----------
    .. [1] Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5.

    Examples
    --------
    >>> from xent.compat import keras
    >>> keras.binary_focal_crossentropy([[1, 0]], [[0.5, 0.5]]).tolist()
    [0.1732867956161499]
    """
    y_true, y_pred = binary_targets("binary_focal_crossentropy", y_true, y_pred, label_smoothing)
    loss = binary_loss(y_true, y_pred, from_logits)
    z, p = widen(y_true), widen(sigmoid(y_pred) if from_logits else y_pred)
    loss = (1 - (z * p + (1 - z) * (1 - p))) ** gamma * loss
    if apply_class_balancing:
        loss = (z * alpha + (1 - z) * (1 - alpha)) * loss
    return mean(loss, axis, y_pred)


@without_fp_warnings
def categorical_generalized_cross_entropy(y_true: Array, y_pred: ArrayT, q: float) -> ArrayT:
    r"""``keras.losses.categorical_generalized_cross_entropy``: between cross entropy (q to 0) and 1 − p_y (q = 1).

    .. math:: \ell = (1 - p_y^q) / q

    Parameters
    ----------
    y_true : array, shape (\*batch,), real
        Labels; floats are cut to integers. Outside ``[0, C)`` the probability is 0.
    y_pred : array, shape (\*batch, C), real floating
        Probabilities, neither clipped nor normalised; integers become float32.
    q : float in (0, 1)

    Returns
    -------
    array, shape (\*batch,), dtype of ``y_pred``

    References
    ----------
    .. [1] Zhang & Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
       NeurIPS 2018, equation 6.

    Examples
    --------
    >>> from xent.compat import keras
    >>> keras.categorical_generalized_cross_entropy([1], [[0.75, 0.25]], 0.5).tolist()
    [1.0]
    """
    y_true, y_pred = as_arrays(y_true, y_pred)
    xp = array_namespace(y_pred)
    y_pred = y_pred if "float" in str(y_pred.dtype) else xp.astype(y_pred, xp.float32)
    p = widen(y_pred)
    is_label = as_integers(y_true)[..., None] == xp.arange(p.shape[-1], **device_keyword(p))  # of unknown rows, too
    return cast_like((1 - xp.sum(p * xp.astype(is_label, p.dtype), axis=-1) ** q) / q, y_pred)


def keras1_categorical_crossentropy(output: ArrayT, target: Array, from_logits: bool = False) -> ArrayT:
    r"""``keras.backend.categorical_crossentropy`` as Keras 1 had it: the predictions come first.

    Parameters
    ----------
    output, target, from_logits
        As in :meth:`ops.categorical_crossentropy`; the class axis is the last.

    Returns
    -------
    array, shape (\*batch,), dtype of the output

    Examples
    --------
    >>> from xent.compat import keras
    >>> keras.keras1_categorical_crossentropy([[1.0, 3.0]], [[1, 0]]).tolist()
    [1.3862943649291992]
    """
    return ops.categorical_crossentropy(target, output, from_logits)


class ops:
    """``keras.ops``: the losses that ``keras.losses`` calls, without smoothing, ignored labels and means."""

    @staticmethod
    @without_fp_warnings
    def categorical_crossentropy(target: Array, output: Array, from_logits: bool = False, axis: int = -1) -> Array:
        r"""``keras.ops.categorical_crossentropy``: see :func:`categorical_crossentropy`.

        Parameters
        ----------
        target : array, shape (\*batch, C), real
        output : array, shape (\*batch, C), real floating
        from_logits : bool, default False
        axis : int, default -1

        Returns
        -------
        array, shape (\*batch,), dtype of the output

        Raises
        ------
        TypeError, ValueError
            As :func:`xent.cross_entropy`.
        """
        target, output = floating_pair("categorical_crossentropy", target, output, same_shape=True)
        if from_logits:
            return tf.softmax_cross_entropy_with_logits(target, output, axis)
        p = clipped_probabilities(output / array_namespace(output).sum(output, axis=axis, keepdims=True))
        return cast_like(xent.cross_entropy(p, target, axis=axis, kind="probabilities"), output)

    @staticmethod
    @without_fp_warnings
    def sparse_categorical_crossentropy(
        target: Array, output: Array, from_logits: bool = False, axis: int = -1
    ) -> Array:
        r"""``keras.ops.sparse_categorical_crossentropy``: see :func:`sparse_categorical_crossentropy`.

        Parameters
        ----------
        target : array, shape (\*batch,) or with the class axis of size 1, real
        output : array, shape (\*batch, C), real floating
        from_logits : bool, default False
        axis : int, default -1

        Returns
        -------
        array, shape (\*batch,), dtype of the output

        Raises
        ------
        LabelError, TypeError, ValueError
            As :func:`xent.sparse_cross_entropy`.
        """
        target, output = floating_pair("sparse_categorical_crossentropy", target, output)
        labels = class_indices(target, output, axis)
        logits = output if from_logits else array_namespace(output).log(widen(clipped_probabilities(output)))
        return cast_like(tf.sparse_loss(labels, logits, axis), output)

    @staticmethod
    @without_fp_warnings
    def binary_crossentropy(target: Array, output: Array, from_logits: bool = False) -> Array:
        r"""``keras.ops.binary_crossentropy``: element by element, see :func:`binary_crossentropy`.

        Parameters
        ----------
        target : array, any shape, real
        output : array, the same shape, real floating
        from_logits : bool, default False

        Returns
        -------
        array, shape and dtype of the output

        Raises
        ------
        TypeError, ValueError
            As :func:`xent.binary_cross_entropy`.
        """
        target, output = floating_pair("binary_crossentropy", target, output, same_shape=True)
        return cast_like(binary_loss(target, output, from_logits), output)


class Loss:
    """A loss function with its keywords and its reduction: the base of the classes below.

    Parameters
    ----------
    reduction : "sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none" or None
        "mean" is another name of the first: the sum of the weighted losses, divided by their number.
    name : str
    dtype : str, default "float32"
        The dtype that predictions, targets and weights are cast to, labels included.
    """

    def __init__(self, function: Any, reduction: str | None, name: str, dtype: str | None, **options: Any) -> None:
        if reduction not in REDUCTIONS:
            choices = ", ".join(map(repr, REDUCTIONS))
            raise ValueError(
                f"{type(self).__name__}: `reduction` must be one of {choices}, got {reduction!r}. Choose one."
            )
        self.function, self.reduction, self.name, self.dtype = function, reduction, name, dtype or FLOATX
        self.options = options
        vars(self).update(options)  # Keras' attributes

    @without_fp_warnings
    def __call__(self, y_true: Array, y_pred: Array, sample_weight: Any = None) -> Array:
        """The losses of the rows, weighted and reduced.

        Parameters
        ----------
        y_true, y_pred : array
            As in the function.
        sample_weight : array or number, optional
            Of a shape that broadcasts over the losses.

        Returns
        -------
        array, shape () or that of the losses, of the ``dtype`` of this object

        Raises
        ------
        LabelError, TypeError, ValueError
            As the function.
        """
        if tensors.is_tensor(y_pred):
            y_true, y_pred = (tensors.cast(values, self.dtype) for values in (y_true, y_pred))
            values = self.call(y_true, y_pred)
            mask = tensors.is_counted(y_true, self.options.get("ignore_class"), values)
            return tensors.weighed_and_reduced(values, sample_weight, mask, self.reduction)
        y_true, y_pred = as_arrays(y_true, y_pred)
        xp = array_namespace(y_pred)
        dtype = dtype_of_name(xp, self.dtype)
        y_true, y_pred = same_rank(*(xp.astype(array, dtype, copy=False) for array in (y_true, y_pred)))
        values, mask = self.call(y_true, y_pred), self.mask(y_true, y_pred)
        if sample_weight is not None:
            sample_weight = xp.astype(as_array(sample_weight, values), dtype)
        if mask is not None:
            mask = xp.astype(mask, dtype)
        return weigh_and_reduce(values, sample_weight, mask, self.reduction)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """The losses of the rows."""
        return self.function(y_true, y_pred, **self.options)

    def mask(self, y_true: Array, y_pred: Array) -> Array | None:
        """Whether each row counts; None if all rows count."""
        return None

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this object again, the dtype apart."""
        return {"name": self.name, "reduction": self.reduction, **self.options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """The object of a configuration."""
        return cls(**config)


class CategoricalCrossentropy(Loss):
    """``keras.losses.CategoricalCrossentropy``: :func:`categorical_crossentropy`, reduced as :class:`Loss` says.

    Examples
    --------
    >>> from xent.compat import keras
    >>> float(keras.CategoricalCrossentropy()([[0, 1], [1, 0]], [[0.5, 0.5], [0.5, 0.5]], sample_weight=[1, 3]))
    1.3862943649291992
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_crossentropy, reduction, name, dtype, **options)


class CategoricalFocalCrossentropy(Loss):
    """``keras.losses.CategoricalFocalCrossentropy``: :func:`categorical_focal_crossentropy`, reduced."""

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_focal_crossentropy, reduction, name, dtype, alpha=alpha, gamma=gamma, **options)


class SparseCategoricalCrossentropy(Loss):
    """``keras.losses.SparseCategoricalCrossentropy``: :func:`sparse_categorical_crossentropy`, reduced.

    The means are over the rows that ``ignore_class`` leaves.
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(sparse_categorical_crossentropy, reduction, name, dtype, **options)

    def mask(self, y_true: Array, y_pred: Array) -> Array | None:
        """Whether each row's label is not the ignored one."""
        ignored, axis = self.options["ignore_class"], self.options["axis"]
        return None if ignored is None else class_indices(y_true, y_pred, axis) != ignored


class BinaryCrossentropy(Loss):
    """``keras.losses.BinaryCrossentropy``: :func:`binary_crossentropy`, reduced."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: Any = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_crossentropy, reduction, name, dtype, **options)


class BinaryFocalCrossentropy(Loss):
    """``keras.losses.BinaryFocalCrossentropy``: :func:`binary_focal_crossentropy`, reduced."""

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: Any = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        options |= {"apply_class_balancing": apply_class_balancing, "alpha": alpha, "gamma": gamma}
        super().__init__(binary_focal_crossentropy, reduction, name, dtype, **options)


class CategoricalGeneralizedCrossEntropy(Loss):
    """``keras.losses.CategoricalGeneralizedCrossEntropy``: :func:`categorical_generalized_cross_entropy`, reduced."""

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_generalized_cross_entropy",
        dtype: str | None = None,
    ) -> None:
        if not 0 < q < 1:
            raise ValueError(
                f"CategoricalGeneralizedCrossEntropy: `q` must lie in (0, 1), got {q!r}. Choose between them."
            )
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)


# -------------------- losses and probabilities, in float32 or float64


def binary_loss(target: Array, output: Array, from_logits: bool) -> Array:
    """The loss of every yes-or-no target."""
    if from_logits:
        return tf.sigmoid_loss(target, output)
    p = clipped_probabilities(output)
    loss = xent.binary_cross_entropy(p, target, kind="probabilities")
    return nan_where_invalid(array_namespace(p), loss, (p == 1) & (target == 1), gradient=True)


def mean(loss: Array, axis: Any, like: Array) -> Array:
    """The mean over an axis, or several, in the dtype of ``like``."""
    return cast_like(array_namespace(loss).mean(loss, axis=tuple(axis) if isinstance(axis, list) else axis), like)


def sigmoid(logits: Array) -> Array:
    """The probability of yes, in the dtype of the logits: the loss of a certain yes is −log of it."""
    xp = array_namespace(logits)
    return cast_like(xp.exp(-xent.binary_cross_entropy(logits, xp.ones_like(logits))), logits)


def softmax(logits: Array, axis: int) -> Array:
    """The probabilities of the classes, in the dtype of the logits: NaN, and of gradient NaN, beside a +inf logit."""
    xp, p = array_namespace(logits), xent.softmax(logits, axis=axis)
    if logits.shape[axis] == 1:
        text = f"softmax: one class is always sure, got axis {axis} of {tuple(logits.shape)}. Is it a sigmoid?"
        warnings.warn(text, UserWarning, stacklevel=4)
    infinite = xp.any(logits == math.inf, axis=axis, keepdims=True)
    return cast_like(p * (1 + nan_where(xp, infinite, xp.sum(p, axis=axis, keepdims=True))), logits)


def clipped_probabilities(p: Array) -> Array:
    """The probabilities in [ε, 1 − ε], in their own dtype; the gradient is 0 outside, and for NaN."""
    xp = array_namespace(p)
    least, most = (scalar_like(value, p) for value in (EPSILON, 1 - EPSILON))
    outside = xp.where(p < least, least, xp.where(p > most, most, nan_where(xp, xp.isnan(p), p)))
    return xp.where((p >= least) & (p <= most), p, outside)


# -------------------- TensorFlow's tensors: the derivatives of the rows, of NumPy's arrays


def of_tensors(function: Any, slope: Any, y_true: Any, y_pred: Any, **options: Any) -> Any:
    """The losses of a function whose derivative in the predictions is ``slope``, of tensors."""
    loss, slope = (functools.partial(rule, **options) for rule in (function, slope))
    return tensors.rows(loss, slope, y_true, y_pred, options["axis"])


@without_fp_warnings
def slope_of_targets(y_true: Array, y_pred: Array, from_logits: bool, label_smoothing: float, axis: int) -> Array:
    """The derivative of :func:`categorical_crossentropy`."""
    t, y_pred = soft_targets("categorical_crossentropy", y_true, y_pred, label_smoothing, axis)
    if from_logits:
        infinite = np.any(y_pred == math.inf, axis=axis, keepdims=True)
        return np.where(infinite, math.nan, xent.softmax(y_pred, axis=axis) - t)
    total = np.sum(y_pred, axis=axis, keepdims=True)
    p = y_pred / total
    of_p = slope_of_clipped(p, -t / clipped_probabilities(p))
    return (of_p - np.sum(of_p * p, axis=axis, keepdims=True)) / total


@without_fp_warnings
def slope_of_labels(y_true: Array, y_pred: Array, from_logits: bool, ignore_class: int | None, axis: int) -> Array:
    """The derivative of :func:`sparse_categorical_crossentropy`."""
    labels = class_indices(y_true, y_pred, axis)
    p = y_pred if from_logits else clipped_probabilities(y_pred)
    logits = y_pred if from_logits else np.log(widen(p))
    both = xent.value_and_grad(xent.sparse_cross_entropy)
    slope = both(logits, labels, axis=axis, ignore_index=ignore_class)[1]
    if not from_logits:
        return slope_of_clipped(y_pred, slope / p)
    infinite = np.any(logits == math.inf, axis=axis) & (labels != ignore_class)
    return np.where(np.expand_dims(infinite, axis), math.nan, slope)


@without_fp_warnings
def slope_of_binary_targets(
    y_true: Array, y_pred: Array, from_logits: bool, label_smoothing: float, axis: Any
) -> Array:
    """The derivative of :func:`binary_crossentropy`."""
    z, y_pred = binary_targets("binary_crossentropy", y_true, y_pred, label_smoothing)
    both = xent.value_and_grad(xent.binary_cross_entropy)
    if from_logits:
        slope = both(y_pred, z)[1]
    else:
        slope = slope_of_clipped(y_pred, both(clipped_probabilities(y_pred), z, kind="probabilities")[1])
    rows = mean(slope, axis, slope).size
    return slope * (rows / slope.size if slope.size else 1.0)


def slope_of_clipped(p: Array, slope: Array) -> Array:
    """The derivative in the probabilities before they were clipped: 0 outside."""
    return np.where((p >= EPSILON) & (p <= 1 - EPSILON), slope, 0)


# -------------------- the arguments


def as_integers(labels: Array) -> Array:
    """The labels in the library's default integer dtype; floats are cut."""
    xp = array_namespace(labels)
    return xp.astype(labels, xp.arange(1).dtype, copy=False)


def class_indices(labels: Array, predictions: Array, axis: int) -> Array:
    """The labels as integers, without a class axis of size 1; raises ValueError unless there is one for each row."""
    if labels.ndim == predictions.ndim and predictions.ndim > 0 and labels.shape[axis] == 1:
        labels = array_namespace(labels).squeeze(labels, axis=axis)
    rows = list(predictions.shape)
    del rows[axis : axis + 1 or None]
    if not has_shape(labels, tuple(rows)) or predictions.ndim == 0:
        raise ValueError(
            f"sparse_categorical_crossentropy: the labels must have shape {tuple(rows)}, got {tuple(labels.shape)} for "
            f"predictions {tuple(predictions.shape)}. Pass one label for each row."
        )
    return as_integers(labels)


def soft_targets(
    function: str, y_true: Array, y_pred: Array, label_smoothing: float, axis: Any, same_shape: bool = True
) -> tuple[Array, Array]:
    """Soft targets in the dtype of the predictions, smoothed, and the predictions."""
    if isinstance(axis, bool):
        raise ValueError(f"{function}: `axis` must be an integer, got {axis}. Pass the one class axis.")
    y_true, y_pred = floating_pair(function, y_true, y_pred, same_shape)
    if y_pred.ndim == 0:
        raise IndexError(
            f"{function}: the predictions must have a class axis, got a 0-d array. Pass shape (C,) or (N, C)."
        )
    if y_pred.shape[-1] == 1:
        text = f"{function}: one class only, got y_pred of shape {tuple(y_pred.shape)}. Is it binary_crossentropy?"
        warnings.warn(text, SyntaxWarning, stacklevel=4)
    y_true = array_namespace(y_pred).astype(y_true, y_pred.dtype, copy=False)
    if label_smoothing:
        y_true = y_true * (1 - label_smoothing) + label_smoothing / y_true.shape[-1]
    return y_true, y_pred


def binary_targets(function: str, y_true: Array, y_pred: Array, label_smoothing: float) -> tuple[Array, Array]:
    """Yes-or-no targets in the dtype of the predictions, smoothed, and the predictions."""
    y_true, y_pred = floating_pair(function, y_true, y_pred, same_shape=True)
    y_true = array_namespace(y_pred).astype(y_true, y_pred.dtype, copy=False)
    return (y_true * (1 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else y_true), y_pred


def floating_pair(function: str, targets: Array, predictions: Array, same_shape: bool = False) -> tuple[Array, Array]:
    """Both as arrays, the predictions floating; raises ValueError if they must have the same shape and do not."""
    targets, predictions = as_arrays(targets, predictions)
    if "float" not in str(predictions.dtype):
        raise TypeError(
            f"{function}: the predictions must be real floating, got {predictions.dtype}. Cast them to float32."
        )
    if same_shape and not tf.same_shape(targets, predictions):
        raise ValueError(
            f"{function}: the targets must have the same shape as the predictions, {tuple(predictions.shape)}, "
            f"got {tuple(targets.shape)}. For labels call sparse_categorical_crossentropy."
        )
    return targets, predictions


def require_fit(function: str, name: str, array: Array, like: Array) -> None:
    """Raises ValueError unless the array broadcasts with the other."""
    if not fit_together(array, like):
        raise ValueError(
            f"{function}: {name} must broadcast with shape {tuple(like.shape)}, got {tuple(array.shape)}. Reshape it."
        )


# -------------------- reductions


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


def __dir__() -> list[str]:
    return [*__all__]
