"""``keras.losses``' three crossentropies, and Keras 1's: the losses of rows."""

from __future__ import annotations

from typing import Any

from ..operands import ArrayT, array_namespace, scalar_like, without_fp_warnings
from . import ops, tensors
from .arguments import binary_targets, class_indices, floating_pair, soft_targets
from .probabilities import binary_loss, mean
from .slopes import of_tensors, slope_of_binary_targets, slope_of_labels, slope_of_targets

Array = Any


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
