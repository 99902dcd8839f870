"""The keys of clusters that are done with, as spans of integers: eight bytes for each end of a span.

An integer stands for itself, so that keys numbered without a gap are one span, however many there are; text for 64 bits
of its BLAKE2b digest. Each key is added once; one that is added again is found, as two texts of one digest are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray


class KeyAgain(ValueError):
    """A key is in the spans already."""


@dataclass(frozen=True, eq=False)
class KeySpans:
    """Spans of keys, in arrays of shape (spans, 2) int64 of the first and the last of each; each array is sorted.

    An array is more than twice as long as the next, so that many small additions cost little.
    """

    arrays: tuple[NDArray[Any], ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySpans) and np.array_equal(joined(self.arrays), joined(other.arrays))

    __hash__ = None  # type: ignore[assignment]  # it holds arrays

    def merge(self, other: KeySpans) -> KeySpans:
        """The spans of both; KeyAgain if they have a key in common."""
        for mine in self.arrays:
            for its in other.arrays:
                check_apart(mine, its)
        arrays = sorted((*self.arrays, *other.arrays), key=len)
        kept: list[NDArray[Any]] = []
        for array in arrays:  # the shortest first
            kept.append(joined([kept.pop(), array]) if kept and len(array) <= 2 * len(kept[-1]) else array)
        return KeySpans(tuple(sorted(kept, key=len, reverse=True)))

    def check_new(self, keys: Sequence[Any]) -> None:
        """Raise KeyAgain if one of these keys is there."""
        if self.arrays and keys:
            spans = spans_of(keys)
            for array in self.arrays:
                check_apart(array, spans)


def spans_of(keys: Sequence[Any]) -> NDArray[np.int64]:
    """The spans of different keys, integers or text."""
    numbers = np.sort(np.asarray([number_of(key) for key in keys], np.int64))
    return joined([np.stack([numbers, numbers], axis=1)])


def number_of(key: Any) -> int:
    """The number of 64 bits, with a sign, that stands for a key."""
    if isinstance(key, str | bytes):
        text = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        return int.from_bytes(blake2b(text, digest_size=8).digest(), signed=True)
    return (int(key) + 2**63) % 2**64 - 2**63


def joined(arrays: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    """All spans in one array, those that follow each other without a gap as one; KeyAgain if two overlap."""
    spans = np.concatenate([np.empty((0, 2), np.int64), *arrays])
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    if (spans[1:, 0] <= spans[:-1, 1]).any():
        raise KeyAgain
    is_apart = spans[1:, 0] - 1 != spans[:-1, 1]  # nothing is under the first, so that this cannot overflow
    first, last = (np.concatenate(ends) for ends in (([True], is_apart), (is_apart, [True])))
    return np.stack([spans[first[: len(spans)], 0], spans[last[: len(spans)], 1]], axis=1)


def check_apart(spans: NDArray[Any], others: NDArray[Any]) -> None:
    """Raise KeyAgain if two sorted arrays of spans, neither of them empty, have a key in common."""
    few, many = sorted((spans, others), key=len)
    after = np.searchsorted(many[:, 0], few[:, 1], side="right")  # how many begin by the end of each of the few
    if ((after > 0) & (many[after - 1, 1] >= few[:, 0])).any():
        raise KeyAgain
