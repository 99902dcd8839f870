"""The columns of the tables that loops write, and where a row is cut: what loops and their callers agree on."""

from __future__ import annotations

SEGMENT = 1 << 15
"""The most classes of an item, which is a segment of a row."""

MAX, REST, GAP, MASS, SQUARES, SPREAD, RANK = range(7)
FIELDS, STATISTICS_FIELDS = 4, 7
"""The first are those of a fold; the others are what statistics need as well."""

TOTAL, TOP, SQUARED, ENTROPY, BEFORE = range(5)
PROBABILITY_FIELDS = 5
"""Those of sums of probabilities: Σ p, the largest p, Σ p², −Σ p log p, how many classes rank before the label."""
