"""The losses as JAX differentiates them: functions of whole rows, with derivatives of any order.

What they are made of is in ``whole_rows.py``. The derivative of every function is given by a rule (``custom_jvp``) made
of the others (``numerics/tangents.py``), so that ``grad``, ``jvp``, ``vmap``, ``hessian`` and whatever is made of them
are right at ties, at infinities and in ignored rows.

Imports JAX at its top, because its rules are decorators; it is itself imported only for a call on JAX arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from ...arrays import Array
from ...numerics import fold, gradient, reduction, tangents
from ..generic import traced
from ..generic.binary import BinaryFunctions
from . import sums
from .products import costs, product, slopes
from .whole_rows import add, bounded, exponentials, held, partial, share_and_slope_at, untargeted, where, xp


def is_constant(change: Any) -> bool:
    """Whether a tangent is zero: that of a constant, or of an integer."""
    return isinstance(change, SymbolicZero) or change.dtype == jax.dtypes.float0


@jax.custom_jvp
def softmax(logits: Array) -> Array:
    return gradient.softmax(xp, *bounded(logits, held(untargeted(logits))))


@softmax.defjvp
def softmax_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    p = softmax(*primals)
    return p, tangents.softmax(xp, p, *changes)


@jax.custom_jvp
def log_softmax(logits: Array) -> Array:
    return gradient.log_softmax(xp, *bounded(logits, held(untargeted(logits))))


@log_softmax.defjvp
def log_softmax_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    return log_softmax(*primals), tangents.log_softmax(xp, softmax(*primals), *changes)


@jax.custom_jvp
def logsumexp(logits: Array) -> Array:
    return fold.log_partition(xp, untargeted(logits))


@logsumexp.defjvp
def logsumexp_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    return logsumexp(*primals), tangents.along(xp, softmax(*primals), *changes)[:, 0]


@jax.custom_jvp
def residual(logits: Array, targets: Array) -> Array:
    finite, whole = bounded(logits, held(partial(logits, targets, 1.0, 0.0)))
    return gradient.residual(xp, finite, targets, whole)


def residual_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    logits, targets = primals
    return residual(logits, targets), residual_change(logits, targets, changes)


def residual_change(logits: Array, targets: Array, changes: Any) -> Array:
    """The change of w p − t, from those of the logits and the targets."""
    p, change = softmax(logits), jnp.zeros_like(logits)
    if not is_constant(changes[0]):
        change = jnp.sum(targets, axis=-1, keepdims=True) * tangents.softmax(xp, p, changes[0])
    if not is_constant(changes[1]):
        change = change + tangents.residual(xp, p, changes[1])
    return change


residual.defjvp(residual_jvp, symbolic_zeros=True)


@jax.custom_jvp
def dense_loss(logits: Array, targets: Array) -> Array:
    return fold.finish(xp, partial(logits, targets, 1.0, 0.0))


def dense_loss_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    logits, targets = primals
    return dense_loss(logits, targets), loss_change(logits, targets, lambda: residual(logits, targets), changes)


def loss_change(logits: Array, targets: Array, slope: Callable[[], Array], changes: Any) -> Array:
    """The change of the losses, from those of the logits, whose slope is given, and of the targets."""
    change = jnp.zeros_like(logits[:, 0])
    if not is_constant(changes[0]):
        change = tangents.along(xp, slope(), changes[0])[:, 0]
    if not is_constant(changes[1]):  # subtle: a constant target has no slope, which is infinite at a logit of −inf
        change = change - jnp.sum(product(log_softmax(logits), changes[1]), axis=-1)
    return change


dense_loss.defjvp(dense_loss_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def sparse_loss(logits: Array, labels: Array, on: float, off: float) -> Array:
    return fold.finish(xp, partial(logits, labels, on, off))


@sparse_loss.defjvp
def sparse_loss_jvp(on: float, off: float, primals: Any, changes: Any) -> tuple[Array, Array]:
    value, slope = sparse_loss_and_slope(*primals, on, off)
    return value, tangents.along(xp, slope, changes[0])[:, 0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def sparse_loss_and_slope(logits: Array, labels: Array, on: float, off: float) -> tuple[Array, Array]:
    """The loss and w p − t, from one partial."""
    whole = held(partial(logits, labels, on, off))
    share, at_label = map(sums.held, share_and_slope_at(logits, labels, whole, on, off))
    slope = exponentials(logits, whole.max) * share[:, None]
    slope = slope if off == 0.0 else slope - off
    is_label = jnp.arange(logits.shape[-1]) == labels[:, None]
    return fold.finish(xp, whole), where(is_label, at_label[:, None], slope)


@sparse_loss_and_slope.defjvp
def sparse_loss_and_slope_jvp(on: float, off: float, primals: Any, changes: Any) -> tuple[Any, Any]:
    logits, labels = primals
    value, slope = sparse_loss_and_slope(logits, labels, on, off)
    targets = gradient.two_valued(xp, labels, logits.shape[-1], on, off, logits.dtype)
    of_slope = residual_change(logits, targets, changes)
    return (value, slope), (tangents.along(xp, slope, changes[0])[:, 0], of_slope)


@jax.custom_jvp
def total(values: Array) -> Array:
    """The sum of values (n,), 0-d: as a balanced tree, for any number of rows in one trace row by row."""
    if not jax.export.is_symbolic_dim(values.shape[0]):
        return reduction.pairwise_sum(xp, values)
    start = jnp.zeros((), values.dtype)
    (high, low), _ = jax.lax.scan(compensated, (start, start), values)
    return high + low


def compensated(sums: tuple[Array, Array], value: Array) -> tuple[tuple[Array, Array], None]:
    """A sum with one more value, and the sum of what is rounded off there (Knuth's two-sum), for ``lax.scan``."""
    high, low = sums
    total = high + value
    of_value = total - high
    lost = (high - (total - of_value)) + (value - of_value)
    return (total, low + where(jnp.isfinite(total), lost, 0.0)), None


@total.defjvp
def total_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    value = total(*primals)
    return value, jnp.sum(changes[0], dtype=value.dtype)


def loss(logits: Array, targets: Array, on: float, off: float) -> Array:
    """The loss of every row, from labels or from targets."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return sparse_loss(logits, targets, on, off)
    return dense_loss(logits, targets)


def residual_of(logits: Array, targets: Array, on: float, off: float) -> Array:
    """w p − t, from labels or from targets."""
    return loss_and_residual(logits, targets, on, off)[1]


def loss_and_residual(logits: Array, targets: Array, on: float, off: float) -> tuple[Array, Array]:
    """The loss of every row and w p − t, from labels or from targets."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        value, slope = sparse_loss_and_slope(logits, targets, on, off)
        return value, slope
    return dense_loss(logits, targets), residual(logits, targets)


PIECES = traced.Pieces(
    loss=loss,
    residual=residual_of,
    loss_and_residual=loss_and_residual,
    softmax=softmax,
    log_softmax=log_softmax,
    logsumexp=logsumexp,
    add_classes=add,
    binary=BinaryFunctions(
        costs=lambda xp, predictions, kind: costs(predictions, kind),
        slopes=lambda xp, predictions, kind: slopes(predictions, kind),
        product=lambda xp, a, b: product(a, b),
        add=lambda xp, values: total(values),
        constant=jax.lax.stop_gradient,
    ),
)
