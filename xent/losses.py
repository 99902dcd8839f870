"""The losses: one function for soft targets, one for labels, one for independent yes-or-no targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from .arrays import AnyArray, ArrayT
from .checks import Kind
from .contract.problem import NO_WEIGHTS, Route, Weights, weights_of
from .dispatch import calls
from .linear import Linear
from .numerics.reduction import Reduction
from .sparse_targets import SparseTargets

SPARSE = Route("sparse_cross_entropy", "sparse", "loss")
DENSE = Route("cross_entropy", "dense", "loss")
LINEAR = Route("linear_cross_entropy", "sparse", "loss")
BINARY = Route("binary_cross_entropy", "binary", "loss")


def sparse_cross_entropy(
    predictions: ArrayT | Linear[ArrayT],
    labels: AnyArray,
    /,
    *,
    axis: int | str = -1,
    kind: Kind = "logits",
    reduction: Reduction = "none",
    sample_weight: AnyArray | None = None,
    class_weight: AnyArray | Sequence[float] | None = None,
    ignore_index: int | Iterable[int] | None = None,
    label_smoothing: float = 0.0,
) -> ArrayT:
    r"""Negative log-probability of each row's label, in nats.

    .. math:: \ell_n = \log \sum_c e^{x_{nc}} - x_{n y_n}

    Parameters
    ----------
    predictions : array, shape (\*batch, C), real floating
        Logits, probabilities or log-probabilities, as ``kind`` says. Probabilities are neither clipped nor
        renormalised, and that they sum to 1 is not checked.
    labels : array, shape (\*batch,), any integer dtype, in ``[0, C)``
    axis : int or str, default -1
        The class axis of the predictions; the labels have their shape without it. A str is the name of a dimension of
        an xarray.DataArray, whose labels and weights are brought into its order by theirs.
    kind : "logits", "probabilities" or "log_probabilities", default "logits"
    reduction : "none", "sum", "mean" or :class:`Mean`, default "none"
        "mean" is Σ w ℓ / Σ w over the rows that count.
    sample_weight : array, shape (\*batch,), real or bool, optional
        A factor on each row's loss; a row of weight 0 is ignored.
    class_weight : array, shape (C,), or list of C numbers, optional
        A factor on the whole loss of a row, by its label; a row of weight 0 is ignored.
    ignore_index : int or iterable of int, optional
        Labels whose rows have loss and gradient exactly 0, whatever their logits hold, and do not count in a mean.
    label_smoothing : float in [0, 1], default 0
        The fraction a of the target that is distributed evenly: t = (1 − a) [j = label] + a / C.

    Returns
    -------
    array, shape (\*batch,), or () for a reduction
        Nats; float32, or float64 for float64 predictions. Lazy where the predictions are; an xarray.DataArray with the
        dimensions and coordinates that are left where they are one.

    Raises
    ------
    LabelError
        If a label lies outside ``[0, C)`` and the arrays are on the host; on Dask when it is computed. On a GPU and in
        a trace the row is NaN instead. See ``using(validate=)``.
    TypeError
        If an argument is not an array or of a dtype that does not fit, or arrays are of several libraries or devices.
    ValueError
        If shapes do not fit, there are no classes, or a keyword has an unknown value.

    Notes
    -----
    The loss keeps its relative accuracy however small it is. Extra memory is O(rows) plus one block.

    References
    ----------
    .. [1] Blanchard, Higham & Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA J. Numer. Anal. 41(4), 2021.

    Examples
    --------
    Uniform logits over four classes cost log 4 nats.

    >>> import numpy as np, xent
    >>> float(xent.sparse_cross_entropy(np.zeros((1, 4)), np.asarray([2]))[0])
    1.3862943611198906
    """
    options = (axis, kind, reduction, ignore_index, label_smoothing, 0, None)
    weights = NO_WEIGHTS if sample_weight is None and class_weight is None else Weights(sample_weight, class_weight)
    return calls.apply(SPARSE, predictions, labels, options, weights)


def cross_entropy(
    predictions: ArrayT | Linear[ArrayT],
    targets: AnyArray | SparseTargets[Any],
    /,
    *,
    axis: int | str = -1,
    kind: Kind = "logits",
    reduction: Reduction = "none",
    sample_weight: AnyArray | None = None,
    class_weight: AnyArray | Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> ArrayT:
    r"""Cross entropy between each row's target distribution and its prediction, in nats.

    .. math:: \ell_n = \sum_c t_{nc} \Bigl( \log \sum_k e^{x_{nk}} - x_{nc} \Bigr)

    with 0 for a class whose target is 0, whatever its logit.

    Parameters
    ----------
    predictions : array, shape (\*batch, C), real floating
        Logits, probabilities or log-probabilities, as ``kind`` says.
    targets : array, shape (\*batch, C), real, int or bool, t ≥ 0, or :class:`SparseTargets`
        Brought to the compute dtype. Neither their sign nor their sum is checked; targets that do not sum to 1 have the
        loss of the formula and its gradient, (Σt) p − t.
    axis, kind, reduction, sample_weight, label_smoothing
        As in :func:`sparse_cross_entropy`.
    class_weight : array, shape (C,), or list of C numbers, optional
        A factor Σ t_c w_c, of the unsmoothed target, on the whole loss of a row; where it is 0, the row is ignored.

    Returns
    -------
    array, shape (\*batch,), or () for a reduction
        Nats; float32, or float64 for float64 predictions. Lazy where the predictions are.

    Raises
    ------
    TypeError, ValueError
        As in :func:`sparse_cross_entropy`.

    References
    ----------
    .. [1] Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7.

    Examples
    --------
    >>> import numpy as np, xent
    >>> float(xent.cross_entropy(np.zeros((1, 4)), np.asarray([[0.5, 0.5, 0.0, 0.0]]))[0])
    1.3862943611198906
    """
    options = (axis, kind, reduction, None, label_smoothing, 0, None)
    weights = NO_WEIGHTS if sample_weight is None and class_weight is None else Weights(sample_weight, class_weight)
    return calls.apply(DENSE, predictions, targets, options, weights)


def linear_cross_entropy(
    hidden: ArrayT,
    classifier: ArrayT,
    labels: AnyArray,
    /,
    *,
    bias: ArrayT | None = None,
    softcap: float | None = None,
    reduction: Reduction = "none",
    sample_weight: AnyArray | None = None,
    class_weight: AnyArray | Sequence[float] | None = None,
    ignore_index: int | Iterable[int] | None = None,
    label_smoothing: float = 0.0,
) -> ArrayT:
    r"""Negative log-probability of each row's label under the logits ``hidden @ classifier.T``, which are never whole.

    .. math:: \ell_n = \log \sum_c e^{x_{nc}} - x_{n y_n}, \qquad x_{nc} = \sum_d h_{nd} w_{cd} + b_c

    It is :func:`sparse_cross_entropy` of a :class:`Linear`, whose logits are multiplied tile by tile.

    Parameters
    ----------
    hidden : array, shape (\*batch, D), real floating
        Divided by a temperature where there is one: ``hidden / T``.
    classifier : array, shape (C, D), real floating
        Of any strides, and of a dtype of its own.
    labels : array, shape (\*batch,), any integer dtype, in ``[0, C)``
    bias, softcap
        As in :class:`Linear`.
    reduction, sample_weight, class_weight, ignore_index, label_smoothing
        As in :func:`sparse_cross_entropy`. Ignored rows are not multiplied.

    Returns
    -------
    array, shape (\*batch,), or () for a reduction
        Nats; float64 if hidden states, classifier or bias are, else float32. Lazy where an operand is.

    Raises
    ------
    LabelError, TypeError, ValueError
        As in :func:`sparse_cross_entropy` and :class:`Linear`.

    Notes
    -----
    Extra memory is one tile of logits, some 4 MiB, whatever the numbers of rows and classes. The gradient is that of
    :func:`value_and_grad`, in the operands that are asked for, or of torch's and JAX's autodiff.

    Examples
    --------
    >>> import numpy as np, xent
    >>> hidden, classifier = np.asarray([[1.0, 2.0]]), np.asarray([[0.0, 0.0], [2.0, -1.0]])
    >>> float(xent.linear_cross_entropy(hidden, classifier, np.asarray([1]))[0])
    0.6931471805599453
    """
    options = (-1, "logits", reduction, ignore_index, label_smoothing, 0, None)
    weights = NO_WEIGHTS if sample_weight is None and class_weight is None else Weights(sample_weight, class_weight)
    result: ArrayT = calls.apply_to_product(LINEAR, (hidden, classifier, bias), softcap, labels, options, weights)
    return result


def binary_cross_entropy(
    predictions: ArrayT,
    targets: AnyArray,
    /,
    *,
    kind: Literal["logits", "probabilities"] = "logits",
    reduction: Reduction = "none",
    sample_weight: AnyArray | None = None,
    pos_weight: AnyArray | float | None = None,
) -> ArrayT:
    r"""Cross entropy of independent yes-or-no predictions, element by element, in nats.

    .. math:: \ell = t\, c\, \log(1 + e^{-x}) + (1 - t) \log(1 + e^{x})

    Parameters
    ----------
    predictions : array, any shape, real floating
    targets : array, the same shape, real, int or bool, in [0, 1]
        The probability of yes; that it lies in [0, 1] is not checked.
    kind : "logits", "probabilities" or "log_probabilities", default "logits"
    reduction : "none", "sum", "mean" or :class:`Mean`, default "none"
    sample_weight : array, the same shape, optional
        A factor on each element's loss; an element of weight 0 is ignored.
    pos_weight : number, or array of shape () or (last axis,), optional
        The factor c on the loss of a yes.

    Returns
    -------
    array, the shape of the predictions, or () for a reduction
        Nats; float32, or float64 for float64 predictions. Infinite logits take their limits, 0 or +inf.

    Raises
    ------
    TypeError, ValueError
        As in :func:`sparse_cross_entropy`.

    References
    ----------
    .. [1] Mächler, "Accurately Computing log(1 − exp(−|a|))", R package Rmpfr vignette, 2012.

    Examples
    --------
    >>> import numpy as np, xent
    >>> float(xent.binary_cross_entropy(np.asarray([0.0]), np.asarray([1.0]))[0])
    0.6931471805599453
    """
    options = (-1, kind, reduction, None, 0.0, 0, None)
    weights = weights_of(sample_weight, None, pos_weight)
    return calls.apply(BINARY, predictions, targets, options, weights)


ROUTES = {
    sparse_cross_entropy: SPARSE,
    cross_entropy: DENSE,
    linear_cross_entropy: LINEAR,
    binary_cross_entropy: BINARY,
}
"""The losses that :func:`xent.value_and_grad` and :func:`xent.explain` know."""
