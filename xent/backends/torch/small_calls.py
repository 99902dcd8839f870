"""Small calls of labels on the CPU: one step of a kernel's own, its ``whole_call``, by the addresses of the tensors.

The bits are those of the same call in many steps (``schedule.py``), which takes whatever is declined here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import NO_WEIGHTS, Problem, Weights

TYPES = frozenset({torch.Tensor, torch.nn.Parameter})
"""The types whose memory lies where they say; a FakeTensor's, or some subclass's, may not."""


class SmallCalls(NamedTuple):
    """The calls of one kind by a kernel's ``whole_call``: all is known but the tensors."""

    problem: Problem
    scalar: Array
    """Of the loss' dtype and shape (), to make others like it: torch takes half as long as by their shape and dtype."""
    sample_dtype: Any
    by_row: bool
    of_loss: Callable[..., int]
    of_both: Callable[..., int] | None

    def addresses(self, predictions: Array, targets: Array, weights: Weights) -> tuple[Any, ...] | None:
        """What keeps memory, and the first arguments of a whole call; None if the tensors do not lie as it needs."""
        if type(predictions) not in TYPES or type(targets) not in TYPES:
            return None
        rows = targets.numel()
        if not (rows and predictions.is_contiguous() and targets.is_contiguous()):
            return None
        if predictions.is_neg() or targets.is_neg():
            return None
        try:
            shape = predictions.data_ptr(), targets.data_ptr(), rows, predictions.size(-1)
        except RuntimeError:  # it has no memory of its own
            return None
        if weights is NO_WEIGHTS:
            return None, *shape, None, None
        sample, classes = weights[:2]
        if sample is not None and (sample.dtype is not self.sample_dtype or not is_side_by_side(sample)):
            return None
        if classes is not None:
            classes = torch.as_tensor(classes, dtype=self.scalar.dtype).contiguous().resolve_neg()
        return classes, *shape, *(None if weight is None else weight.data_ptr() for weight in (sample, classes))

    def new_loss(self, targets: Array) -> Array:
        """Memory for the loss."""
        return torch.empty_like(targets, dtype=self.scalar.dtype) if self.by_row else torch.empty_like(self.scalar)

    def loss(self, predictions: Array, targets: Array, weights: Weights) -> Array | None:
        """The loss; None if the call is declined."""
        told = self.addresses(predictions, targets, weights)
        if told is None:
            return None
        loss = self.new_loss(targets)
        return None if self.of_loss(*told[1:], None, loss.data_ptr(), None) else loss

    def loss_and_gradient(self, predictions: Array, targets: Array, weights: Weights) -> tuple[Array, Array] | None:
        """The loss and the gradient; None if the call is declined."""
        told = self.addresses(predictions, targets, weights)
        if told is None or self.of_both is None:
            return None
        loss = self.new_loss(targets)
        gradient = torch.empty_like(predictions)
        declined = self.of_both(*told[1:], None, loss.data_ptr(), gradient.data_ptr())
        return None if declined else (loss, gradient)

    def gradient(self, predictions: Array, targets: Array, weights: Weights, cotangent: Array) -> Array | None:
        """The gradient for a cotangent of the loss; None if the call is declined."""
        told = self.addresses(predictions, targets, weights)
        if told is None or self.of_both is None:
            return None
        cotangent, gradient = cotangent.contiguous(), torch.empty_like(predictions)
        declined = self.of_both(*told[1:], cotangent.data_ptr(), None, gradient.data_ptr())
        return None if declined else gradient


def is_side_by_side(tensor: Array) -> bool:
    """Whether the memory of a tensor holds its numbers side by side, and not their opposites."""
    return bool(tensor.is_contiguous()) and not tensor.is_neg()


def small_calls_of(plan: Plan) -> SmallCalls | None:
    """The short way of the calls of a plan; None if there is none."""
    inner, problem = plan.inner, plan.problem
    if inner is None or inner.guard is not None or inner.problem.array != "numpy" or "whole_call" not in inner.methods:
        return None
    if problem.op != "sparse" or problem.method != "loss" or problem.layout != "last" or not problem.raises:
        return None
    served, kernel = inner.with_kernel()
    if served is not inner or not problem.uses_fold:
        return None
    of_loss = kernel.whole_call(inner.problem)
    if of_loss is None:
        return None
    with torch.inference_mode(False):
        scalar = torch.empty((), dtype=torch.float64 if problem.dtype == "float64" else torch.float32, device="cpu")
    return SmallCalls(
        problem,
        scalar,
        getattr(torch, problem.sample_weight_dtype) if problem.sample_weight_dtype else None,
        problem.options.reduction == "none",
        of_loss,
        kernel.whole_call(replace(inner.problem, method="loss_and_gradient")),
    )
