"""The losses as JAX differentiates them: functions of whole rows, with derivatives of any order.

The derivative of every function is given by a rule (``custom_jvp``) made of the others (``numerics/tangents.py``), so
that ``grad``, ``jvp``, ``vmap``, ``hessian`` and whatever is made of them are right at ties, at infinities and in
ignored rows.

Imports JAX at its top, because its rules are decorators; it is itself imported only for a call on JAX arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
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
from . import sums

# -------------------- the fold of whole rows


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
    """Sums over the classes (rows, classes) to (rows,)."""
    return sums.add(sums.blocks(terms))


@add.defjvp
def add_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
    return add(*primals), jnp.sum(changes[0], axis=-1)


def gap_of(logits: Array, highest: Array) -> Array:
    """m − x: 0 at the maximum, an infinite one too, and +inf where x is −inf."""
    at_max = logits == highest
    return where(at_max, 0.0, highest - where(at_max, 0.0, logits))


def maximum_and_rest(logits: Array) -> tuple[Array, Array]:
    """The maximum of each row, and Σ e^(x_j − m) over every class but the first one there."""
    blocks = sums.blocks(logits, -math.inf)
    if len(blocks) == logits.shape[-1]:
        highest = jnp.max(logits, axis=-1)
        peaks = highest[:, None]
    else:
        peaks = sums.held(functools.reduce(jnp.maximum, blocks))
        highest = sums.held(jnp.max(peaks, axis=-1))
    level = highest[:, None]
    rest = sums.add([rest_of_blocks(blocks, level)])
    rest = rest + (sums.add([where(peak == level, 1.0, 0.0) for peak in sums.blocks(peaks, -math.inf)]) - 1).astype(
        rest.dtype
    )
    rest = where((highest == math.inf) & (rest > 0), math.nan, rest)  # two +inf have no softmax
    return highest, where(highest == -math.inf, -1.0, rest)


def rest_of_blocks(blocks: Sequence[Array], highest: Array) -> Array:
    """Σ e^(x − m) over the blocks (rows, width), but for one maximum in each class of theirs that has one."""
    are_maxima = [block == highest for block in blocks]
    count = functools.reduce(jnp.add, (where(is_max, 1.0, 0.0) for is_max in are_maxima))
    # subtle: −inf at the maxima, and a finite number beneath, so that ∞ − ∞ is never taken
    lowest = jnp.maximum(highest, float(jnp.finfo(highest.dtype).min))
    below = [where(is_max, -math.inf, block) - lowest for block, is_max in zip(blocks, are_maxima, strict=True)]
    return sums.tree([jnp.exp(gap) for gap in below]) + jnp.maximum(count - 1, 0).astype(highest.dtype)


def weighted_gap(logits: Array, targets: Array, highest: Array) -> Array:
    """t (m − x): 0 where the target is, whatever the logit."""
    return where(targets == 0, 0.0, where(targets == 0, 1.0, targets) * gap_of(logits, highest))


def partial(logits: Array, targets: Array, on: float, off: float) -> Partial:
    """The partial of whole rows, from labels or from targets."""
    highest, rest = maximum_and_rest(logits)
    level = highest[:, None]
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        pairs = zip(sums.blocks(logits), sums.blocks(targets), strict=True)
        return Partial(highest, rest, sums.add([weighted_gap(x, t, level) for x, t in pairs]), add(targets))
    at_label, inside = fold.gather(xp, logits, targets)
    gap, mass = where(inside, gap_of(at_label, highest), 0.0), inside.astype(logits.dtype)
    everywhere = None
    if off != 0.0:  # subtle: the share of each, whose sum is finite where only the sum of the gaps is not
        everywhere = sums.add([off * gap_of(x, level) for x in sums.blocks(logits, level)])
    return Partial(highest, rest, *fold.smoothed(xp, gap, mass, everywhere, logits.shape[-1], on, off))


def held(partial: Partial) -> Partial:
    """The partial, whose Σ exp is not computed again for each number that is made of it."""
    return partial._replace(sum_exp_rest=sums.held(partial.sum_exp_rest))


def bounded(logits: Array, partial: Partial) -> tuple[Array, Partial]:
    """The same softmax from finite maxima: 0 for +inf and −inf beside it, so that ∞ − ∞ is never taken."""
    is_infinite = partial.max == math.inf
    beside = where(logits == math.inf, 0.0, -math.inf)
    return where(is_infinite[:, None], beside, logits), partial._replace(max=where(is_infinite, 0.0, partial.max))


def untargeted(logits: Array) -> Partial:
    """The partial of whole rows without targets."""
    highest, rest = maximum_and_rest(logits)
    zero = jnp.zeros_like(highest)
    return Partial(highest, rest, zero, zero)


# -------------------- functions of whole rows, and their derivatives


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


def exponentials(logits: Array, highest: Array) -> Array:
    """e^(x − m), (rows, classes): 1 at the maximum, an infinite one too; ∞ − ∞ is never taken, and nothing selected."""
    is_infinite, largest = highest == math.inf, float(jnp.finfo(logits.dtype).max)
    # subtle: beside +inf all is halved, so that the largest number lies beneath it
    scale = where(is_infinite, 0.5, 1.0).astype(logits.dtype)
    level = where(is_infinite, 0.75 * largest, jnp.maximum(highest, -largest))
    scale, level = sums.held(scale)[:, None], sums.held(level)[:, None]
    return jnp.exp(jnp.minimum(logits * scale, level) - level)


def share_and_slope_at(logits: Array, labels: Array, whole: Partial, on: float, off: float) -> tuple[Array, Array]:
    """w / (1 + r) of each row, and w p − t at its label: without cancellation at the maximum (``gradient.py``)."""
    at_label, _ = fold.gather(xp, logits, labels)
    gap, mass, rest = gap_of(at_label, whole.max), whole.target_sum, gradient.rest_of(xp, whole)[:, 0]
    share, target = mass / (1 + rest), on + off
    at_max = ((mass - target) - target * rest) / (1 + rest)
    return share, where(gap == 0, at_max, jnp.exp(-gap) * share - target)


@sparse_loss_and_slope.defjvp
def sparse_loss_and_slope_jvp(on: float, off: float, primals: Any, changes: Any) -> tuple[Any, Any]:
    logits, labels = primals
    value, slope = sparse_loss_and_slope(logits, labels, on, off)
    targets = gradient.two_valued(xp, labels, logits.shape[-1], on, off, logits.dtype)
    of_slope = residual_change(logits, targets, changes)
    return (value, slope), (tangents.along(xp, slope, changes[0])[:, 0], of_slope)


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
