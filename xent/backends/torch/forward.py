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
from .autograd import TRANSFORMED, soft_targets, wide_sum


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


def loss(logits: Array, labels_or_targets: Array, on: float, off: float) -> Array:
    """The loss of every row, from labels or from targets."""
    targets = soft_targets(logits, labels_or_targets, on, off)
    _, distance, log_sum = shifted_logits(logits)
    gaps = targets * torch.where((targets == 0) & torch.isinf(distance), 0.0, -distance)
    return torch.sum(gaps, -1) + torch.sum(targets, -1) * log_sum[:, 0]


def softmax(logits: Array) -> Array:
    return torch.exp(log_softmax(logits))


def log_softmax(logits: Array) -> Array:
    _, distance, log_sum = shifted_logits(logits)
    return distance - log_sum


def logsumexp(logits: Array) -> Array:
    highest, _, log_sum = shifted_logits(logits)
    return torch.where(torch.isinf(highest), highest, highest + log_sum)[:, 0]


def costs(xp: Any, predictions: Array, kind: str) -> tuple[Array, Array]:
    """The costs of a certain yes and a certain no."""
    if kind != "logits":
        return binary.costs(xp, predictions, kind)
    infinite, zero = torch.isinf(predictions), torch.zeros_like(predictions)
    finite = torch.where(infinite, 0.0, predictions)  # subtle: logaddexp has no second derivative at infinity
    yes = torch.where(infinite, torch.relu(-predictions), torch.logaddexp(zero, -finite))
    return yes, torch.where(infinite, torch.relu(predictions), torch.logaddexp(zero, finite))


FORWARD = TRANSFORMED._replace(
    loss=loss,
    softmax=softmax,
    log_softmax=log_softmax,
    logsumexp=logsumexp,
    binary=TRANSFORMED.binary._replace(costs=costs, add=wide_sum),
)
