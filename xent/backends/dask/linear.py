"""The schedule for products of Dask arrays: hidden states cut along their rows, a classifier along its classes.

One task for each pair of chunks makes the partial of its rows over its classes, and a tree merges them; then, for a
gradient, one task for each pair multiplies its tiles again, and two trees add up what it says of its hidden states and
of its classes. No task has more of the classifier than one chunk. Nothing is computed while the graph is built.

What merges and finishes the rows is that of logits cut along their classes (``graph.py``, ``tasks.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ... import checks
from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import Weights
from ...linear import Linear, LinearGradient
from ...numerics.fold import Partial
from ..generic import linear as generic
from ..generic import schedule
from ..generic.products import multiplying
from ..generic.tiles import ProductCall, concatenated
from . import graph, tasks
from .graph import DaskCall, Input, array_or_value, block_location, block_slices, blockwise, merged
from .tasks import ChunkCall, first_class, flat_partial, flat_rows, in_batch_shape


@dataclass(frozen=True)
class Grid:
    """What the graph asks of predictions: the chunks of the rows of the hidden states, and those of the classes."""

    chunks: tuple[tuple[Any, ...], ...]
    shape: tuple[Any, ...]
    _meta: Array

    @property
    def ndim(self) -> int:
        return len(self.shape)


class ChunkedOperands(NamedTuple):
    """The operands as Dask arrays whose features are one chunk."""

    hidden: Array
    classifier: Array
    bias: Array | None
    softcap: float | None

    def inputs(self, call: DaskCall) -> dict[str, Any]:
        """The inputs of a task for a pair of chunks."""
        features = call.predictions.ndim
        return {
            "hidden": Input(self.hidden, (*call.batch, features)),
            "classifier": Input(self.classifier, (call.axis, features)),
            "bias": array_or_value(self.bias, (call.axis,)),
            "softcap": Input(self.softcap),
        }


def run(plan: Plan, predictions: Any, targets: Array | None, weights: Weights) -> Any:
    """The graph of one call."""
    problem = plan.problem
    hidden, classifier = (graph.as_dask(one) for one in (predictions.hidden, predictions.classifier))
    checks.known_rows(problem.function, "classifier", classifier)
    hidden, classifier = hidden.rechunk({hidden.ndim - 1: -1}), classifier.rechunk({1: -1})
    sizes = tuple(size for size in classifier.chunks[0] if size)
    classifier = classifier if sizes == classifier.chunks[0] else classifier.rechunk({0: sizes})
    bias = None if predictions.bias is None else graph.as_dask(predictions.bias).rechunk({0: sizes})
    chunks = (*hidden.chunks[:-1], sizes)
    grid = Grid(chunks, (*hidden.shape[:-1], classifier.shape[0]), predictions.anchor._meta)
    call, operands = (
        graph.aligned(plan, grid, targets, weights),
        ChunkedOperands(hidden, classifier, bias, predictions.softcap),
    )
    if problem.method == "gradient":
        pairs = blockwise(
            call,
            slice_of_pair,
            call.every,
            **block_slices(call, call.every),
            **operands.inputs(call),
            targets=array_or_value(call.targets, call.target_axes),
            **graph.merged_rows(call, weights.whole),
        )
        return gradient_of(call, operands, pairs)
    return by_pairs(call, operands)


def by_pairs(call: DaskCall, operands: ChunkedOperands) -> Any:
    """The result of a call: a task for each pair of chunks, a tree, and a task for each chunk of rows."""
    problem, every, batch = call.problem, call.every, call.batch
    whole = Input(merged_classes(call, operands), every)
    if problem.method == "partial":
        return graph.results(call, whole.value, None)
    row_weight, labels = graph.row_weight_of(call), graph.labels_of(call)
    finished = blockwise(
        call,
        tasks.finish_rows,
        every,
        **block_location(call, batch),
        whole=whole,
        labels=array_or_value(labels, call.target_axes),
        denominator=array_or_value(graph.denominator_of(call, row_weight), batch),
        sample=array_or_value(call.sample, batch),
        classes=array_or_value(call.classes if labels is not None else None, (call.axis,)),
        row_weight=array_or_value(row_weight, every),
    )
    if problem.method != "loss_and_gradient":
        return graph.results(call, finished, None)
    pairs = blockwise(
        call,
        gradient_of_pair,
        every,
        **block_slices(call, every),
        **operands.inputs(call),
        targets=array_or_value(call.targets, call.target_axes),
        whole=whole,
        finished=Input(finished, every),
    )
    return graph.results(call, finished, gradient_of(call, operands, pairs))


def merged_classes(call: DaskCall, operands: ChunkedOperands) -> Array:
    """The numbers of every row over all classes: one block along the class axis for each chunk of rows."""
    every, axis = call.every, call.axis
    inputs: dict[str, Any] = {  # an argument for each input of a task
        **operands.inputs(call),
        "targets": array_or_value(call.targets, call.target_axes),
        **block_slices(call, every),
    }
    if call.problem.method == "statistics":
        logits = merged(call, tasks.larger, blockwise(call, label_logit, every, shrink=axis, **inputs), (axis,))
        parts = blockwise(call, statistics_of_pair, every, shrink=axis, **inputs, logits=Input(logits, every))
        return merged(call, tasks.merge_statistics, parts, (axis,))
    return merged(call, tasks.merge_partials, blockwise(call, partial_of_pair, every, shrink=axis, **inputs), (axis,))


def gradient_of(call: DaskCall, operands: ChunkedOperands, pairs: Array) -> LinearGradient[Array]:
    """The gradient of each operand, added up over the pairs of its chunks."""
    features, of = call.predictions.ndim, call.problem.of
    hidden = classifier = bias = None
    if "hidden" in of:
        axes = (*call.batch, features)
        hidden = added(call, pairs, "hidden", (call.axis,), axes, operands.hidden)
    if "classifier" in of:
        classifier = added(call, pairs, "classifier", call.batch, (call.axis, features), operands.classifier)
    if "bias" in of:
        bias = added(call, pairs, "bias", call.batch, (call.axis,), operands.bias)
    return LinearGradient(hidden, classifier, bias)


def added(
    call: DaskCall, pairs: Array, name: str, over: tuple[int, ...], axes: tuple[int, ...], like: Array | None
) -> Array:
    """One field of the gradients of the pairs, added over some axes, as an array like its operand."""
    import dask.array as da

    assert like is not None
    parts = blockwise(
        call,
        tasks.field_of,
        call.every,
        index=Input(LinearGradient._fields.index(name)),
        record=Input(pairs, call.every),
    )
    total = merged(call, tasks.add, parts, over)
    features = call.predictions.ndim
    return da.blockwise(
        one_block,
        axes,
        total,
        call.every,
        token=f"{call.problem.function}-gradient-{name}",
        new_axes={features: int(like.shape[-1])} if features in axes else {},
        dtype=like.dtype,
        meta=like._meta,
        align_arrays=False,
        concatenate=None,
    )


# The tasks.


def pair_of(
    call: ChunkCall, slices: Any, hidden: Array, classifier: Array, bias: Any, softcap: Any, targets: Array | None
) -> ProductCall:
    """The product of a pair of chunks beside the kernel that takes its tiles."""
    linear: Linear[Any] = Linear(hidden, classifier, bias=bias, softcap=softcap)
    tasks.check_targets(call, (), tuple(linear.shape), targets)
    plan, few = call.plan_of_classes(linear, first_class(call, slices)), tasks.few_or_all(targets)
    return generic.call_of(plan, linear, few.weights, few.ids)


def partial_of_pair(call: ChunkCall, slices: Any, targets: Array | None, hidden: Array, **others: Any) -> Any:
    """The partial of the rows of a pair."""
    with multiplying():
        product = pair_of(call, slices, hidden, targets=targets, **others)
        return in_batch_shape(product.xp, generic.partial_of_rows(product), tuple(hidden.shape[:-1]))


def label_logit(call: ChunkCall, slices: Any, targets: Array, hidden: Array, **others: Any) -> Array:
    """The logit of each row's label if its class is in this chunk, else −inf."""
    with multiplying():
        product = pair_of(call, slices, hidden, targets=targets, **others)
        logits = concatenated(product.xp, product.of_rows(product.logits_at_labels))
        return product.xp.reshape(logits, tuple(hidden.shape[:-1]))


def statistics_of_pair(
    call: ChunkCall, slices: Any, targets: Array, hidden: Array, logits: Array, **others: Any
) -> Any:
    """The statistics of the rows of a pair; ``logits`` are those of the labels, whichever chunk has their class."""
    with multiplying():
        product = pair_of(call, slices, hidden, targets=targets, **others)
        part = generic.statistics_of_rows(product, flat_rows(product.xp, logits))
        return in_batch_shape(product.xp, part, tuple(hidden.shape[:-1]))


def gradient_of_pair(
    call: ChunkCall, slices: Any, targets: Array | None, hidden: Array, whole: Any, finished: Any, **others: Any
) -> LinearGradient[Array]:
    """What the rows of a pair say of its operands, from their merged numbers and their scale."""
    with multiplying():
        product = pair_of(call, slices, hidden, targets=targets, **others)
        scale, rows = flat_rows(product.xp, finished[1]), flat_partial(call, product.xp, whole)
        return generic.gradient_from(product, rows, scale)


def slice_of_pair(
    call: ChunkCall,
    slices: Any,
    targets: Array | None,
    hidden: Array,
    classifier: Array,
    bias: Array | None,
    softcap: float | None,
    scale: Array | None,
    **whole: Array,
) -> LinearGradient[Array]:
    """What the rows of a pair say of its operands, from the partial of all classes and the scale of its rows."""
    with multiplying():
        product = pair_of(call, slices, hidden, classifier, bias, softcap, targets)
        merged = schedule.merged_of(product.xp, product.product.rows, Weights(scale, whole=Partial(**whole)))
        return generic.gradient_from(product, *merged)


def one_block(block: Any) -> Array:
    """The one block inside the lists that Dask nests."""
    return tasks.unnested(block)
