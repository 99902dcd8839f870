r"""The losses in forward mode: plain torch expressions, for any number of derivatives in any mix of modes.

.. math:: \ell = \sum_j t_j (c - x_j) + w \log\Bigl(1 + \sum_{j \ne k} e^{x_j - c} + \operatorname{expm1}(x_k - c)\Bigr)

is exact for every constant c, so autodiff of it is right at ties too; here c = max x, and k is its first place. The
cancellation of p and t in the derivative at a confident maximum, which ``autograd.py`` avoids, remains: torch takes
forward mode no further than one derivative through a function with a ``jvp`` of its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ...arrays import Array
from ...numerics import binary
from .autograd import TRANSFORMED, soft_targets, wide_sum, xp


def shifted_logits(logits: Array) -> tuple[Array, Array, Array]:
    """max x, a constant (rows, 1); x − max x (rows, classes), NaN in a row without a softmax; log Σ exp of that."""
    values = logits.detach()
    highest = torch.amax(values, -1, keepdim=True)
    first = torch.arange(values.shape[-1], device=values.device) == torch.argmax(values, -1, keepdim=True)
    infinite = torch.isinf(highest)
    at_infinity = torch.where(values == highest, 0.0, -math.inf)
    has_no_softmax = (highest == -math.inf) | (infinite & (torch.sum(values == highest, -1, keepdim=True) > 1))
    distance = torch.where(infinite, at_infinity, logits - torch.where(infinite, 0.0, highest))
    distance = torch.where(has_no_softmax, math.nan, distance)
    rest = torch.where(first, torch.expm1(torch.where(first, distance, 0.0)), torch.exp(distance))
    wide = torch.sum(rest, -1, keepdim=True, dtype=torch.float64)
    return highest, distance, torch.log1p(wide.to(logits.dtype))


class Unbounded(torch.autograd.Function):
    """x · ∞, where 0 · ∞ is 0: linear, though torch's own derivative of it at 0 would be NaN."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Array) -> Array:
        return torch.where(values == 0, 0.0, values * math.inf)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, cotangents: Array) -> Array:
        return Unbounded.apply(cotangents)

    @staticmethod
    def jvp(ctx: Any, changes: Array) -> Array:
        return Unbounded.apply(changes)


def product(mass: Array, value: Array) -> Array:
    """mass · value of one shape, where 0 · ±∞ is 0, for changes of the mass too."""
    constant, infinite = mass.detach(), torch.isinf(value.detach())
    change = mass - constant  # 0, but for its derivatives
    of_finite = change * torch.where(infinite, 0.0, value)
    of_infinite = Unbounded.apply(torch.where(infinite, change * torch.sign(value.detach()), 0.0))
    return constant * torch.where(infinite & (constant == 0), 0.0, value) + of_finite + of_infinite


def loss(logits: Array, labels_or_targets: Array, on: float, off: float) -> Array:
    """The loss of every row, from labels or from targets."""
    targets = soft_targets(logits, labels_or_targets, on, off)
    _, distance, log_sum = shifted_logits(logits)
    gaps = product(targets, -distance)
    return torch.sum(gaps, -1) + torch.sum(targets, -1) * log_sum[:, 0]


def softmax(logits: Array) -> Array:
    return torch.exp(log_softmax(logits))


def log_softmax(logits: Array) -> Array:
    _, distance, log_sum = shifted_logits(logits)
    return distance - log_sum


def logsumexp(logits: Array) -> Array:
    highest, _, log_sum = shifted_logits(logits)
    return torch.where(torch.isinf(highest), highest, highest + log_sum)[:, 0]


def costs(_: Any, predictions: Array, kind: str) -> tuple[Array, Array]:
    """The costs of a certain yes and a certain no; along any change of it, an infinite one has its slope."""
    if kind != "logits":
        ends = (0.0, 1.0) if kind == "probabilities" else (None, 0.0)
        return cost_beside(predictions, kind, 0, ends[0]), cost_beside(predictions, kind, 1, ends[1])
    infinite, zero = torch.isinf(predictions), torch.zeros_like(predictions)
    finite = torch.where(infinite, 0.0, predictions)  # subtle: logaddexp has no second derivative at infinity
    yes = torch.where(infinite, torch.relu(-predictions), torch.logaddexp(zero, -finite))
    return yes, torch.where(infinite, torch.relu(predictions), torch.logaddexp(zero, finite))


def cost_beside(predictions: Array, kind: str, answer: int, end: float | None) -> Array:
    """The cost of a certain yes (0) or no (1), which has a pole at the end."""
    if end is None:
        return binary.costs(xp, predictions, kind)[answer]
    at_end = predictions.detach() == end
    regular = binary.costs(xp, torch.where(at_end, end - 0.5 if end else 0.5, predictions), kind)[answer]
    distance = torch.where(at_end, predictions - end, 0.0)
    return torch.where(at_end, math.inf, regular) + Unbounded.apply(distance if answer else -distance)


FORWARD = TRANSFORMED._replace(
    loss=loss,
    softmax=softmax,
    log_softmax=log_softmax,
    logsumexp=logsumexp,
    binary=TRANSFORMED.binary._replace(costs=costs, product=lambda xp, mass, value: product(mass, value), add=wide_sum),
)
