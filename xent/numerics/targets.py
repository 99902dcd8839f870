"""The facts of each row that the caller gives: its label or targets, its weight, whether it is ignored.

These numbers stay around the fold and never enter a kernel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..arrays import Array, dtype_name


class Rows(NamedTuple):
    """The facts of each row before the predictions are read; every array is (rows,)."""

    ignored: Array | None  # bool: the loss and the gradient of these rows are exactly 0
    bad: Array | None  # bool: the label lies outside [0, C), and the row is not ignored
    weight: Array | None  # sample weight · class weight; None is 1 everywhere


NO_ROWS = Rows(None, None, None)
"""Rows without weights, ignored rows or bad labels: all are counted, with weight 1."""


def wide_labels(xp: Any, labels: Array, first_class: int = 0) -> Array:
    """Labels (rows,), counted from ``first_class``, in the widest signed type; too large an unsigned one is negative.

    uint8(156) == −100 is True in torch and JAX, and int8(5) < 200 False: a narrow label is never compared.
    """
    labels = xp.reshape(widen(xp, labels), (-1,))
    return labels - first_class if first_class else labels


def widen(xp: Any, labels: Array) -> Array:
    """Labels in the widest signed type, in their own shape."""
    if labels.dtype == xp.int64:
        return labels
    signed = xp.__array_namespace_info__().dtypes(kind="signed integer")  # JAX without x64 stops at int32
    return xp.astype(labels, signed.get("int64", signed["int32"]), copy=False)


def holdable(labels_dtype: str, ignore_index: tuple[int, ...]) -> tuple[int, ...]:
    """The ignored labels that the label's dtype can hold: −100 ignores nothing among uint8."""
    bits = int(labels_dtype.lstrip("uint"))
    low, high = (0, 2**bits) if labels_dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return tuple(index for index in ignore_index if low <= index < high)


def ignored_by_label(labels: Array, ignore_index: tuple[int, ...]) -> Array | None:
    """Which rows carry one of the ignored labels, or None; labels are wide, and may have turned negative on the way."""
    mask, bits = None, 32 if dtype_name(labels.dtype) == "int32" else 64
    for index in ignore_index:
        mask = either(mask, labels == (index if index < 2 ** (bits - 1) else index - 2**bits))
    return mask


def sample(xp: Any, sample_weight: Array, dtype: Any) -> tuple[Array, Array]:
    """The sample weights (rows,) in the dtype, and which rows they ignore: 0 in their own dtype, or False."""
    flat = xp.reshape(sample_weight, (-1,))
    ignored = ~flat if dtype_name(flat.dtype) == "bool" else flat == 0
    return xp.astype(flat, dtype, copy=False), ignored


def smoothing(label_smoothing: float, classes: int) -> tuple[float, float]:
    """``on`` and ``off`` of t_j = on · [j = label] + off, with C the global number of classes."""
    return (1.0, 0.0) if label_smoothing == 0 else (1.0 - label_smoothing, label_smoothing / classes)


def either(a: Array | None, b: Array | None) -> Array | None:
    """The union of two masks of which each may be absent."""
    return b if a is None else a if b is None else a | b


def times(a: Array | None, b: Array | None) -> Array | None:
    """The product of two weights of which each may be absent."""
    return b if a is None else a if b is None else a * b
