"""One call as an expression over whole arrays, to be traced or transformed: torch.compile, torch.func, jax.jit.

Nothing here reads a value, cuts blocks or writes: a bad label is NaN in its row, and memory is managed by the compiler.
A library brings the functions that it differentiates as :class:`Pieces`, with derivatives written out. Ignored rows are
masked at the input, so that no derivative of any order meets what they hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ...arrays import Array
from ...contract.problem import Problem, Weights
from ...numerics import fold, gradient, reduction, statistics
from ...numerics.fold import Partial
from ...numerics.reduction import Reducer
from ...numerics.statistics import RowStatistics
from ...numerics.targets import Rows, smoothing, wide_labels
from .binary import BinaryFunctions, run_binary
from .rows import rows_of


class FusedPieces(NamedTuple):
    """The functions of whole rows that a kernel computes in one read of the logits, whatever their dtype.

    A row whose weight is 0 is not counted: its loss may be anything, and all derivatives of that are 0.
    """

    loss: Callable[..., Array]  # (logits, labels or targets, weights of 0 or 1 (rows,), on, off) -> (rows,)
    loss_and_gradient: Callable[..., tuple[Array, Array]]  # the same with any weights -> (rows,), weights · (w p − t)
    # None where the kernel serves no such call
    partial: Callable[..., Partial] | None = None  # (logits, labels or targets, on, off), without derivatives
    logsumexp: Callable[[Array], Array] | None = None  # -> (rows,)
    statistics: Callable[..., RowStatistics] | None = None  # (logits, labels, weights of 0 or 1 (rows,))


class Pieces(NamedTuple):
    """The functions of whole rows (rows, classes) that a library can differentiate."""

    loss: Callable[..., Array]  # (logits, labels or targets, on, off) -> (rows,); labels if these are integers
    residual: Callable[..., Array]  # the same arguments -> w p − t (rows, classes)
    softmax: Callable[[Array], Array]
    log_softmax: Callable[[Array], Array]
    logsumexp: Callable[[Array], Array]  # -> (rows,)
    add_classes: Callable[[Array], Array]  # (rows, classes) -> their sums (rows,)
    binary: BinaryFunctions
    fused: FusedPieces | None = None
    loss_and_residual: Callable[..., tuple[Array, Array]] | None = None  # both from one partial, if the library can

    @property
    def add(self) -> Callable[[Any, Array], Array]:
        return self.binary.add

    @property
    def constant(self) -> Callable[[Array], Array]:
        return self.binary.constant


class TracedCall(NamedTuple):
    """One call, its arrays flat: predictions (rows, classes), labels (rows,) or smoothed targets (rows, classes)."""

    xp: Any
    pieces: Pieces
    problem: Problem
    original: Array  # the predictions in the caller's shape and dtype
    unmasked: Array  # the predictions flat, in their own dtype, with what ignored rows hold
    predictions: Array
    targets: Array | None
    on: float
    off: float
    rows: Rows

    @property
    def batch(self) -> tuple[int, ...]:
        shape, axis = self.original.shape, self.problem.axis
        return (*shape[:axis], *shape[axis + 1 :])

    @property
    def reducer(self) -> Reducer:
        return Reducer(self.problem.options.reduction, self.pieces.add)

    def batched(self, values: Array) -> Array:
        """Values of the rows (rows,) in the shape of the batch."""
        return self.xp.reshape(values, self.batch)

    def unflatten(self, values: Array) -> Array:
        """Values (rows, classes) in the shape of the predictions."""
        axis, last = self.problem.axis, self.problem.ndim - 1
        order = (*range(axis), last, *range(axis, last))
        return self.xp.permute_dims(self.xp.reshape(values, (*self.batch, values.shape[-1])), order)

    @property
    def counted(self) -> Array:
        """1 for each row (rows,), 0 where it is ignored."""
        ones = self.xp.ones_like(self.predictions[:, 0])
        return ones if self.rows.ignored is None else self.xp.where(self.rows.ignored, 0.0, ones)

    @property
    def soft(self) -> Array:
        """The targets as (rows, classes), smoothed."""
        if self.problem.op == "dense":
            assert self.targets is not None
            return self.targets
        dtype, classes = self.predictions.dtype, self.predictions.shape[-1]
        return gradient.two_valued(self.xp, self.targets, classes, self.on, self.off, dtype)


def run(xp: Any, pieces: Pieces, problem: Problem, predictions: Array, targets: Any, weights: Weights) -> Any:
    """The result of one call."""
    if problem.op == "binary":
        return run_binary(xp, pieces.binary, problem, predictions, targets, weights)
    if problem.method == "gradient":
        call = traced_call(xp, pieces, problem, predictions, targets, weights._replace(sample=None))
        return run_gradient(call, weights)
    return RUN[problem.method](traced_call(xp, pieces, problem, predictions, targets, weights))


def flat(xp: Any, array: Array, axis: int, dtype: Any) -> Array:
    """The array as (rows, classes), in the dtype."""
    # subtle: torch has no moveaxis under vmap
    array = xp.permute_dims(array, (*range(axis), *range(axis + 1, len(array.shape)), axis))
    return xp.astype(xp.reshape(array, (-1, array.shape[-1])), dtype, copy=False)


def traced_call(
    xp: Any, pieces: Pieces, problem: Problem, predictions: Array, targets: Any, weights: Weights
) -> TracedCall:
    """The arrays of a call, flat and wide, and what the caller says of each row."""
    options = problem.options
    unmasked = flat(xp, predictions, problem.axis, predictions.dtype)
    x = xp.astype(unmasked, fold.compute_dtype(xp, predictions.dtype), copy=False)
    on, off = smoothing(options.label_smoothing, options.num_classes or x.shape[-1])
    flat_targets = targets_of(xp, problem, targets, x.dtype)
    rows = rows_of_targets(xp, problem, flat_targets, x.shape[-1], x.dtype, weights)
    if problem.op == "dense" and off != 0.0:
        flat_targets = on * flat_targets + off
    if rows.ignored is not None and problem.method != "statistics":
        x = xp.where(rows.ignored[:, None], 1.0 if options.kind == "probabilities" else 0.0, x)
    return TracedCall(xp, pieces, problem, predictions, unmasked, x, flat_targets, on, off, rows)


def targets_of(xp: Any, problem: Problem, targets: Array | None, dtype: Any) -> Any:
    """Labels (rows,), wide, or targets (rows, classes), not smoothed; None if the call has none."""
    if targets is None:
        return None
    if problem.op == "dense":
        return flat(xp, targets, problem.axis, dtype)
    return wide_labels(xp, targets, problem.options.first_class)


def rows_of_targets(xp: Any, problem: Problem, targets: Any, classes: int, dtype: Any, weights: Weights) -> Rows:
    """What the caller says of each row, from the result of :func:`targets_of`."""
    class_weight = None if weights.classes is None else xp.astype(weights.classes, dtype, copy=False)
    if problem.op != "dense":
        return rows_of(xp, problem, targets, classes, dtype, weights.sample, class_weight)
    of_rows = None if class_weight is None else xp.sum(targets * class_weight, axis=-1)
    return rows_of(xp, problem, None, classes, dtype, weights.sample, of_rows)


def untargeted(xp: Any, logits: Array) -> Partial:
    """The partial of whole rows without targets, from which a softmax is made."""
    block = fold.shifted_block(xp, logits)
    zero = xp.zeros_like(block.max)
    return Partial(block.max, block.sum_exp_rest, zero, zero)


def loss_of_rows(call: TracedCall) -> Array:
    """The loss of every row (rows,), before weights: NaN, and so its gradient, where the label is bad."""
    kind, fused = call.problem.options.kind, call.pieces.fused
    if kind == "logits" and fused is not None:
        loss = fused.loss(call.unmasked, call.targets, call.counted, call.on, call.off)
    elif kind == "logits":
        loss = call.pieces.loss(call.predictions, call.targets, call.on, call.off)
    else:
        loss = loss_of_probabilities(call, kind)
    return finished_losses(call, loss)


def finished_losses(call: TracedCall, loss: Array) -> Array:
    """Losses as they are returned: NaN where the label is bad, 0 where the row is ignored."""
    if call.rows.bad is not None:
        loss = loss * call.xp.where(call.rows.bad, math.nan, 1.0)
    return reduction.counted(call.xp, loss, call.rows.ignored)


def loss_of_probabilities(call: TracedCall, kind: str) -> Array:
    """Σ t_j (−log p_j), for the library's own derivatives; 0 where t and p are: what a certain yes would cost."""
    costs, _ = call.pieces.binary.costs(call.xp, call.predictions, kind)
    return call.pieces.add_classes(call.pieces.binary.product(call.xp, call.soft, costs))


def run_loss(call: TracedCall) -> Array:
    return reduced(call, loss_of_rows(call))


def reduced(call: TracedCall, losses: Array) -> Array:
    """The losses of the rows reduced as the caller asks."""
    value = call.reducer.reduce(call.xp, losses, call.rows)
    return call.batched(value) if call.reducer.reduction == "none" else value


def run_loss_and_gradient(call: TracedCall) -> tuple[Array, Array]:
    xp, kind = call.xp, call.problem.options.kind
    scale = call.reducer.scale(xp, call.rows, xp.zeros_like(call.predictions[:, 0]))[:, None]
    if kind == "logits" and call.pieces.fused is not None:
        fused = call.pieces.fused.loss_and_gradient
        losses, slope = fused(call.unmasked, call.targets, scale[:, 0], call.on, call.off)
        value = reduced(call, finished_losses(call, losses))
        return call.pieces.constant(value), call.pieces.constant(call.unflatten(slope))
    if kind == "logits":
        losses, slope = loss_and_residual(call.pieces, call.predictions, call.targets, call.on, call.off)
        losses = finished_losses(call, losses)
    elif kind == "probabilities":
        costs_nothing, losses = (call.soft == 0) & (call.predictions == 0), loss_of_rows(call)
        slope = -call.soft / xp.where(costs_nothing, 1.0, call.predictions)
    else:
        losses, slope = loss_of_rows(call), xp.where(xp.isnan(call.predictions), math.nan, -call.soft)
    value = reduced(call, losses)
    slope = xp.where(scale == 0, 0.0, slope * scale)
    slope = xp.astype(call.unflatten(slope), call.original.dtype, copy=False)
    return call.pieces.constant(value), call.pieces.constant(slope)


def loss_and_residual(pieces: Pieces, *arrays: Any) -> tuple[Array, Array]:
    """The loss of the rows and w p − t, from what :attr:`Pieces.loss` takes."""
    if pieces.loss_and_residual is not None:
        return pieces.loss_and_residual(*arrays)
    return pieces.loss(*arrays), pieces.residual(*arrays)


def run_partial(call: TracedCall) -> Partial:
    xp, constant, fused = call.xp, call.pieces.constant, call.pieces.fused
    if fused is not None and fused.partial is not None:
        whole = fused.partial(constant(call.unmasked), call.targets, call.on, call.off)
    elif call.problem.op == "dense":
        whole = fold.partial_dense(xp, constant(call.predictions), call.targets)
    else:
        whole = fold.partial_sparse(xp, constant(call.predictions), call.targets, call.on, call.off)
    return Partial(*(call.batched(field) for field in whole))


def run_gradient(call: TracedCall, weights: Weights) -> Array:
    """The gradient of these classes from the partial of all, times the scale of each row."""
    xp, dtype = call.xp, call.predictions.dtype
    whole = Partial(*(xp.astype(xp.reshape(field, (-1,)), dtype, copy=False) for field in weights.whole))
    scale = xp.ones_like(whole.max) if weights.sample is None else xp.reshape(weights.sample, (-1,))
    slope = gradient.residual(xp, call.predictions, call.soft, whole)
    slope = gradient.scaled(xp, slope, xp.astype(scale, dtype, copy=False))
    return call.pieces.constant(xp.astype(call.unflatten(slope), call.original.dtype, copy=False))


def run_logsumexp(call: TracedCall) -> Array:
    fused = call.pieces.fused
    if fused is not None and fused.logsumexp is not None:
        return call.batched(fused.logsumexp(call.unmasked))
    return call.batched(call.pieces.logsumexp(call.predictions))


def run_softmax(call: TracedCall) -> Array:
    return call.unflatten(call.pieces.softmax(call.predictions))


def run_log_softmax(call: TracedCall) -> Array:
    return call.unflatten(call.pieces.log_softmax(call.predictions))


def run_statistics(call: TracedCall) -> RowStatistics:
    labels, kind, fused = call.targets, call.problem.options.kind, call.pieces.fused
    assert labels is not None
    if fused is not None and fused.statistics is not None:
        result = fused.statistics(call.unmasked, labels, call.counted)
    else:
        result = statistics_of_rows(call.xp, call.pieces, call.predictions, labels, call.rows.ignored, kind)
    result = statistics.without_label(call.xp, result, call.rows)
    return RowStatistics(*(call.batched(field) for field in result))


def statistics_of_rows(
    xp: Any, pieces: Pieces, x: Array, labels: Array, ignored: Array | None, kind: str
) -> RowStatistics:
    """The statistics of the rows, before bad and ignored ones are marked.

    Those with a derivative are made of the pieces, which have it. An ignored row keeps what does not look at its label.
    """
    constant = pieces.constant
    # the loss of an ignored row must have no derivative that meets it
    calm = x if ignored is None else xp.where(ignored[:, None], 1.0, x)
    if kind == "logits":
        log_p, lse, loss = pieces.log_softmax(x), pieces.logsumexp(x), pieces.loss(calm, labels, 1.0, 0.0)
    else:
        log_p, calm = (value if kind.startswith("log") else xp.log(value) for value in (x, calm))
        has_nan = xp.any(xp.isnan(constant(calm)), axis=-1)
        lse, loss = pieces.logsumexp(log_p), xp.where(has_nan, math.nan, 0.0 - fold.gather(xp, calm, labels)[0])
    # what is compared is what was given, not the exponential of its logarithm
    p = xp.where(xp.isnan(log_p), math.nan, x) if kind == "probabilities" else xp.exp(log_p)
    label_probability = xp.exp(-loss)
    if kind == "probabilities":
        label_probability = xp.where(xp.isnan(constant(loss)), math.nan, fold.gather(xp, p, labels)[0])
    finite_log_p = xp.where(p == 0, 0.0, log_p)  # subtle: 0 · −inf, and its derivative, are to be 0
    values, log_values = constant(x), constant(log_p)
    rank = statistics.rank(xp, values, labels, fold.gather(xp, values, labels)[0])
    has_no_order = xp.any(xp.isnan(log_values), axis=-1) | (xp.max(log_values, axis=-1) == -math.inf)
    return RowStatistics(
        loss,
        lse,
        label_probability,
        fold.gather(xp, p, xp.argmax(values, axis=-1))[0],
        xp.where(has_no_order, -1, rank),
        0.0 - pieces.add_classes(p * finite_log_p),
        pieces.add_classes(p * p),
    )


RUN: dict[str, Callable[[TracedCall], Any]] = {
    "loss": run_loss,
    "loss_and_gradient": run_loss_and_gradient,
    "partial": run_partial,
    "logsumexp": run_logsumexp,
    "softmax": run_softmax,
    "log_softmax": run_log_softmax,
    "statistics": run_statistics,
}
