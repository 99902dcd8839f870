"""The losses as JAX differentiates them: functions of whole rows, with derivatives of any order.

The derivative of every function is given by a rule (``custom_jvp``) made of the others (``numerics/tangents.py``), so
that ``grad``, ``jvp``, ``vmap``, ``hessian`` and whatever is made of them are right at ties, at infinities and in
ignored rows.

Imports JAX at its top, because its rules are decorators; it is itself imported only for a call on JAX arrays.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from ...arrays import Array
from ...numerics import binary, fold, gradient, reduction, tangents
from ...numerics.fold import Partial
from ..generic import traced
from ..generic.binary import BinaryFunctions

# -------------------- the fold of whole rows, for which XLA needs no array of their size


def add(terms: Array) -> Array:
    """Sums over the classes (rows, classes) to (rows,): 32 terms at a time, then as a balanced tree."""
    width = -(-terms.shape[-1] // 32)
    padded = jnp.pad(terms, ((0, 0), (0, 32 * width - terms.shape[-1])))
    return fold.total(jnp, jnp.sum(jnp.reshape(padded, (-1, width, 32)), axis=-1))


def shifted_block(logits: Array) -> fold.ShiftedBlock:
    """The logits of whole rows, their maximum, the gaps and Σ exp of the rest: all that does not depend on the targets.

    The classes at the maximum drop out by the sign of m − x, which is 0 there and 1 elsewhere, and are counted apart.
    """
    highest, largest = jnp.max(logits, axis=-1), jnp.finfo(logits.dtype).max
    # subtle: XLA would keep what two sums share in memory; behind a barrier they share nothing, and each is one pass
    highest, level = jax.lax.optimization_barrier((highest, jnp.clip(highest, -largest, largest)))
    distance = level[:, None] - logits
    rest = add(jnp.exp(-distance) * jnp.sign(distance))
    again, level, rest = jax.lax.optimization_barrier((logits, level, rest))
    others = again.shape[-1] - 1 + jnp.sum(jnp.sign(again - level[:, None]), axis=-1)  # −1 where all are −inf
    at_infinity = jnp.where(others < 3, 0.0, math.nan)  # one +inf; more have no softmax
    rest = jnp.where(highest == math.inf, at_infinity, rest + others)
    gap = jnp.where(logits == highest[:, None], 0.0, highest[:, None] - logits)
    return fold.ShiftedBlock(logits, highest, gap, rest.astype(logits.dtype))


def partial(logits: Array, targets: Array, on: float, off: float) -> Partial:
    """The partial of whole rows, from labels or from targets."""
    block = shifted_block(logits)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        gap = add(jnp.where(targets == 0, 0.0, targets * block.gap))
        return Partial(block.max, block.sum_exp_rest, *(sums.astype(logits.dtype) for sums in (gap, add(targets))))
    at_label, inside = fold.gather(jnp, logits, targets)
    gap = jnp.where(~inside | (at_label == block.max), 0.0, block.max - at_label)
    mass = inside.astype(logits.dtype)
    return Partial(block.max, block.sum_exp_rest, *fold.smoothed(jnp, block, gap, mass, on, off))


def untargeted(logits: Array) -> Partial:
    """The partial of whole rows without targets."""
    block = shifted_block(logits)
    zero = jnp.zeros_like(block.max)
    return Partial(block.max, block.sum_exp_rest, zero, zero)


# -------------------- functions of whole rows, and their derivatives


def is_constant(change: Any) -> bool:
    """Whether a tangent is zero: that of a constant, or of an integer."""
    return isinstance(change, SymbolicZero) or change.dtype == jax.dtypes.float0


@jax.custom_jvp
def softmax(logits: Array) -> Array:
    return gradient.softmax(jnp, logits, untargeted(logits))


@softmax.defjvp
def softmax_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    p = softmax(*primals)
    return p, tangents.softmax(jnp, p, *changes)


@jax.custom_jvp
def log_softmax(logits: Array) -> Array:
    return gradient.log_softmax(jnp, logits, untargeted(logits))


@log_softmax.defjvp
def log_softmax_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    return log_softmax(*primals), tangents.log_softmax(jnp, softmax(*primals), *changes)


@jax.custom_jvp
def logsumexp(logits: Array) -> Array:
    return fold.log_partition(jnp, untargeted(logits))


@logsumexp.defjvp
def logsumexp_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    return logsumexp(*primals), tangents.along(jnp, softmax(*primals), *changes)[:, 0]


@jax.custom_jvp
def residual(logits: Array, targets: Array) -> Array:
    return gradient.residual(jnp, logits, targets, partial(logits, targets, 1.0, 0.0))


def residual_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    logits, targets = primals
    p, change = softmax(logits), jnp.zeros_like(logits)
    if not is_constant(changes[0]):
        change = jnp.sum(targets, axis=-1, keepdims=True) * tangents.softmax(jnp, p, changes[0])
    if not is_constant(changes[1]):
        change = change + tangents.residual(jnp, p, changes[1])
    return residual(logits, targets), change


residual.defjvp(residual_jvp, symbolic_zeros=True)


@jax.custom_jvp
def dense_loss(logits: Array, targets: Array) -> Array:
    return fold.finish(jnp, partial(logits, targets, 1.0, 0.0))


def dense_loss_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    logits, targets = primals
    change = jnp.zeros_like(logits[:, 0])
    if not is_constant(changes[0]):
        change = tangents.along(jnp, residual(logits, targets), changes[0])[:, 0]
    if not is_constant(changes[1]):  # subtle: a constant target has no slope, which is infinite at a logit of −inf
        change = change - tangents.along(jnp, log_softmax(logits), changes[1])[:, 0]
    return dense_loss(logits, targets), change


dense_loss.defjvp(dense_loss_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def sparse_loss(logits: Array, labels: Array, on: float, off: float) -> Array:
    return fold.finish(jnp, partial(logits, labels, on, off))


@sparse_loss.defjvp
def sparse_loss_jvp(on: float, off: float, primals: Any, changes: Any) -> tuple[Array, Array]:
    logits, labels = primals
    slope = residual(logits, gradient.two_valued(jnp, labels, logits.shape[-1], on, off, logits.dtype))
    return sparse_loss(logits, labels, on, off), tangents.along(jnp, slope, changes[0])[:, 0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def costs(predictions: Array, kind: str) -> tuple[Array, Array]:
    return binary.costs(jnp, predictions, kind)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def slopes(predictions: Array, kind: str) -> tuple[Array, Array]:
    return binary.slopes(jnp, predictions, kind)


@costs.defjvp
def costs_jvp(kind: str, primals: Any, changes: Any) -> tuple[Any, Any]:
    yes, no = slopes(*primals, kind)
    return costs(*primals, kind), (yes * changes[0], no * changes[0])


@slopes.defjvp
def slopes_jvp(kind: str, primals: Any, changes: Any) -> tuple[Any, Any]:
    own = slopes(*primals, kind)
    yes, no = tangents.binary(jnp, own, kind)
    return own, (yes * changes[0], no * changes[0])


@jax.custom_jvp
def total(values: Array) -> Array:
    return reduction.pairwise_sum(jnp, values)


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
    if jnp.issubdtype(targets.dtype, jnp.integer):
        targets = gradient.two_valued(jnp, targets, logits.shape[-1], on, off, logits.dtype)
    return residual(logits, targets)


PIECES = traced.Pieces(
    loss=loss,
    residual=residual_of,
    softmax=softmax,
    log_softmax=log_softmax,
    logsumexp=logsumexp,
    binary=BinaryFunctions(
        costs=lambda xp, predictions, kind: costs(predictions, kind),
        slopes=lambda xp, predictions, kind: slopes(predictions, kind),
        add=lambda xp, values: total(values),
        constant=jax.lax.stop_gradient,
    ),
)
