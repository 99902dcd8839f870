"""One call as an expression over whole arrays, for who traces or transforms it: torch.compile, torch.func, jax.jit.

Nothing here looks at a value, walks blocks or writes: a bad label is NaN in its row, and what is kept in memory is the
compiler's business. What a library differentiates by itself it brings as :class:`Pieces`, with derivatives written out;
ignored rows are masked at the input, so that no derivative of any order meets what they hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ...arrays import Array
from ...contract.problem import Problem, Weights
from ...numerics import fold, gradient, reduction, statistics, targets
from ...numerics.fold import Partial
from ...numerics.statistics import RowStatistics
from ...numerics.targets import NO_ROWS, Rows


class Pieces(NamedTuple):
    """What a library brings: the functions of whole rows (rows, classes) that it can differentiate."""

    loss: Callable[..., Array]  # (logits, labels or targets, on, off) -> (rows,); labels where these are integers
    residual: Callable[..., Array]  # the same -> w p − t (rows, classes)
    softmax: Callable[[Array], Array]
    log_softmax: Callable[[Array], Array]
    logsumexp: Callable[[Array], Array]  # -> (rows,)
    costs: Callable[[Array, str], tuple[Array, Array]]  # of a certain yes and a certain no, elementwise
    slopes: Callable[[Array, str], tuple[Array, Array]]  # their derivatives
    add: Callable[[Any, Array], Array]  # (xp, values) -> their sum, 0-d, wide
    constant: Callable[[Array], Array]  # the same numbers, not to be differentiated


class Call(NamedTuple):
    """One call, its arrays flat: predictions (rows, classes), labels (rows,) or smoothed targets (rows, classes)."""

    xp: Any
    pieces: Pieces
    problem: Problem
    given: Array  # the predictions as they came
    predictions: Array
    told: Array | None
    on: float
    off: float
    rows: Rows

    @property
    def batch(self) -> tuple[int, ...]:
        shape, axis = self.given.shape, self.problem.axis
        return (*shape[:axis], *shape[axis + 1 :])

    def batched(self, values: Array) -> Array:
        """Values of the rows (rows,) in the shape of the batch."""
        return self.xp.reshape(values, self.batch)

    def unflatten(self, values: Array) -> Array:
        """Values (rows, classes) in the shape of the predictions."""
        axis, last = self.problem.axis, self.problem.ndim - 1
        order = (*range(axis), last, *range(axis, last))
        return self.xp.permute_dims(self.xp.reshape(values, (*self.batch, values.shape[-1])), order)

    @property
    def soft(self) -> Array:
        """The targets as (rows, classes), smoothed."""
        if self.problem.op == "dense":
            assert self.told is not None
            return self.told
        dtype, classes = self.predictions.dtype, self.predictions.shape[-1]
        return gradient.two_valued(self.xp, self.told, classes, self.on, self.off, dtype)


def run(xp: Any, pieces: Pieces, problem: Problem, predictions: Array, given: Any, weights: Weights) -> Any:
    """Carries out one call."""
    if problem.op == "binary":
        return run_binary(xp, pieces, problem, predictions, given, weights)
    return RUN[problem.method](call_of(xp, pieces, problem, predictions, given, weights))


def flat(xp: Any, array: Array, axis: int, dtype: Any) -> Array:
    """The array as (rows, classes), in the dtype."""
    # subtle: torch has no moveaxis under vmap
    array = xp.permute_dims(array, (*range(axis), *range(axis + 1, len(array.shape)), axis))
    return xp.astype(xp.reshape(array, (-1, array.shape[-1])), dtype, copy=False)


def call_of(xp: Any, pieces: Pieces, problem: Problem, predictions: Array, given: Any, weights: Weights) -> Call:
    """The arrays of a call, flat and wide, and what is said of each row."""
    options = problem.options
    x = flat(xp, predictions, problem.axis, fold.compute_dtype(xp, predictions.dtype))
    on, off = targets.smoothing(options.label_smoothing, options.num_classes or x.shape[-1])
    told = told_of(xp, problem, given, x.dtype)
    rows = rows_of(xp, problem, x.shape[-1], told, weights, x.dtype)
    if problem.op == "dense" and off != 0.0:
        told = on * told + off
    if rows.ignored is not None:
        x = xp.where(rows.ignored[:, None], 0.0, x)
    return Call(xp, pieces, problem, predictions, x, told, on, off, rows)


def told_of(xp: Any, problem: Problem, given: Array | None, dtype: Any) -> Any:
    """Labels (rows,), wide, or targets (rows, classes), not smoothed; None where there are none."""
    if given is None:
        return None
    if problem.op == "dense":
        return flat(xp, given, problem.axis, dtype)
    labels, first = xp.reshape(targets.widen(xp, given), (-1,)), problem.options.first_class
    return labels - first if first else labels


def rows_of(xp: Any, problem: Problem, classes: int, told: Any, weights: Weights, dtype: Any) -> Rows:
    """What is said of each row, in operations that the library can differentiate."""
    weight, ignored, bad = None, None, None
    if weights.sample is not None:
        weight, ignored = targets.sample(xp, weights.sample, dtype)
    if problem.op == "sparse" and told is not None and problem.method != "partial":
        ignore = targets.holdable(problem.target_dtype, problem.options.ignore_index or ())
        ignored = targets.either(ignored, targets.ignored_by_label(told, ignore))
        bad = (told < 0) | (told >= classes)
        bad = bad if ignored is None else bad & ~ignored
    if weights.classes is not None:
        each = xp.astype(weights.classes, dtype, copy=False)
        if problem.op == "dense":
            of_row = xp.sum(told * each, axis=-1)
        else:
            of_row = xp.take(each, xp.where((told >= 0) & (told < classes), told, 0))
        weight = targets.times(weight, of_row)
    return Rows(ignored, bad, weight)


def untargeted(xp: Any, logits: Array) -> Partial:
    """The partial of whole rows without targets: what a softmax needs."""
    block = fold.look(xp, logits)
    nothing = xp.zeros_like(block.max)
    return Partial(block.max, block.sum_exp_rest, nothing, nothing)


def of_rows(call: Call) -> Array:
    """The loss of every row (rows,), before weights: NaN, and so its gradient, where the label is bad."""
    xp, kind = call.xp, call.problem.options.kind
    if kind == "logits":
        loss = call.pieces.loss(call.predictions, call.told, call.on, call.off)
    else:
        loss = of_probabilities(xp, call.predictions, call.soft, kind)
    if call.rows.bad is not None:
        loss = loss * xp.where(call.rows.bad, math.nan, 1.0)
    return reduction.counted(xp, loss, call.rows.ignored)


def of_probabilities(xp: Any, predictions: Array, soft: Array, kind: str) -> Array:
    """Σ t_j (−log p_j), for the library's own derivatives; 0 where t and p are."""
    nothing = (soft == 0) & (predictions == (0.0 if kind == "probabilities" else -math.inf))
    certain = xp.where(nothing, 1.0 if kind == "probabilities" else 0.0, predictions)
    if kind == "probabilities":
        return xp.sum(soft * (0.0 - xp.log(certain)), axis=-1)
    # subtle: a factor, for the slope of a NaN is to be NaN too
    return xp.sum(soft * (0.0 - certain * xp.where(xp.isnan(certain), math.nan, 1.0)), axis=-1)


def run_loss(call: Call) -> Array:
    wanted = call.problem.options.reduction
    value = reduction.reduce(call.xp, of_rows(call), call.rows, wanted, call.pieces.add)
    return call.batched(value) if wanted == "none" else value


def run_loss_and_gradient(call: Call) -> tuple[Array, Array]:
    xp, options = call.xp, call.problem.options
    value = run_loss(call)
    like = xp.zeros_like(call.predictions[:, 0])
    share = reduction.scale(xp, call.rows, options.reduction, like, call.pieces.add)
    if options.kind == "logits":
        slope = call.pieces.residual(call.predictions, call.told, call.on, call.off)
    elif options.kind == "probabilities":
        nothing = (call.soft == 0) & (call.predictions == 0)
        slope = -call.soft / xp.where(nothing, 1.0, call.predictions)
    else:
        slope = xp.where(xp.isnan(call.predictions), math.nan, -call.soft)
    slope = xp.where(share[:, None] == 0, 0.0, slope * share[:, None])
    slope = xp.astype(call.unflatten(slope), call.given.dtype, copy=False)
    return call.pieces.constant(value), call.pieces.constant(slope)


def run_partial(call: Call) -> Partial:
    call = call._replace(predictions=call.pieces.constant(call.predictions))
    if call.problem.op == "dense":
        whole = fold.partial_dense(call.xp, call.predictions, call.told)
    else:
        whole = fold.partial_sparse(call.xp, call.predictions, call.told, call.on, call.off)
    return Partial(*(call.batched(field) for field in whole))


def run_logsumexp(call: Call) -> Array:
    return call.batched(call.pieces.logsumexp(call.predictions))


def run_softmax(call: Call) -> Array:
    return call.unflatten(call.pieces.softmax(call.predictions))


def run_log_softmax(call: Call) -> Array:
    return call.unflatten(call.pieces.log_softmax(call.predictions))


def run_statistics(call: Call) -> RowStatistics:
    """The statistics of the rows; those that have a derivative get it from the pieces."""
    xp, pieces, x, kind = call.xp, call.pieces, call.predictions, call.problem.options.kind
    assert call.told is not None
    if kind == "logits":
        log_p, lse, loss = pieces.log_softmax(x), pieces.logsumexp(x), pieces.loss(x, call.told, 1.0, 0.0)
    else:
        log_p = x if kind.startswith("log") else xp.log(x)
        spoilt = xp.any(xp.isnan(pieces.constant(log_p)), axis=-1)
        lse, loss = pieces.logsumexp(log_p), xp.where(spoilt, math.nan, 0.0 - fold.gather(xp, log_p, call.told)[0])
    p = xp.exp(log_p)
    held = xp.where(p == 0, 0.0, log_p)  # subtle: 0 · −inf, and its derivative, are to be 0
    first = xp.argmax(pieces.constant(x), axis=-1)
    order = statistics.statistics(xp, pieces.constant(x), call.told, fold.gather(xp, pieces.constant(x), call.told)[0])
    lost = xp.any(xp.isnan(pieces.constant(log_p)), axis=-1) | (xp.max(pieces.constant(log_p), axis=-1) == -math.inf)
    found = RowStatistics(
        loss,
        lse,
        xp.exp(-loss),
        fold.gather(xp, p, first)[0],
        xp.where(lost, -1, order.label_rank),
        0.0 - xp.sum(p * held, axis=-1),
        xp.sum(p * p, axis=-1),
    )
    found = statistics.without_label(xp, found, call.rows)
    return RowStatistics(*(call.batched(field) for field in found))


RUN: dict[str, Callable[[Call], Any]] = {
    "loss": run_loss,
    "loss_and_gradient": run_loss_and_gradient,
    "partial": run_partial,
    "logsumexp": run_logsumexp,
    "softmax": run_softmax,
    "log_softmax": run_log_softmax,
    "statistics": run_statistics,
}


def run_binary(xp: Any, pieces: Pieces, problem: Problem, predictions: Array, given: Any, weights: Weights) -> Any:
    """Binary targets: every element is a row of its own."""
    kind, wanted = problem.options.kind, problem.options.reduction
    dtype = fold.compute_dtype(xp, predictions.dtype)
    x, t, rows = xp.astype(predictions, dtype, copy=False), xp.astype(given, dtype, copy=False), NO_ROWS
    if weights.sample is not None:
        weight, ignored = targets.sample(xp, weights.sample, dtype)
        rows = Rows(ignored, None, weight)
        x = xp.where(xp.reshape(ignored, x.shape), 0.5 if kind == "probabilities" else -1.0, x)
    positive = 1.0 if weights.positive is None else weights.positive
    if not isinstance(positive, int | float):
        positive = xp.astype(positive, dtype, copy=False)
    shares = t * positive, 1 - t
    loss = weighted(xp, pieces.costs(x, kind), shares)
    value = reduction.reduce(xp, xp.reshape(loss, (-1,)), rows, wanted, pieces.add)
    value = xp.reshape(value, x.shape) if wanted == "none" else value
    if problem.method == "loss":
        return value
    share = xp.reshape(reduction.scale(xp, rows, wanted, xp.zeros_like(xp.reshape(x, (-1,))), pieces.add), x.shape)
    slope = xp.where(share == 0, 0.0, weighted(xp, pieces.slopes(x, kind), shares) * share)
    return pieces.constant(value), pieces.constant(xp.astype(slope, predictions.dtype, copy=False))


def weighted(xp: Any, values: tuple[Array, Array], shares: tuple[Array, Array]) -> Array:
    """The sum of yes and no, each times its share; 0 where a share is 0, NaN where a value is."""
    pairs = zip(values, shares, strict=True)
    yes, no = (xp.where((share == 0) & xp.isinf(value), 0.0, value) * share for value, share in pairs)
    return yes + no
