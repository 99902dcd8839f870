r"""The derivatives of the fold's results, and the derivatives of these, for libraries that differentiate by themselves.

.. math::
    \mathrm d\ell = \sum_j g_j\,\mathrm dx_j + \sum_j (\mathrm{lse} - x_j)\,\mathrm dt_j, \qquad
    \mathrm dg_j = w\,\mathrm dp_j + p_j \sum_k \mathrm dt_k - \mathrm dt_j, \qquad
    \mathrm dp_j = p_j \Bigl(\mathrm dx_j - \sum_k p_k\,\mathrm dx_k\Bigr)

The loss leads to its gradient g, that to the softmax p, and that to itself: the set is closed, so any derivative of any
order is made of these. Autodiff of the forward expressions would be wrong at ties, where a maximum has no derivative,
and NaN at −inf. The second and the third are symmetric in x: they serve forwards and backwards. Arrays are
(rows, classes).
"""

from __future__ import annotations

from typing import Any

from ..arrays import Array


def along(xp: Any, values: Array, changes: Array) -> Array:
    """Σ values · changes over the classes, (rows, 1)."""
    return xp.sum(values * changes, axis=-1, keepdims=True)


def softmax(xp: Any, p: Array, changes: Array) -> Array:
    """What changes of the logits do to the softmax ``p``; the same backwards."""
    return p * (changes - along(xp, p, changes))


def log_softmax(xp: Any, p: Array, changes: Array) -> Array:
    """What changes of the logits do to the logarithm of the softmax ``p``."""
    return changes - along(xp, p, changes)


def log_softmax_back(xp: Any, p: Array, cotangents: Array) -> Array:
    """The same backwards: what changes of the log-softmax say of the logits."""
    return cotangents - p * xp.sum(cotangents, axis=-1, keepdims=True)


def residual(xp: Any, p: Array, changes: Array) -> Array:
    """What changes of the targets do to w p − t."""
    return xp.sum(changes, axis=-1, keepdims=True) * p - changes


def residual_back(xp: Any, p: Array, cotangents: Array) -> Array:
    """The same backwards."""
    return along(xp, p, cotangents) - cotangents


def calm(xp: Any, values: Array, factors: Array) -> Array:
    """The values, with 0 for those that are infinite or NaN and have a factor of 0: their product is to be 0."""
    return xp.where((factors == 0) & ~xp.isfinite(values), 0.0, values)


def calm_rows(xp: Any, values: Array, factors: Array) -> Array:
    """The same for rows whose factors are all 0."""
    return xp.where(xp.all(factors == 0, axis=-1, keepdims=True) & ~xp.isfinite(values), 0.0, values)


def binary(xp: Any, slopes: tuple[Array, Array], kind: str) -> tuple[Array, Array]:
    """The derivatives of :func:`xent.numerics.binary.slopes`, made of these slopes: again a closed set."""
    yes, no = slopes
    if kind == "logits":
        return -yes * no, -yes * no  # σ(x) σ(−x)
    if kind == "probabilities":
        return yes * yes, no * no
    return xp.zeros_like(yes), no * (1 + no)
