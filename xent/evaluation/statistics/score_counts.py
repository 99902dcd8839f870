r"""How many rows of a class and of the others have each score, which tells how well the score ranks them.

A score is a float64; its bits, read as an integer that is in the same order, are its key. Where there are more
different keys than a state may hold, the lowest bits of all of them are left out, as few as will do:

.. math:: s = \min \{ s : |\{ k \gg s \}| \le \mathrm{limit} \}

which depends on the scores alone, for it never falls as rows are added: no order of merges can show. A key is a bin
then, of a width relative to its scores, and what is unknown of their order bounds the error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.statistics.exact_sums import UNIT_BITS

MOST_KEYS, LEAST_KEYS, ALL_KEYS = 2**16, 2**8, 2**20
"""The most and the fewest keys of a class that a state may hold, and of all classes together."""
KEY_BYTES, WEIGHTED_KEY_BYTES = 24, 24 + 2 * 190
"""Of a key and its two counts, and of one whose counts are weights."""
BLOCK_ELEMENTS = 2**21
LOW_63_BITS = np.int64(2**63 - 1)


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """The counted rows by the score that they give one class.

    Attributes
    ----------
    unranked : int
        Rows whose score is NaN, which have no key.
    limit, shift : int
        How many keys there may be, and how many bits of each are left out: 0 where every score has its own.
    keys : array of int64, shape (keys,)
        The keys, ascending.
    positives, negatives : array of int64, shape (keys,)
        The rows of the class and of others that have them; of weighted rows their weights in units of 2**-1126, as
        objects, for these are integers of any length.
    """

    unranked: int
    limit: int
    shift: int
    keys: NDArray[Any]
    positives: NDArray[Any]
    negatives: NDArray[Any]

    def merge(self, other: ScoreCounts) -> ScoreCounts:
        """The counts of both; exactly associative and commutative."""
        shift = max(self.shift, other.shift)
        both = [
            np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("keys", "positives", "negatives")
        ]
        keys = np.concatenate([each.keys >> (shift - each.shift) for each in (self, other)])
        return counted_keys(self.unranked + other.unranked, self.limit, shift, keys, *both[1:])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ScoreCounts)
            and (self.unranked, self.limit, self.shift) == (other.unranked, other.limit, other.shift)
            and all(
                np.array_equal(getattr(self, name), getattr(other, name)) for name in ("keys", "positives", "negatives")
            )
        )

    __hash__ = None  # type: ignore[assignment]  # it holds arrays


NO_SCORES = ScoreCounts(0, MOST_KEYS, 0, *np.zeros((3, 0), np.int64))


def counted_keys(
    unranked: int, limit: int, shift: int, keys: NDArray[Any], positives: NDArray[Any], negatives: NDArray[Any]
) -> ScoreCounts:
    """The counts of keys in any order, each of which may be there several times."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    more = least_shift(keys, limit)
    keys >>= more
    first = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))  # of each key
    if len(keys):
        positives, negatives = (np.add.reduceat(counts[order], first) for counts in (positives, negatives))
    return ScoreCounts(unranked, limit, shift + more, keys[first], positives, negatives)


def least_shift(keys: NDArray[Any], limit: int) -> int:
    """How many of the lowest bits must be left out so that at most `limit` of the ascending keys differ."""
    low, high = 0, 63
    if different(keys, 0) <= limit:
        return 0
    while high - low > 1:  # `low` is too few, `high` will do
        middle = (low + high) // 2
        low, high = (low, middle) if different(keys, middle) <= limit else (middle, high)
    return high


def different(keys: NDArray[Any], shift: int) -> int:
    """How many of the ascending keys differ without so many bits."""
    return int(np.count_nonzero(np.diff(keys >> shift))) + 1


def keys_of(scores: NDArray[Any]) -> NDArray[np.int64]:
    """The integers (int64) in the order of the scores (float64, not NaN); equal scores have equal ones."""
    bits: NDArray[np.int64] = (scores + 0.0).view(np.int64)  # −0 becomes 0
    return np.where(bits < 0, bits ^ LOW_63_BITS, bits)


def units_of(weights: NDArray[Any]) -> NDArray[Any]:
    """The weights in units of 2**-1126, as objects: exact integers."""
    fraction, exponent = np.frexp(weights)
    mantissa = np.ldexp(fraction, 53).astype(np.int64).astype(object)
    units: NDArray[Any] = mantissa << (exponent.astype(np.int64) + UNIT_BITS - 53).astype(object)
    return units


def scored_classes(classes: int) -> range:
    """The classes that are ranked against the others: of two the second alone, for the first has the same order."""
    return range(1, 2) if classes == 2 else range(classes)


def key_limit(classes: int) -> int:
    """How many keys a state may hold for each of so many classes."""
    return min(max(ALL_KEYS // max(1, len(scored_classes(classes))), LEAST_KEYS), MOST_KEYS)


def score_counts(
    scores: Callable[[slice], NDArray[Any]],
    labels: NDArray[Any],
    counted: NDArray[Any],
    classes: int,
    weights: NDArray[Any] | None = None,
) -> dict[int, ScoreCounts]:
    """The counts of each scored class, over the counted rows.

    Parameters
    ----------
    scores : callable
        Returns those of a slice of the rows: (rows, scored classes) float64.
    labels : array, shape (rows,), integer
    counted : array, shape (rows,), bool
    classes : int
    weights : array, shape (rows,), float64, or None for none
        Positive where a row is counted.
    """
    scored, limit = scored_classes(classes), key_limit(classes)
    nothing = np.zeros(0, np.int64)
    found = {c: ScoreCounts(0, limit, 0, nothing, nothing, nothing) for c in scored}
    step = max(1, BLOCK_ELEMENTS // max(1, len(scored)))
    for start in range(0, len(labels), step):
        rows = slice(start, start + step)
        block, label = scores(rows)[counted[rows]].T.copy(), labels[rows][counted[rows]]
        amounts = amounts_of(len(label), None if weights is None else weights[rows][counted[rows]])
        for c, of_class in zip(scored, block, strict=True):
            found[c] = found[c].merge(scores_counted(of_class, label == c, amounts, limit))
    return found


def amounts_of(rows: int, weights: NDArray[Any] | None) -> NDArray[Any]:
    """What each row counts: 1, or its weight in units of 2**-1126."""
    return np.ones(rows, np.int64) if weights is None else units_of(weights)


def scores_counted(scores: NDArray[Any], is_positive: NDArray[Any], amounts: NDArray[Any], limit: int) -> ScoreCounts:
    """The counts of some rows, of the class or of others, by their scores, (rows,) float64."""
    is_ranked = ~np.isnan(scores)
    keys, is_positive, amount = keys_of(scores[is_ranked]), is_positive[is_ranked], amounts[is_ranked]
    both = np.where(is_positive, amount, 0), np.where(is_positive, 0, amount)
    return counted_keys(len(scores) - len(keys), limit, 0, keys, *both)


def scores_of_keys(keys: NDArray[Any], shift: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the greatest score (float64) that have each key, of which so many bits are left out."""
    low = keys << shift
    ends = (np.where(each < 0, each ^ LOW_63_BITS, each).view(np.float64) for each in (low, low + ((1 << shift) - 1)))
    return next(ends), next(ends)
