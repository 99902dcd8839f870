"""The schedule for products: logits ``hidden @ classifier.T`` that are never whole, for any eager array API library.

Rows that are ignored are not multiplied: that saves time, and nothing of what they hold is in the gradient of the
classifier, where 0 · NaN would be NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ... import arrays, checks
from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import Weights
from ...linear import LinearGradient
from ...numerics import fold, listed
from ...numerics.fold import Partial
from ...numerics.statistics import RowStatistics, Statistics, finish_statistics
from ...numerics.targets import NO_ROWS, Rows
from . import panels, schedule
from .blocks import SoftTargets, Tiling
from .products import multiplying, product_of
from .threads import own_threads
from .tiles import Chosen, ProductCall, chosen_rows, concatenated


def run(
    plan: Plan,
    predictions: Any,
    targets: Array | None,
    weights: Weights,
    empty: Callable[[tuple[int, ...], Any], Array] | None = None,
) -> Any:
    """The result of one call on one concrete product; ``empty`` as in :class:`ProductCall`."""
    for name, operand in zip(checks.OPERANDS, predictions.operands, strict=False):
        checks.array_api(plan.problem.function, name, operand)
    with multiplying():
        if plan.problem.method == "gradient":
            call = call_of(plan, predictions, targets, weights.ids)._replace(empty=empty)
            return gradient_from(call, *schedule.merged_of(call.xp, call.product.rows, weights))
        call, rows = product_call(plan, predictions, targets, weights)
        return RUN[plan.problem.method](call._replace(empty=empty), rows)


def product_call(plan: Plan, linear: Any, targets: Array | None, weights: Weights) -> tuple[ProductCall, Rows]:
    """The call on a product, and what the caller says of each row; raises LabelError if a label is known to be bad."""
    call = call_of(plan, linear, targets, weights.ids)
    return call, schedule.rows_of_call(call.call, targets, weights)


def call_of(plan: Plan, linear: Any, targets: Array | None, ids: Array | None = None) -> ProductCall:
    """The operands, flat, beside the kernel that takes their tiles."""
    xp = arrays.namespace(linear.hidden)
    product = product_of(xp, linear)
    threads = own_threads(plan.problem.threads) if product.writes else 1
    if threads > 1:  # the kernel is called by each of them
        plan = replace(plan, problem=replace(plan.problem, threads=1))
    call = schedule.kernel_call(xp, plan, linear, targets, ids)
    batch, rows, classes = tuple(linear.shape[:-1]), product.rows, product.classes
    limit = max(1, rows * classes) if call.plan.block_elements is None else call.tiling.limit
    tiling = Tiling(xp, 1, (rows, classes), batch, rows, classes, "rows", limit, call.tiling.own_limit, False)
    if isinstance(call.targets, SoftTargets):
        flat = call.targets._replace(targets=xp.reshape(call.targets.targets, (rows, classes)))
        call = call._replace(targets=flat)
    return ProductCall(call._replace(tiling=tiling), product, threads)


def counted(call: ProductCall, rows: Rows) -> tuple[ProductCall, Chosen | None]:
    """The call for the rows that are counted, and which they are; None for all of them."""
    if rows is NO_ROWS or rows.ignored is None:
        return call, None
    chosen = chosen_rows(call.xp, rows.ignored)
    return call.take(chosen.rows), chosen


def run_loss(call: ProductCall, rows: Rows) -> Array:
    return value_and_partial(call, rows)[0]


def partial_of_rows(call: ProductCall) -> Partial:
    """The partial of every row."""
    whole: Partial = concatenated(
        call.xp, call.of_rows(lambda hidden, tile: call.finished(call.partials_of_tile(hidden, tile))[1])
    )
    return whole


def run_partial(call: ProductCall, rows: Rows) -> Partial:
    return Partial(*(schedule.batched(call.call, field) for field in partial_of_rows(call)))


def run_logsumexp(call: ProductCall, rows: Rows) -> Array:
    return schedule.batched(call.call, fold.log_partition(call.xp, partial_of_rows(call)))


def statistics_of_rows(call: ProductCall, label_logits: Array | None = None) -> Statistics:
    """The statistics of every row; ``label_logits`` (rows,) is given if a label may be in other classes."""

    def of_tile(hidden: Array, tile: slice) -> Statistics:
        return call.statistics_of_tile(hidden, tile, None if label_logits is None else label_logits[tile])

    whole: Statistics = concatenated(call.xp, call.of_rows(of_tile))
    return whole


def run_statistics(call: ProductCall, rows: Rows) -> RowStatistics:
    statistics = finish_statistics(call.xp, statistics_of_rows(call), rows)
    return RowStatistics(*(schedule.batched(call.call, field) for field in statistics))


def run_loss_and_gradient(call: ProductCall, rows: Rows) -> tuple[Array, LinearGradient[Array]]:
    some, chosen = counted(call, rows)
    scale = schedule.scale_of_rows(call.call, rows)
    if chosen is not None:
        scale = call.xp.take(scale, chosen.rows)
    loss, gradient = panels.loss_and_gradient(some, scale)
    loss = loss if chosen is None else chosen.spread(loss)
    return schedule.reduced(call.call, loss, rows), in_place(call, chosen, gradient)


def gradient_from(call: ProductCall, whole: Partial, scale: Array) -> LinearGradient[Array]:
    """The gradient from the partial and the scale of every row; a row of scale 0 is not multiplied."""
    chosen, left_out = None, scale == 0
    if call.xp.any(left_out):
        chosen = chosen_rows(call.xp, left_out)
        call = call.take(chosen.rows)
        scale = call.xp.take(scale, chosen.rows)
        whole = Partial(*(call.xp.take(field, chosen.rows, axis=0) for field in whole))
    return in_place(call, chosen, panels.gradient(call, whole, scale))


def value_and_partial(call: ProductCall, rows: Rows) -> tuple[Array, Array, Array, Array, Array, Array]:
    """The value of a call, and what its gradient needs: the scale of every row, then the fields of its partial.

    Of a log-sum-exp, whose gradient is the softmax, the partial is that of a target of mass 1 in no class.
    """
    xp = call.xp
    if call.call.plan.problem.method == "logsumexp":
        whole = partial_of_rows(call)
        ones = xp.ones_like(whole.max)
        value = schedule.batched(call.call, fold.log_partition(xp, whole))
        return value, ones, *whole._replace(target_sum=ones)
    some, chosen = counted(call, rows)
    whole = partial_of_rows(some)
    whole = whole if chosen is None else Partial(*map(chosen.spread, whole))
    value = schedule.reduced(call.call, listed.finish(xp, whole), rows)
    return value, schedule.scale_of_rows(call.call, rows), *whole


def in_place(call: ProductCall, chosen: Chosen | None, gradient: LinearGradient[Array]) -> LinearGradient[Array]:
    """The gradient with that of the hidden states in their shape, the rows in their places among all."""
    hidden = gradient.hidden
    if hidden is None:
        return gradient
    hidden = hidden if chosen is None else chosen.spread(hidden)
    return gradient._replace(hidden=call.xp.reshape(hidden, call.call.logits.hidden.shape))


RUN = {
    "loss": run_loss,
    "loss_and_gradient": run_loss_and_gradient,
    "partial": run_partial,
    "logsumexp": run_logsumexp,
    "statistics": run_statistics,
}
