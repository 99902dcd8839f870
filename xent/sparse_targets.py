"""Soft targets of a few classes for each row, as a teacher's best k or an n-best list: ids and weights.

Leaves out what is made of them (``numerics/listed.py``).
"""

from __future__ import annotations

from typing import Any, Generic

from . import arrays, checks, pytrees
from .arrays import Array, ArrayT


class SparseTargets(Generic[ArrayT]):
    r"""Soft targets that are 0 but for a few classes of each row, without the array of all classes.

    It is taken where soft targets are, of logits and of a :class:`Linear`: by :func:`cross_entropy`,
    :func:`value_and_grad` of it, :func:`partial`, :func:`gradient` and :func:`explain`. It holds its arrays and
    computes nothing by itself. For JAX it is a pytree of them.

    .. math:: \ell = \sum_i t_i (-\log p_i) + q \Bigl(-\log \sum_{j \text{ not listed}} p_j\Bigr)

    Parameters
    ----------
    ids : array, shape (\*batch, k), any integer dtype, in ``[0, C)``
        The listed classes of each row. The weights of a class that is listed several times add up. An id outside is
        padding if its weight is 0.
    weights : array, shape (\*batch, k), real, ≥ 0
        Their targets. Neither their sign nor their sum is checked: a teacher's k best probabilities need not sum to 1.
    tail : array, shape (\*batch,), real, ≥ 0, optional
        The target q of all other classes together, which are one class then: ``1 - weights.sum(-1)``, say. Their
        probability is summed over them, for one less the others' has no digits where it is small. A listed class of
        weight 0 is not in the tail. By default the classes that are not listed have target 0.

    Attributes
    ----------
    ids, weights : array
    tail : array or None
        None if the other classes have target 0.

    Raises
    ------
    TypeError
        If an argument is no array, the ids are no integers, or they are of several libraries or devices.
    ValueError
        If shapes do not fit.

    Notes
    -----
    The targets of a block of rows and classes are made where that block is read. An id out of range that has a weight
    is a LabelError, or a row of NaN, as a label is. The classes of a tail share its target as the predictions share
    their probability, so that its gradient in their logits is :math:`p_j (w - q / p_{\mathrm{tail}})` with w the sum of
    all targets. A tail goes with logits, all of them in one call, without class weights and smoothing.

    Examples
    --------
    Uniform logits over four classes: log 4 nats for each of the listed, log 2 for the two others together.

    >>> import numpy as np, xent
    >>> ids, weights = np.asarray([[2, 0]]), np.asarray([[0.5, 0.25]])
    >>> float(xent.cross_entropy(np.zeros((1, 4)), xent.SparseTargets(ids, weights))[0])
    1.0397207708399179
    >>> targets = xent.SparseTargets(ids, weights, tail=1 - weights.sum(-1))
    >>> float(xent.cross_entropy(np.zeros((1, 4)), targets)[0])
    1.2130075659799042
    """

    __slots__ = ("ids", "tail", "weights")

    def __init__(self, ids: Any, weights: ArrayT, /, *, tail: ArrayT | None = None) -> None:
        checks.sparse_targets("SparseTargets", ids, weights, tail)
        self.ids, self.weights, self.tail = ids, weights, tail
        pytrees.register(SparseTargets, ("ids", "weights", "tail"))

    @property
    def columns(self) -> Array:
        r"""The weights, and that of the tail as a last column if there is one: (\*batch, k) or (\*batch, k + 1)."""
        tail: Array = self.tail
        if tail is None:
            return self.weights
        parts: tuple[Array, ...] = self.weights, tail[..., None]
        xp = arrays.namespace(next((one for one in parts if arrays.library(one) == "dask"), self.weights))
        parts = tuple(one if arrays.namespace(one) is xp else xp.asarray(one) for one in parts)
        dtype = xp.result_type(*(one.dtype if is_floating(one) else xp.float32 for one in parts))
        wide = [xp.astype(one, dtype, copy=False) for one in parts]
        is_lazy = arrays.library(wide[0]) == "dask"  # whose sizes of chunks may be unknown, and are not compared here
        return xp.concat(wide, axis=-1, **({"allow_unknown_chunksizes": True} if is_lazy else {}))

    def __repr__(self) -> str:
        tail = "" if self.tail is None else f", tail={arrays.describe(self.tail)}"
        return f"SparseTargets({arrays.describe(self.ids)}, {arrays.describe(self.weights)}{tail})"


def is_floating(array: Array) -> bool:
    return arrays.dtype_name(array.dtype) in checks.FLOATS
