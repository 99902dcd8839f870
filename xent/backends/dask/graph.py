"""The schedule for Dask arrays: the graph, with one task for each chunk, and a tree that merges sums or classes.

Nothing is computed while a graph is built, and it holds no data but labels and weights that were NumPy's. The options
of the call, validation and kernel included, are bound here and travel with the plan. Written in terms of blockwise and
reduction alone, which Dask's arrays have with and without query planning.

Leaves out what a task does (``tasks.py``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ... import arrays, checks
from ...arrays import Array
from ...contract.hooks import hookimpl
from ...contract.plan import Plan
from ...contract.problem import Problem, Weights
from ...contract.specs import BackendSpec
from ...numerics.fold import Partial
from ...numerics.reduction import Reducer
from ...numerics.statistics import RowStatistics
from . import tasks
from .tasks import ChunkCall

MERGED_AT_ONCE = 8


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(name="dask", load="xent.backends.dask.graph:run", arrays=frozenset({"dask"}), inner="chunks")


class DaskCall(NamedTuple):
    """One call: the facts for every task, and the arrays in the chunks of the predictions, None if there is none."""

    chunk_call: ChunkCall
    predictions: Array
    targets: Array | None  # labels, soft targets, or tasks.FewTargets
    sample: Array | None
    classes: Array | None  # class weights, one chunk
    positive: Any  # an array, or a number

    @property
    def problem(self) -> Problem:
        return self.chunk_call.problem

    @property
    def axis(self) -> int:
        return self.problem.axis

    @property
    def every(self) -> tuple[int, ...]:
        """The axes of the predictions, as indices of blockwise."""
        return tuple(range(self.predictions.ndim))

    @property
    def batch(self) -> tuple[int, ...]:
        """The axes of the rows."""
        return self.every if self.problem.op == "binary" else self.every[: self.axis] + self.every[self.axis + 1 :]

    @property
    def target_axes(self) -> tuple[int, ...]:
        if self.problem.tail:  # after those of the predictions and, of a product, its features
            return (*self.batch, self.predictions.ndim + 1)
        return self.batch if self.problem.op == "sparse" else self.every


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """The graph of one call."""
    problem = plan.problem
    if problem.op != "binary":
        checks.known_classes(problem.function, predictions, problem.axis)
        predictions = with_classes(plan, predictions)
    is_split = problem.op != "binary" and predictions.numblocks[problem.axis] > 1
    call = aligned(plan, predictions, targets, weights)
    if problem.method == "gradient":
        return gradient_of_slice(call, weights.whole)
    return by_classes(call) if is_split else by_rows(call)


# Every array in the chunks of the predictions.


def with_classes(plan: Plan, predictions: Array) -> Array:
    """The predictions without chunks of no classes, and with one chunk of classes if the method does not merge."""
    problem = plan.problem
    sizes = predictions.chunks[problem.axis]
    if problem.method == "statistics" and not problem.uses_fold:
        sizes = (sum(sizes),)
    sizes = tuple(size for size in sizes if size)
    return predictions if sizes == predictions.chunks[problem.axis] else predictions.rechunk({problem.axis: sizes})


def aligned(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> DaskCall:
    """The call with its arrays in the chunks of the predictions."""
    problem, inner = plan.problem, plan.inner
    assert inner is not None
    classes = 0 if problem.op == "binary" else int(predictions.shape[problem.axis])
    chunk_call = ChunkCall(tasks.to_send(inner, problem.options.reduction), classes)
    call = DaskCall(chunk_call, predictions, None, None, None, weights.positive)
    if problem.tail:
        call = call._replace(targets=few_targets(call, targets, weights.ids))
    elif targets is not None:
        name = "labels" if problem.op == "sparse" else "targets"
        call = call._replace(targets=rechunked(call, name, targets, call.target_axes))
    if weights.sample is not None:
        call = call._replace(sample=rechunked(call, "sample_weight", weights.sample, call.batch))
    if weights.classes is not None:
        class_weight = as_dask(weights.classes)
        call = call._replace(classes=class_weight.rechunk(-1) if max(class_weight.numblocks) > 1 else class_weight)
    if arrays.is_array(weights.positive):
        positive = as_dask(weights.positive)
        axes = call.every[len(call.every) - positive.ndim :]
        call = call._replace(positive=rechunked(call, "pos_weight", positive, axes))
    return call


def few_targets(call: DaskCall, weights: Any, ids: Any) -> Array:
    """The ids and weights of the listed classes, in one array for all tasks: all of a row are in one block."""
    columns: dict[str, Any] = {}  # an argument for each input of a task
    for name, value in (("weights", weights), ("ids", ids)):
        whole = as_dask(value)
        whole = whole.rechunk({whole.ndim - 1: -1}) if whole.numblocks[-1] > 1 else whole
        columns[name] = Input(rechunked(call, f"targets.{name}", whole, call.batch), call.target_axes)
    return blockwise(call, tasks.few_of_chunk, call.target_axes, **columns)


def as_dask(value: Any) -> Array:
    """A Dask array of one that may be NumPy's, or of a list of numbers."""
    import dask.array as da
    import numpy as np

    return value if arrays.library(value) == "dask" else da.from_array(np.asarray(value), chunks=-1)


def rechunked(call: DaskCall, name: str, value: Any, axes: tuple[int, ...]) -> Array:
    """The value in the chunks that the predictions have along these axes; if sizes are unknown, in as many.

    They are its first axes, and any after them stay as they are.
    """
    import dask.array as da

    value = as_dask(value)
    expected = tuple(call.predictions.chunks[axis] for axis in axes)
    changes = {}
    for axis, (sizes, expected_sizes) in enumerate(zip(value.chunks[: len(axes)], expected, strict=True)):
        if any(size != size for size in (*sizes, *expected_sizes)):
            checks.same_chunks(call.problem.function, name, sizes, expected_sizes)
        elif sizes != expected_sizes:
            changes[axis] = expected_sizes
    if changes and 0 in value.shape:  # Dask does not rechunk an empty array
        return da.zeros_like(value, chunks=(*expected, *value.chunks[len(axes) :]))
    return value.rechunk(changes) if changes else value


# The graph, in three verbs: blockwise, merged, picked.


class Input(NamedTuple):
    """One input of every task: an array and the axes of the predictions that it has.

    Without axes the value itself goes to every task.
    """

    value: Any
    axes: tuple[int, ...] | None = None


def array_or_value(value: Any, axes: tuple[int, ...]) -> Input:
    """The input for an array with these axes; for a number or None, the value itself."""
    return Input(value, axes) if hasattr(value, "numblocks") else Input(value)


def block_slices(call: DaskCall, axes: tuple[int, ...]) -> dict[str, Any]:
    """The input ``slices``: the slices of a task's block in the whole array, along these axes."""
    from dask.layers import ArraySliceDep

    return {"slices": Input(ArraySliceDep(tuple(call.predictions.chunks[axis] for axis in axes)), axes)}


def block_location(call: DaskCall, axes: tuple[int, ...]) -> dict[str, Any]:
    """The inputs ``index`` and ``slices`` of a task's block along these axes."""
    from dask.layers import ArrayBlockIdDep

    index = Input(ArrayBlockIdDep(tuple(call.predictions.chunks[axis] for axis in axes)), axes)
    return {"index": index, **block_slices(call, axes)}


def meta_of(call: DaskCall, ndim: int, dtype: Any = None) -> Array:
    """An empty array of the chunks' library, which says what a task returns; no kernel is called to find out."""
    import numpy as np

    wide = np.float64 if call.problem.dtype == "float64" else np.float32
    return np.empty_like(call.predictions._meta, dtype=dtype or wide, shape=(0,) * ndim)


def blockwise(
    call: DaskCall,
    function: Any,
    axes: tuple[int, ...],
    *,
    dtype: Any = None,
    shrink: int | None = None,
    **inputs: Input,
) -> Array:
    """An array with one task for each block along ``axes``: the function of the chunk call and of its inputs by name.

    An array of one block goes to every task. ``shrink`` is an axis along which every block has size 1.
    """
    # subtle: Dask fuses a layer with its inputs only where no index is summed over, so tasks keep the class axis of the
    # predictions, though their results have none; it is dropped at the end.
    import dask.array as da

    meta = meta_of(call, len(axes), dtype)
    return da.blockwise(
        functools.partial(tasks.run_task, function, call.chunk_call, tuple(inputs)),
        axes,
        *(part for value in inputs.values() for part in value),
        token=f"{call.problem.function}-{function.__name__}",
        meta=meta,
        dtype=meta.dtype,
        align_arrays=False,
        concatenate=None,
        adjust_chunks=None if shrink is None else {shrink: 1},
    )


def merged(call: DaskCall, merge: Any, parts: Array, axes: tuple[int, ...]) -> Array:
    """The results of tasks, merged along the axes to one block each, as a fixed tree."""
    import dask.array as da

    axes = tuple(axis for axis in axes if parts.numblocks[axis] > 1)
    if not axes:
        return parts
    at_once = max(2, int(MERGED_AT_ONCE ** (1 / len(axes))))
    return da.reduction(
        parts,
        tasks.unchanged,
        functools.partial(tasks.merge_chunks, merge),
        axis=axes,
        keepdims=True,
        concatenate=False,
        split_every=dict.fromkeys(axes, at_once),
        dtype=parts.dtype,
        meta=parts._meta,
        name=f"{call.problem.function}-{merge.__name__}",
    )


def picked(call: DaskCall, record: Array, index: int | None, axes: tuple[int, ...], dtype: Any = None) -> Array:
    """One field of the results of tasks, or all of it, along these axes; the other axes have one block."""
    if index is None and len(axes) == record.ndim:
        return record
    return blockwise(call, tasks.field_of, axes, dtype=dtype, index=Input(index), record=Input(record, call.every))


def reduced(call: DaskCall, sums: Array) -> Array:
    """The value of the reduction, from the sums of every chunk of rows."""
    sums = merged(call, tasks.merge_sums, sums, call.every)
    return blockwise(call, tasks.reduced_value, (), sums=Input(sums, call.every))


# The denominator of a mean.


def denominator_of(call: DaskCall, row_weight: Array | None) -> Any:
    """The denominator of a mean, which the gradient needs before any row is read: from labels and weights alone.

    None if the method needs none.
    """
    mean, problem = Reducer(call.chunk_call.options.reduction).mean, call.problem
    if problem.method != "loss_and_gradient" or mean is None:
        return None
    if not isinstance(mean.denominator, str):
        return float(mean.denominator)
    is_weighted = mean.denominator == "weights" and (call.sample is not None or call.classes is not None)
    may_ignore = call.sample is not None or call.classes is not None or problem.options.ignore_index is not None
    is_masked = mean.denominator != "all" and may_ignore
    sizes = [call.predictions.shape[axis] for axis in call.batch]
    if not (is_weighted or is_masked or any(size != size for size in sizes)):
        return float(max(1, math.prod(sizes)))
    has_labels = labels_of(call) is not None
    anchor = call.targets if has_labels or call.sample is None else call.sample
    assert anchor is not None
    if not has_labels and call.sample is None:
        anchor = anchor[tuple(0 if axis == call.axis else slice(None) for axis in call.every)]
    sums = blockwise(
        call,
        tasks.denominator_sums,
        call.batch,
        **block_location(call, call.batch),
        anchor=Input(anchor, call.target_axes if has_labels else call.batch),
        sample=array_or_value(call.sample, call.batch),
        classes=array_or_value(call.classes if has_labels else None, (call.axis,)),
        row_weight=array_or_value(row_weight, call.every),
    )
    return merged(call, tasks.merge_sums, sums, tuple(range(sums.ndim)))


def row_weight_of(call: DaskCall) -> Array | None:
    """Σ t_c w_c of every row of soft targets; None if there are no class weights, or each row has few classes."""
    if call.classes is None or call.problem.op != "dense" or call.problem.tail:
        return None
    axis, class_weight = call.axis, rechunked(call, "class_weight", call.classes, (call.axis,))
    soft, classes = Input(call.targets, call.every), Input(class_weight, (axis,))
    parts = blockwise(call, tasks.class_weight_of_chunk, call.every, shrink=axis, targets=soft, classes=classes)
    return merged(call, tasks.add, parts, (axis,))


# The two schedules.


def by_rows(call: DaskCall) -> Any:
    """Every class of a row is in one chunk: one task for each chunk."""
    problem, every, batch = call.problem, call.every, call.batch
    has_gradient = problem.method == "loss_and_gradient"
    is_mean = Reducer(problem.options.reduction).mean is not None
    denominator = denominator_of(call, row_weight_of(call)) if has_gradient and is_mean else None
    record = blockwise(
        call,
        tasks.result_of_chunk,
        every,
        dtype=call.predictions.dtype if has_gradient else None,
        **block_location(call, batch),
        denominator=array_or_value(denominator, batch),
        predictions=Input(call.predictions, every),
        targets=array_or_value(call.targets, call.target_axes),
        sample=array_or_value(call.sample, batch),
        classes=array_or_value(call.classes, (call.axis,)),
        positive=array_or_value(call.positive, every[len(every) - getattr(call.positive, "ndim", 0) :]),
    )
    if problem.method in ("softmax", "log_softmax"):
        return record
    gradient = picked(call, record, 1, every, call.predictions.dtype) if has_gradient else None
    return results(call, record, gradient)


def by_classes(call: DaskCall) -> Any:
    """The classes of a row are in several chunks: a task for each chunk, a tree, and a task for each chunk of rows."""
    problem, every, batch = call.problem, call.every, call.batch
    whole, predictions = Input(merged_classes(call), every), Input(call.predictions, every)
    if problem.method == "partial":
        return results(call, whole.value, None)
    if problem.method in ("softmax", "log_softmax"):
        location = block_slices(call, every)
        return blockwise(call, tasks.softmax_of_chunk, every, **location, predictions=predictions, whole=whole)
    row_weight, labels = row_weight_of(call), labels_of(call)
    finished = blockwise(
        call,
        tasks.finish_rows,
        every,
        **block_location(call, batch),
        whole=whole,
        labels=array_or_value(labels, call.target_axes),
        denominator=array_or_value(denominator_of(call, row_weight), batch),
        sample=array_or_value(call.sample, batch),
        classes=array_or_value(call.classes if labels is not None else None, (call.axis,)),
        row_weight=array_or_value(row_weight, every),
    )
    if problem.method != "loss_and_gradient":
        return results(call, finished, None)
    gradient = blockwise(
        call,
        tasks.gradient_of_chunk,
        every,
        dtype=call.predictions.dtype,
        **block_slices(call, every),
        predictions=predictions,
        targets=array_or_value(call.targets, call.target_axes),
        whole=whole,
        finished=Input(finished, every),
    )
    return results(call, finished, gradient)


def labels_of(call: DaskCall) -> Array | None:
    """What the targets say of a row besides its partial: the labels, or the few classes; None of all soft targets."""
    return call.targets if call.problem.op == "sparse" or call.problem.tail else None


def gradient_of_slice(call: DaskCall, whole: Partial) -> Array:
    """The gradient of these classes from the partial of all, a task for each chunk."""
    return blockwise(
        call,
        tasks.gradient_of_slice,
        call.every,
        dtype=call.predictions.dtype,
        **block_slices(call, call.every),
        predictions=Input(call.predictions, call.every),
        targets=array_or_value(call.targets, call.target_axes),
        **merged_rows(call, whole),
    )


def merged_rows(call: DaskCall, whole: Partial) -> dict[str, Any]:
    """The inputs of a task that knows the partial of its rows and their scale."""
    fields = {name: rechunked(call, "whole", field, call.batch) for name, field in whole._asdict().items()}
    inputs = {name: Input(field, call.batch) for name, field in fields.items()}
    return {"scale": array_or_value(call.sample, call.batch), **inputs}


def merged_classes(call: DaskCall) -> Array:
    """The numbers of every row over all its classes: one block along the class axis for each chunk of rows."""
    every, axis = call.every, call.axis
    inputs: dict[str, Any] = {
        "predictions": Input(call.predictions, every),
        "targets": array_or_value(call.targets, call.target_axes),
    }
    if call.problem.method == "statistics":
        inputs |= block_slices(call, every)
        logits = blockwise(call, tasks.label_logit, every, shrink=axis, **inputs)
        logits = merged(call, tasks.larger, logits, (axis,))
        parts = blockwise(call, tasks.statistics_of_chunk, every, shrink=axis, **inputs, logits=Input(logits, every))
        return merged(call, tasks.merge_statistics, parts, (axis,))
    parts = blockwise(call, tasks.partial_of_chunk, every, shrink=axis, **inputs, **block_location(call, every))
    return merged(call, tasks.merge_partials if call.problem.uses_fold else tasks.add, parts, (axis,))


def results(call: DaskCall, record: Array, gradient: Array | None) -> Any:
    """The result of a call: the losses or their reduction, with the gradient if it is asked for; or several fields."""
    method, batch = call.problem.method, call.batch
    if method in ("statistics", "partial"):
        kind: Any = RowStatistics if method == "statistics" else Partial
        dtypes = ("int64" if name == "label_rank" else None for name in kind._fields)
        return kind(*(picked(call, record, index, batch, dtype) for index, dtype in enumerate(dtypes)))
    index = 0 if method == "loss_and_gradient" else None
    if call.chunk_call.options.reduction == "none":
        loss = picked(call, record, index, batch)
    else:
        loss = reduced(call, picked(call, record, index, call.every))
    return loss if index is None else (loss, gradient)
