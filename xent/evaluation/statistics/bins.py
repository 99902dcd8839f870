"""Bins: of equal width for probabilities, and four to the octave for losses.

A probability is held against the edges that are reported, as it was given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

OCTAVES = (-24, 12)
"""The histogram of losses has four bins in an octave; losses under 2**-24 nats, and over 2**12, are in one bin each."""


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


def histogram_bin(loss: NDArray[Any]) -> NDArray[Any]:
    """The index of each loss's bin in the histogram, four to the octave: exact, so the same on every machine."""
    fraction, exponent = np.frexp(loss)  # a fraction is in [1/2, 1)
    lowest, highest = OCTAVES
    index = 4 * exponent + np.floor(8 * fraction - 4).astype(np.int64)
    return np.clip(np.where(loss > 0, index, 4 * lowest), 4 * lowest, 4 * highest + 3)


def histogram_edges(index: int) -> tuple[float, float]:
    """The losses between which a bin of the histogram lies; the first begins at 0, the last has no end."""
    low, high = (math.ldexp(4 + edge % 4, edge // 4 - 3) for edge in (index, index + 1))
    lowest, highest = OCTAVES
    return (0.0 if index <= 4 * lowest else low), (math.inf if index >= 4 * highest + 3 else high)
