"""``keras.losses``' focal crossentropies and the generalised one: the losses of rows."""

from __future__ import annotations

from typing import Any

from ..operands import (
    ArrayT,
    array_namespace,
    as_array,
    as_arrays,
    cast_like,
    device_keyword,
    widen,
    without_fp_warnings,
)
from .arguments import as_integers, binary_targets, require_fit, soft_targets
from .probabilities import binary_loss, clipped_probabilities, mean, sigmoid, softmax

Array = Any


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
