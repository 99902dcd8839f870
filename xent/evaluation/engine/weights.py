"""The weights of rows: those that cannot be one, and those that leave their rows out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.options import Options
from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.sources.messages import MalformedError, refusal
from xent.evaluation.statistics.state import State

LARGEST = 2.0**64


def row_weights(
    weights: Any, unread: NDArray[np.bool_], ignored: NDArray[np.bool_], bad: NDArray[np.bool_]
) -> tuple[NDArray[Any] | None, NDArray[np.bool_] | None]:
    """The weights of some rows in float64, and which of them are none; None and None where rows have no weights.

    A row of weight 0 is marked as ignored, whatever its label is. The four masks have no row in common.
    """
    if weights is None:
        return None, None
    weights = to_numpy(weights).astype(np.float64)
    is_zero = (weights == 0) & ~unread
    ignored |= is_zero
    bad &= ~is_zero
    return weights, ~((weights >= 0) & (weights <= LARGEST)) & ~(unread | ignored | bad)


def check_weights(state: State, options: Options) -> None:
    """Raise MalformedError for weights that are negative, NaN or too large, unless such rows are skipped."""
    if state.bad_weight.count and options.on_error == "error":
        got = f"{state.bad_weight.count} rows of another, the first is row {state.bad_weight.first_row}"
        remedy = "Pass on_error='skip' to leave such rows out; a weight of 0 does so too."
        raise MalformedError(refusal("weights", "lie in [0, 2**64]", got, remedy))
