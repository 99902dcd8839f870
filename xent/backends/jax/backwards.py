"""The loss and the log-sum-exp of a product as JAX differentiates them: backwards by tiles, and that with whole logits.

The rule backwards multiplies each tile again, and only for the operands that are differentiated. Leaves out forward
mode, which JAX has not beside such a rule.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...arrays import Array
from ...linear import Linear
from ...numerics import fold, gradient, listed
from ...numerics.fold import Partial
from ..generic import few_classes, whole
from ..generic.blocks import ListedTargets
from .autodiff import PIECES
from .products import product
from .tiles import ClassTile, Constants, Listed, Operands, compute_dtype, fold_tiles, multiply, tile_of, width_of
from .whole_rows import where, xp


def whole_logits(operands: Operands, softcap: float | None) -> Array:
    """The logits (rows, C), for derivatives of derivatives."""
    linear: Linear[Any] = Linear(*operands[:2], bias=operands.bias, softcap=softcap)
    return whole.whole_product(xp, linear, None).logits()


def loss_of_whole(operands: Operands, targets: Any, settings: Constants) -> Array:
    logits = whole_logits(operands, settings.softcap)
    pieces = PIECES
    if isinstance(targets, Listed):
        few = ListedTargets(*targets[:2], settings.on, settings.off, targets.tail)
        soft = listed.scattered(xp, few.ids, few.weights, logits.shape[-1])
        targets = soft if few.off == 0.0 else few.on * soft + few.off
        pieces = pieces if few.tail is None else few_classes.with_tail(xp, pieces, few)
    return pieces.loss(logits, targets, settings.on, settings.off)


def lse_of_whole(operands: Operands, targets: Any, settings: Constants) -> Array:
    return PIECES.logsumexp(whole_logits(operands, settings.softcap))


class Value(NamedTuple):
    """A value of the rows with a derivative: how it is made of their partial, what its slope is of, and the same of
    whole logits.
    """

    finish: Callable[[Partial], Array]
    slope_of: Callable[[Partial], Partial]
    of_whole: Callable[[Operands, Any, Constants], Array]


VALUES = {
    "loss": Value(lambda part: listed.finish(xp, part), lambda part: part, loss_of_whole),
    "logsumexp": Value(
        lambda part: fold.log_partition(xp, part),
        lambda part: part._replace(target_sum=jnp.ones_like(part.max)),
        lse_of_whole,
    ),
}


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def value_and_partial(operands: Operands, targets: Any, name: str, settings: Constants) -> tuple[Array, Partial]:
    """The value of every row and its partial."""
    part = fold_tiles(operands, targets, settings)
    return VALUES[name].finish(part), part


@value_and_partial.defjvp
def value_and_partial_jvp(name: str, settings: Constants, primals: Any, changes: Any) -> Any:
    operands, targets = primals
    value, part = value_and_partial(operands, targets, name, settings)
    of_whole = VALUES[name].of_whole
    change = jax.jvp(lambda operands, targets: of_whole(operands, targets, settings), primals, changes)[1]
    # the partial leads to slopes alone, whose rule looks at the operands
    return (value, part), (change, Partial(*map(jnp.zeros_like, part)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def value_of(operands: Operands, targets: Any, name: str, settings: Constants) -> Array:
    """The value of every row."""
    return value_and_partial(operands, targets, name, settings)[0]


def value_forward(operands: Any, targets: Any, name: str, settings: Constants) -> tuple[Array, Any]:
    """The value, and what its derivative needs: which arrays it is asked for in, as the shape of a tree."""
    needs = jax.tree.map(lambda one: () if one.perturbed else None, (operands, targets), is_leaf=is_primal)
    operands, targets = jax.tree.map(lambda one: one.value, (operands, targets), is_leaf=is_primal)
    value, part = value_and_partial(operands, targets, name, settings)
    return value, (operands, targets, part, needs)


def is_primal(value: Any) -> bool:
    return hasattr(value, "perturbed")


def value_backward(name: str, settings: Constants, kept: Any, cotangent: Any) -> Any:
    operands, targets, part, (needs, needs_targets) = kept
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return jax.tree.map(lambda _: None, (operands, targets))
    of = tuple(field for field, need in zip(Operands._fields, needs, strict=True) if need is not None)
    if any(one == () for one in jax.tree.leaves(needs_targets, is_leaf=lambda one: one == ())):
        of = (*of, "targets")
    found = slopes(operands, targets, part, cotangent, name, settings, of)
    return Operands(*found[:3]), found[3]


value_of.defvjp(value_forward, value_backward, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5, 6))
def slopes(
    operands: Operands, targets: Any, part: Partial, scale: Array, name: str, settings: Constants, of: tuple[str, ...]
) -> tuple[Any, ...]:
    """What changes of the values, (rows,), say of hidden states, classifier, bias and targets; None if not asked."""
    part, dtype = VALUES[name].slope_of(part), compute_dtype(operands)
    wide_hidden = operands.hidden.astype(dtype)
    labels = targets if name == "loss" else jnp.full(operands.hidden.shape[:1], -1)
    lse = fold.log_partition(xp, part if part.max.ndim == 1 else listed.whole_of(xp, part))
    is_listed = isinstance(labels, Listed)

    def of_tile(sums: tuple[Array, Array], first: Any, width: int) -> tuple[Any, Any]:
        (hidden, of_weights), of_targets = sums, None
        tile = tile_of(operands, labels, first, width, settings)
        slope = slope_of_tile(tile, part, scale, settings)
        if "targets" in of and is_listed:
            of_weights = of_weights + slope_at_ids(tile, labels.ids - first, lse, scale)
        elif "targets" in of:
            of_targets = product(lse[:, None] - tile.logits, jnp.broadcast_to(scale[:, None], tile.logits.shape))
        hidden = hidden + multiply(slope, tile.classifier) if "hidden" in of else hidden
        classifier = multiply(slope.T, wide_hidden).astype(operands.classifier.dtype) if "classifier" in of else None
        bias = None if "bias" not in of else jnp.sum(slope, axis=0).astype(operands.bias.dtype)  # type: ignore[union-attr]
        return (hidden, of_weights), (classifier, bias, of_targets)

    classes, width = int(operands.classifier.shape[0]), width_of(operands)
    count, left = divmod(classes, width)
    sums = (
        jnp.zeros(operands.hidden.shape if "hidden" in of else (), dtype),
        jnp.zeros(labels.weights.shape if "targets" in of and is_listed else (), dtype),
    )
    sums, stacked = jax.lax.scan(lambda sums, first: of_tile(sums, first, width), sums, width * jnp.arange(count))
    classifier, bias, of_targets = stacked
    classifier = None if classifier is None else jnp.reshape(classifier, (count * width, classifier.shape[-1]))
    bias = None if bias is None else jnp.reshape(bias, (count * width,))
    if of_targets is not None:
        of_targets = jnp.reshape(jnp.moveaxis(of_targets, 0, 1), (of_targets.shape[1], count * width))
    if left:
        sums, last = of_tile(sums, count * width, left)
        classifier, bias, of_targets = (
            None if a is None else jnp.concatenate([a, b], axis=axis)
            for a, b, axis in zip((classifier, bias, of_targets), last, (0, 0, 1), strict=True)
        )
    if "targets" in of and is_listed:
        tail = None if labels.tail is None else product(lse - listed.tail_logit(xp, part), scale)
        of_targets = Listed(None, settings.on * sums[1], tail)
    hidden = sums[0].astype(operands.hidden.dtype) if "hidden" in of else None
    return hidden, classifier, bias, of_targets


def slope_at_ids(tile: ClassTile, ids: Array, lse: Array, scale: Array) -> Array:
    """What changes of the losses say of the weights of listed classes (rows, k), of those in the tile; else 0."""
    inside = (ids >= 0) & (ids < tile.logits.shape[-1])
    at_ids = jnp.take_along_axis(tile.logits, jnp.where(inside, ids, 0), axis=-1)
    return where(inside, product(lse[:, None] - at_ids, jnp.broadcast_to(scale[:, None], ids.shape)), 0.0)


def slope_of_tile(tile: ClassTile, part: Partial, scale: Array, settings: Constants) -> Array:
    """The gradient in the logits of a tile before its softcap, times the scale of each row: 0 of a masked class."""
    soft = tile.targets
    if tile.is_listed is not None:
        soft = soft + listed.tail_targets(xp, tile.logits, tile.is_listed, listed.columns(part)[1])
        part = listed.whole_of(xp, part)
    if soft.ndim == 1:
        width = tile.logits.shape[-1]
        soft = gradient.two_valued(xp, soft, width, settings.on, settings.off, tile.logits.dtype)
    is_infinite = part.max == math.inf
    beside = where(tile.logits == math.inf, 0.0, -math.inf)
    finite = where(is_infinite[:, None], beside, tile.logits)
    slope = gradient.residual(xp, finite, soft, part._replace(max=where(is_infinite, 0.0, part.max)))
    slope = where(scale[:, None] == 0, 0.0, slope * scale[:, None])
    if settings.softcap is not None:
        share = tile.logits / settings.softcap
        slope = slope * (1 - share) * (1 + share)
    return slope if tile.masked is None else where(tile.masked, 0.0, slope)


@slopes.defjvp
def slopes_jvp(name: str, settings: Constants, of: tuple[str, ...], primals: Any, changes: Any) -> Any:
    operands, targets, part, scale = primals
    found = slopes(operands, targets, part, scale, name, settings, of)

    def of_whole(operands: Operands, targets: Any, scale: Array) -> tuple[Any, ...]:
        def value(operands: Operands, targets: Any) -> Array:
            return VALUES[name].of_whole(operands, targets, settings)

        if isinstance(targets, Listed):
            ids, *reals = targets
            back = jax.vjp(lambda operands, *reals: value(operands, Listed(ids, *reals)), operands, *reals)[1]
            of_operands, *of_reals = back(scale)
            every = (*of_operands, Listed(None, *of_reals))
        elif targets.ndim == 1:
            back = jax.vjp(lambda operands: value(operands, targets), operands)[1]
            every = (*back(scale)[0], None)
        else:
            back = jax.vjp(value, operands, targets)[1]
            of_operands, of_targets = back(scale)
            every = (*of_operands, of_targets)
        return tuple(
            one if field in of else None for field, one in zip((*Operands._fields, "targets"), every, strict=True)
        )

    whole_changes = jax.jvp(of_whole, (operands, targets, scale), (changes[0], changes[1], changes[3]))[1]
    return found, whole_changes
