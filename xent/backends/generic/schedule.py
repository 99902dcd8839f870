"""The schedule that serves any array API library, known or not: prepare the rows, walk the blocks, weigh, reduce.

Also xent's own kernels in array API terms: the fold, and the losses of probabilities in the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ... import arrays, checks
from ...arrays import Array
from ...contract.hooks import hookimpl
from ...contract.plan import Plan
from ...contract.problem import Weights
from ...contract.specs import ANY, KernelSpec
from ...numerics import binary as binary_numerics
from ...numerics import fold, gradient, probabilities, reduction, targets
from ...numerics import statistics as numbers
from ...numerics.fold import Partial
from ...numerics.statistics import Statistics
from ...numerics.targets import Rows
from . import blocks
from .blocks import BLOCK_ELEMENTS, CONVERTED_ELEMENTS, Labels, Soft, Walk, Work

METHODS = frozenset({"partial", "gradient", "statistics"})
LOGARITHMS = 2**20
"""How many logarithms of probabilities are made at once for a fused kernel."""


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
        return numbers.statistics(arrays.namespace(logits), logits, labels, label_logit)


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


@hookimpl
def xent_register_kernels() -> Iterator[KernelSpec]:
    for op in ("sparse", "dense"):
        yield KernelSpec(
            name="generic",
            op=op,
            load=f"xent.backends.generic:{op}",
            arrays=ANY,
            devices=ANY,
            dtypes=ANY,
            methods=METHODS if op == "sparse" else METHODS - {"statistics"},
            priority=-1000,
            block_elements=BLOCK_ELEMENTS,
        )


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """Carries out one call on one concrete array."""
    xp = arrays.namespace(predictions)
    with arrays.quiet():
        if plan.problem.op == "binary":
            return run_binary(xp, plan, predictions, targets, weights)
        work = work_of(xp, plan, predictions, targets)
        rows = rows_of(work, targets, weights)
        return RUN[plan.problem.method](work, rows)


def work_of(xp: Any, plan: Plan, predictions: Array, given: Array | None) -> Work:
    """The arrays of a call, flat and wide, beside the kernel they go to."""
    problem = plan.problem
    walk = Walk(xp, plan, predictions)
    kernel, methods = EXPRESSIONS.get((problem.op, problem.options.kind)), frozenset({"loss", "loss_and_gradient"})
    if kernel is None or problem.method == "statistics":
        kernel, methods = plan.resolve_kernel(), plan.methods
    else:
        walk.limit = max(walk.limit, walk.classes)  # these take whole rows: their blocks do not merge as the fold does
    options = problem.options
    on, off = targets.smoothing(options.label_smoothing, options.num_classes or walk.classes)
    told: Labels | Soft
    if problem.op == "dense":
        assert given is not None
        told = Soft(given, on, off, fold.compute_dtype(xp, predictions.dtype))
        if given.dtype != told.dtype or off != 0.0:
            # what is made of the targets is never of their size
            walk = walk.in_blocks(CONVERTED_ELEMENTS if problem.device == "cpu" else None)
    elif given is None:
        device = getattr(predictions, "device", None)
        told = Labels(xp.full((math.prod(walk.batch),), -1, dtype=xp.int64, device=device), 1.0, 0.0)
    else:
        labels = xp.reshape(targets.widen(xp, given), (-1,))
        told = Labels(labels - options.first_class if options.first_class else labels, on, off)
    return Work(xp, plan, kernel, methods, walk, predictions, told)


def rows_of(work: Work, given: Array | None, weights: Weights) -> Rows:
    """What is said of each row; raises where a label is bad and its value can be read."""
    xp, problem, ignored, bad, weight = work.xp, work.plan.problem, None, None, None
    dtype = fold.compute_dtype(xp, work.logits.dtype)
    if weights.sample is not None:
        weight, ignored = targets.sample(xp, weights.sample, dtype)
    if problem.op == "sparse" and given is not None and problem.method != "partial":
        labels, ignore = work.targets.values, problem.options.ignore_index or ()
        by_label = targets.ignored_by_label(labels, targets.holdable(problem.target_dtype, ignore)) if ignore else None
        ignored = targets.either(ignored, by_label)
        bad = (labels < 0) | (labels >= work.walk.classes)
        if ignored is not None:
            bad = bad & ~ignored
        if problem.raises:
            if xp.any(bad):
                checks.labels(problem.function, xp.reshape(bad, given.shape), given, work.walk.classes)
            bad = None
    if weights.classes is not None:
        class_weight = xp.asarray(weights.classes, dtype=dtype, device=getattr(work.logits, "device", None))
        weight = targets.times(weight, blocks.class_weight_of_rows(work, class_weight))
    return Rows(ignored, bad, weight)


def batched(work: Work, values: Array) -> Array:
    """Values of the rows (rows,) in the shape of the batch."""
    return values if len(work.walk.batch) == 1 else work.xp.reshape(values, tuple(work.walk.batch))


def marked(xp: Any, loss: Array, rows: Rows) -> Array:
    """The losses with NaN in the rows whose label is bad."""
    return loss if rows.bad is None else xp.where(rows.bad, math.nan, loss)


def run_loss(work: Work, rows: Rows) -> Array:
    options = work.plan.problem.options
    loss = marked(work.xp, blocks.loss(work, fold.compute_dtype(work.xp, work.logits.dtype)), rows)
    reduced = reduction.reduce(work.xp, loss, rows, options.reduction)
    return batched(work, reduced) if options.reduction == "none" else reduced


def run_loss_and_gradient(work: Work, rows: Rows) -> tuple[Array, Array]:
    xp, options = work.xp, work.plan.problem.options
    like = xp.zeros(
        (math.prod(work.walk.batch),),
        dtype=fold.compute_dtype(xp, work.logits.dtype),
        device=getattr(work.logits, "device", None),
    )
    loss, slope = blocks.loss_and_gradient(work, reduction.scale(xp, rows, options.reduction, like))
    reduced = reduction.reduce(xp, marked(xp, loss, rows), rows, options.reduction)
    return (batched(work, reduced) if options.reduction == "none" else reduced), slope


def run_partial(work: Work, rows: Rows) -> Partial:
    whole = blocks.partial(work, fold.compute_dtype(work.xp, work.logits.dtype))
    return Partial(*(batched(work, field) for field in whole))


def run_logsumexp(work: Work, rows: Rows) -> Array:
    return batched(
        work, fold.log_partition(work.xp, blocks.partial(work, fold.compute_dtype(work.xp, work.logits.dtype)))
    )


def run_softmax(work: Work, rows: Rows) -> Array:
    dtype = fold.compute_dtype(work.xp, work.logits.dtype)
    expression = gradient.softmax if work.plan.problem.method == "softmax" else gradient.log_softmax
    return blocks.map_blocks(work, expression, blocks.partial(work, dtype), dtype)


def run_statistics(work: Work, rows: Rows) -> numbers.RowStatistics:
    xp, kind = work.xp, work.plan.problem.options.kind
    dtype = fold.compute_dtype(xp, work.logits.dtype)
    if kind == "logits":
        found = numbers.finish_statistics(xp, blocks.statistics(work, dtype), rows)
    else:
        # a kernel that walks by itself is quicker than expressions, and what is made of the logarithms is all it takes
        is_fused = work.plan.block_elements is None
        walk, parts = work.walk.in_blocks(LOGARITHMS if is_fused else None), []
        walk.limit = max(walk.limit, walk.classes)  # whole rows
        for tile in walk.tiles():
            block, labels = walk.block(work.logits, tile, (0, walk.classes)), work.targets.values[tile.rows]
            block = xp.astype(block, dtype, copy=False)
            logs = block if kind.startswith("log") else xp.log(block)
            at_label, _ = fold.gather(xp, logs, labels)
            found = work.kernel.statistics(logs, labels, at_label, threads=work.threads)
            if logs is not block:  # probabilities that differ may have one logarithm
                p, _ = fold.gather(xp, block, labels)
                again = work.kernel.statistics(block, labels, p, threads=work.threads) if is_fused else None
                rank = numbers.rank(xp, block, labels, p) if again is None else again.label_rank
                found = found._replace(label_rank=rank)
            parts.append(numbers.of_log_probabilities(xp, found, at_label))
        joined = (blocks.joined(xp, list(field), dtype) for field in zip(*parts, strict=True))
        found = numbers.without_label(xp, numbers.RowStatistics(*joined), rows)
    return numbers.RowStatistics(*(batched(work, field) for field in found))


RUN: dict[str, Any] = {
    "loss": run_loss,
    "loss_and_gradient": run_loss_and_gradient,
    "partial": run_partial,
    "logsumexp": run_logsumexp,
    "softmax": run_softmax,
    "log_softmax": run_softmax,
    "statistics": run_statistics,
}


def run_binary(xp: Any, plan: Plan, predictions: Array, given: Any, weights: Weights) -> Any:
    """Binary targets: every element is a row of its own."""
    options = plan.problem.options
    dtype = fold.compute_dtype(xp, predictions.dtype)
    yes = xp.astype(given, dtype, copy=False)
    weight, ignored = (None, None) if weights.sample is None else targets.sample(xp, weights.sample, dtype)
    rows = Rows(ignored, None, weight)
    positive = weights.positive
    if positive is not None:
        positive = xp.asarray(positive, dtype=dtype, device=getattr(predictions, "device", None))
    loss = xp.reshape(binary_numerics.loss(xp, predictions, yes, positive, options.kind), (-1,))
    reduced = reduction.reduce(xp, loss, rows, options.reduction)
    reduced = xp.reshape(reduced, predictions.shape) if options.reduction == "none" else reduced
    if plan.problem.method == "loss":
        return reduced
    scale = xp.reshape(reduction.scale(xp, rows, options.reduction, loss), predictions.shape)
    return reduced, binary_numerics.gradient(xp, predictions, yes, positive, scale, options.kind)
