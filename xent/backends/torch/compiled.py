"""The losses for TorchDynamo: once differentiable, without the rules for transforms, which it refuses.

``dispatch/calls.py`` sends a call inside a graph to ``schedule.traced``, which takes these functions.

Between forward and backward a loss saves the rows' numbers besides its arguments. One graph serves any number of
rows: sums over the rows are torch's own, in float64.

Imports torch at its top: TorchDynamo must find these classes defined.
"""

from __future__ import annotations

from typing import Any

import torch

from ...arrays import Array
from ...numerics import binary, fold, gradient, tangents
from ...numerics.fold import Partial
from ..generic.binary import BinaryFunctions
from ..generic.traced import Pieces, untargeted
from .autograd import add_classes, change_of_factor, soft_targets, times_cotangents, wide_sum, xp


class Loss(torch.autograd.Function):
    """The loss of logits and labels, or targets, once differentiable, its gradient from the partial of each row."""

    @staticmethod
    def forward(ctx: Any, logits: Array, targets: Array, on: float, off: float) -> Array:
        partial = whole_partial(logits, targets, on, off)
        ctx.save_for_backward(logits, targets, *partial)
        ctx.on, ctx.off = on, off
        return fold.finish(xp, partial)

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> tuple[Array | None, ...]:
        logits, targets, *fields = ctx.saved_tensors
        partial = Partial(*fields)
        if not targets.dtype.is_floating_point:
            slope = gradient.gradient_sparse(xp, logits, targets, ctx.on, ctx.off, partial, cotangent)
            return slope, None, None, None
        slope = gradient.gradient_dense(xp, logits, targets, partial, cotangent)
        of_targets = gradient.scaled(xp, -gradient.log_softmax(xp, logits, partial), cotangent)
        return slope, of_targets, None, None


class Softmax(torch.autograd.Function):
    """The softmax, once differentiable."""

    @staticmethod
    def forward(ctx: Any, logits: Array) -> Array:
        p = gradient.softmax(xp, logits, untargeted(xp, logits))
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> Array:
        return tangents.softmax(xp, tangents.calm_rows(xp, ctx.saved_tensors[0], cotangents), cotangents)


class LogSoftmax(torch.autograd.Function):
    """The log-softmax, once differentiable."""

    @staticmethod
    def forward(ctx: Any, logits: Array) -> Array:
        log_p = gradient.log_softmax(xp, logits, untargeted(xp, logits))
        ctx.save_for_backward(log_p)
        return log_p

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> Array:
        p = tangents.calm_rows(xp, torch.exp(ctx.saved_tensors[0]), cotangents)
        return tangents.log_softmax_back(xp, p, cotangents)


class LogSumExp(torch.autograd.Function):
    """The log-partition function, once differentiable."""

    @staticmethod
    def forward(ctx: Any, logits: Array) -> Array:
        partial = untargeted(xp, logits)
        ctx.save_for_backward(logits, partial.max, partial.sum_exp_rest)
        return fold.log_partition(xp, partial)

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> Array:
        logits, highest, rest = ctx.saved_tensors
        return gradient.scaled(xp, gradient.softmax(xp, logits, Partial(highest, rest, rest, rest)), cotangent)


class Product(torch.autograd.Function):
    """a · b of one shape, where 0 · ±∞ is 0, once differentiable."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.save_for_backward(a, b)
        return binary.product(xp, a, b)

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> tuple[Array, Array]:
        a, b = ctx.saved_tensors
        return change_of_factor(multiply, a, b, cotangents), change_of_factor(multiply, b, a, cotangents)


def multiply(a: Array, b: Array) -> Array:
    """a · b, where 0 · ±∞ is 0, not differentiable."""
    return binary.product(xp, a, b)


class Costs(torch.autograd.Function):
    """The costs of a yes and a no, once differentiable."""

    @staticmethod
    def forward(ctx: Any, predictions: Array, kind: str) -> tuple[Array, Array]:
        ctx.save_for_backward(predictions)
        ctx.kind = kind
        return binary.costs(xp, predictions, kind)

    @staticmethod
    def backward(ctx: Any, *cotangents: Array) -> tuple[Array, None]:
        yes, no = times_cotangents(binary.slopes(xp, ctx.saved_tensors[0], ctx.kind), cotangents)
        return yes + no, None


def whole_partial(logits: Array, targets: Array, on: float, off: float) -> Partial:
    """The partial of whole rows, from labels or from targets."""
    if targets.dtype.is_floating_point:
        return fold.partial_dense(xp, logits, targets)
    return fold.partial_sparse(xp, logits, targets, on, off)


def residual(logits: Array, targets: Array, on: float, off: float) -> Array:
    """w p − t, not differentiable."""
    return gradient.residual(
        xp, logits, soft_targets(logits, targets, on, off), whole_partial(logits, targets, on, off)
    )


COMPILED = Pieces(
    loss=Loss.apply,
    residual=residual,
    softmax=Softmax.apply,
    log_softmax=LogSoftmax.apply,
    logsumexp=LogSumExp.apply,
    add_classes=add_classes,
    binary=BinaryFunctions(
        costs=lambda xp, predictions, kind: Costs.apply(predictions, kind),
        product=lambda xp, a, b: Product.apply(a, b),
        add=wide_sum,
        constant=torch.Tensor.detach,
    ),
)
