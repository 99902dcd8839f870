"""Bins of equal width for probabilities: a probability is held against the edges that are reported, as it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def bin_of(p: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """The index i of the bin (i / bins, (i + 1) / bins] of each probability (float64); 0 is in the first.

    A number over 1, as rounding leaves them, is in the last.
    """
    edges = np.arange(bins + 1) / bins
    index: NDArray[np.int64] = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)
    index -= p <= edges[index]  # the product is rounded, and may have crossed an edge
    index += p > edges[index + 1]
    np.clip(index, 0, bins - 1, out=index)
    return index
