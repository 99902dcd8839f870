"""The schedule for products of JAX arrays: a scan over tiles of classes, compiled alone or in the caller's trace.

The loss and the log-sum-exp have a rule of their own backwards, which multiplies each tile again and only for the
operands that are differentiated (``custom_vjp``); the rule of that rule takes whole logits, with the derivatives of
``autodiff.py``. Leaves out forward mode, which JAX has not beside a rule backwards.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import Options, Problem, Weights
from ...linear import Linear, LinearGradient
from ...numerics import fold, gradient, reduction, statistics
from ...numerics import targets as facts
from ...numerics.fold import Partial
from ...numerics.reduction import Reducer
from ...numerics.targets import Rows
from ..generic import traced, whole
from .autodiff import PIECES
from .products import product
from .schedule import check_labels
from .whole_rows import partial, where, xp

TILE_ELEMENTS, LEAST_CLASSES = 1 << 22, 128
"""A tile has at most so many logits, and at least so many classes."""


class Operands(NamedTuple):
    """The operands of a product, flat: what a tile is made of."""

    hidden: Array  # (rows, D)
    classifier: Array  # (C, D)
    bias: Array | None


class Settings(NamedTuple):
    """What is known when a call is traced."""

    on: float
    off: float
    softcap: float | None


def run(plan: Plan, predictions: Any, targets: Array | None, weights: Weights) -> Any:
    """The result of one call."""
    problem, inputs = plan.problem, (*predictions.operands, targets, *weights)
    if problem.raises and problem.op == "sparse" and not any(isinstance(value, jax.core.Tracer) for value in inputs):
        check_labels(problem, predictions.shape[-1], targets, weights)
    if isinstance(weights.classes, list | tuple):
        weights = weights._replace(classes=jnp.asarray(weights.classes))
    operands = Operands(predictions.hidden, predictions.classifier, predictions.bias)
    return compiled(problem, predictions.softcap)(operands, targets, weights)


@functools.lru_cache(maxsize=1024)
def compiled(problem: Problem, softcap: float | None) -> Callable[..., Any]:
    """The call as a function that XLA compiles once for every shape."""

    def run_product(operands: Operands, targets: Array | None, weights: Weights) -> Any:
        # subtle: as in schedule.py, XLA would compute with constants as it compiles
        operands, targets, weights = jax.tree.map(jax.lax.optimization_barrier, (operands, targets, weights))
        linear: Linear[Any] = Linear(*operands[:2], bias=operands.bias, softcap=softcap)
        if problem.method == "gradient":
            return run_gradient(product_call(problem, linear, targets, weights._replace(sample=None)), weights)
        return RUN[problem.method](product_call(problem, linear, targets, weights))

    jitted: Callable[..., Any] = jax.jit(run_product)
    return jitted


class ProductCall(NamedTuple):
    """One call, its arrays flat: hidden states (rows, D), 0 in ignored rows; labels (rows,) or targets (rows, C)."""

    problem: Problem
    linear: Linear[Any]
    operands: Operands
    targets: Array
    rows: Rows
    settings: Settings

    @property
    def reducer(self) -> Reducer:
        return Reducer(self.problem.options.reduction, PIECES.add)

    def batched(self, values: Array) -> Array:
        """Values of the rows (rows,) in the shape of the batch."""
        return jnp.reshape(values, self.linear.shape[:-1])

    def reduced(self, losses: Array) -> Array:
        """The losses of the rows as the caller asks for them."""
        if self.rows.bad is not None:
            losses = losses * where(self.rows.bad, math.nan, 1.0)
        losses = reduction.counted(xp, losses, self.rows.ignored)
        value = self.reducer.reduce(xp, losses, self.rows)
        return self.batched(value) if self.reducer.reduction == "none" else value


def product_call(problem: Problem, linear: Linear[Any], targets: Array | None, weights: Weights) -> ProductCall:
    """The arrays of a call, flat, and what the caller says of each row."""
    options, classes, dtype = problem.options, linear.shape[-1], fold.compute_dtype(xp, linear.dtype)
    hidden = jnp.reshape(linear.hidden, (math.prod(linear.hidden.shape[:-1]), linear.hidden.shape[-1]))
    if targets is not None and problem.op == "dense":
        targets = jnp.reshape(targets, (-1, classes))
    flat_problem = replace(problem, ndim=2, axis=1)
    flat = traced.targets_of(xp, flat_problem, targets, dtype)
    rows = traced.rows_of_targets(xp, flat_problem, flat, classes, dtype, weights)
    if rows.ignored is not None and problem.method != "statistics":
        hidden = where(rows.ignored[:, None], 0.0, hidden)
    on, off = facts.smoothing(options.label_smoothing, options.num_classes or classes)
    if problem.op == "dense" and off != 0.0:
        flat = on * flat + off
    if flat is None:
        flat = jnp.full(hidden.shape[:1], -1)
    operands = Operands(hidden, linear.classifier, linear.bias)
    return ProductCall(problem, linear, operands, flat, rows, Settings(on, off, linear.softcap))


# -------------------- tiles


class Tile(NamedTuple):
    """A tile of classes: its rows of the classifier, its logits and its targets."""

    classifier: Array  # (width, D), 0 for a masked class
    logits: Array  # (rows, width)
    targets: Array  # labels counted from its first class (rows,), or targets (rows, width)
    masked: Array | None  # (width,)


def multiply(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def tile_of(operands: Operands, targets: Array, first: Any, width: int, softcap: float | None) -> Tile:
    """The tile of so many classes, from the first on."""
    dtype = compute_dtype(operands)
    classifier = jax.lax.dynamic_slice_in_dim(operands.classifier, first, width).astype(dtype)
    masked = bias = None
    if operands.bias is not None:
        bias = jax.lax.dynamic_slice_in_dim(operands.bias, first, width).astype(dtype)
        masked = bias == -math.inf
        classifier = where(masked[:, None], 0.0, classifier)
    logits = multiply(operands.hidden.astype(dtype), classifier.T)
    logits = logits if bias is None else logits + bias
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
        logits = logits if masked is None else where(masked, -math.inf, logits)
    if targets.ndim == 1:
        return Tile(classifier, logits, targets - first, masked)
    return Tile(classifier, logits, jax.lax.dynamic_slice_in_dim(targets, first, width, axis=1), masked)


def compute_dtype(operands: Operands) -> Any:
    """The dtype of the logits: float64 if one of the operands has it, else float32."""
    return jnp.float64 if any(one is not None and one.dtype == jnp.float64 for one in operands) else jnp.float32


def width_of(operands: Operands) -> int:
    """The classes of a tile."""
    rows, classes = operands.hidden.shape[0], int(operands.classifier.shape[0])
    least = TILE_ELEMENTS // rows if isinstance(rows, int) and rows else 2048
    return min(classes, max(LEAST_CLASSES, least))


def map_tiles(function: Callable[[Any, int], Any], operands: Operands) -> tuple[Any, Any]:
    """function(first class, width) of every tile: stacked for those of one width, and that of the classes left over.

    Each is None where there is none. No class is in two tiles, and no tile has a class that is none.
    """
    classes, width = int(operands.classifier.shape[0]), width_of(operands)
    count, left = divmod(classes, width)
    _, stacked = jax.lax.scan(lambda _, first: (None, function(first, width)), None, width * jnp.arange(count))
    return stacked, function(count * width, left) if left else None


def merged(stacked: Any, last: Any, merge: Callable[[Any, Any], Any]) -> Any:
    """The results of all tiles merged as a balanced tree, whose halves are merged at once."""
    odd = last
    while (count := jax.tree.leaves(stacked)[0].shape[0]) > 1:
        half = count // 2
        if count % 2:
            alone = jax.tree.map(lambda values: values[-1], stacked)
            odd = alone if odd is None else merge(alone, odd)
        a, b = (jax.tree.map(lambda values, part=part: values[part], stacked) for part in halves(half))
        stacked = merge(a, b)
    one = jax.tree.map(lambda values: values[0], stacked)
    return one if odd is None else merge(one, odd)


def halves(half: int) -> tuple[slice, slice]:
    return slice(0, 2 * half, 2), slice(1, 2 * half, 2)


def fold_tiles(operands: Operands, targets: Array, settings: Settings) -> Partial:
    """The partial of every row over all classes."""

    def of_tile(first: Any, width: int) -> Partial:
        tile = tile_of(operands, targets, first, width, settings.softcap)
        return partial(tile.logits, tile.targets, settings.on, settings.off)

    whole: Partial = merged(*map_tiles(of_tile, operands), functools.partial(fold.merge, xp))
    return whole


# -------------------- the loss and the log-sum-exp, and their derivatives


def whole_logits(operands: Operands, softcap: float | None) -> Array:
    """The logits (rows, C), for derivatives of derivatives."""
    linear: Linear[Any] = Linear(*operands[:2], bias=operands.bias, softcap=softcap)
    return whole.whole_product(xp, linear, None).logits()


def loss_of_whole(operands: Operands, targets: Array, settings: Settings) -> Array:
    logits = whole_logits(operands, settings.softcap)
    return PIECES.loss(logits, targets, settings.on, settings.off)


def lse_of_whole(operands: Operands, targets: Array, settings: Settings) -> Array:
    return PIECES.logsumexp(whole_logits(operands, settings.softcap))


class Value(NamedTuple):
    """A value of the rows with a derivative: how it is made of their partial, what its slope is of, and the same of
    whole logits.
    """

    finish: Callable[[Partial], Array]
    slope_of: Callable[[Partial], Partial]
    of_whole: Callable[[Operands, Array, Settings], Array]


VALUES = {
    "loss": Value(lambda part: fold.finish(xp, part), lambda part: part, loss_of_whole),
    "logsumexp": Value(
        lambda part: fold.log_partition(xp, part),
        lambda part: part._replace(target_sum=jnp.ones_like(part.max)),
        lse_of_whole,
    ),
}


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def value_and_partial(operands: Operands, targets: Array, name: str, settings: Settings) -> tuple[Array, Partial]:
    """The value of every row and its partial."""
    part = fold_tiles(operands, targets, settings)
    return VALUES[name].finish(part), part


@value_and_partial.defjvp
def value_and_partial_jvp(name: str, settings: Settings, primals: Any, changes: Any) -> Any:
    operands, targets = primals
    value, part = value_and_partial(operands, targets, name, settings)
    of_whole = VALUES[name].of_whole
    change = jax.jvp(lambda operands, targets: of_whole(operands, targets, settings), primals, changes)[1]
    # the partial leads to slopes alone, whose rule looks at the operands
    return (value, part), (change, Partial(*map(jnp.zeros_like, part)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def value_of(operands: Operands, targets: Array, name: str, settings: Settings) -> Array:
    """The value of every row."""
    return value_and_partial(operands, targets, name, settings)[0]


def value_forward(operands: Any, targets: Any, name: str, settings: Settings) -> tuple[Array, Any]:
    """The value, and what its derivative needs: which arrays it is asked for in, as the shape of a tree."""
    needs = jax.tree.map(lambda one: () if one.perturbed else None, (operands, targets), is_leaf=is_primal)
    operands, targets = jax.tree.map(lambda one: one.value, (operands, targets), is_leaf=is_primal)
    value, part = value_and_partial(operands, targets, name, settings)
    return value, (operands, targets, part, needs)


def is_primal(value: Any) -> bool:
    return hasattr(value, "perturbed")


def value_backward(name: str, settings: Settings, kept: Any, cotangent: Any) -> Any:
    operands, targets, part, (needs, needs_targets) = kept
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return jax.tree.map(lambda _: None, (operands, targets))
    of = tuple(field for field, need in zip(Operands._fields, needs, strict=True) if need is not None)
    of = (*of, "targets") if needs_targets is not None else of
    found = slopes(operands, targets, part, cotangent, name, settings, of)
    return Operands(*found[:3]), found[3]


value_of.defvjp(value_forward, value_backward, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5, 6))
def slopes(
    operands: Operands, targets: Array, part: Partial, scale: Array, name: str, settings: Settings, of: tuple[str, ...]
) -> tuple[Array | None, ...]:
    """What changes of the values, (rows,), say of hidden states, classifier, bias and targets; None if not asked."""
    part, dtype = VALUES[name].slope_of(part), compute_dtype(operands)
    wide_hidden = operands.hidden.astype(dtype)
    labels = targets if name == "loss" else jnp.full(targets.shape[:1], -1)
    lse = fold.log_partition(xp, part)

    def of_tile(hidden: Array, first: Any, width: int) -> tuple[Array, Any]:
        tile = tile_of(operands, labels, first, width, settings.softcap)
        slope = slope_of_tile(tile, part, scale, settings)
        of_targets = None
        if "targets" in of:
            of_targets = product(lse[:, None] - tile.logits, jnp.broadcast_to(scale[:, None], tile.logits.shape))
        hidden = hidden + multiply(slope, tile.classifier) if "hidden" in of else hidden
        classifier = multiply(slope.T, wide_hidden).astype(operands.classifier.dtype) if "classifier" in of else None
        bias = None if "bias" not in of else jnp.sum(slope, axis=0).astype(operands.bias.dtype)  # type: ignore[union-attr]
        return hidden, (classifier, bias, of_targets)

    classes, width = int(operands.classifier.shape[0]), width_of(operands)
    count, left = divmod(classes, width)
    hidden = jnp.zeros(operands.hidden.shape if "hidden" in of else (), dtype)
    hidden, stacked = jax.lax.scan(
        lambda hidden, first: of_tile(hidden, first, width), hidden, width * jnp.arange(count)
    )
    classifier, bias, of_targets = stacked
    classifier = None if classifier is None else jnp.reshape(classifier, (count * width, classifier.shape[-1]))
    bias = None if bias is None else jnp.reshape(bias, (count * width,))
    if of_targets is not None:
        of_targets = jnp.reshape(jnp.moveaxis(of_targets, 0, 1), (of_targets.shape[1], count * width))
    if left:
        hidden, last = of_tile(hidden, count * width, left)
        classifier, bias, of_targets = (
            None if a is None else jnp.concatenate([a, b], axis=axis)
            for a, b, axis in zip((classifier, bias, of_targets), last, (0, 0, 1), strict=True)
        )
    hidden = hidden.astype(operands.hidden.dtype) if "hidden" in of else None
    return hidden, classifier, bias, of_targets


def slope_of_tile(tile: Tile, part: Partial, scale: Array, settings: Settings) -> Array:
    """The gradient in the logits of a tile before its softcap, times the scale of each row."""
    soft = tile.targets
    if soft.ndim == 1:
        width = tile.logits.shape[-1]
        soft = gradient.two_valued(xp, soft, width, settings.on, settings.off, tile.logits.dtype)
    is_infinite = part.max == math.inf
    beside = where(tile.logits == math.inf, 0.0, -math.inf)
    finite = where(is_infinite[:, None], beside, tile.logits)
    slope = gradient.residual(xp, finite, soft, part._replace(max=where(is_infinite, 0.0, part.max)))
    slope = where(scale[:, None] == 0, 0.0, slope * scale[:, None])
    if settings.softcap is None:
        return slope
    share = tile.logits / settings.softcap
    share = share if tile.masked is None else where(tile.masked, 0.0, share)
    return slope * (1 - share) * (1 + share)


@slopes.defjvp
def slopes_jvp(name: str, settings: Settings, of: tuple[str, ...], primals: Any, changes: Any) -> Any:
    operands, targets, part, scale = primals
    found = slopes(operands, targets, part, scale, name, settings, of)

    def of_whole(operands: Operands, targets: Array, scale: Array) -> tuple[Any, ...]:
        def value(operands: Operands, targets: Array) -> Array:
            return VALUES[name].of_whole(operands, targets, settings)

        if targets.ndim == 1:
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


# -------------------- methods


def run_loss(call: ProductCall) -> Array:
    return call.reduced(value_of(call.operands, call.targets, "loss", call.settings))


def run_loss_and_gradient(call: ProductCall) -> tuple[Array, LinearGradient[Array]]:
    losses, part = value_and_partial(call.operands, call.targets, "loss", call.settings)
    scale = call.reducer.scale(xp, call.rows, jnp.zeros_like(losses))
    return jax.lax.stop_gradient(call.reduced(losses)), gradient_of(call, part, scale)


def gradient_of(call: ProductCall, part: Partial, scale: Array) -> LinearGradient[Array]:
    """The gradient in the operands, as plain numbers, from the partial and the scale of each row."""
    found = slopes(call.operands, call.targets, part, scale, "loss", call.settings, call.problem.of)
    hidden, classifier, bias = (None if one is None else jax.lax.stop_gradient(one) for one in found[:3])
    hidden = None if hidden is None else jnp.reshape(hidden, call.linear.hidden.shape)
    return LinearGradient(hidden, classifier, bias)


def run_gradient(call: ProductCall, weights: Weights) -> LinearGradient[Array]:
    """The gradient of these classes from the partial of all, times the scale of each row."""
    part = Partial(*(jnp.reshape(field, (-1,)) for field in weights.whole))
    scale = jnp.ones_like(part.max) if weights.sample is None else jnp.reshape(weights.sample, (-1,))
    return gradient_of(call, part, scale.astype(part.max.dtype))


def run_partial(call: ProductCall) -> Partial:
    part = jax.tree.map(jax.lax.stop_gradient, fold_tiles(call.operands, call.targets, call.settings))
    return Partial(*map(call.batched, part))


def run_logsumexp(call: ProductCall) -> Array:
    return call.batched(value_of(call.operands, call.targets, "logsumexp", call.settings))


def run_statistics(call: ProductCall) -> statistics.RowStatistics[Array]:
    found = statistics_of(call.operands, call.targets, call.settings, call.rows)
    return statistics.RowStatistics(*map(call.batched, found))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def statistics_of(operands: Operands, labels: Array, settings: Settings, rows: Rows) -> statistics.RowStatistics[Array]:
    """The statistics of every row, in two passes: a rank needs the logit of the label with the bits of its tile."""

    def label_logit(first: Any, width: int) -> Array:
        tile = tile_of(operands, labels, first, width, settings.softcap)
        at_label, inside = fold.gather(xp, tile.logits, tile.targets)
        return where(inside, at_label, -math.inf)

    at_label = merged(*map_tiles(label_logit, operands), jnp.maximum)

    def of_tile(first: Any, width: int) -> statistics.Statistics:
        tile = tile_of(operands, labels, first, width, settings.softcap)
        return statistics.statistics(xp, tile.logits, tile.targets, at_label)

    whole = merged(*map_tiles(of_tile, operands), functools.partial(statistics.merge_statistics, xp))
    return statistics.finish_statistics(xp, whole, rows)


@statistics_of.defjvp
def statistics_jvp(settings: Settings, primals: Any, changes: Any) -> Any:
    operands, labels, rows = primals
    found = statistics_of(operands, labels, settings, rows)

    def of_whole(operands: Operands) -> Any:
        logits = whole_logits(operands, settings.softcap)
        problem = Problem(
            function="row_statistics", op="sparse", method="statistics", array="jax", dtype="float32", device="traced",
            ndim=2, axis=1, target_array="jax", target_dtype="int32", options=Options(),
        )  # fmt: skip
        call = traced.TracedCall(xp, PIECES, problem, logits, logits, logits, labels, 1.0, 0.0, rows)
        return traced.run_statistics(call)

    of_operands = jax.jvp(of_whole, (operands,), (changes[0],))[1]
    return found, of_operands


RUN: dict[str, Callable[[ProductCall], Any]] = {
    "loss": run_loss,
    "loss_and_gradient": run_loss_and_gradient,
    "partial": run_partial,
    "logsumexp": run_logsumexp,
    "statistics": run_statistics,
}
