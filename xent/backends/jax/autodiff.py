"""The losses as JAX differentiates them: functions of whole rows, with derivatives of any order.

The derivative of every function is given by a rule (``custom_jvp``) made of the others (``numerics/tangents.py``), so
that ``grad``, ``jvp``, ``vmap``, ``hessian`` and whatever is made of them are right at ties, at infinities and in
ignored rows.

Imports JAX at its top, because its rules are decorators; it is itself imported only for a call on JAX arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ...arrays import Array
from ...numerics import binary, fold, gradient, reduction, tangents
from ...numerics.fold import Partial
from ..generic import traced
from ..generic.binary import BinaryFunctions

# -------------------- the fold of whole rows, for which XLA needs no array of their size


def where(condition: Array, value: Any, otherwise: Any) -> Array:
    """``jnp.where``, in which a number that is NaN is made where the condition holds and nowhere else.

    ``jax_debug_nans`` refuses a constant of NaN, be it selected away.
    """
    if isinstance(value, float) and math.isnan(value):
        value = jnp.sqrt(jnp.where(condition, -1.0, 1.0))
    return jnp.where(condition, value, otherwise)


xp = SimpleNamespace(**{**vars(jnp), "where": where})
"""JAX's namespace for expressions over whole arrays."""


@jax.custom_jvp
def add(terms: Array) -> Array:
    """Sums over the classes (rows, classes) to (rows,): eight terms at a time, then as a balanced tree."""
    width = -(-terms.shape[-1] // 8)
    padded = jnp.pad(terms, ((0, 0), (0, 8 * width - terms.shape[-1])))
    return fold.total(jnp, jnp.sum(jnp.reshape(padded, (-1, width, 8)), axis=-1))


@add.defjvp
def add_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    return add(*primals), jnp.sum(changes[0], axis=-1)


def shifted_block(logits: Array) -> fold.ShiftedBlock:
    """The logits of whole rows, their maximum, the gaps and Σ exp of the rest: all that does not depend on the targets.

    The classes at the maximum drop out by the sign of m − x, which is 0 there and 1 elsewhere, and are counted apart.
    """
    highest, largest = jnp.max(logits, axis=-1), jnp.finfo(logits.dtype).max
    # subtle: XLA would keep what two sums share in memory; behind a barrier they share nothing, and each is one pass
    highest, level = jax.lax.optimization_barrier((highest, jnp.clip(highest, -largest, largest)))
    distance = level[:, None] - logits
    rest = add(jnp.exp(-distance) * jnp.sign(distance))
    is_infinite = highest == math.inf
    # subtle: halved, so that the largest number lies beneath +inf. By the sign of the difference, for one under the
    # smallest normal number is 0 here and above, and such a class counts as one at the maximum
    shrink, level = where(is_infinite, 0.5, 1.0), where(is_infinite, 0.75 * float(largest), level)
    again, shrink, level, rest = jax.lax.optimization_barrier((logits, shrink, level, rest))
    above = jnp.sum(jnp.sign(again * shrink[:, None] - level[:, None]), axis=-1)
    others = again.shape[-1] - 1 + above  # −1 where all are −inf; 1 where one is +inf, which has no equal
    rest = where(is_infinite, 0.0, rest + others)
    rest = where(is_infinite & (others > 1), math.nan, rest)  # two +inf have no softmax
    return fold.ShiftedBlock(logits, highest, gap_of(logits, highest[:, None]), rest.astype(logits.dtype))


def gap_of(logits: Array, highest: Array) -> Array:
    """m − x: 0 at the maximum, an infinite one too, and +inf where x is −inf."""
    at_max = logits == highest
    return where(at_max, 0.0, highest - where(at_max, 0.0, logits))


def partial(logits: Array, targets: Array, on: float, off: float) -> Partial:
    """The partial of whole rows, from labels or from targets."""
    block = shifted_block(logits)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        gap = add(where(targets == 0, 0.0, where(targets == 0, 1.0, targets) * block.gap))
        return Partial(block.max, block.sum_exp_rest, *(sums.astype(logits.dtype) for sums in (gap, add(targets))))
    at_label, inside = fold.gather(xp, logits, targets)
    gap, mass = where(inside, gap_of(at_label, block.max), 0.0), inside.astype(logits.dtype)
    return Partial(block.max, block.sum_exp_rest, *fold.smoothed(xp, block, gap, mass, on, off))


def bounded(logits: Array, partial: Partial) -> tuple[Array, Partial]:
    """The same softmax from finite maxima: 0 for +inf and −inf beside it, so that ∞ − ∞ is never taken."""
    is_infinite = partial.max == math.inf
    beside = where(logits == math.inf, 0.0, -math.inf)
    return where(is_infinite[:, None], beside, logits), partial._replace(max=where(is_infinite, 0.0, partial.max))


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
    return gradient.softmax(xp, *bounded(logits, untargeted(logits)))


@softmax.defjvp
def softmax_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    p = softmax(*primals)
    return p, tangents.softmax(xp, p, *changes)


@jax.custom_jvp
def log_softmax(logits: Array) -> Array:
    return gradient.log_softmax(xp, *bounded(logits, untargeted(logits)))


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
    finite, whole = bounded(logits, partial(logits, targets, 1.0, 0.0))
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
    logits, labels = primals
    slope = residual(logits, gradient.two_valued(xp, labels, logits.shape[-1], on, off, logits.dtype))
    return sparse_loss(logits, labels, on, off), tangents.along(xp, slope, changes[0])[:, 0]


# subtle: 0 · ±∞ = 0 is no product of JAX's, but as linear in each factor as one, and a rule of custom_jvp may say only
# what is linear in the changes: so it is a primitive, and is its own derivative
product_p = Primitive("xent_product")
multiply = functools.partial(binary.product, xp)
product_p.def_impl(multiply)
product_p.def_abstract_eval(lambda a, b: a)
ad.defbilinear(product_p, lambda change, a, b: product(change, b), lambda change, a, b: product(a, change))
mlir.register_lowering(product_p, mlir.lower_fun(multiply, multiple_results=False))


def product(a: Array, b: Array) -> Array:
    """a · b of one shape, where 0 · ±∞ is 0, in every derivative too."""
    product: Array = product_p.bind(a, b)
    return product


def product_batched(arrays: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, int]:
    """The product under ``vmap``, and its axis there."""
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    a, b = (batching.bdim_at_front(array, axis, size) for array, axis in zip(arrays, axes, strict=True))
    return product(a, b), 0


batching.primitive_batchers[product_p] = product_batched


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def costs(predictions: Array, kind: str) -> tuple[Array, Array]:
    return binary.costs(xp, predictions, kind)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def slopes(predictions: Array, kind: str) -> tuple[Array, Array]:
    return binary.slopes(xp, predictions, kind)


@costs.defjvp
def costs_jvp(kind: str, primals: Any, changes: Any) -> tuple[Any, Any]:
    yes, no = slopes(*primals, kind)
    return costs(*primals, kind), (product(yes, changes[0]), product(no, changes[0]))


@slopes.defjvp
def slopes_jvp(kind: str, primals: Any, changes: Any) -> tuple[Any, Any]:
    own = slopes(*primals, kind)
    yes, no = tangents.binary(xp, own, kind)
    return own, (product(yes, changes[0]), product(no, changes[0]))


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
    if jnp.issubdtype(targets.dtype, jnp.integer):
        targets = gradient.two_valued(xp, targets, logits.shape[-1], on, off, logits.dtype)
    return residual(logits, targets)


PIECES = traced.Pieces(
    loss=loss,
    residual=residual_of,
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
