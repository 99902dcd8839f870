r"""The gradient of the loss in the logits: softmax minus target, without cancellation.

.. math::
    g_j = \frac{(w - t_j) - t_j r}{1 + r} \;\text{ where } x_j = m, \qquad
    g_j = \frac{w\, e^{x_j - m}}{1 + r} - t_j \;\text{ elsewhere}

with :math:`m`, :math:`r` and :math:`w` of the whole row, so that a block of classes needs no other block. At the
maximum the textbook's :math:`w p_j - t_j` subtracts two numbers that may agree in every digit; this form does not.
``backends/numpy/kernel.py`` has the same formula in place.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array
from .fold import Partial, compute_dtype


def rest_of(xp: Any, partial: Partial) -> Array:
    """Σ e^(x_j − m) but for the maximum, (rows, 1): NaN in a row without a softmax, and so is what is made of it."""
    # subtle: not selected in the result, for XLA on the CPU (jax 0.10.2) makes garbage of the exponential of that
    return xp.where(partial.max == -math.inf, math.nan, partial.sum_exp_rest)[:, None]


def softmax(xp: Any, logits: Array, partial: Partial) -> Array:
    """The probabilities of one block of logits (rows, classes), from the partial of the whole row."""
    highest = partial.max[:, None]
    exps = xp.where(logits == highest, 1.0, xp.exp(xp.astype(logits, partial.max.dtype, copy=False) - highest))
    return exps / (1 + rest_of(xp, partial))


def log_softmax(xp: Any, logits: Array, partial: Partial) -> Array:
    """The log-probabilities of one block of logits (rows, classes), from the partial of the whole row."""
    highest = partial.max[:, None]
    above = xp.where(logits == highest, 0.0, xp.astype(logits, partial.max.dtype, copy=False) - highest)
    return above - xp.log1p(rest_of(xp, partial))


def residual(xp: Any, logits: Array, targets: Array, partial: Partial) -> Array:
    """w · softmax − targets, (rows, classes), for targets in the compute dtype."""
    highest, mass, rest = partial.max[:, None], partial.target_sum[:, None], rest_of(xp, partial)
    at_max = ((mass - targets) - targets * rest) / (1 + rest)
    elsewhere = mass * xp.exp(logits - highest) / (1 + rest) - targets
    return xp.where(logits == highest, at_max, elsewhere)


def scaled(xp: Any, gradient: Array, scale: Array) -> Array:
    """The gradient times each row's scale; exactly 0 where the scale is 0, whatever the row holds."""
    return xp.where(scale[:, None] == 0, 0.0, gradient * scale[:, None])


def two_valued(xp: Any, labels: Array, classes: int, on: float, off: float, dtype: Any) -> Array:
    """The targets of labels, (rows, classes): ``on`` + ``off`` at the label, ``off`` elsewhere."""
    hit = xp.arange(classes, device=getattr(labels, "device", None)) == labels[:, None]
    at_label, elsewhere = (
        xp.asarray(value, dtype=dtype, device=getattr(labels, "device", None)) for value in (on + off, off)
    )
    return xp.where(hit, at_label, elsewhere)


def gradient_dense(xp: Any, logits: Array, targets: Array, partial: Partial, scale: Array) -> Array:
    """The gradient of one block (rows, classes) in the dtype of its logits, from the whole row's partial."""
    wide = xp.astype(logits, compute_dtype(xp, logits.dtype), copy=False)
    return xp.astype(scaled(xp, residual(xp, wide, targets, partial), scale), logits.dtype, copy=False)


def gradient_sparse(
    xp: Any, logits: Array, labels: Array, on: float, off: float, partial: Partial, scale: Array
) -> Array:
    """The same for labels (rows,); a label outside the block is not among its classes."""
    targets = two_valued(xp, labels, logits.shape[-1], on, off, partial.max.dtype)
    return gradient_dense(xp, logits, targets, partial, scale)
