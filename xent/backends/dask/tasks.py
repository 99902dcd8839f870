"""What one task of a Dask graph does: the work on one chunk, and the merging of what several chunks found.

Every function here is called by Dask, on a worker that may be another process: it gets a :class:`Call`, which pickles
small, and concrete arrays. Where every class of a row is in one chunk, a task follows the plan that selection made for
a chunk. Where the classes are cut, chunks hand on the fold's numbers, merged before anything is said of a row.

Leaves out the graph (``graph.py``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ... import arrays, checks, errors
from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import Options, Weights, weights_of
from ...numerics import fold, gradient, reduction, targets
from ...numerics import statistics as numbers
from ...numerics.fold import merge as merge_partials
from ...numerics.reduction import PartialReduction, Reducer, Sums, merge_sums
from ...numerics.statistics import merge_statistics
from ...numerics.targets import Rows
from ..generic import blocks
from ..generic import schedule as generic
from ..generic.blocks import KernelCall, tiling_of
from ..generic.rows import rows_of, without_bad_labels

__all__ = ["merge_partials", "merge_statistics", "merge_sums"]


@dataclass(frozen=True, slots=True)
class Call:
    """What every task of one call knows."""

    plan: Plan
    """Of one chunk, without its decision; options as the caller gave them, the reduction included."""
    classes: int
    """Of the whole array."""

    @property
    def options(self) -> Options:
        return self.plan.problem.options

    def of_chunk(self, chunk: Array, **options: Any) -> Plan:
        """The plan for this chunk: the first whose guard lets it pass, with other options."""
        plan = self.plan.for_call(chunk)
        changed = self.options._replace(**options)
        is_plain = plan.problem.is_plain and changed.reduction == "none"
        return replace(plan, problem=replace(plan.problem, options=changed, is_plain=is_plain))

    def of_classes(self, chunk: Array, first: int) -> Plan:
        """The plan for a chunk whose classes are a slice of all, from ``first`` on."""
        known = self.options
        return self.of_chunk(
            chunk,
            reduction="none",
            first_class=known.first_class + first,
            num_classes=known.num_classes or self.classes,
        )


def to_send(plan: Plan, reduction: Any) -> Plan:
    """The plan of a chunk as it travels: with the reduction of the call, without the reasons for it."""
    options = plan.problem.options._replace(reduction=reduction)
    otherwise = plan.otherwise and to_send(plan.otherwise, reduction)
    return replace(plan, problem=replace(plan.problem, options=options), otherwise=otherwise, decision=None)


class Place(NamedTuple):
    """Where a chunk of rows lies: which one it is on each axis, and its first row, NaN where that is not known."""

    chunk: tuple[int, ...]
    first: tuple[float, ...]


def place_of(index: tuple[int, ...], slices: tuple[slice, ...]) -> Place:
    return Place(tuple(index), tuple(one.start for one in slices))


def only(block: Any) -> Any:
    """The one chunk inside the lists that Dask nests along axes that are summed over."""
    while isinstance(block, list):
        (block,) = block
    return block


def flat(blocks: Any) -> Iterator[Any]:
    """Every chunk inside nested lists, in C order."""
    if isinstance(blocks, list):
        for block in blocks:
            yield from flat(block)
    else:
        yield blocks


def each(function: Callable[[Any], Any], value: Any) -> Any:
    """The function of an array, or of every array in a nested tuple of them."""
    if isinstance(value, tuple):
        return type(value)(*(each(function, one) for one in value))
    return function(value)


def first_array(value: Any) -> Any:
    """The first array of a nested tuple."""
    while isinstance(value, tuple):
        value = value[0]
    return value


def flattened(xp: Any, value: Any) -> Any:
    """Fields in the shape of the batch as (rows,)."""
    return each(lambda one: xp.reshape(one, (-1,)), value)


def shaped(xp: Any, value: Any, shape: tuple[int, ...]) -> Any:
    """Fields (rows,) in the shape of the batch."""
    return each(lambda one: xp.reshape(one, shape), value)


def batch_of(array: Array, axis: int) -> tuple[int, ...]:
    """The shape of the rows of an array."""
    return tuple(array.shape[:axis]) + tuple(array.shape[axis + 1 :])


@contextlib.contextmanager
def located(call: Call, place: Place) -> Iterator[None]:
    """A label's error tells where the label is in the whole array."""
    try:
        yield
    except errors.LabelError as error:
        function = call.plan.problem.function
        raise checks.labels_of_chunk(function, error, call.classes, place.chunk, place.first) from None


def fit(call: Call, place: Place, shape: tuple[int, ...], told: Array | None, weight: Array | None) -> None:
    """The chunks of the labels or targets, and of the weights, are as long as that of the predictions."""
    problem = call.plan.problem
    rows = shape if problem.op == "binary" else shape[: problem.axis] + shape[problem.axis + 1 :]
    if told is not None:
        name = "labels" if problem.op == "sparse" else "targets"
        checks.chunk(problem.function, name, told, rows if problem.op == "sparse" else shape, place.chunk)
    if weight is not None:
        checks.chunk(problem.function, "sample_weight", weight, rows, place.chunk)


# Rows whose classes are all in one chunk.


def complete(call: Call, index: Any, slices: Any, below: Any, *chunks: Any) -> Any:
    """The result of one chunk, or its :class:`Sums`; chunks are predictions, targets, and the three weights."""
    predictions, told, *weights = (only(one) for one in chunks)
    place = place_of(index, slices)
    fit(call, place, predictions.shape, told, weights[0])
    asked = call.options.reduction
    part_of = asked if asked == "none" else PartialReduction(asked, divisor(call, only(below)))
    plan = call.of_chunk(predictions, reduction=part_of)
    with located(call, place):
        return plan(predictions, told, weights_of(*weights))


def divisor(call: Call, below: Any) -> Any:
    """The denominator of a mean from the sums over all rows; a number stays as it is."""
    mean = Reducer(call.options.reduction).mean
    if mean is None or not isinstance(below, Sums):
        return below
    return reduction.divisor(arrays.namespace(first_array(below)), mean, below)


# Rows whose classes are in several chunks: first one task for each chunk ...


def work_on(call: Call, predictions: Array, told: Array | None, first: int) -> KernelCall:
    """The chunk beside the kernel that takes it."""
    return generic.kernel_call(arrays.namespace(predictions), call.of_classes(predictions, first), predictions, told)


def first_class(call: Call, slices: tuple[slice, ...]) -> int:
    """The first class of a chunk; every axis has its slice."""
    return int(slices[call.plan.problem.axis].start)


def part(call: Call, index: Any, slices: Any, predictions: Array, told: Array | None) -> Any:
    """The fold's numbers of one chunk; for probabilities, its share in each row's loss."""
    axis = call.plan.problem.axis
    place = place_of(index[:axis] + index[axis + 1 :], slices[:axis] + slices[axis + 1 :])
    fit(call, place, predictions.shape, told, None)
    work = work_on(call, predictions, told, first_class(call, slices))
    dtype = fold.compute_dtype(work.xp, predictions.dtype)
    with arrays.without_fp_warnings():
        found = (blocks.partial if call.plan.problem.uses_fold else blocks.loss)(work, dtype)
        return shaped(work.xp, found, batch_of(predictions, axis))


def label_logit(call: Call, slices: Any, predictions: Array, labels: Array) -> Array:
    """The logit of each row's label where the label is in this chunk, else −inf."""
    xp, axis = arrays.namespace(predictions), call.plan.problem.axis
    local = targets.widen(xp, labels) - first_class(call, slices)
    inside = (local >= 0) & (local < predictions.shape[axis])
    safe = xp.expand_dims(xp.where(inside, local, xp.zeros_like(local)), axis=axis)
    found = xp.squeeze(xp.take_along_axis(predictions, safe, axis=axis), axis=axis)
    return xp.where(inside, xp.astype(found, fold.compute_dtype(xp, predictions.dtype)), -math.inf)


def statistics_part(call: Call, slices: Any, predictions: Array, labels: Array, logit: Any) -> Any:
    """The statistics of one chunk; ``logit`` is that of each row's label, wherever its class is."""
    work = work_on(call, predictions, labels, first_class(call, slices))
    xp = work.xp
    with arrays.without_fp_warnings():
        found = blocks.statistics(work, fold.compute_dtype(xp, predictions.dtype), flattened(xp, only(logit)))
    return shaped(xp, found, tuple(labels.shape))


def class_weight_part(call: Call, soft: Array, class_weight: Array) -> Array:
    """Σ t_c w_c of each row over the classes of one chunk of the unsmoothed targets."""
    xp = arrays.namespace(soft)
    dtype = xp.float64 if call.plan.problem.dtype == "float64" else xp.float32
    tiling, class_weight = tiling_of(xp, call.plan, soft), xp.astype(class_weight, dtype, copy=False)
    row_weight = blocks.class_weight_of_targets(xp, tiling, soft, class_weight)
    return shaped(xp, row_weight, batch_of(soft, call.plan.problem.axis))


# ... then a tree that merges them ...


def add(xp: Any, a: Array, b: Array) -> Array:
    return a + b


def larger(xp: Any, a: Array, b: Array) -> Array:
    return xp.maximum(a, b)


def merged(merge: Any, parts: Any, axis: Any = None, keepdims: bool = True, computing_meta: bool = False) -> Any:
    """What chunks found, merged as a balanced tree; the keywords are those of Dask's reductions."""
    if computing_meta:
        return parts
    every = list(flat(parts))
    with arrays.without_fp_warnings():
        return fold.merge_tree(arrays.namespace(first_array(every[0])), every, merge)


def unchanged(part: Any, axis: Any = None, keepdims: bool = True, computing_meta: bool = False) -> Any:
    return part


# ... then what is said of whole rows.


def rows_known(call: Call, like: Array, told: Array | None, weights: Weights, row_weight: Array | None) -> Rows:
    """What is said of each row: ``like`` (rows,) has the compute dtype, ``row_weight`` is Σ t_c w_c of soft targets."""
    xp, problem = arrays.namespace(like), call.plan.problem
    labels = None if told is None else targets.wide_labels(xp, told)
    class_weight = row_weight if row_weight is None else flattened(xp, row_weight)
    if weights.classes is not None:
        class_weight = xp.asarray(weights.classes, dtype=like.dtype, device=getattr(like, "device", None))
    rows = rows_of(xp, problem, labels, call.classes, like.dtype, weights.sample, class_weight)
    return without_bad_labels(xp, problem, rows, told, call.classes)


def denominators(call: Call, index: Any, slices: Any, anchor: Any, *weights: Any) -> Sums:
    """The sums of one chunk of rows without their losses; weights are of rows, of classes, and Σ t_c w_c."""
    sample, classes, row_weight = (only(one) for one in weights)
    xp, place = arrays.namespace(anchor), place_of(index, slices)
    if sample is not None:
        checks.chunk(call.plan.problem.function, "sample_weight", sample, tuple(anchor.shape), place.chunk)
    dtype = xp.float64 if call.plan.problem.dtype == "float64" else xp.float32
    like = xp.zeros_like(xp.reshape(anchor, (-1,)), dtype=dtype)
    with arrays.without_fp_warnings(), located(call, place):
        labels = anchor if call.plan.problem.op == "sparse" else None
        rows = rows_known(call, like, labels, weights_of(sample, classes), row_weight)
        return Reducer(call.options.reduction).sums(xp, like, rows)


def finish(call: Call, index: Any, slices: Any, whole: Any, told: Array | None, below: Any, *weights: Any) -> Any:
    """The result of one chunk of rows, once their classes are merged; for a gradient also each row's scale."""
    whole, place = only(whole), place_of(index, slices)
    sample, classes, row_weight = (only(one) for one in weights)
    xp, problem, asked = arrays.namespace(first_array(whole)), call.plan.problem, call.options.reduction
    shape, merged = tuple(first_array(whole).shape), flattened(xp, whole)
    with arrays.without_fp_warnings(), located(call, place):
        if problem.method == "logsumexp":
            return shaped(xp, fold.log_partition(xp, merged), shape)
        if sample is not None:
            checks.chunk(problem.function, "sample_weight", sample, shape, place.chunk)
        like = first_array(merged)
        rows = rows_known(call, like, told, weights_of(sample, classes), row_weight)
        if problem.method == "statistics":
            return shaped(xp, numbers.finish_statistics(xp, merged, rows), shape)
        reducer = Reducer(asked if asked == "none" else PartialReduction(asked, divisor(call, only(below))))
        loss = fold.finish(xp, merged) if problem.uses_fold else merged
        loss = reducer.reduce(xp, generic.nan_where_bad(xp, loss, rows), rows)
        loss = shaped(xp, loss, shape) if asked == "none" else loss
        return loss if problem.method == "loss" else (loss, shaped(xp, reducer.scale(xp, rows, like), shape))


def slope(call: Call, slices: Any, predictions: Array, told: Array | None, whole: Any, finished: Any) -> Array:
    """The gradient of one chunk, from the merged numbers of its rows and their scale."""
    work = work_on(call, predictions, told, first_class(call, slices))
    scale = flattened(work.xp, only(finished)[1])
    with arrays.without_fp_warnings():
        if not call.plan.problem.uses_fold:
            return blocks.loss_and_gradient(work, scale)[1]
        if "gradient" not in work.methods:  # a kernel may have it for whole rows only
            work = work._replace(kernel=getattr(generic, call.plan.problem.op), methods=generic.METHODS)
        return blocks.gradient(work, flattened(work.xp, only(whole)), scale)


def probabilities(call: Call, slices: Any, predictions: Array, whole: Any) -> Array:
    """The softmax, or its logarithm, of one chunk from the merged numbers of its rows."""
    work = work_on(call, predictions, None, first_class(call, slices))
    expression = gradient.softmax if call.plan.problem.method == "softmax" else gradient.log_softmax
    dtype = fold.compute_dtype(work.xp, predictions.dtype)
    with arrays.without_fp_warnings():
        return blocks.map_blocks(work, expression, flattened(work.xp, only(whole)), dtype)


# The ends of every graph.


def field(call: Call, index: int | None, record: Any) -> Any:
    """One field of what a task found, or all of it."""
    return only(record) if index is None else only(record)[index]


def value(call: Call, sums: Any) -> Array:
    """The value of the reduction, 0-d, from the sums over all rows."""
    sums = only(sums)
    xp = arrays.namespace(first_array(sums))
    dtype = xp.float64 if call.plan.problem.dtype == "float64" else xp.float32
    with arrays.without_fp_warnings():
        return Reducer(call.options.reduction).finish(xp, sums, dtype)
