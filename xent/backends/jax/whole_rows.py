"""The fold of whole rows (rows, classes) as expressions of JAX: the numbers of each row, without their derivatives.

Imports JAX at its top; it is itself imported only for a call on JAX arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from ...arrays import Array
from ...numerics import fold, gradient
from ...numerics.fold import Partial
from ...numerics.statistics import Statistics, rank
from . import sums


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


def statistics(logits: Array, labels: Array, label_logit: Array) -> Statistics:
    """The statistics of whole rows; ``label_logit`` (rows,) is the logit of the label."""
    whole = held(partial(logits, labels, 1.0, 0.0))
    gap = gap_of(logits, whole.max[:, None])
    exps = jnp.exp(-gap)
    spread = add(where(exps == 0, 0.0, gap * exps))
    return Statistics(whole, rank(xp, logits, labels, label_logit), add(exps * exps), spread)
