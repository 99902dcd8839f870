"""The schedule for products of torch tensors: the tiles of the same memory, inside torch's autograd.

A loss that is differentiated once is one node of the graph, over hidden states, classifier and bias. Reduced to one
number it makes the gradient of the operands that need one in the forward pass, from logits that it has there; of the
losses of the rows it multiplies the tiles again in the backward pass. Under torch.func, forward mode, for double
backward, for targets that require a gradient and for statistics with a graph the logits are whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.autograd import forward_ad

from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import Weights
from ...linear import Linear, LinearGradient
from ...numerics import fold
from ...numerics.fold import Partial
from ..generic import few_classes, whole
from ..generic import linear as generic
from ..generic import traced as expressions
from ..generic.products import multiplying
from ..generic.schedule import listed_targets
from . import schedule
from .autograd import xp
from .schedule import CONSTANT, is_forward, is_watched
from .views import VIEWS, HostView, Unreadable, inner_plan, is_readable


def run(plan: Plan, predictions: Any, targets: Array | None, weights: Weights) -> Any:
    """The result of one call, eager or transformed."""
    if is_watched() or (is_forward() and is_dual(predictions, targets, weights)):
        return traced(plan, predictions, targets, weights)
    method = plan.problem.method
    is_differentiated = plan.problem.differentiated and torch.is_grad_enabled() and method not in CONSTANT
    try:
        if is_differentiated:
            return differentiable(plan, predictions, targets, weights)
        return plain(plan, predictions, targets, weights)
    except Unreadable:  # tensors without values, as in a FakeTensorMode
        return traced(plan, predictions, targets, weights)


def is_dual(predictions: Any, targets: Array | None, weights: Weights) -> bool:
    """Whether forward mode asks for the derivative along one of the tensors."""
    tensors = (value for value in (*predictions.operands, targets, *weights) if isinstance(value, torch.Tensor))
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def traced(plan: Plan, linear: Any, targets: Array | None, weights: Weights) -> Any:
    """The result of one call as an expression of whole logits: no value is read."""
    problem, dtype = plan.problem, fold.compute_dtype(xp, linear.dtype)
    weights = weights._replace(classes=schedule.tensor_of_weights(weights.classes, dtype, linear.device))
    ignored = None
    if problem.tail and problem.method in ("loss", "loss_and_gradient"):
        few = listed_targets(xp, problem, targets, weights.ids, dtype)
        ignored = few_classes.rows_of_call(xp, problem, few, linear.shape[-1], weights).ignored
    elif problem.method in ("loss", "loss_and_gradient"):
        by_row = replace(problem, axis=1, ndim=2)
        flat_targets = targets if problem.op == "sparse" else torch.reshape(targets, (-1, linear.shape[-1]))
        flat_targets = expressions.targets_of(xp, by_row, flat_targets, dtype)
        ignored = expressions.rows_of_targets(xp, by_row, flat_targets, linear.shape[-1], dtype, weights).ignored
    product = whole.whole_product(xp, linear, ignored)
    logits = product.logits()
    of_logits = replace(problem, is_product=False, of=())
    result = schedule.traced(of_logits, torch.reshape(logits, linear.shape), targets, weights)
    if problem.method not in ("loss_and_gradient", "gradient"):
        return result
    loss, slope = result if problem.method == "loss_and_gradient" else (None, result)
    slope = product.uncapped(torch.reshape(slope, logits.shape), logits)
    gradient = whole.gradient(product, linear, slope, problem.of)
    plain: LinearGradient[Any] = LinearGradient(*(None if one is None else one.detach() for one in gradient))
    return plain if loss is None else (loss, plain)


# -------------------- eager calls


def seen(view: HostView, linear: Any) -> Linear[Any]:
    """The product on the memory of its tensors."""
    product: Linear[Any] = linear.of(*(view.see(one) for one in (linear.hidden, linear.classifier, linear.bias)))
    return product


def plain(plan: Plan, linear: Any, targets: Array | None, weights: Weights) -> Any:
    """The result of one call as plain numbers."""
    kernel_plan = inner_plan(plan, linear)
    run = generic.run if kernel_plan is plan else kernel_plan.run
    view = VIEWS[kernel_plan.problem.array]
    with view.on_stream(linear.hidden):
        return view.wrap(run(kernel_plan, seen(view, linear), view.see(targets), Weights(*map(view.see, weights))))


def differentiable(plan: Plan, linear: Any, targets: Array | None, weights: Weights) -> Any:
    """The result of one call that torch may differentiate."""
    if plan.problem.method == "statistics":
        plain(plan, linear, targets, weights)  # raises if a label is bad
        return traced(plan, linear, targets, weights)
    if any(getattr(weight, "requires_grad", False) for weight in weights):
        if plan.problem.tail:
            return traced(plan, linear, targets, weights)
        return schedule.weighted_by_torch(plan, linear, targets, weights, node)
    return node(linear, targets, plan, weights)


def node(linear: Any, targets: Array | None, plan: Plan, weights: Weights) -> Any:
    """The result of one call as one node of the graph."""
    return ProductNode.apply(linear.hidden, linear.classifier, linear.bias, targets, linear.softcap, plan, weights)


class ProductNode(torch.autograd.Function):
    """The loss, or the log-sum-exp, of a product by the plan's kernel, and the gradient of the operands that need one.

    Of a loss that is reduced it keeps that gradient, which one number multiplies; else the fold's numbers of each row.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Array,
        classifier: Array,
        bias: Array | None,
        targets: Array | None,
        softcap: float | None,
        plan: Plan,
        weights: Weights,
    ) -> Array:
        ctx.plan, ctx.weights, ctx.softcap = plan, weights, softcap
        linear: Linear[Any] = Linear(hidden, classifier, bias=bias, softcap=softcap)
        problem = plan.problem
        ctx.keeps_gradient = problem.method == "loss" and problem.options.reduction != "none"
        kernel_plan = with_operands(inner_plan(plan, linear), ctx.needs_input_grad)
        view = VIEWS[kernel_plan.problem.array]
        with multiplying(), view.on_stream(hidden):
            operands = view.see(targets), Weights(*map(view.see, weights))
            call, rows = generic.product_call(kernel_plan, seen(view, linear), *operands)
            if ctx.keeps_gradient:
                value, gradient = view.wrap(generic.run_loss_and_gradient(call, rows))
                kept: Any = gradient
            else:
                value, *kept = view.wrap(generic.value_and_partial(call, rows))
        ctx.save_for_backward(hidden, classifier, bias, targets, *kept)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> tuple[Any, ...]:
        hidden, classifier, bias, targets, *kept = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled() or needs[3] or is_watched() or not is_readable(cotangent):
            return (*traced_gradients(ctx, (hidden, classifier, bias, targets), cotangent), None, None, None)
        if ctx.keeps_gradient:
            times = schedule.times_cotangent
            gradient = [None if one is None else times(one, cotangent) for one in kept]
            return (*gradient, None, None, None, None)
        scale, *fields = kept
        linear: Linear[Any] = Linear(hidden, classifier, bias=bias, softcap=ctx.softcap)
        kernel_plan = with_operands(inner_plan(ctx.plan, linear), needs)
        view = VIEWS[kernel_plan.problem.array]
        with multiplying(), view.on_stream(hidden):
            call = generic.call_of(kernel_plan, seen(view, linear), view.see(targets), view.see(ctx.weights.ids))
            scale = view.see(scale * torch.reshape(cotangent, (-1,)))
            gradient = view.wrap(generic.gradient_from(call, Partial(*map(view.see, fields)), scale))
        return (*gradient, None, None, None, None)


def with_operands(plan: Plan, needs: tuple[bool, ...]) -> Plan:
    """The plan with the gradient asked for in the operands that need one."""
    of = tuple(name for name, need in zip(("hidden", "classifier", "bias"), needs, strict=False) if need)
    return replace(plan, problem=replace(plan.problem, of=of))


def traced_gradients(ctx: Any, inputs: tuple[Any, ...], cotangent: Array) -> tuple[Array | None, ...]:
    """The gradients of operands and targets, which torch can differentiate again; None if not needed."""
    needed, is_differentiated = ctx.needs_input_grad[:4], torch.is_grad_enabled()
    with torch.enable_grad():
        hidden, classifier, bias, targets = inputs
        linear: Linear[Any] = Linear(hidden, classifier, bias=bias, softcap=ctx.softcap)
        value = traced(ctx.plan, linear, targets, ctx.weights)
        leaves = [tensor for tensor, needs in zip(inputs, needed, strict=True) if needs]
        gradients = iter(torch.autograd.grad(value, leaves, cotangent, create_graph=is_differentiated))
    return tuple(next(gradients) if needs else None for needs in needed)
