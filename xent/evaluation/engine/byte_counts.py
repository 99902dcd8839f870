"""How many bytes of text the rows stand for, where it is known of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.sources.messages import MalformedError, refusal


def row_bytes(predicted_bytes: Any, first_row: int, left_out: NDArray[np.bool_]) -> NDArray[Any] | None:
    """The bytes of some rows, of which those that are left out may be any; None where they are not known of each row.

    Raises
    ------
    MalformedError
        If those of another row are under 0.
    """
    if predicted_bytes is None:
        return None
    counts: NDArray[Any] = to_numpy(predicted_bytes)
    negative = np.flatnonzero((counts < 0) & ~left_out)
    if len(negative):
        got = f"{counts[negative[0]]} in row {first_row + int(negative[0])}"
        raise MalformedError(
            refusal("predicted_bytes", "be at least 0", got, "Pass the bytes of the text of each row.")
        )
    return counts
