"""Products of NumPy arrays: the generic schedule, with the large arrays of a gradient in memory that is kept."""

from __future__ import annotations

from typing import Any

from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import Weights
from ..generic import linear as generic
from . import recycling


def run(plan: Plan, predictions: Any, targets: Array | None, weights: Weights) -> Any:
    """The result of one call on one product."""
    return generic.run(plan, predictions, targets, weights, recycling.empty)
