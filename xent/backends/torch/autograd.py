"""The losses as torch differentiates them backwards: functions of whole rows, with derivatives of any order.

``Loss``, ``Residual``, ``Softmax``, ``LogSoftmax`` and ``LogSumExp`` are closed under differentiation (see
``numerics/tangents.py``), and torch.func may transform them. Forward mode is in ``forward.py``.

Imports torch at its top, because its classes are torch's; it is itself imported only for a call on torch tensors.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import array_api_compat.torch
import torch

from ...arrays import Array
from ...numerics import binary, fold, gradient, tangents
from ..generic.binary import BinaryFunctions
from ..generic.traced import Pieces, untargeted


def take_along_axis(values: Array, indices: Array, /, *, axis: int) -> Array:
    """The array API's function, for indices with the values' rank and sizes but for the axis."""
    return torch.gather(values, axis, indices)


# subtle: torch.take_along_dim would have TorchDynamo make a graph for every number of rows
xp = SimpleNamespace(**{**vars(array_api_compat.torch), "take_along_axis": take_along_axis})
"""torch's namespace for expressions over whole arrays."""


class Transformable(torch.autograd.Function):
    """A function that torch.func may transform, and that saves its inputs for its derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)


class Softmax(Transformable):
    """Logits (rows, classes) to probabilities."""

    @staticmethod
    def forward(logits: Array) -> Array:
        return gradient.softmax(xp, logits, untargeted(xp, logits))

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> Array:
        return tangents.softmax(xp, probabilities(ctx.saved_tensors[0], cotangents), cotangents)


def probabilities(logits: Array, cotangents: Array) -> Array:
    """The softmax, with 0 for NaN in the rows whose cotangents are 0: their NaN is not to reach other rows."""
    return tangents.calm_rows(xp, Softmax.apply(logits), cotangents)


class LogSoftmax(Transformable):
    """Logits (rows, classes) to log-probabilities."""

    @staticmethod
    def forward(logits: Array) -> Array:
        return gradient.log_softmax(xp, logits, untargeted(xp, logits))

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> Array:
        return tangents.log_softmax_back(xp, probabilities(ctx.saved_tensors[0], cotangents), cotangents)


class LogSumExp(Transformable):
    """Logits (rows, classes) to their log-partition function (rows,)."""

    @staticmethod
    def forward(logits: Array) -> Array:
        return fold.log_partition(xp, untargeted(xp, logits))

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> Array:
        return probabilities(ctx.saved_tensors[0], cotangent[:, None]) * cotangent[:, None]


class Residual(Transformable):
    """Logits and targets (rows, classes) to w p − t, the gradient of the loss."""

    @staticmethod
    def forward(logits: Array, targets: Array) -> Array:
        return gradient.residual(xp, logits, targets, fold.partial_dense(xp, logits, targets))

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> tuple[Array, Array]:
        logits, targets = ctx.saved_tensors
        p = probabilities(logits, cotangents)
        mass = xp.sum(targets, axis=-1, keepdims=True)
        return mass * tangents.softmax(xp, p, cotangents), tangents.residual_back(xp, p, cotangents)


class Loss(Transformable):
    """Logits and targets (rows, classes) to the loss of each row (rows,)."""

    @staticmethod
    def forward(logits: Array, targets: Array) -> Array:
        return fold.finish(xp, fold.partial_dense(xp, logits, targets))

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> tuple[Array | None, Array | None]:
        logits, targets = ctx.saved_tensors
        needs, factor = ctx.needs_input_grad, cotangent[:, None]
        slope = tangents.calm(xp, Residual.apply(logits, targets), factor) * factor if needs[0] else None
        return slope, tangents.calm(xp, -LogSoftmax.apply(logits), factor) * factor if needs[1] else None


def times_cotangents(slopes: tuple[Array, Array], factors: tuple[Array, Array]) -> tuple[Array, Array]:
    """Each slope times its factor; 0 if the factor is 0."""
    yes, no = (tangents.calm(xp, slope, factor) * factor for slope, factor in zip(slopes, factors, strict=True))
    return yes, no


def change_of_factor(multiply: Any, factor: Array, other: Array, cotangents: Array) -> Array:
    """What a cotangent of the product of two factors says of one; that of a NaN is NaN, unless the cotangent is 0."""
    change = multiply(tangents.calm(xp, other, cotangents), cotangents)
    return xp.where(xp.isnan(factor) & (cotangents != 0), math.nan, change)


class Product(Transformable):
    """a · b of one shape, where 0 · ±∞ is 0."""

    @staticmethod
    def forward(a: Array, b: Array) -> Array:
        return binary.product(xp, a, b)

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> tuple[Array | None, Array | None]:
        a, b = ctx.saved_tensors
        needs = ctx.needs_input_grad
        of_a = change_of_factor(Product.apply, a, b, cotangents) if needs[0] else None
        return of_a, change_of_factor(Product.apply, b, a, cotangents) if needs[1] else None


class Elementwise(Transformable):
    """A function of binary predictions of any shape, and of their kind."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kind = inputs[1]
        ctx.save_for_backward(inputs[0])


class Slopes(Elementwise):
    """The derivatives of the two costs."""

    @staticmethod
    def forward(predictions: Array, kind: str) -> tuple[Array, Array]:
        return binary.slopes(xp, predictions, kind)

    @staticmethod
    def backward(ctx: Any, *cotangents: Array) -> tuple[Array, None]:
        slopes = Slopes.apply(ctx.saved_tensors[0], ctx.kind)
        return sum(times_cotangents(tangents.binary(xp, slopes, ctx.kind), cotangents)), None


class Costs(Elementwise):
    """The costs of a certain yes and a certain no."""

    @staticmethod
    def forward(predictions: Array, kind: str) -> tuple[Array, Array]:
        return binary.costs(xp, predictions, kind)

    @staticmethod
    def backward(ctx: Any, *cotangents: Array) -> tuple[Array, None]:
        return sum(times_cotangents(Slopes.apply(ctx.saved_tensors[0], ctx.kind), cotangents)), None


class Total(Transformable):
    """The sum of values (n,), 0-d, in one order whatever the number of threads."""

    @staticmethod
    def forward(values: Array) -> Array:
        return fold.total(xp, values)

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> Array:
        return cotangent.expand(ctx.saved_tensors[0].shape)


def soft_targets(logits: Array, targets: Array, on: float, off: float) -> Array:
    """Targets (rows, classes), which may be given as labels (rows,)."""
    if targets.dtype.is_floating_point:
        return targets
    return gradient.two_valued(xp, targets, logits.shape[-1], on, off, logits.dtype)


def wide_sum(xp: Any, values: Array) -> Array:
    """The sum in float64, for any number of rows in one graph."""
    return torch.sum(values, dtype=torch.float64)


def add_classes(terms: Array) -> Array:
    """The sums over the classes (rows, classes) to (rows,), taken in float64."""
    return torch.sum(terms, -1, dtype=torch.float64).to(terms.dtype)


TRANSFORMED = Pieces(
    loss=lambda logits, *targets: Loss.apply(logits, soft_targets(logits, *targets)),
    residual=lambda logits, *targets: Residual.apply(logits, soft_targets(logits, *targets)),
    softmax=Softmax.apply,
    log_softmax=LogSoftmax.apply,
    logsumexp=LogSumExp.apply,
    add_classes=add_classes,
    binary=BinaryFunctions(
        costs=lambda xp, predictions, kind: Costs.apply(predictions, kind),
        slopes=lambda xp, predictions, kind: Slopes.apply(predictions, kind),
        product=lambda xp, a, b: Product.apply(a, b),
        add=lambda xp, values: Total.apply(xp.astype(values, torch.float64)),
        constant=torch.Tensor.detach,
    ),
)
