"""A kernel's losses and gradients as operators of torch's, which a compiled graph calls like one of its own.

The kernel is the one for the same memory as NumPy sees it. An operator computes whole rows of logits (rows, classes) on
the CPU, in one read; torch knows its results' shapes without calling it, and its derivatives: the first by the kernel's
own gradient, others by the functions of ``autograd.py``.

Imports torch at its top, where it defines the operators.
"""

from __future__ import annotations

from typing import Any

import torch

from ... import arrays
from ...arrays import Array
from ...contract.plan import resolve
from ...numerics import fold
from ..generic.traced import FusedPieces
from .autograd import TRANSFORMED, xp
from .views import array_of, tensor_of

OPTIONS = "float on, float off, str kernel, int threads"
torch.library.define(
    "xent::loss", f"(Tensor logits, Tensor targets, {OPTIONS}) -> Tensor", tags=torch.Tag.flexible_layout
)
torch.library.define(
    "xent::loss_and_gradient",
    f"(Tensor logits, Tensor targets, Tensor scale, {OPTIONS}) -> (Tensor, Tensor)",
    tags=torch.Tag.flexible_layout,
)


def pieces_of(kernel: str, threads: int) -> FusedPieces:
    """The functions of whole rows that the kernel at "package.module:name" computes."""

    def loss(logits: Array, targets: Array, counted: Array, on: float, off: float) -> Array:
        return torch.ops.xent.loss(logits, targets, on, off, kernel, threads)

    def loss_and_gradient(logits: Array, targets: Array, scale: Array, on: float, off: float) -> tuple[Array, Array]:
        losses, gradient = torch.ops.xent.loss_and_gradient(logits, targets, scale, on, off, kernel, threads)
        return losses, gradient

    return FusedPieces(loss, loss_and_gradient)


# -------------------- what is computed


@torch.library.impl("xent::loss", "cpu")
def loss_on_cpu(logits: Array, targets: Array, on: float, off: float, kernel: str, threads: int) -> Array:
    with arrays.without_fp_warnings():
        return tensor_of(resolve(kernel).loss(*arguments(logits, targets, on, off), threads=threads))


@torch.library.impl("xent::loss_and_gradient", "cpu")
def loss_and_gradient_on_cpu(
    logits: Array, targets: Array, scale: Array, on: float, off: float, kernel: str, threads: int
) -> tuple[Array, Array]:
    told = arguments(logits, targets, on, off)
    out = arrays.namespace(told[0]).empty(told[0].shape, dtype=told[0].dtype)
    with arrays.without_fp_warnings():
        losses, gradient = resolve(kernel).loss_and_gradient(*told, array_of(scale), threads=threads, out=out)
    return tensor_of(losses), tensor_of(gradient)


def arguments(logits: Array, targets: Array, on: float, off: float) -> tuple[Any, ...]:
    """The logits and targets as a kernel's method takes them; soft targets are smoothed already."""
    seen = array_of(logits), array_of(targets)
    return seen if targets.dtype.is_floating_point else (*seen, on, off)


# -------------------- what torch knows of it


@torch.library.register_fake("xent::loss")
def loss_without_values(logits: Array, targets: Array, on: float, off: float, kernel: str, threads: int) -> Array:
    return logits.new_empty((logits.shape[0],), dtype=fold.compute_dtype(xp, logits.dtype))


@torch.library.register_fake("xent::loss_and_gradient")
def loss_and_gradient_without_values(
    logits: Array, targets: Array, scale: Array, on: float, off: float, kernel: str, threads: int
) -> tuple[Array, Array]:
    losses = loss_without_values(logits, targets, on, off, kernel, threads)
    return losses, logits.new_empty(logits.shape)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Saves the arguments of an operator for its derivative."""
    *tensors, ctx.on, ctx.off, ctx.kernel, ctx.threads = inputs
    ctx.save_for_backward(*tensors)


def gradient_of_loss(ctx: Any, cotangent: Array) -> tuple[Array | None, ...]:
    logits, targets = ctx.saved_tensors
    if ctx.needs_input_grad[1]:
        return (*expression_gradients(ctx, (cotangent,)), None, None, None, None)
    told = ctx.on, ctx.off, ctx.kernel, ctx.threads
    _, gradient = torch.ops.xent.loss_and_gradient(logits, targets, cotangent, *told)
    return gradient, None, None, None, None, None


def gradient_of_loss_and_gradient(ctx: Any, *cotangents: Array) -> tuple[Array | None, ...]:
    return (*expression_gradients(ctx, cotangents), None, None, None, None)


def expression_gradients(ctx: Any, cotangents: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """The gradients of the tensors that an operator took, by functions that torch can differentiate again."""
    inputs, is_differentiated = ctx.saved_tensors, torch.is_grad_enabled()
    needed = ctx.needs_input_grad[: len(inputs)]
    with torch.enable_grad():
        logits, targets, *scale = (
            one.view_as(one) if needs else one for one, needs in zip(inputs, needed, strict=True)
        )
        wide = logits.to(fold.compute_dtype(xp, logits.dtype))
        results = [TRANSFORMED.loss(wide, targets, ctx.on, ctx.off)]
        if scale:
            slope = TRANSFORMED.residual(wide, targets, ctx.on, ctx.off)
            factor = scale[0][:, None]
            results.append(torch.where(factor == 0, 0.0, slope * factor).to(logits.dtype))
        leaves = [one for one, needs in zip((logits, targets, *scale), needed, strict=True) if needs]
        found = iter(torch.autograd.grad(results, leaves, cotangents, create_graph=is_differentiated))
    return tuple(next(found) if needs else None for needs in needed)


torch.library.register_autograd("xent::loss", gradient_of_loss, setup_context=keep)
torch.library.register_autograd("xent::loss_and_gradient", gradient_of_loss_and_gradient, setup_context=keep)
