"""A call in a graph of torch.compile's: the kernel as an operator (``operators.py``), or plain torch to be fused.

The functions here are once differentiable and made for inductor, which makes one loop of a sum and of what is summed.
One graph serves any number of rows: sums over the rows are torch's own, in float64.

Imports torch at its top; it is itself imported as TorchDynamo traces a call, by ``dispatch/graphs.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import Weights
from ...numerics import binary, fold, gradient, tangents
from ...numerics.fold import Partial
from ..generic.binary import BinaryFunctions
from ..generic.traced import Pieces
from . import operators
from .autograd import add_classes, change_of_factor, soft_targets, times_cotangents, wide_sum, xp
from .schedule import traced, transforms_are_active
from .views import inner_plan

is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


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
        p = gradient.softmax(xp, logits, untargeted(logits))
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> Array:
        return tangents.softmax(xp, tangents.calm_rows(xp, ctx.saved_tensors[0], cotangents), cotangents)


class LogSoftmax(torch.autograd.Function):
    """The log-softmax, once differentiable."""

    @staticmethod
    def forward(ctx: Any, logits: Array) -> Array:
        log_p = gradient.log_softmax(xp, logits, untargeted(logits))
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
        partial = untargeted(logits)
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


class ShiftedLogits(NamedTuple):
    """Wide logits (rows, classes) beside their maximum."""

    max: Array  # (rows,)
    gap: Array  # (rows, classes): m − x_j, 0 at every maximum
    sum_exp_rest: Array  # (rows,)


def shifted(logits: Array) -> ShiftedLogits:
    """What does not depend on the targets, in sums that the compiler makes one loop of.

    All classes at the maximum are left out of the sum and counted beside it, for that needs no search for the first.
    """
    highest = torch.amax(logits, -1)
    # subtle: with ==, which the gradient takes, the compiler would keep the mask (rows, classes) for it
    at_max = logits >= highest[:, None]
    gap = torch.where(at_max, 0.0, highest[:, None] - logits)
    rest = row_sums(torch.where(at_max, 0.0, torch.exp(-gap)))
    ties = torch.sum(at_max, -1, dtype=logits.dtype) - 1
    rest = torch.where((highest == math.inf) & (ties > 0), math.nan, rest + ties)
    return ShiftedLogits(highest, gap, torch.where(highest == -math.inf, -1.0, rest))


def row_sums(terms: Array) -> Array:
    """Sums over the classes, (rows, classes) to (rows,), in their dtype."""
    # subtle: the compiler's loop adds one after the other: float32 terms into float64, but float64 has nothing wider
    total = fold.total(xp, terms) if terms.dtype == torch.float64 else torch.sum(terms, -1, dtype=torch.float64)
    return total.to(terms.dtype)


def whole_partial(logits: Array, targets: Array, on: float, off: float) -> Partial:
    """The partial of whole rows, from targets, or from labels, all of them good: a bad one makes its row NaN later."""
    block = shifted(logits)
    if targets.dtype.is_floating_point:
        gaps = targets * torch.where(targets == 0, 0.0, block.gap)
        return Partial(block.max, block.sum_exp_rest, row_sums(gaps), row_sums(targets))
    gap, _ = fold.gather(xp, block.gap, targets)
    if off != 0.0:
        everywhere = off / fold.SHRINK * row_sums(block.gap * fold.SHRINK)
        gap = everywhere if on == 0.0 else on * gap + everywhere
    return Partial(block.max, block.sum_exp_rest, gap, torch.full_like(gap, on + off * logits.shape[-1]))


def untargeted(logits: Array) -> Partial:
    """The partial of whole rows without targets."""
    block = shifted(logits)
    return Partial(block.max, block.sum_exp_rest, block.sum_exp_rest, block.sum_exp_rest)


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


def in_graph(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """The result of one call in a graph of torch.compile's: the plan's kernel as an operator, or an expression."""
    if transforms_are_active():
        return traced(plan.problem, predictions, targets, weights)
    pieces, is_fixed = COMPILED, targets is not None and not targets.requires_grad
    if is_fixed and not is_exporting():  # who reads an exported program may not have the plugin
        kernel_plan = inner_plan(plan, predictions)
        if kernel_plan.kernel != "generic":
            pieces = pieces._replace(fused=operators.pieces_of(kernel_plan.load, plan.problem.threads))
    return traced(plan.problem, predictions, targets, weights, pieces)


def as_node(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one node of a graph: TorchDynamo does not look inside, AOT autograd does."""
    node: Callable[..., Any] = torch.compiler.allow_in_graph(function)
    return node


def known(value: Any) -> Any:
    """A number that TorchDynamo takes for one that may change, as the number that it is: another has its own graph."""
    if isinstance(value, list | tuple):
        return tuple(map(known, value))
    if isinstance(value, torch.SymInt):
        return int(value)
    return float(value) if isinstance(value, torch.SymFloat) else value


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function outside of the graph: of a product, whose logits would be whole there."""
    return function(*arguments)


apart = torch.compiler.disable(apart)
