"""Softmax and its companions, with the accuracy and on the libraries of the losses."""

from __future__ import annotations

from typing import Any

from . import arrays, checks
from .arrays import Array, ArrayT
from .contract.problem import Options, Route
from .dispatch import calls, dimensions
from .linear import Linear
from .numerics import targets

LOGSUMEXP, SOFTMAX, LOG_SOFTMAX = (Route(name, "sparse", name) for name in ("logsumexp", "softmax", "log_softmax"))


def logsumexp(logits: ArrayT | Linear[ArrayT], /, *, axis: int | str = -1, keepdims: bool = False) -> ArrayT:
    r"""Logarithm of the sum of exponentials of each row: its log-partition function, in nats.

    .. math:: \log \sum_c e^{x_c} = m + \log(1 + r)

    Parameters
    ----------
    logits : array, shape (\*batch, C), real floating
    axis : int or str, default -1
        A str is the name of a dimension of an xarray.DataArray.
    keepdims : bool, default False
        Whether the class axis stays, of length 1.

    Returns
    -------
    array, shape (\*batch,)
        float32, or float64 for float64 logits; −inf for a row of −inf, +inf for one with +inf and no NaN.

    Raises
    ------
    TypeError, ValueError
        As in :func:`sparse_cross_entropy`.

    References
    ----------
    .. [1] Blanchard, Higham & Higham, IMA J. Numer. Anal. 41(4), 2021.

    Examples
    --------
    >>> import numpy as np, xent
    >>> float(xent.logsumexp(np.asarray([0.0, 0.0])))
    0.6931471805599453
    """
    keeps_axis = checks.flag("logsumexp", "keepdims", keepdims)
    value = calls.apply(LOGSUMEXP, logits, None, Options(axis))
    if keeps_axis and dimensions.is_named(logits):
        return dimensions.keep_axis(value, logits, axis)
    return arrays.namespace(value).expand_dims(value, axis=axis) if keeps_axis else value


def softmax(logits: ArrayT, /, *, axis: int | str = -1) -> ArrayT:
    r"""Probabilities of the classes of each row.

    .. math:: p_c = e^{x_c - m} / (1 + r)

    Parameters
    ----------
    logits : array, shape (\*batch, C), real floating
    axis : int or str, default -1
        As in :func:`logsumexp`.

    Returns
    -------
    array, the shape of the logits
        float32, or float64 for float64 logits; NaN in a row that has NaN, only −inf, or two +inf.

    Raises
    ------
    TypeError, ValueError
        As in :func:`sparse_cross_entropy`.

    Examples
    --------
    >>> import numpy as np, xent
    >>> xent.softmax(np.zeros(4)).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return calls.apply(SOFTMAX, logits, None, Options(axis))


def log_softmax(logits: ArrayT, /, *, axis: int | str = -1) -> ArrayT:
    r"""Log-probabilities of the classes of each row, in nats.

    .. math:: \log p_c = (x_c - m) - \log(1 + r)

    Parameters
    ----------
    logits : array, shape (\*batch, C), real floating
    axis : int or str, default -1
        As in :func:`logsumexp`.

    Returns
    -------
    array, the shape of the logits
        float32, or float64 for float64 logits; accurate where the probability is near 1.

    Raises
    ------
    TypeError, ValueError
        As in :func:`sparse_cross_entropy`.

    Examples
    --------
    >>> import numpy as np, xent
    >>> float(xent.log_softmax(np.asarray([0.0, -40.0]))[0])
    -4.248354255291589e-18
    """
    return calls.apply(LOG_SOFTMAX, logits, None, Options(axis))


def one_hot(
    labels: ArrayT,
    num_classes: int,
    /,
    *,
    on_value: float = 1.0,
    off_value: float = 0.0,
    axis: int | str = -1,
    dtype: Any = None,
) -> ArrayT:
    r"""Targets of labels: ``on_value`` at the label, ``off_value`` besides; all off for a label outside ``[0, C)``.

    Parameters
    ----------
    labels : array, shape (\*batch,), any integer dtype
    num_classes : int, at least 1
        C.
    on_value, off_value : number, default 1 and 0
    axis : int or str, default -1
        Where the class axis goes in the result; of an xarray.DataArray the name of that dimension, which is the last,
        "class" where it is a number.
    dtype : dtype of the labels' library, default its float32

    Returns
    -------
    array, shape (\*batch, C)
        Lazy where the labels are.

    Raises
    ------
    TypeError
        If the labels are not an array of integers, a value is no number, or ``dtype`` is unknown or does not hold them.
    ValueError
        If ``num_classes`` or ``axis`` does not fit.

    Examples
    --------
    >>> import numpy as np, xent
    >>> xent.one_hot(np.asarray([1, -1]), 3).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    given, labels, name = labels, dimensions.unwrap(labels), "class"
    if dimensions.is_named(given) and isinstance(axis, str):
        name, axis = axis, -1
    checks.array("one_hot", "labels", labels)
    checks.array_api("one_hot", "labels", labels)
    checks.labels_dtype("one_hot", labels)
    checks.classes("one_hot", num_classes)
    checks.number("one_hot", "on_value", on_value)
    checks.number("one_hot", "off_value", off_value)
    where = checks.class_axis("one_hot", axis, labels.ndim + 1, "the result")
    xp = arrays.namespace(labels)
    wide = targets.widen(xp, labels)
    classes = xp.arange(num_classes, dtype=wide.dtype, **device_of(xp, labels))
    classes = xp.reshape(classes, tuple(num_classes if index == where else 1 for index in range(labels.ndim + 1)))
    # subtle: expand_dims would have Dask reshape, which takes a known number of labels
    hit = wide[(*(slice(None),) * where, None, ...)] == classes
    wanted = xp.float32 if dtype is None else dtype
    try:
        on, off = (xp.asarray(value, dtype=wanted, **device_of(xp, labels)) for value in (on_value, off_value))
    except (AttributeError, TypeError, ValueError) as error:  # each library has its own
        raise checks.unfit_dtype("one_hot", labels, dtype) from error
    values = xp.where(hit, on, off)
    return dimensions.with_classes(values, given, name, where) if dimensions.is_named(given) else values


def device_of(xp: Any, array: Array) -> dict[str, Any]:
    """The keyword that makes a new array on the device of this one, where the library has devices."""
    device = getattr(array, "device", None)
    return {} if device is None or arrays.library(array) == "dask" or arrays.is_traced(array) else {"device": device}
