"""The tasks of a Dask graph: the work on one chunk, and the merging of what several chunks return.

Dask calls every function here on a worker that may be another process, with a :class:`ChunkCall`, which pickles small,
and concrete arrays. If one chunk has every class of its rows, a task follows the plan that dispatch made for a chunk.
If the classes are split, chunks return the fold's numbers, which are merged before any loss is known.

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
from ...contract.problem import Options, Problem, Weights, weights_of
from ...numerics import fold, gradient, listed, reduction
from ...numerics import statistics as numbers
from ...numerics.fold import Partial
from ...numerics.fold import merge as merge_partials
from ...numerics.reduction import PartialReduction, Reducer, Sums, merge_sums
from ...numerics.statistics import merge_statistics
from ...numerics.targets import Rows, wide_labels, widen
from ..generic import blocks
from ..generic import schedule as generic
from ..generic.blocks import KernelCall, tiling_of
from ..generic.rows import rows_of, rows_of_ids, without_bad_ids, without_bad_labels

__all__ = ["merge_partials", "merge_statistics", "merge_sums"]


ARGUMENTS = {
    "predictions": "predictions",
    "targets": "targets",
    "sample": "sample_weight",
    "classes": "class_weight",
    "positive": "pos_weight",
}
"""The inputs of tasks that are chunks of the caller's arrays, and the caller's names for them."""


@dataclass(frozen=True, slots=True)
class ChunkCall:
    """The facts of one call that every task needs."""

    plan: Plan
    """Of one chunk, without its decision; with the options of the whole call, the reduction included."""
    classes: int
    """The number of classes of the whole array."""

    @property
    def problem(self) -> Problem:
        return self.plan.problem

    @property
    def options(self) -> Options:
        return self.plan.problem.options

    def plan_of_chunk(self, chunk: Array, **options: Any) -> Plan:
        """The plan for this chunk, with other options: the first whose guard accepts the chunk."""
        plan = self.plan.for_call(chunk)
        changed = self.options._replace(**options)
        is_plain = plan.problem.is_plain and changed.reduction == "none"
        return replace(plan, problem=replace(plan.problem, options=changed, is_plain=is_plain))

    def plan_of_classes(self, chunk: Array, first: int) -> Plan:
        """The plan for a chunk that has a slice of the classes, from ``first`` on."""
        options = self.options
        return self.plan_of_chunk(
            chunk,
            reduction="none",
            first_class=options.first_class + first,
            num_classes=options.num_classes or self.classes,
        )


def to_send(plan: Plan, reduction: Any) -> Plan:
    """The plan of a chunk as it is sent to workers: with the reduction of the call, without the decision."""
    options = plan.problem.options._replace(reduction=reduction)
    otherwise = plan.otherwise and to_send(plan.otherwise, reduction)
    return replace(plan, problem=replace(plan.problem, options=options), otherwise=otherwise, decision=None)


def run_task(function: Callable[..., Any], call: ChunkCall, names: tuple[str, ...], *inputs: Any) -> Any:
    """The result of one task: the function of the call and of its inputs by name."""
    named = dict(zip(names, map(unnested, inputs), strict=True))
    for name, argument in ARGUMENTS.items():
        if hasattr(named.get(name), "dtype"):  # only its type is known before a chunk is there, and it may be another
            argument = "labels" if argument == "targets" and call.problem.op == "sparse" else argument
            checks.array(call.problem.function, argument, named[name])
    return function(call, **named)


class ChunkIndex(NamedTuple):
    """The position of a chunk of rows among all on each axis, and its first row, NaN if that is not known."""

    position: tuple[int, ...]
    first: tuple[float, ...]


def chunk_index(index: tuple[int, ...], slices: tuple[slice, ...]) -> ChunkIndex:
    return ChunkIndex(tuple(index), tuple(part.start for part in slices))


def unnested(block: Any) -> Any:
    """The one chunk inside the lists that Dask nests along axes that are summed over; anything else as it is."""
    while isinstance(block, list):
        (block,) = block
    return block


def every_chunk(blocks: Any) -> Iterator[Any]:
    """Every chunk inside nested lists, in C order."""
    if isinstance(blocks, list):
        for block in blocks:
            yield from every_chunk(block)
    else:
        yield blocks


def map_arrays(function: Callable[[Any], Any], value: Any) -> Any:
    """The function of an array, or of every array in a nested tuple."""
    if isinstance(value, tuple):
        return type(value)(*(map_arrays(function, item) for item in value))
    return function(value)


def first_array(value: Any) -> Any:
    """The first array of a nested tuple."""
    while isinstance(value, tuple):
        value = value[0]
    return value


class FewTargets(NamedTuple):
    """The soft targets of a chunk of rows: those of all classes, or of the listed ones (..., k), with their ids."""

    weights: Any
    ids: Any = None


def few_of_chunk(call: ChunkCall, weights: Array, ids: Array) -> FewTargets:
    """The targets of one chunk of rows, whose arrays fit each other."""
    shape = (*ids.shape[:-1], ids.shape[-1] + (call.problem.tail == "class"))
    checks.chunk(call.problem.function, "targets.weights", weights, shape, ())
    return FewTargets(weights, ids)


def few_or_all(targets: Any) -> FewTargets:
    """The targets of a task, with ids where these are there."""
    return targets if isinstance(targets, FewTargets) else FewTargets(targets)


def flat_rows(xp: Any, value: Any) -> Any:
    """Arrays in the shape of the batch as (rows,)."""
    return map_arrays(lambda array: xp.reshape(array, (-1,)), value)


def flat_partial(call: ChunkCall, xp: Any, value: Any) -> Any:
    """The merged numbers of rows as (rows,); of rows with a tail as (rows, 2)."""
    if call.problem.tail == "class":
        return map_arrays(lambda array: xp.reshape(array, (-1, 2)), value)
    return flat_rows(xp, value)


def in_batch_shape(xp: Any, value: Any, shape: tuple[int, ...]) -> Any:
    """Arrays (rows, ...) in the shape of the batch."""
    return map_arrays(lambda array: xp.reshape(array, (*shape, *array.shape[1:])), value)


def batch_of(array: Array, axis: int) -> tuple[int, ...]:
    """The shape of the rows of an array."""
    return tuple(array.shape[:axis]) + tuple(array.shape[axis + 1 :])


@contextlib.contextmanager
def label_errors_located(call: ChunkCall, chunk: ChunkIndex) -> Iterator[None]:
    """Raises a LabelError of the block again, with the position of the label in the whole array."""
    try:
        yield
    except errors.LabelError as error:
        function = call.problem.function
        name = "ids" if call.problem.tail else "labels"
        raise checks.labels_of_chunk(function, error, call.classes, chunk.position, chunk.first, name) from None


def check_shapes(
    call: ChunkCall, chunk: ChunkIndex, shape: tuple[int, ...], targets: Array | None, sample: Array | None
) -> None:
    """Raises if the chunks of the targets or of the sample weights do not fit that of the predictions."""
    check_targets(call, chunk.position, shape, targets)
    if sample is not None:
        rows = shape if call.problem.op == "binary" else rows_of_shape(call, shape)
        checks.chunk(call.problem.function, "sample_weight", sample, rows, chunk.position)


def check_targets(call: ChunkCall, position: tuple[int, ...], shape: tuple[int, ...], targets: Any) -> None:
    """Raises if the chunk of the targets does not fit that of the predictions, of this shape."""
    function = call.problem.function
    if isinstance(targets, FewTargets):
        shape = (*rows_of_shape(call, shape), targets.weights.shape[-1])
        checks.chunk(function, "targets.weights", targets.weights, shape, position)
    elif targets is not None and call.problem.op == "sparse":
        checks.chunk(function, "labels", targets, rows_of_shape(call, shape), position)
    elif targets is not None:
        checks.chunk(function, "targets", targets, shape, position)


def rows_of_shape(call: ChunkCall, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the rows of predictions of this shape."""
    return shape[: call.problem.axis] + shape[call.problem.axis + 1 :]


# Rows whose classes are all in one chunk.


def result_of_chunk(
    call: ChunkCall,
    index: Any,
    slices: Any,
    denominator: Any,
    predictions: Array,
    targets: Array | None,
    sample: Array | None,
    classes: Array | None,
    positive: Any,
) -> Any:
    """The result of one chunk, or its :class:`Sums`; the last three inputs are the weights."""
    chunk = chunk_index(index, slices)
    check_shapes(call, chunk, predictions.shape, targets, sample)
    requested = call.options.reduction
    partial = requested if requested == "none" else PartialReduction(requested, denominator_of(call, denominator))
    plan = call.plan_of_chunk(predictions, reduction=partial)
    few = few_or_all(targets)
    with label_errors_located(call, chunk):
        return plan(predictions, few.weights, weights_of(sample, classes, positive, ids=few.ids))


def denominator_of(call: ChunkCall, value: Any) -> Any:
    """The denominator of a mean, if the value is the sums over all rows; else the value itself."""
    mean = Reducer(call.options.reduction).mean
    if mean is None or not isinstance(value, Sums):
        return value
    return reduction.divisor(arrays.namespace(first_array(value)), mean, value)


# Rows whose classes are in several chunks: first one task for each chunk ...


def kernel_call_of(call: ChunkCall, predictions: Array, targets: Array | None, first: int) -> KernelCall:
    """The chunk, whose first class is ``first``, beside the kernel that takes it."""
    xp = arrays.namespace(predictions)
    few = few_or_all(targets)
    return generic.kernel_call(xp, call.plan_of_classes(predictions, first), predictions, few.weights, few.ids)


def first_class(call: ChunkCall, slices: tuple[slice, ...]) -> int:
    """The first class of a chunk; every axis has its slice."""
    return int(slices[call.problem.axis].start)


def partial_of_chunk(call: ChunkCall, index: Any, slices: Any, predictions: Array, targets: Array | None) -> Any:
    """The partial of one chunk; for probabilities, its part of each row's loss."""
    axis = call.problem.axis
    chunk = chunk_index(index[:axis] + index[axis + 1 :], slices[:axis] + slices[axis + 1 :])
    check_shapes(call, chunk, predictions.shape, targets, None)
    kernel_call = kernel_call_of(call, predictions, targets, first_class(call, slices))
    with arrays.without_fp_warnings():
        part = (blocks.partial if call.problem.uses_fold else blocks.loss)(kernel_call)
        return in_batch_shape(kernel_call.xp, part, batch_of(predictions, axis))


def label_logit(call: ChunkCall, slices: Any, predictions: Array, targets: Array) -> Array:
    """The logit of each row's label if the label is in this chunk, else −inf."""
    xp, axis = arrays.namespace(predictions), call.problem.axis
    local = widen(xp, targets) - first_class(call, slices)
    inside = (local >= 0) & (local < predictions.shape[axis])
    safe = xp.expand_dims(xp.where(inside, local, xp.zeros_like(local)), axis=axis)
    logits = xp.squeeze(xp.take_along_axis(predictions, safe, axis=axis), axis=axis)
    return xp.where(inside, xp.astype(logits, fold.compute_dtype(xp, predictions.dtype)), -math.inf)


def statistics_of_chunk(call: ChunkCall, slices: Any, predictions: Array, targets: Array, logits: Any) -> Any:
    """The statistics of one chunk; ``logits`` are those of the labels, whichever chunk has their class."""
    kernel_call = kernel_call_of(call, predictions, targets, first_class(call, slices))
    xp = kernel_call.xp
    with arrays.without_fp_warnings():
        part = blocks.statistics(kernel_call, flat_rows(xp, logits))
    return in_batch_shape(xp, part, tuple(targets.shape))


def class_weight_of_chunk(call: ChunkCall, targets: Array, classes: Array) -> Array:
    """Σ t_c w_c of each row over the classes of one chunk of the unsmoothed targets."""
    xp = arrays.namespace(targets)
    dtype = xp.float64 if call.problem.dtype == "float64" else xp.float32
    tiling, class_weight = tiling_of(xp, call.plan, targets), xp.astype(classes, dtype, copy=False)
    with arrays.without_fp_warnings():
        row_weight = blocks.class_weight_of_targets(xp, tiling, targets, class_weight)
    return in_batch_shape(xp, row_weight, batch_of(targets, call.problem.axis))


# ... then a tree that merges them ...


def add(xp: Any, a: Array, b: Array) -> Array:
    return a + b


def larger(xp: Any, a: Array, b: Array) -> Array:
    return xp.maximum(a, b)


def merge_chunks(merge: Any, parts: Any, axis: Any = None, keepdims: bool = True, computing_meta: bool = False) -> Any:
    """The parts of several chunks, merged as a balanced tree; the keywords are those of Dask's reductions."""
    if computing_meta:
        return parts
    every = list(every_chunk(parts))
    with arrays.without_fp_warnings():
        return fold.merge_tree(arrays.namespace(first_array(every[0])), every, merge)


def unchanged(part: Any, axis: Any = None, keepdims: bool = True, computing_meta: bool = False) -> Any:
    return part


# ... then the results of whole rows.


def rows_of_chunk(call: ChunkCall, like: Array, labels: Any, weights: Weights, row_weight: Array | None) -> Rows:
    """What the caller says of each row; ``like`` is any (rows,) array of the compute dtype.

    ``row_weight`` is Σ t_c w_c of soft targets. Raises LabelError if a label is bad.
    """
    xp = arrays.namespace(like)
    if isinstance(labels, FewTargets):
        few = generic.listed_targets(xp, call.problem, labels.weights, labels.ids, like.dtype)
        classes = weights.classes
        if classes is not None:
            classes = xp.asarray(classes, dtype=like.dtype, device=getattr(like, "device", None))
        rows = rows_of_ids(xp, call.problem, few, call.classes, weights.sample, classes)
        return without_bad_ids(xp, call.problem, rows, few, call.classes, labels.ids)
    wide = None if labels is None else wide_labels(xp, labels)
    class_weight = None if row_weight is None else flat_rows(xp, row_weight)
    if weights.classes is not None:
        class_weight = xp.asarray(weights.classes, dtype=like.dtype, device=getattr(like, "device", None))
    rows = rows_of(xp, call.problem, wide, call.classes, like.dtype, weights.sample, class_weight)
    return without_bad_labels(xp, call.problem, rows, labels, call.classes)


def denominator_sums(
    call: ChunkCall,
    index: Any,
    slices: Any,
    anchor: Any,
    sample: Array | None,
    classes: Array | None,
    row_weight: Array | None,
) -> Sums:
    """The sums of one chunk of rows without their losses; ``anchor`` has the labels, or the shape of the rows."""
    is_few, chunk = isinstance(anchor, FewTargets), chunk_index(index, slices)
    of_rows = anchor.ids if is_few else anchor
    xp, shape = arrays.namespace(of_rows), tuple(of_rows.shape[:-1] if is_few else of_rows.shape)
    if sample is not None:
        checks.chunk(call.problem.function, "sample_weight", sample, shape, chunk.position)
    dtype = xp.float64 if call.problem.dtype == "float64" else xp.float32
    like = xp.zeros(math.prod(shape), dtype=dtype, device=getattr(of_rows, "device", None))
    with arrays.without_fp_warnings(), label_errors_located(call, chunk):
        labels = anchor if is_few or call.problem.op == "sparse" else None
        rows = rows_of_chunk(call, like, labels, weights_of(sample, classes), row_weight)
        return Reducer(call.options.reduction).sums(xp, like, rows)


def finish_rows(
    call: ChunkCall,
    index: Any,
    slices: Any,
    whole: Any,
    labels: Array | None,
    denominator: Any,
    sample: Array | None,
    classes: Array | None,
    row_weight: Array | None,
) -> Any:
    """The result of one chunk of rows from their merged numbers; for a gradient also each row's scale."""
    xp, problem, requested = arrays.namespace(first_array(whole)), call.problem, call.options.reduction
    shape, merged, chunk = tuple(first_array(whole).shape), flat_partial(call, xp, whole), chunk_index(index, slices)
    like = first_array(merged)
    if call.problem.tail == "class":
        shape, like = shape[:-1], like[:, 0]
    with arrays.without_fp_warnings(), label_errors_located(call, chunk):
        if problem.method == "logsumexp":
            return in_batch_shape(xp, fold.log_partition(xp, merged), shape)
        if sample is not None:
            checks.chunk(problem.function, "sample_weight", sample, shape, chunk.position)
        rows = rows_of_chunk(call, like, labels, weights_of(sample, classes), row_weight)
        if problem.method == "statistics":
            return in_batch_shape(xp, numbers.finish_statistics(xp, merged, rows), shape)
        whole_denominator = denominator_of(call, denominator)
        reducer = Reducer(requested if requested == "none" else PartialReduction(requested, whole_denominator))
        loss = listed.finish(xp, merged) if problem.uses_fold else merged
        loss = reducer.reduce(xp, generic.nan_where_bad(xp, loss, rows), rows)
        loss = in_batch_shape(xp, loss, shape) if requested == "none" else loss
        if problem.method == "loss":
            return loss
        return loss, in_batch_shape(xp, reducer.scale(xp, rows, like), shape)


def gradient_of_chunk(
    call: ChunkCall, slices: Any, predictions: Array, targets: Array | None, whole: Any, finished: Any
) -> Array:
    """The gradient of one chunk, from the merged numbers of its rows and their scale."""
    kernel_call = kernel_call_of(call, predictions, targets, first_class(call, slices))
    scale = flat_rows(kernel_call.xp, finished[1])
    with arrays.without_fp_warnings():
        if not call.problem.uses_fold:
            return blocks.loss_and_gradient(kernel_call, scale)[1]
        if "gradient" not in kernel_call.methods:  # a kernel may have it for whole rows only
            kernel = getattr(generic, call.problem.op)
            kernel_call = kernel_call._replace(kernel=kernel, methods=generic.METHODS[call.problem.op])
        return blocks.gradient(kernel_call, flat_partial(call, kernel_call.xp, whole), scale)


def gradient_of_slice(
    call: ChunkCall, slices: Any, predictions: Array, targets: Array | None, scale: Array | None, **whole: Array
) -> Array:
    """The gradient of one chunk, from the partial of all classes and the scale of its rows."""
    kernel_call = kernel_call_of(call, predictions, targets, first_class(call, slices))
    with arrays.without_fp_warnings():
        return generic.gradient_of_slice(kernel_call, Weights(scale, whole=Partial(**whole)))


def softmax_of_chunk(call: ChunkCall, slices: Any, predictions: Array, whole: Any) -> Array:
    """The softmax, or its logarithm, of one chunk from the merged numbers of its rows."""
    kernel_call = kernel_call_of(call, predictions, None, first_class(call, slices))
    expression = gradient.softmax if call.problem.method == "softmax" else gradient.log_softmax
    dtype = fold.compute_dtype(kernel_call.xp, predictions.dtype)
    with arrays.without_fp_warnings():
        return blocks.map_blocks(kernel_call, expression, flat_rows(kernel_call.xp, whole), dtype)


# The ends of every graph.


def field_of(call: ChunkCall, index: int | None, record: Any) -> Any:
    """One field of the result of a task, or all of it."""
    return record if index is None else record[index]


def reduced_value(call: ChunkCall, sums: Any) -> Array:
    """The value of the reduction, 0-d, from the sums over all rows."""
    xp = arrays.namespace(first_array(sums))
    dtype = xp.float64 if call.problem.dtype == "float64" else xp.float32
    with arrays.without_fp_warnings():
        return Reducer(call.options.reduction).finish(xp, sums, dtype)
