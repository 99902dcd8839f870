"""The schedule for torch tensors: the plan for the same memory as another library sees it, inside torch's autograd.

A tensor on the CPU is read as a NumPy array, one on a GPU as a CuPy array, without a copy; if there is no such view,
torch itself computes, block by block. A call that is differentiated once is one node of the graph, with the kernel's
own gradient. Under torch.compile, torch.func, forward mode, for double backward and for targets that require a gradient
it is an expression (``generic/traced.py``) of functions that torch differentiates (``autograd.py``, ``compiled.py``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from numpy import generic as generic_number
from torch.autograd import forward_ad

from ... import arrays, checks
from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import NO_WEIGHTS, Problem, Weights
from ...numerics import fold
from ...numerics.fold import Partial
from ...numerics.reduction import Reducer
from ...numerics.targets import Rows
from ..generic import blocks, few_classes
from ..generic import schedule as generic
from ..generic import traced as expressions
from ..generic.binary import binary_gradient
from ..generic.blocks import KernelCall
from ..generic.traced import Pieces
from . import autograd, forward
from .autograd import xp
from .small_calls import small_calls_of
from .views import VIEWS, HostView, Unreadable, inner_plan, is_readable

CONSTANT = frozenset({"loss_and_gradient", "gradient", "partial"})
"""The methods whose results are plain numbers, whatever the predictions require."""

transforms_are_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
is_tracing = getattr(torch._C, "_get_tracing_state", torch.jit.is_tracing)
number_of_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
number_of_function_modes = getattr(torch._C, "_len_torch_function_stack", lambda: 0)
number_before_dispatch = getattr(torch._ops, "_len_torch_dispatch_stack_pre_dispatch", lambda: 0)

is_unwrapped = getattr(torch._C._functorch, "is_dead_tensor_wrapper", lambda tensor: True)
is_kept = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)
"""Whether the backward pass at work leaves the graph for another one."""


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights, out: Array | None = None) -> Any:
    """The result of one call, eager or transformed."""
    if out is not None:
        return plain_into(plan, predictions, targets, weights, out)
    if is_watched() or (is_forward() and is_dual(predictions, targets, weights)):
        return traced(plan.problem, predictions, targets, weights)
    is_differentiated = plan.problem.differentiated and torch.is_grad_enabled() and plan.problem.method not in CONSTANT
    compute = differentiable if is_differentiated else plain
    try:
        return compute(plan, predictions, targets, weights)
    except Unreadable:  # tensors without values, as in a FakeTensorMode
        return traced(plan.problem, predictions, targets, weights)


def is_watched() -> bool:
    """Whether torch is to see every operation: under a transform, in a trace, in a mode such as that of make_fx."""
    if transforms_are_active() or is_tracing() or number_of_modes():
        return True
    # subtle: a default device is a mode of functions too, and need see nothing
    return number_of_function_modes() > 0 and number_before_dispatch() > 0


def is_forward() -> bool:
    """Whether forward mode is on."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def is_dual(predictions: Array, targets: Array | None, weights: Weights) -> bool:
    """Whether forward mode asks for the derivative along one of the tensors."""
    tensors = (value for value in (predictions, targets, *weights) if isinstance(value, torch.Tensor))
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def traced(
    problem: Problem, predictions: Array, targets: Array | None, weights: Weights, pieces: Pieces | None = None
) -> Any:
    """The result of one call as an expression, in a graph or under a transform: no value is read."""
    dtype = fold.compute_dtype(xp, predictions.dtype)
    weights = weights._replace(classes=tensor_of_weights(weights.classes, dtype, predictions.device))
    pieces = pieces or (forward.FORWARD if is_forward() else autograd.TRANSFORMED)
    run = few_classes.run if problem.tail else expressions.run
    return run(xp, pieces, problem, predictions, targets, weights)


def tensor_of_numbers(value: Any) -> Any:
    """NumPy's numbers, one or a list of them, as a tensor, as TorchDynamo makes them; all else as it is."""
    if isinstance(value, list | tuple) and any(hasattr(number, "shape") for number in value):
        return torch.stack([torch.as_tensor(number) for number in value])
    return torch.as_tensor(value) if isinstance(value, generic_number) else value


def tensor_of_weights(weights: Any, dtype: Any, device: Any) -> Any:
    """A list of numbers as a tensor; a tensor, or None, as it is."""
    return torch.tensor(weights, dtype=dtype, device=device) if isinstance(weights, list | tuple) else weights


# -------------------- eager calls


def plain(plan: Plan, predictions: Array, targets: Array | None, weights: Weights, out: Array | None = None) -> Any:
    """The result of one call as plain numbers."""
    small = plan.prepare(small_calls_of)
    if small is not None and out is None:
        value = small.loss(predictions, targets, weights)
        if value is not None:
            return value
    kernel_plan = inner_plan(plan, predictions)
    run = generic.run if kernel_plan is plan else kernel_plan.run
    return VIEWS[kernel_plan.problem.array].call(run, kernel_plan, predictions, targets, weights, out)


def plain_into(plan: Plan, predictions: Array, targets: Array | None, weights: Weights, out: Array) -> Any:
    """The same with the gradient in ``out``, whose change autograd is told of: it may hold it for a backward pass."""
    if is_watched() or (is_forward() and is_dual(predictions, targets, weights)):
        checks.no_output_in_graph(plan.problem.function, out)
    try:
        return plain(plan, predictions, targets, weights, out)
    except Unreadable:  # of tensors that hold the opposites of their numbers
        with torch.no_grad():
            value, gradient = traced(plan.problem, predictions, targets, weights)
            return value, out.copy_(gradient)
    finally:
        if not out.is_inference():
            torch.autograd.graph.increment_version(out)


def differentiable(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """The result of one call that torch may differentiate."""
    problem = plan.problem
    needs_weights = any(getattr(weight, "requires_grad", False) for weight in weights)
    if problem.op == "binary" and problem.method == "loss" and not needs_weights:
        return BinaryLoss.apply(predictions, targets, plan, weights)
    if problem.op == "binary" or problem.method != "loss":
        if problem.method == "statistics":
            kernel_plan = inner_plan(plan, predictions)
            view = VIEWS[kernel_plan.problem.array]
            with view.on_stream(predictions):
                kernel_call_of(kernel_plan, view, predictions, targets, weights)  # raises if a label is bad
        return traced(problem, predictions, targets, weights)
    if needs_weights and problem.tail:
        return traced(problem, predictions, targets, weights)
    if not needs_weights:
        # subtle: a tensor that was kept of a transform that has ended is unwrapped by the ordinary way
        apply = KernelLoss.apply if is_unwrapped(predictions) or is_unwrapped(targets) else apply_at_once
        return apply(predictions, targets, plan, weights)
    return weighted_by_torch(plan, predictions, targets, weights)


def weighted_by_torch(
    plan: Plan, predictions: Array, targets: Array | None, weights: Weights, apply: Any = None
) -> Any:
    """The losses of the rows by the kernel, weighted and reduced by torch, which differentiates the weights.

    ``apply`` is the node of the graph for the losses; by default that of :class:`KernelLoss`.
    """
    problem, options = plan.problem, plan.problem.options
    by_row = replace(problem, options=options._replace(reduction="none"), is_plain=False)
    inner = plan.inner and replace(plan.inner, problem=replace(plan.inner.problem, options=by_row.options))
    dtype = fold.compute_dtype(xp, predictions.dtype)
    weights = weights._replace(classes=tensor_of_weights(weights.classes, dtype, predictions.device))
    batch = (*predictions.shape[: problem.axis], *predictions.shape[problem.axis + 1 :])
    flat_targets = expressions.targets_of(xp, problem, targets, dtype)
    rows = expressions.rows_of_targets(xp, problem, flat_targets, predictions.shape[problem.axis], dtype, weights)
    counts = None if rows.ignored is None else torch.reshape(~rows.ignored, batch)
    by_row_plan = replace(plan, problem=by_row, inner=inner)
    loss = (apply or KernelLoss.apply)(predictions, targets, by_row_plan, Weights(counts))
    value = Reducer(options.reduction, autograd.TRANSFORMED.add).reduce(xp, xp.reshape(loss, (-1,)), rows)
    return xp.reshape(value, batch) if options.reduction == "none" else value


def kernel_call_of(
    plan: Plan, view: HostView, predictions: Array, targets: Array | None, weights: Weights
) -> tuple[KernelCall, Rows]:
    """The memory of the tensors beside the kernel that takes it, and its rows; raises if a label is bad."""
    logits, seen_targets, *rest = (view.see(value) for value in (predictions, targets, *weights))
    seen = Weights(*rest)
    call = generic.kernel_call(arrays.namespace(logits), plan, logits, seen_targets, seen.ids)
    return call, generic.rows_of_call(call, seen_targets, seen)


class KernelLoss(torch.autograd.Function):
    """The loss by the plan's kernel, block by block, and its gradient by the same kernel.

    Between the passes it keeps the arguments, and of a call that is not small the fold's numbers of each row; the
    gradient itself where the user asks for it (``using(gradient_in_forward=True)``) and one number multiplies it.
    """

    @staticmethod
    def forward(ctx: Any, predictions: Array, targets: Array, plan: Plan, weights: Weights) -> Array:
        ctx.plan, ctx.weights = plan, weights
        problem, small = plan.problem, plan.prepare(small_calls_of)
        if problem.gradient_in_forward and problem.options.reduction != "none" and ctx.needs_input_grad[0]:
            both = small and small.loss_and_gradient(predictions, targets, weights)
            value, gradient = both or loss_and_gradient(plan, predictions, targets, weights)
            ctx.keeps = "gradient"
            ctx.save_for_backward(predictions, targets, gradient)
            return value
        value = small and small.loss(predictions, targets, weights)
        if value is not None:
            ctx.keeps = "arguments"
            # subtle: the backward pass reads the weights again, and torch says if they have changed
            tensors = () if weights is NO_WEIGHTS else [one for one in weights if isinstance(one, torch.Tensor)]
            ctx.save_for_backward(predictions, targets, *tensors)
            return value
        kernel_plan = inner_plan(plan, predictions)
        view = VIEWS[kernel_plan.problem.array]
        with arrays.without_fp_warnings(), view.on_stream(predictions):
            call, rows = kernel_call_of(kernel_plan, view, predictions, targets, weights)
            has_fields = problem.uses_fold and "gradient" in call.methods
            loss, partial = blocks.loss_and_partial(call) if has_fields else (blocks.loss(call), ())
            value = view.wrap(generic.reduced(call, loss, rows))
            scale = view.wrap(Reducer(problem.options.reduction).scale(call.xp, rows, loss))
            fields = [view.wrap(field) for field in partial]
        ctx.keeps = "rows"
        ctx.save_for_backward(predictions, targets, scale, *fields)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> tuple[Array | None, ...]:
        predictions, targets, *kept = ctx.saved_tensors
        if torch.is_grad_enabled() or ctx.needs_input_grad[1] or is_watched() or not is_readable(cotangent):
            return (*traced_gradients(ctx, cotangent), None, None)
        if ctx.keeps == "gradient":
            return times_cotangent(kept[0], cotangent), None, None, None
        if ctx.keeps == "arguments":
            small = ctx.plan.prepare(small_calls_of)
            gradient = small.gradient(predictions, targets, ctx.weights, cotangent)
            if gradient is None:
                _, gradient = loss_and_gradient(ctx.plan, predictions, targets, ctx.weights, cotangent)
            return gradient, None, None, None
        scale, *fields = kept
        scale = scale * torch.reshape(cotangent, (-1,))
        kernel_plan = inner_plan(ctx.plan, predictions)
        view = VIEWS[kernel_plan.problem.array]
        with arrays.without_fp_warnings(), view.on_stream(predictions):
            logits, seen_targets, scale = (view.see(value) for value in (predictions, targets, scale))
            ids = view.see(ctx.weights.ids)
            call = generic.kernel_call(arrays.namespace(logits), kernel_plan, logits, seen_targets, ids)
            if fields:
                gradient = blocks.gradient(call, Partial(*map(view.see, fields)), scale)
            else:
                gradient = blocks.loss_and_gradient(call, scale)[1]
            return view.wrap(gradient), None, None, None


apply_at_once = super(torch.autograd.Function, KernelLoss).apply
"""``KernelLoss.apply`` without its look for transforms, which takes as long as a small loss; ``run`` has looked."""


def loss_and_gradient(
    plan: Plan, predictions: Array, targets: Array, weights: Weights, cotangent: Array | None = None
) -> tuple[Array, Array]:
    """The loss and its gradient, times the cotangent of the loss if there is one, in one read of the predictions."""
    kernel_plan = inner_plan(plan, predictions)
    view = VIEWS[kernel_plan.problem.array]
    with arrays.without_fp_warnings(), view.on_stream(predictions):
        call, rows = kernel_call_of(kernel_plan, view, predictions, targets, weights)
        scale = generic.scale_of_rows(call, rows)
        if cotangent is not None:
            scale = scale * view.see(torch.reshape(cotangent, (-1,)))
        loss, gradient = blocks.loss_and_gradient(call, scale)
        return view.wrap(generic.reduced(call, loss, rows)), view.wrap(gradient)


def times_cotangent(gradient: Array, cotangent: Array) -> Array:
    """A kept gradient times a number, 0 if that is 0: in its own memory where no other backward pass will need it."""
    if cotangent.device.type != "cpu":
        return torch.where(cotangent == 0, 0.0, gradient * cotangent)
    number = cotangent.item()
    if is_kept():
        return gradient * cotangent if number else torch.zeros_like(gradient)
    if number == 0:
        return gradient.zero_()
    return gradient if number == 1 else gradient.mul_(cotangent)


class BinaryLoss(torch.autograd.Function):
    """The binary loss, and its gradient, by the expressions of the inner plan's library."""

    @staticmethod
    def forward(ctx: Any, predictions: Array, targets: Array, plan: Plan, weights: Weights) -> Array:
        ctx.plan, ctx.weights = plan, weights
        ctx.save_for_backward(predictions, targets)
        return plain(plan, predictions, targets, weights)

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> tuple[Array | None, ...]:
        predictions, targets = ctx.saved_tensors
        if torch.is_grad_enabled() or ctx.needs_input_grad[1] or is_watched() or not is_readable(cotangent):
            return (*traced_gradients(ctx, cotangent), None, None)
        kernel_plan = inner_plan(ctx.plan, predictions)
        view = VIEWS[kernel_plan.problem.array]
        with arrays.without_fp_warnings(), view.on_stream(predictions):
            x, t, scale, *rest = (view.see(value) for value in (predictions, targets, cotangent, *ctx.weights))
            xp = arrays.namespace(x)
            gradient = binary_gradient(xp, kernel_plan.problem, x, t, Weights(*rest), scale)
            return view.wrap(gradient), None, None, None


def traced_gradients(ctx: Any, cotangent: Array) -> tuple[Array | None, ...]:
    """The gradients of predictions and targets, which torch can differentiate again; None if not needed."""
    inputs, needed = (*ctx.saved_tensors[:2],), ctx.needs_input_grad[:2]
    is_differentiated = torch.is_grad_enabled()
    with torch.enable_grad():
        value = traced(ctx.plan.problem, inputs[0], inputs[1], ctx.weights)
        leaves = [tensor for tensor, needs in zip(inputs, needed, strict=True) if needs]
        gradients = iter(torch.autograd.grad(value, leaves, cotangent, create_graph=is_differentiated))
    return tuple(next(gradients) if needs else None for needs in needed)
