"""The loss of a product as an operator of torch's, which a compiled graph calls like one of its own.

Its body is the eager call, by tiles: inside a graph the logits would be whole. Reduced to one number it makes the
gradient of the operands that need one together with the loss, as an eager call does, and losses of the rows in the
backward pass. A derivative of that gradient is the eager call's too.

Imports torch at its top, where it defines the operator.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from ...arrays import Array
from ...checks import OPERANDS
from ...contract.problem import Options, Route, Weights, weights_of
from ...linear import Linear, logits_dtype

torch.library.define(
    "xent::linear_loss",
    "(Tensor hidden, Tensor classifier, Tensor? bias, Tensor labels, Tensor? sample_weight, Tensor? class_weight, "
    "float? softcap, str reduction, int[]? ignore_index, float label_smoothing, bool[] needs) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.flexible_layout,
)
eager: Any = None
"""``dispatch/calls.py:apply``; that room is above this one, and sets it."""
LAST = Options()
LOSS = Route("linear_cross_entropy", "sparse", "loss")


@functools.cache
def with_gradient(needs: tuple[bool, ...]) -> Route:
    """The route of the loss with the gradient in the operands that need one; always one object, as plans ask for."""
    of = tuple(name for name, need in zip(OPERANDS, needs, strict=True) if need)
    return Route(LOSS.function, LOSS.op, "loss_and_gradient", of)


def is_taken(route: Route, linear: Any, labels: Any, requested: Any, weights: Weights) -> bool:
    """Whether the operator does for a call: a loss, of tensors and constants of which no weight is differentiated."""
    if route.op != "sparse" or route.method != "loss":
        return False
    options, others = Options(*requested), (labels, weights.sample, weights.classes)
    return (
        (options.axis, options.kind) == (LAST.axis, LAST.kind)
        and isinstance(options.reduction, str)
        and isinstance(options.label_smoothing, int | float)
        and all(isinstance(one, torch.Tensor) for one in (*linear.operands, labels))
        and all(one is None or (isinstance(one, torch.Tensor) and not one.requires_grad) for one in others)
    )


def in_graph(linear: Any, labels: Array, requested: Any, weights: Weights) -> Array:
    """The loss, of arguments that the operator takes."""
    options, operands = Options(*requested), (linear.hidden, linear.classifier, linear.bias)
    needs = [torch.is_grad_enabled() and one is not None and one.requires_grad for one in operands]
    ignored = options.ignore_index
    if ignored is not None:
        ignored = [ignored] if isinstance(ignored, int) else list(ignored)
    told = linear.softcap, options.reduction, ignored, options.label_smoothing, needs
    loss: Array = torch.ops.xent.linear_loss(*operands, labels, weights.sample, weights.classes, *told)[0]
    return loss


def call(inputs: tuple[Any, ...], route: Route, reduction: Any) -> Any:
    """The result of the eager call on what the operator takes."""
    hidden, classifier, bias, labels, sample, classes, softcap, _, ignored, smoothing, _ = inputs
    linear: Linear[Any] = Linear(hidden, classifier, bias=bias, softcap=softcap)
    ignored = None if ignored is None else tuple(ignored)
    options = LAST._replace(reduction=reduction, ignore_index=ignored, label_smoothing=smoothing)
    return eager(route, linear, labels, options, weights_of(sample, classes))


@torch.library.impl("xent::linear_loss", "CompositeExplicitAutograd")
def linear_loss(*inputs: Any) -> tuple[Array, ...]:
    """The loss, and the gradients that are made with it, each empty where it is not."""
    hidden, reduction, needs = inputs[0], inputs[7], inputs[10]
    nothing = [hidden.new_empty(0) for _ in OPERANDS]
    with torch.no_grad():
        if reduction == "none" or not any(needs):
            return call(inputs, LOSS, reduction), *nothing
        loss, gradient = call(inputs, with_gradient(tuple(needs)), reduction)
    return loss, *(nothing[0].new_empty(0) if one is None else one.contiguous() for one in gradient)


@torch.library.register_fake("xent::linear_loss")
def linear_loss_without_values(*inputs: Any) -> tuple[Array, ...]:
    operands = [one for one in inputs[:3] if one is not None]
    hidden, reduction, needs = inputs[0], inputs[7], inputs[10]
    loss = hidden.new_empty(hidden.shape[:-1] if reduction == "none" else (), dtype=logits_dtype(tuple(operands)))
    made = [need and reduction != "none" for need in needs]
    pairs = zip(inputs[:3], made, strict=True)
    return loss, *(one.new_empty(one.shape) if is_made else hidden.new_empty(0) for one, is_made in pairs)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Saves what the derivative needs: the arguments, and the gradients that are there."""
    ctx.told = inputs[6:]
    ctx.save_for_backward(*inputs[:6], *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def gradient_of_loss(ctx: Any, cotangent: Array, *_: Any) -> tuple[Array | None, ...]:
    saved, (softcap, reduction, ignored, smoothing, needs) = ctx.saved_tensors, ctx.told
    inputs, kept = (*saved[:6], *ctx.told), saved[6:]
    if torch.is_grad_enabled():  # a second order
        leaves = [one for one, need in zip(inputs, needs, strict=False) if need]
        found = iter(torch.autograd.grad(call(inputs, LOSS, reduction), leaves, cotangent, create_graph=True))
        return (*(next(found) if need else None for need in needs), *[None] * 8)
    if reduction == "none":
        hidden, classifier, bias, labels, sample, classes = saved[:6]
        scale = cotangent if sample is None else torch.where(sample == 0, 0.0, sample * cotangent)
        told = softcap, "sum", ignored, smoothing, needs
        kept = torch.ops.xent.linear_loss(hidden, classifier, bias, labels, scale, classes, *told)[1:]
    else:
        kept = [one * cotangent.to(one.dtype) for one in kept]
    return (*(one if need else None for one, need in zip(kept, needs, strict=True)), *[None] * 8)


torch.library.register_autograd("xent::linear_loss", gradient_of_loss, setup_context=keep)
