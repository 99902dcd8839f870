r"""The k largest log-probabilities of each row with their ids, as servers of language models store them.

What the other classes have together is known, but not how they share it. Where they share it equally,

.. math:: \ell_c = \log\left(1 - \sum_{j=1}^{k} e^{\ell_j}\right) - \log(C - k)

for each class c that is not among the ids. Each task makes its dense block of rows × C; nothing dense is stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from xent.evaluation.source import ReadError, Source, refusal

SLACK = 0.01  # of a row's total probability, for what float16 and the writer's own softmax round


@dataclass(frozen=True)
class TopK:
    """The k largest log-probabilities of each row, in the place of predictions.

    Parameters
    ----------
    ids : as predictions, shape (rows, k), integer, in ``[0, classes)``, no id twice in a row
        The classes.
    log_probabilities : as predictions, shape (rows, k), real floating
        Theirs, in nats.
    classes : int
        How many classes there are.
    tail : {"uniform"}
        How the other classes share what is left: equally.
    """

    ids: Any
    log_probabilities: Any
    classes: int
    tail: str = "uniform"


@dataclass(frozen=True, eq=False)
class TopKSource(Source):
    """Dense log-probabilities, of which ``ids`` and ``values`` are stored."""

    ids: Source
    values: Source

    def bounds(self, chunk_bytes: int) -> list[int]:
        most = max(1, chunk_bytes // self.row_bytes)
        stored = self.values.bounds(most * self.values.row_bytes)  # may be more, where they are stored so
        return [*(row for start, stop in pairwise(stored) for row in range(start, stop, most)), self.shape[0]]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        (graph, ids), (more, values) = self.ids.parts(bounds), self.values.parts(bounds)
        classes, path = self.shape[1], self.path
        tasks = zip(ids, values, bounds, strict=False)
        return graph | more, [(dense, *stored, classes, start, path) for *stored, start in tasks]

    def check_complete(self) -> None:
        """Raise ReadError where parts of either were never written, or are lost."""
        self.ids.check_complete()
        self.values.check_complete()


def pair_up(top: TopK, ids: Source, values: Source, argument: str) -> TopKSource:
    """The source of both; TypeError or ValueError where they do not fit."""
    if top.tail != "uniform":
        remedy = "A row whose label is not among its ids has no loss without it."
        raise ValueError(refusal(argument, "have the tail 'uniform'", repr(top.tail), remedy))
    if len(values.shape) != 2 or ids.shape != values.shape:
        rule = "have ids and log-probabilities of one shape (rows, k)"
        raise ValueError(refusal(argument, rule, f"{ids} and {values}", "Save one of each for each id."))
    if ids.dtype.kind not in "iu":
        raise TypeError(refusal(argument, "have ids that are integers", ids, "Save ids.astype(numpy.int64)."))
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        raise TypeError(refusal(argument, "have real log-probabilities", values, "Save them as float32."))
    if not values.shape[1] <= top.classes:
        rule = f"have at least {values.shape[1]} classes, as many as ids in a row"
        raise ValueError(refusal(argument, rule, top.classes, "Pass the size of the whole vocabulary."))
    dtype = np.dtype(np.float64 if values.dtype.itemsize == 8 else np.float32)
    return TopKSource(values.path, (values.shape[0], top.classes), dtype, ids, values)


def dense(ids: Any, values: Any, classes: int, first: int, path: str | None) -> np.ndarray[Any, Any]:
    """Log-probabilities of all classes, shape (rows, C), of rows that begin at row `first` of the set."""
    rows, k = values.shape
    ids, wide = np.asarray(ids), np.asarray(values).astype(np.float64)
    in_order = np.sort(ids, axis=1)
    total = np.exp(wide).sum(axis=1)
    for flaw, bad in (
        ("an id outside its classes", ((ids < 0) | (ids >= classes)).any(axis=1)),
        ("an id twice", (in_order[:, 1:] == in_order[:, :-1]).any(axis=1)),
        ("log-probabilities of more than 1 together", total > 1 + SLACK),
    ):
        if bad.any():
            raise ReadError(f"evaluate: row {first + int(np.argmax(bad))} of {path or 'the ids'} has {flaw}.")
    dtype = np.float64 if np.asarray(values).dtype.itemsize == 8 else np.float32
    with np.errstate(divide="ignore"):  # nothing is left: −inf
        share = np.log(np.maximum(1 - total, 0)) - math.log(max(classes - k, 1))
    made = np.empty((rows, classes), dtype)
    made[:] = share[:, None]
    np.put_along_axis(made, ids.astype(np.int64), wide.astype(dtype), axis=1)
    return made
