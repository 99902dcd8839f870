"""Schedule for Dask arrays: the graph, with one task for each chunk, and a tree where sums or classes are merged.

Nothing is computed while a graph is built, and no data goes into it but what was NumPy's: labels, weights. Whatever the
call asks for, validation and kernel included, is bound here and travels with the plan. Written in terms of blockwise
and reduction alone, which Dask's arrays have with and without query planning.

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
from ...contract.problem import Weights
from ...contract.specs import BackendSpec
from ...numerics.fold import Partial
from ...numerics.reduction import Reducer
from ...numerics.statistics import RowStatistics
from . import tasks as chunks
from .tasks import Call

MERGED_AT_ONCE = 8


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(name="dask", load="xent.backends.dask.graph:run", arrays=frozenset({"dask"}), inner="chunks")


class Given(NamedTuple):
    """One call: what every task knows, and the arrays, each cut as the predictions are; None where there is none."""

    call: Call
    predictions: Array
    told: Array | None  # labels or targets
    sample: Array | None
    classes: Array | None  # class weights, one chunk
    positive: Any  # an array, or a number

    @property
    def axis(self) -> int:
        return self.call.plan.problem.axis

    @property
    def every(self) -> tuple[int, ...]:
        """The axes of the predictions, as indices of blockwise."""
        return tuple(range(self.predictions.ndim))

    @property
    def batch(self) -> tuple[int, ...]:
        """The axes of the rows."""
        is_binary = self.call.plan.problem.op == "binary"
        return self.every if is_binary else self.every[: self.axis] + self.every[self.axis + 1 :]

    @property
    def told_axes(self) -> tuple[int, ...]:
        return self.batch if self.call.plan.problem.op == "sparse" else self.every


def run(plan: Plan, predictions: Array, told: Array | None, weights: Weights) -> Any:
    """The graph of one call."""
    problem = plan.problem
    if problem.op != "binary":
        checks.known_classes(problem.function, predictions, problem.axis)
        predictions = with_classes(plan, predictions)
    is_cut = problem.op != "binary" and predictions.numblocks[problem.axis] > 1
    given = aligned(plan, predictions, told, weights)
    return by_classes(given) if is_cut else by_rows(given)


# Every array cut as the predictions are.


def with_classes(plan: Plan, predictions: Array) -> Array:
    """The predictions without chunks of no classes, and with one chunk of them where what is asked does not merge."""
    problem = plan.problem
    sizes = predictions.chunks[problem.axis]
    if problem.method == "statistics" and not problem.uses_fold:
        sizes = (sum(sizes),)
    sizes = tuple(size for size in sizes if size)
    return predictions if sizes == predictions.chunks[problem.axis] else predictions.rechunk({problem.axis: sizes})


def aligned(plan: Plan, predictions: Array, told: Array | None, weights: Weights) -> Given:
    """The arrays of a call, cut as the predictions are."""
    problem, inner = plan.problem, plan.inner
    assert inner is not None
    classes = 0 if problem.op == "binary" else int(predictions.shape[problem.axis])
    call = Call(chunks.to_send(inner, problem.options.reduction), classes)
    given = Given(call, predictions, None, None, None, weights.positive)
    if told is not None:
        name = "labels" if problem.op == "sparse" else "targets"
        given = given._replace(told=cut(given, name, told, given.told_axes))
    if weights.sample is not None:
        given = given._replace(sample=cut(given, "sample_weight", weights.sample, given.batch))
    if weights.classes is not None:
        given = given._replace(classes=in_one_chunk(as_dask(weights.classes)))
    if arrays.is_array(weights.positive):
        positive = as_dask(weights.positive)
        axes = given.every[len(given.every) - positive.ndim :]
        given = given._replace(positive=cut(given, "pos_weight", positive, axes))
    return given


def as_dask(value: Any) -> Array:
    """A Dask array of what may be NumPy's or a list of numbers."""
    import dask.array as da
    import numpy as np

    return value if arrays.library(value) == "dask" else da.from_array(np.asarray(value), chunks=-1)


def in_one_chunk(array: Array) -> Array:
    return array.rechunk(-1) if max(array.numblocks) > 1 else array


def cut(given: Given, name: str, value: Any, axes: tuple[int, ...]) -> Array:
    """The value with the chunks that the predictions have along these axes; where unknown, with as many."""
    import dask.array as da

    value, function = as_dask(value), given.call.plan.problem.function
    wanted = tuple(given.predictions.chunks[axis] for axis in axes)
    changes = {}
    for index, (have, want) in enumerate(zip(value.chunks, wanted, strict=True)):
        if any(size != size for size in (*have, *want)):
            checks.same_chunks(function, name, have, want)
        elif have != want:
            changes[index] = want
    if changes and 0 in value.shape:  # Dask does not cut what is empty
        return da.zeros_like(value, chunks=wanted)
    return value.rechunk(changes) if changes else value


# The graph, in three verbs: tasks, merged, picked.


def meta_of(given: Given, ndim: int, dtype: Any = None) -> Array:
    """An empty array of the chunks' library, which tells Dask what a task returns; no kernel is called to find out."""
    import numpy as np

    wide = np.float64 if given.call.plan.problem.dtype == "float64" else np.float32
    return np.empty_like(given.predictions._meta, dtype=dtype or wide, shape=(0,) * ndim)


def tasks(
    given: Given, function: Any, out: tuple[int, ...], *pairs: Any, dtype: Any = None, short: int | None = None
) -> Array:
    """One task for each block of ``out``, of a function of the call and of these blocks.

    ``pairs`` are arrays and their indices, in turn; an array of one block goes to every task. ``short`` is an axis
    along which every block shrinks to one.
    """
    # subtle: Dask fuses a layer with what it reads only where no index is summed over, so tasks keep the class axis
    # of the predictions, though what they find has none; it is dropped at the end.
    import dask.array as da

    return da.blockwise(
        functools.partial(function, given.call),
        out,
        *pairs,
        token=f"{given.call.plan.problem.function}-{function.__name__}",
        meta=meta_of(given, len(out), dtype),
        dtype=dtype or meta_of(given, 0).dtype,
        align_arrays=False,
        concatenate=None,
        adjust_chunks=None if short is None else {short: 1},
    )


def places(given: Given, axes: tuple[int, ...]) -> tuple[Any, ...]:
    """Which block a task has along these axes, and its slice of the whole, as two pairs for :func:`tasks`."""
    from dask.layers import ArrayBlockIdDep, ArraySliceDep

    cuts = tuple(given.predictions.chunks[axis] for axis in axes)
    return ArrayBlockIdDep(cuts), axes, ArraySliceDep(cuts), axes


def merged(given: Given, merge: Any, parts: Array, axes: tuple[int, ...]) -> Array:
    """What tasks found, merged along the axes to one block each, as a fixed tree."""
    import dask.array as da

    if all(parts.numblocks[axis] == 1 for axis in axes):
        return parts
    axes = tuple(axis for axis in axes if parts.numblocks[axis] > 1)
    at_once = max(2, int(MERGED_AT_ONCE ** (1 / len(axes))))
    return da.reduction(
        parts,
        chunks.unchanged,
        functools.partial(chunks.merged, merge),
        axis=axes,
        keepdims=True,
        concatenate=False,
        split_every=dict.fromkeys(axes, at_once),
        dtype=parts.dtype,
        meta=parts._meta,
        name=f"{given.call.plan.problem.function}-{merge.__name__}",
    )


def picked(given: Given, record: Array, index: int | None, out: tuple[int, ...], dtype: Any = None) -> Array:
    """One field of what tasks found, or all of it, along these axes; the others have one block."""
    if index is None and len(out) == record.ndim:
        return record
    return tasks(given, chunks.field, out, index, None, record, given.every, dtype=dtype)


def reduced(given: Given, sums: Array) -> Array:
    """The value of the reduction, from the sums of every chunk of rows."""
    return tasks(given, chunks.value, (), merged(given, chunks.merge_sums, sums, given.every), given.every)


def optional(array: Any, axes: tuple[int, ...] | None) -> tuple[Any, Any]:
    """An array and its indices; a number, or nothing, as it is."""
    return (array, axes) if hasattr(array, "numblocks") else (array, None)


# What a mean is divided by.


def below_of(given: Given, row_weight: Array | None) -> Any:
    """The denominator of a mean, which the gradient needs before any row is read: from labels and weights alone."""
    mean, problem = Reducer(given.call.options.reduction).mean, given.call.plan.problem
    if problem.method != "loss_and_gradient" or mean is None:
        return None
    if not isinstance(mean.denominator, str):
        return float(mean.denominator)
    weighted = mean.denominator == "weights" and (given.sample is not None or given.classes is not None)
    masked = mean.denominator != "all" and (given.sample is not None or problem.options.ignore_index is not None)
    sizes = [given.predictions.shape[axis] for axis in given.batch]
    if not (weighted or masked or any(size != size for size in sizes)):
        return float(max(1, math.prod(sizes)))
    anchor = given.sample if given.sample is not None and problem.op != "sparse" else given.told
    assert anchor is not None
    if problem.op == "dense" and given.sample is None:
        anchor = anchor[tuple(0 if axis == given.axis else slice(None) for axis in given.every)]
    sums = tasks(
        given,
        chunks.denominators,
        given.batch,
        *places(given, given.batch),
        *(anchor, given.batch),
        *optional(given.sample, given.batch),
        *optional(given.classes if problem.op == "sparse" else None, (given.axis,)),
        *optional(row_weight, given.every),
    )
    return merged(given, chunks.merge_sums, sums, tuple(range(sums.ndim)))


def row_weight_of(given: Given) -> Array | None:
    """Σ t_c w_c of every row of soft targets, where no task sees a whole row, or none before the gradient's."""
    if given.classes is None or given.call.plan.problem.op != "dense":
        return None
    classes = cut(given, "class_weight", given.classes, (given.axis,))
    every, axis = given.every, given.axis
    parts = tasks(given, chunks.class_weight_part, every, given.told, every, classes, (axis,), short=axis)
    return merged(given, chunks.add, parts, (axis,))


# The two schedules.


def by_rows(given: Given) -> Any:
    """Every class of a row in one chunk: one task for each chunk."""
    problem, every, batch = given.call.plan.problem, given.every, given.batch
    mean = Reducer(problem.options.reduction).mean
    early = problem.method == "loss_and_gradient" and mean is not None
    below = below_of(given, row_weight_of(given)) if early else None
    record = tasks(
        given,
        chunks.complete,
        every,
        *places(given, batch),
        *optional(below, batch),
        *(given.predictions, every),
        *optional(given.told, given.told_axes),
        *optional(given.sample, batch),
        *optional(given.classes, (given.axis,)),
        *optional(given.positive, every[len(every) - getattr(given.positive, "ndim", 0) :]),
        dtype=given.predictions.dtype if problem.method == "loss_and_gradient" else None,
    )
    if problem.method in ("softmax", "log_softmax"):
        return record
    has_slope = problem.method == "loss_and_gradient"
    return ends(given, record, picked(given, record, 1, every, given.predictions.dtype) if has_slope else None)


def by_classes(given: Given) -> Any:
    """The classes of a row in several chunks: one task for each chunk, a tree, and a task for each chunk of rows."""
    problem, every, batch = given.call.plan.problem, given.every, given.batch
    whole, slices = merged_classes(given), places(given, every)[2:]
    if problem.method == "partial":
        return ends(given, whole, None)
    if problem.method in ("softmax", "log_softmax"):
        return tasks(given, chunks.probabilities, every, *slices, given.predictions, every, whole, every)
    row_weight, labels = row_weight_of(given), given.told if problem.op == "sparse" else None
    finished = tasks(
        given,
        chunks.finish,
        every,
        *places(given, batch),
        *(whole, every),
        *optional(labels, batch),
        *optional(below_of(given, row_weight), batch),
        *optional(given.sample, batch),
        *optional(given.classes if labels is not None else None, (given.axis,)),
        *optional(row_weight, every),
    )
    if problem.method != "loss_and_gradient":
        return ends(given, finished, None)
    slope = tasks(
        given,
        chunks.slope,
        every,
        *slices,
        *(given.predictions, every),
        *optional(given.told, given.told_axes),
        *(whole, every),
        *(finished, every),
        dtype=given.predictions.dtype,
    )
    return ends(given, finished, slope)


def merged_classes(given: Given) -> Array:
    """The numbers of every row over all its classes: a block of every row chunk, one along the class axis."""
    problem, every, axis = given.call.plan.problem, given.every, given.axis
    here = places(given, every)
    read = (given.predictions, every, *optional(given.told, given.told_axes))
    if problem.method == "statistics":
        logits = tasks(given, chunks.label_logit, every, *here[2:], *read, short=axis)
        logits = merged(given, chunks.larger, logits, (axis,))
        parts = tasks(given, chunks.statistics_part, every, *here[2:], *read, logits, every, short=axis)
        return merged(given, chunks.merge_statistics, parts, (axis,))
    parts = tasks(given, chunks.part, every, *here, *read, short=axis)
    return merged(given, chunks.merge_partials if problem.uses_fold else chunks.add, parts, (axis,))


def ends(given: Given, record: Array, slope: Array | None) -> Any:
    """What a call returns: the losses or their reduction, with the gradient if it is asked for; or several fields."""
    method, batch = given.call.plan.problem.method, given.batch
    if method in ("statistics", "partial"):
        kind: Any = RowStatistics if method == "statistics" else Partial
        dtypes = ("int64" if name == "label_rank" else None for name in kind._fields)
        return kind(*(picked(given, record, index, batch, dtype) for index, dtype in enumerate(dtypes)))
    index = 0 if method == "loss_and_gradient" else None
    if given.call.options.reduction == "none":
        loss = picked(given, record, index, batch)
    else:
        loss = reduced(given, picked(given, record, index, given.every))
    return loss if index is None else (loss, slope)
