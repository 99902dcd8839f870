"""The schedule for products of JAX arrays: a scan over tiles of classes, compiled alone or in the caller's trace.

Leaves out the tiles (``tiles.py``) and the derivatives (``backwards.py``).
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
from ...numerics import fold, reduction, statistics
from ...numerics import targets as facts
from ...numerics.fold import Partial
from ...numerics.reduction import Reducer
from ...numerics.targets import Rows
from ..generic import few_classes, traced
from ..generic.schedule import listed_targets
from .autodiff import PIECES
from .backwards import slopes, value_and_partial, value_of, whole_logits
from .schedule import check_labels
from .tiles import Constants, Listed, Operands, fold_tiles, map_tiles, merged, tile_of
from .whole_rows import where, xp


def run(plan: Plan, predictions: Any, targets: Array | None, weights: Weights) -> Any:
    """The result of one call."""
    problem, inputs = plan.problem, (*predictions.operands, targets, *weights)
    if problem.raises and not any(isinstance(value, jax.core.Tracer) for value in inputs):
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


class TracedProduct(NamedTuple):
    """One call, its arrays flat: hidden states (rows, D), 0 in ignored rows, and labels (rows,), soft targets (rows, C)
    or those of the listed classes.
    """

    problem: Problem
    linear: Linear[Any]
    operands: Operands
    targets: Any
    rows: Rows
    settings: Constants

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


def product_call(problem: Problem, linear: Linear[Any], targets: Array | None, weights: Weights) -> TracedProduct:
    """The arrays of a call, flat, and what the caller says of each row."""
    options, classes, dtype = problem.options, linear.shape[-1], fold.compute_dtype(xp, linear.dtype)
    hidden = jnp.reshape(linear.hidden, (math.prod(linear.hidden.shape[:-1]), linear.hidden.shape[-1]))
    flat_problem = replace(problem, ndim=2, axis=1)
    flat: Any = None
    if problem.tail:
        few = listed_targets(xp, problem, targets, weights.ids, dtype)
        flat = Listed(few.ids, few.weights, few.tail)
        rows = few_classes.rows_of_call(xp, problem, few, classes, weights)
    else:
        if targets is not None and problem.op == "dense":
            targets = jnp.reshape(targets, (-1, classes))
        flat = traced.targets_of(xp, flat_problem, targets, dtype)
        rows = traced.rows_of_targets(xp, flat_problem, flat, classes, dtype, weights)
    if rows.ignored is not None and problem.method != "statistics":
        hidden = where(rows.ignored[:, None], 0.0, hidden)
    on, off = facts.smoothing(options.label_smoothing, options.num_classes or classes)
    if problem.op == "dense" and off != 0.0 and not problem.tail:
        flat = on * flat + off
    if flat is None:
        flat = jnp.full(hidden.shape[:1], -1)
    operands = Operands(hidden, linear.classifier, linear.bias)
    return TracedProduct(problem, linear, operands, flat, rows, Constants(on, off, linear.softcap))


def run_loss(call: TracedProduct) -> Array:
    return call.reduced(value_of(call.operands, call.targets, "loss", call.settings))


def run_loss_and_gradient(call: TracedProduct) -> tuple[Array, LinearGradient[Array]]:
    losses, part = value_and_partial(call.operands, call.targets, "loss", call.settings)
    scale = call.reducer.scale(xp, call.rows, jnp.zeros_like(losses))
    return jax.lax.stop_gradient(call.reduced(losses)), gradient_of(call, part, scale)


def gradient_of(call: TracedProduct, part: Partial, scale: Array) -> LinearGradient[Array]:
    """The gradient in the operands, as plain numbers, from the partial and the scale of each row."""
    found = slopes(call.operands, call.targets, part, scale, "loss", call.settings, call.problem.of)
    hidden, classifier, bias = (None if one is None else jax.lax.stop_gradient(one) for one in found[:3])
    hidden = None if hidden is None else jnp.reshape(hidden, call.linear.hidden.shape)
    return LinearGradient(hidden, classifier, bias)


def run_gradient(call: TracedProduct, weights: Weights) -> LinearGradient[Array]:
    """The gradient of these classes from the partial of all, times the scale of each row; one of scale 0 is ignored."""
    part = Partial(*(jnp.reshape(field, (-1,)) for field in weights.whole))
    scale = jnp.ones_like(part.max) if weights.sample is None else jnp.reshape(weights.sample, (-1,))
    hidden = where(scale[:, None] == 0, 0.0, call.operands.hidden)
    call = call._replace(operands=call.operands._replace(hidden=hidden))
    return gradient_of(call, part, scale.astype(part.max.dtype))


def run_partial(call: TracedProduct) -> Partial:
    part = jax.tree.map(jax.lax.stop_gradient, fold_tiles(call.operands, call.targets, call.settings))
    return Partial(*map(call.batched, part))


def run_logsumexp(call: TracedProduct) -> Array:
    return call.batched(value_of(call.operands, call.targets, "logsumexp", call.settings))


def run_statistics(call: TracedProduct) -> statistics.RowStatistics[Array]:
    found = statistics_of(call.operands, call.targets, call.settings, call.rows)
    return statistics.RowStatistics(*map(call.batched, found))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def statistics_of(
    operands: Operands, labels: Array, settings: Constants, rows: Rows
) -> statistics.RowStatistics[Array]:
    """The statistics of every row, in two passes: a rank needs the logit of the label with the bits of its tile."""

    def label_logit(first: Any, width: int) -> Array:
        tile = tile_of(operands, labels, first, width, settings)
        at_label, inside = fold.gather(xp, tile.logits, tile.targets)
        return where(inside, at_label, -math.inf)

    at_label = merged(*map_tiles(label_logit, operands), jnp.maximum)

    def of_tile(first: Any, width: int) -> statistics.Statistics:
        tile = tile_of(operands, labels, first, width, settings)
        return statistics.statistics(xp, tile.logits, tile.targets, at_label)

    whole = merged(*map_tiles(of_tile, operands), functools.partial(statistics.merge_statistics, xp))
    return statistics.finish_statistics(xp, whole, rows)


@statistics_of.defjvp
def statistics_jvp(settings: Constants, primals: Any, changes: Any) -> Any:
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


RUN: dict[str, Callable[[TracedProduct], Any]] = {
    "loss": run_loss,
    "loss_and_gradient": run_loss_and_gradient,
    "partial": run_partial,
    "logsumexp": run_logsumexp,
    "statistics": run_statistics,
}
