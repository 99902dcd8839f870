"""The schedule that serves any array API library, known or not: prepare the rows, run the blocks, weight, reduce.

Also xent's own kernels in array API terms: the fold, and the losses of probabilities in the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ... import arrays, checks
from ...arrays import Array
from ...contract.hooks import hookimpl
from ...contract.plan import Plan
from ...contract.problem import Problem, Weights
from ...contract.specs import ANY, KernelSpec
from ...numerics import fold, gradient, probabilities
from ...numerics.fold import Partial
from ...numerics.probabilities import ProbabilitySums
from ...numerics.reduction import Reducer
from ...numerics.statistics import (
    RowStatistics,
    Statistics,
    finish_statistics,
    of_log_probabilities,
    statistics,
    without_label,
)
from ...numerics.targets import NO_ROWS, Rows, smoothing, wide_labels, widen
from . import blocks
from .binary import EAGER, run_binary
from .blocks import (
    BLOCK_ELEMENTS,
    CONVERTED_ELEMENTS,
    KernelCall,
    LabelTargets,
    ListedTargets,
    SoftTargets,
    TailFold,
    tiling_of,
)
from .rows import rows_of, rows_of_ids, without_bad_ids, without_bad_labels

METHODS = {
    "sparse": frozenset({"partial", "gradient", "statistics", "probability_sums"}),
    "dense": frozenset({"partial", "gradient"}),
}
WIDENED = 2**20
"""How many probabilities a fused kernel is given at once, in the compute dtype."""


class SparseFold:
    """The fold over labels, as a kernel."""

    def partial(self, logits: Array, labels: Array, on: float, off: float, *, threads: int) -> Partial:
        return fold.partial_sparse(arrays.namespace(logits), logits, labels, on, off)

    def gradient(
        self,
        logits: Array,
        labels: Array,
        on: float,
        off: float,
        partial: Partial,
        scale: Array,
        *,
        threads: int,
        out: Array | None = None,
    ) -> Array:
        xp = arrays.namespace(logits)
        return filled(out, gradient.gradient_sparse(xp, logits, labels, on, off, partial, scale))

    def statistics(self, logits: Array, labels: Array, label_logit: Array, *, threads: int) -> Statistics:
        return statistics(arrays.namespace(logits), logits, labels, label_logit)

    def probability_sums(self, p: Array, labels: Array, *, threads: int) -> ProbabilitySums:
        return probabilities.sums(arrays.namespace(p), p, labels)


class DenseFold:
    """The fold over soft targets, as a kernel."""

    def partial(self, logits: Array, targets: Array, *, threads: int) -> Partial:
        return fold.partial_dense(arrays.namespace(logits), logits, targets)

    def gradient(
        self, logits: Array, targets: Array, partial: Partial, scale: Array, *, threads: int, out: Array | None = None
    ) -> Array:
        return filled(out, gradient.gradient_dense(arrays.namespace(logits), logits, targets, partial, scale))


class SparseProbabilities:
    """The loss of probabilities, or of log-probabilities, at labels: a kernel without a partial."""

    def __init__(self, log: bool):
        self.log = log

    def loss(self, predictions: Array, labels: Array, on: float, off: float, *, threads: int) -> Array:
        return probabilities.loss_sparse(arrays.namespace(predictions), predictions, labels, on, off, self.log)

    def loss_and_gradient(
        self,
        predictions: Array,
        labels: Array,
        on: float,
        off: float,
        scale: Array,
        *,
        threads: int,
        out: Array | None = None,
    ) -> tuple[Array, Array]:
        xp = arrays.namespace(predictions)
        loss = probabilities.loss_sparse(xp, predictions, labels, on, off, self.log)
        soft = gradient.two_valued(xp, labels, predictions.shape[-1], on, off, loss.dtype)
        return loss, filled(out, probabilities.gradient(xp, predictions, soft, scale, self.log))


class DenseProbabilities:
    """The same for soft targets."""

    def __init__(self, log: bool):
        self.log = log

    def loss(self, predictions: Array, targets: Array, *, threads: int) -> Array:
        return probabilities.loss_dense(arrays.namespace(predictions), predictions, targets, self.log)

    def loss_and_gradient(
        self, predictions: Array, targets: Array, scale: Array, *, threads: int, out: Array | None = None
    ) -> tuple[Array, Array]:
        xp = arrays.namespace(predictions)
        loss = probabilities.loss_dense(xp, predictions, targets, self.log)
        return loss, filled(out, probabilities.gradient(xp, predictions, targets, scale, self.log))


def filled(out: Array | None, values: Array) -> Array:
    """The values, written into ``out`` where there is one."""
    if out is None:
        return values
    out[...] = values
    return out


sparse, dense = SparseFold(), DenseFold()
EXPRESSIONS = {
    ("sparse", "probabilities"): SparseProbabilities(log=False),
    ("sparse", "log_probabilities"): SparseProbabilities(log=True),
    ("dense", "probabilities"): DenseProbabilities(log=False),
    ("dense", "log_probabilities"): DenseProbabilities(log=True),
}


KERNELS = {
    op: KernelSpec(
        name="generic",
        op=op,  # type: ignore[arg-type]
        load=f"xent.backends.generic:{op}",
        arrays=ANY,
        devices=ANY,
        dtypes=ANY,
        methods=methods,
        priority=-1000,
        block_elements=BLOCK_ELEMENTS,
    )
    for op, methods in METHODS.items()
}


@hookimpl
def xent_register_kernels() -> Iterable[KernelSpec]:
    return KERNELS.values()


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights, out: Array | None = None) -> Any:
    """The result of one call on one concrete array; its gradient is in ``out`` where that is given."""
    checks.array_api(plan.problem.function, "predictions", predictions)
    xp = arrays.namespace(predictions)
    with arrays.without_fp_warnings():
        if plan.problem.op == "binary":
            result = run_binary(xp, EAGER, plan.problem, predictions, targets, weights)
            return result if out is None else (result[0], filled(out, result[1]))
        call = kernel_call(xp, plan, predictions, targets, weights.ids)
        if plan.problem.method == "gradient":
            return gradient_of_slice(call, weights)
        if out is not None:
            call = into(call, out)
        rows = NO_ROWS if marks_bad_labels(call) else rows_of_call(call, targets, weights)
        return RUN[plan.problem.method](call, rows)


def kernel_call(xp: Any, plan: Plan, predictions: Array, targets: Array | None, ids: Array | None = None) -> KernelCall:
    """The arrays of a call, flat and wide, beside the kernel that takes them.

    ``ids`` are those of a :class:`xent.SparseTargets`, whose weights are the targets.
    """
    problem = plan.problem
    kernel, methods = EXPRESSIONS.get((problem.op, problem.options.kind)), frozenset({"loss", "loss_and_gradient"})
    if kernel is None or problem.method == "statistics":
        plan, kernel = plan.with_kernel()
        methods, tiling = plan.methods, tiling_of(xp, plan, predictions)
    else:
        tiling = tiling_of(xp, plan, predictions).in_whole_rows()  # losses of probabilities do not merge
    options = problem.options
    on, off = smoothing(options.label_smoothing, options.num_classes or tiling.classes)
    if ids is not None:
        assert targets is not None
        dtype = fold.compute_dtype(xp, predictions.dtype)
        few = listed_targets(xp, problem, targets, ids, dtype)._replace(on=on, off=off)
        tiling = tiling.in_blocks(CONVERTED_ELEMENTS if problem.device == "cpu" else None)
        if few.tail is not None:
            kernel, methods = TailFold(kernel), frozenset({"partial", "gradient"})
        return KernelCall(xp, plan, kernel, methods, tiling, predictions, few)
    if problem.op == "dense":
        assert targets is not None
        soft = SoftTargets(targets, on, off, fold.compute_dtype(xp, predictions.dtype))
        if targets.dtype != soft.dtype or off != 0.0:
            # widened or smoothed targets are never of the size of the whole
            tiling = tiling.in_blocks(CONVERTED_ELEMENTS if problem.device == "cpu" else None)
        return KernelCall(xp, plan, kernel, methods, tiling, predictions, soft)
    if targets is None:
        device = getattr(predictions, "device", None)
        labels = xp.full((tiling.rows,), -1, dtype=xp.int64, device=device)
        return KernelCall(xp, plan, kernel, methods, tiling, predictions, LabelTargets(labels, 1.0, 0.0))
    labels = wide_labels(xp, targets, options.first_class)
    return KernelCall(xp, plan, kernel, methods, tiling, predictions, LabelTargets(labels, on, off))


def listed_targets(xp: Any, problem: Problem, weights: Array, ids: Array, dtype: Any) -> ListedTargets:
    """The ids and weights of a :class:`xent.SparseTargets`, flat and wide, not smoothed."""
    rows = math.prod(ids.shape[:-1])
    ids = xp.reshape(widen(xp, ids), (rows, ids.shape[-1])) - problem.options.first_class
    flat = xp.astype(xp.reshape(weights, (rows, weights.shape[-1])), dtype, copy=False)
    if problem.tail == "none":
        return ListedTargets(ids, flat, 1.0, 0.0)
    tail = flat[:, -1]  # of a chunk of the classes that of the first one, for chunks are added up
    return ListedTargets(ids, flat[:, :-1], 1.0, 0.0, xp.zeros_like(tail) if problem.options.first_class else tail)


def into(call: KernelCall, out: Array) -> KernelCall:
    """The call with an array of the caller's for its gradient."""
    tiling = call.tiling
    if tiling.has_views and not blocks.may_fill(call.plan, call.logits, out):
        tiling = tiling.in_copies(at_once=call.plan.block_elements is None)
    return call._replace(tiling=tiling, out=out)


def rows_of_call(call: KernelCall, targets: Array | None, weights: Weights) -> Rows:
    """What the caller says of each row; raises LabelError if a label is bad and its value can be read."""
    xp, problem, tiling = call.xp, call.plan.problem, call.tiling
    dtype, class_weight = fold.compute_dtype(xp, call.logits.dtype), None
    if weights.classes is not None:
        class_weight = xp.asarray(weights.classes, dtype=dtype, device=getattr(call.logits, "device", None))
    if isinstance(call.targets, ListedTargets):
        rows = rows_of_ids(xp, problem, call.targets, tiling.classes, weights.sample, class_weight)
        return without_bad_ids(xp, problem, rows, call.targets, tiling.classes, weights.ids)
    if isinstance(call.targets, SoftTargets):
        if class_weight is not None:
            class_weight = blocks.class_weight_of_targets(xp, tiling, call.targets.targets, class_weight)
        return rows_of(xp, problem, None, tiling.classes, dtype, weights.sample, class_weight)
    labels = None if targets is None else call.targets.labels
    rows = rows_of(xp, problem, labels, tiling.classes, dtype, weights.sample, class_weight)
    return without_bad_labels(xp, problem, rows, targets, tiling.classes)


def marks_bad_labels(call: KernelCall) -> bool:
    """Whether the kernel's own answer for a bad label, NaN in its row, is the answer of the call.

    So it is for CuPy, with a fused kernel and a call without weights: nothing of the size of the rows is made beside
    the losses, and all rows share one number as their scale.
    """
    problem = call.plan.problem
    is_fused = problem.method in call.methods and call.plan.block_elements is None
    return problem.is_plain and is_fused and not problem.raises and problem.array == "cupy"


def batched(call: KernelCall, values: Array) -> Array:
    """Values of the rows (rows,) in the shape of the batch."""
    return values if len(call.tiling.batch) == 1 else call.xp.reshape(values, call.tiling.batch)


def nan_where_bad(xp: Any, loss: Array, rows: Rows) -> Array:
    """The losses with NaN in the rows whose label is bad."""
    return loss if rows.bad is None else xp.where(rows.bad, math.nan, loss)


def reduced(call: KernelCall, loss: Array, rows: Rows) -> Array:
    """The losses (rows,) as the caller asks for them: of each row, in the shape of the batch, or their reduction."""
    reduction = call.plan.problem.options.reduction
    if reduction == "none" and rows is NO_ROWS:
        return batched(call, loss)
    value = Reducer(reduction).reduce(call.xp, nan_where_bad(call.xp, loss, rows), rows)
    return batched(call, value) if reduction == "none" else value


def run_loss(call: KernelCall, rows: Rows) -> Array:
    return reduced(call, blocks.loss(call), rows)


def run_loss_and_gradient(call: KernelCall, rows: Rows) -> tuple[Array, Array]:
    loss, gradient = blocks.loss_and_gradient(call, scale_of_rows(call, rows))
    return reduced(call, loss, rows), gradient


def scale_of_rows(call: KernelCall, rows: Rows) -> Array:
    """The factor of each row's gradient (rows,)."""
    xp, count, reducer = call.xp, call.tiling.rows, Reducer(call.plan.problem.options.reduction)
    dtype, device = fold.compute_dtype(xp, call.logits.dtype), getattr(call.logits, "device", None)
    if rows is NO_ROWS and marks_bad_labels(call):
        mean, value = reducer.mean, 1.0
        if mean is not None and count:
            value = 1.0 / (count if isinstance(mean.denominator, str) else mean.denominator)
        return xp.broadcast_to(one_number(xp, value, dtype, device), (count,))
    return reducer.scale(xp, rows, xp.empty((count,), dtype=dtype, device=device))


def one_number(xp: Any, value: float, dtype: Any, device: Any) -> Array:
    """An array (1,) of one number."""
    return xp.full((1,), value, dtype=dtype, device=device)


def gradient_of_slice(call: KernelCall, weights: Weights) -> Array:
    """The gradient of these classes from the partial of all, times the scale of each row."""
    return blocks.gradient(call, *merged_of(call.xp, call.tiling.rows, weights))


def merged_of(xp: Any, rows: int, weights: Weights) -> tuple[Partial, Array]:
    """The merged partial of a call and the scale of its rows, flat and in its dtype."""
    whole = Partial(*(xp.reshape(field, (rows,)) for field in weights.whole))
    if weights.sample is None:
        return whole, xp.ones_like(whole.max)
    return whole, xp.astype(xp.reshape(weights.sample, (rows,)), whole.max.dtype, copy=False)


def run_partial(call: KernelCall, rows: Rows) -> Partial:
    whole = blocks.partial(call)
    return Partial(*(batched(call, field) for field in whole))


def run_logsumexp(call: KernelCall, rows: Rows) -> Array:
    whole = blocks.partial(call)
    return batched(call, fold.log_partition(call.xp, whole))


def run_softmax(call: KernelCall, rows: Rows) -> Array:
    dtype = fold.compute_dtype(call.xp, call.logits.dtype)
    expression = gradient.softmax if call.plan.problem.method == "softmax" else gradient.log_softmax
    return blocks.map_blocks(call, expression, blocks.partial(call), dtype)


def run_statistics(call: KernelCall, rows: Rows) -> RowStatistics:
    if call.plan.problem.options.kind == "logits":
        statistics = finish_statistics(call.xp, blocks.statistics(call), rows)
    else:
        statistics = without_label(call.xp, statistics_of_shares(call), rows)
    return RowStatistics(*(batched(call, field) for field in statistics))


def statistics_of_shares(call: KernelCall) -> RowStatistics:
    """The statistics of rows (rows,) of probabilities or log-probabilities, before what the caller says of rows."""
    xp, is_log = call.xp, call.plan.problem.options.kind.startswith("log")
    dtype = fold.compute_dtype(xp, call.logits.dtype)
    tiling, parts = call.tiling.in_blocks(WIDENED if call.plan.block_elements is None else None).in_whole_rows(), []
    for tile in tiling.tiles():
        block = xp.astype(tiling.block(call.logits, tile, (0, tiling.classes)), dtype, copy=False)
        labels = call.targets.block(xp, tiling, tile, (0, tiling.classes))[0]
        if is_log:  # those of logits, but for their sum
            at_label, _ = fold.gather(xp, block, labels)
            statistics = call.kernel.statistics(block, labels, at_label, threads=call.threads)
            parts.append(of_log_probabilities(xp, statistics, at_label))
        else:
            sums = call.kernel.probability_sums(block, labels, threads=call.threads)
            parts.append(probabilities.statistics_of_probabilities(xp, sums))
    return RowStatistics(*(blocks.joined(xp, list(field)) for field in zip(*parts, strict=True)))


RUN: dict[str, Callable[[KernelCall, Rows], Any]] = {
    "loss": run_loss,
    "loss_and_gradient": run_loss_and_gradient,
    "partial": run_partial,
    "logsumexp": run_logsumexp,
    "softmax": run_softmax,
    "log_softmax": run_softmax,
    "statistics": run_statistics,
}
