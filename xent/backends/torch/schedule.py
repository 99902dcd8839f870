"""Schedule for torch tensors: the plan for the same memory as another library sees it, inside torch's autograd.

A tensor on the CPU is read as a NumPy array, one on a GPU as a CuPy array, without a copy; where there is no such view,
torch itself computes, block by block. A call that is differentiated once is one node of the graph, with the kernel's
own gradient. Under torch.compile, torch.func, forward mode, for double backward and for targets that require a gradient
it is an expression (``generic/traced.py``) of functions that torch differentiates (``autograd.py``, ``compiled.py``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, TypeGuard

import torch
from torch.autograd import forward_ad

from ... import arrays
from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import NO_WEIGHTS, Problem, Weights
from ...numerics import fold, reduction
from ...numerics.fold import Partial
from ...numerics.targets import Rows
from ..generic import blocks
from ..generic import schedule as generic
from ..generic import traced as whole
from ..generic.blocks import Work
from . import autograd, compiled
from . import forward as duals
from .autograd import xp
from .views import Unreadable, View, array_of, is_readable, on_stream, tensor_of, view_of

CONSTANT = frozenset({"loss_and_gradient", "partial"})
"""The methods whose results are plain numbers, whatever the predictions require."""

transforms_are_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
is_tracing = getattr(torch._C, "_get_tracing_state", torch.jit.is_tracing)


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """Carries out one call, eager or transformed."""
    if transforms_are_active() or is_dual(predictions, targets, weights) or is_tracing():
        return traced(plan.problem, predictions, targets, weights)
    wanted = plan.problem.differentiated and torch.is_grad_enabled() and plan.problem.method not in CONSTANT
    follow = differentiable if wanted else plain
    try:
        return follow(plan, predictions, targets, weights)
    except Unreadable:  # tensors without values, as in a FakeTensorMode
        return traced(plan.problem, predictions, targets, weights)


def is_forward() -> bool:
    """Whether forward mode is on."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def is_dual(predictions: Array, targets: Array | None, weights: Weights) -> bool:
    """Whether forward mode asks for the derivative along one of the tensors."""
    if not is_forward():
        return False
    tensors = (one for one in (predictions, targets, *weights) if isinstance(one, torch.Tensor))
    return any(forward_ad.unpack_dual(one).tangent is not None for one in tensors)


def traced(problem: Problem, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """One call as an expression, in a graph or under a transform: no value is looked at."""
    if weights.classes is not None and not isinstance(weights.classes, torch.Tensor):
        dtype = fold.compute_dtype(xp, predictions.dtype)
        weights = weights._replace(classes=torch.tensor(weights.classes, dtype=dtype, device=predictions.device))
    if torch.compiler.is_compiling():
        pieces = compiled.COMPILED
    else:
        pieces = duals.FORWARD if is_forward() else autograd.TRANSFORMED
    return whole.run(xp, pieces, problem, predictions, targets, weights)


# -------------------- the same memory as another library sees it


# -------------------- eager calls


def is_numpy(plan: Plan | None) -> TypeGuard[Plan]:
    """Whether it is a plan for NumPy arrays that serves whatever comes."""
    return plan is not None and plan.guard is None and plan.problem.array == "numpy"


def plain(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """One call whose result is plain numbers."""
    if plan.problem.is_plain and is_numpy(plan.inner) and weights is NO_WEIGHTS:  # the short way
        found = plan.inner.run(plan.inner, array_of(predictions), array_of(targets), weights)
        return tensor_of(found) if type(found) is not tuple else (tensor_of(found[0]), tensor_of(found[1]))
    view = view_of(plan, predictions)
    with on_stream(view, predictions):
        logits, told = view.see(predictions), view.see(targets)
        if weights is not NO_WEIGHTS:
            weights = Weights(*(view.see(one) for one in weights))
        if view.library == "torch":
            with torch.no_grad():
                return generic.run(plan, logits, told, weights)
        return view.wrap(view.plan.run(view.plan, logits, told, weights))


def differentiable(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """One call that torch may differentiate."""
    problem = plan.problem
    if problem.op == "binary" or problem.method != "loss":
        if problem.method == "statistics":
            view = view_of(plan, predictions)
            with on_stream(view, predictions):
                work_of(view, predictions, targets, weights)  # raises where a label is bad
        return traced(problem, predictions, targets, weights)
    if not any(getattr(one, "requires_grad", False) for one in weights):
        return Blocks.apply(predictions, targets, plan, weights)
    sample = None if weights.sample is None else weights.sample.detach() != 0
    options = problem.options
    by_row = replace(problem, options=options._replace(reduction="none"))
    inner = plan.inner and replace(plan.inner, problem=replace(plan.inner.problem, options=by_row.options))
    loss = Blocks.apply(predictions, targets, replace(plan, problem=by_row, inner=inner), Weights(sample))
    told = whole.told_of(xp, problem, targets, loss.dtype)
    if isinstance(weights.classes, list | tuple):
        weights = weights._replace(classes=torch.tensor(weights.classes, dtype=loss.dtype, device=loss.device))
    batch = loss.shape
    loss = xp.reshape(loss, (-1,))
    rows = whole.rows_of(xp, problem, predictions.shape[problem.axis], told, weights, loss.dtype)
    value = reduction.reduce(xp, loss, rows, options.reduction, autograd.TRANSFORMED.add)
    return xp.reshape(value, batch) if options.reduction == "none" else value


class Seen(NamedTuple):
    """One call as its kernel sees it: the work, and what is said of each row."""

    work: Work
    rows: Rows


def work_of(view: View, predictions: Array, targets: Array, weights: Weights) -> Seen:
    """The memory of the tensors beside the kernel it goes to; raises where a label is bad."""
    logits, told, *rest = (view.see(one) for one in (predictions, targets, *weights))
    work = generic.work_of(arrays.namespace(logits), view.plan, logits, told)
    return Seen(work, generic.rows_of(work, told, Weights(*rest)))


class Blocks(torch.autograd.Function):
    """The loss through the plan's kernel, block by block, and its gradient through the same."""

    @staticmethod
    def forward(ctx: Any, predictions: Array, targets: Array, plan: Plan, weights: Weights) -> Array:
        view = view_of(plan, predictions)
        with arrays.quiet(), on_stream(view, predictions):
            work, rows = work_of(view, predictions, targets, weights)
            wanted = plan.problem.options.reduction
            dtype = fold.compute_dtype(work.xp, work.logits.dtype)
            whole_rows = blocks.partial(work, dtype) if plan.problem.uses_fold else ()
            loss = fold.finish(work.xp, whole_rows) if whole_rows else blocks.loss(work, dtype)
            loss = generic.marked(work.xp, loss, rows)
            value = reduction.reduce(work.xp, loss, rows, wanted)
            value = generic.batched(work, value) if wanted == "none" else value
            share, value = view.wrap(reduction.scale(work.xp, rows, wanted, loss)), view.wrap(value)
            kept = [view.wrap(one) for one in whole_rows]
        ctx.plan, ctx.weights = plan, weights
        ctx.save_for_backward(predictions, targets, share, *kept)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> tuple[Array | None, ...]:
        predictions, targets, share, *fields = ctx.saved_tensors
        scale = share * torch.reshape(cotangent, (-1,))
        if torch.is_grad_enabled() or ctx.needs_input_grad[1] or not is_readable(scale):
            return (*again(ctx, cotangent), None, None)
        plan = ctx.plan
        view = view_of(plan, predictions)
        with arrays.quiet(), on_stream(view, predictions):
            logits, told, scale = (view.see(one) for one in (predictions, targets, scale))
            work = generic.work_of(arrays.namespace(logits), view.plan, logits, told)
            if fields:
                slope = blocks.gradient(work, Partial(*map(view.see, fields)), scale)
            else:
                slope = blocks.loss_and_gradient(work, scale)[1]
            return view.wrap(slope), None, None, None


def again(ctx: Any, cotangent: Array) -> tuple[Array | None, ...]:
    """The gradient as an expression that can be differentiated in turn, and that of the targets."""
    inputs, needed = (*ctx.saved_tensors[:2],), ctx.needs_input_grad[:2]
    is_differentiated = torch.is_grad_enabled()
    with torch.enable_grad():
        value = traced(ctx.plan.problem, inputs[0], inputs[1], ctx.weights)
        wanted = [one for one, needs in zip(inputs, needed, strict=True) if needs]
        slopes = iter(torch.autograd.grad(value, wanted, cotangent, create_graph=is_differentiated))
    return tuple(next(slopes) if needs else None for needs in needed)
