r"""The k largest log-probabilities of each row with their ids, as servers of language models store them.

What the other classes have together is known, but not how they share it. Where they share it equally,

.. math:: \ell_c = \log\left(1 - \sum_{j=1}^{k} e^{\ell_j}\right) - \log(C - k)

for each class c that is not among the ids. The numbers of a row follow from its k values; nothing of C classes is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.sources.messages import ReadError, refusal
from xent.evaluation.sources.source import Part, Source, read_rows, read_rows_and_nulls

TAILS = ("uniform", "error", "skip")

SLACK = 0.01  # of a row's total probability, for what float16 and the writer's own softmax round


@dataclass(frozen=True)
class TopK:
    """The k largest log-probabilities of each row, which :func:`xent.evaluate` takes as predictions.

    Parameters
    ----------
    ids : as predictions, shape (rows, k), integer, in ``[0, classes)``, no id twice in a row
        The classes. A row of fewer than k is filled up with ids of -1 and log-probabilities of minus infinity.
    log_probabilities : as predictions, shape (rows, k), real floating
        Theirs, in nats.
    classes : int
        How many classes there are.
    tail : {"error", "skip", "uniform"}
        What is known of the other classes: nothing, so that a row whose label is not among its ids is an error, or a
        row to count and leave out; or that they share what is left equally. Where nothing is known of them the entropy
        and the Brier score are NaN.
    """

    ids: Any
    log_probabilities: Any
    classes: int
    tail: str = "error"


@dataclass(frozen=True, eq=False)
class TopKSource(Source):
    """Log-probabilities of (rows, C), of which ``ids`` and ``values`` (rows, k) are stored."""

    ids: Source
    values: Source
    tail: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as it is stored."""
        return self.ids.row_bytes + self.values.row_bytes

    @property
    def has_whole_rows(self) -> bool:
        """A task gets k of them."""
        return False

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.values.bounds(max(1, chunk_bytes // self.row_bytes) * self.values.row_bytes)

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        (graph, ids), (more, values) = self.ids.parts(bounds), self.values.parts(bounds)
        facts = self.shape[1], self.tail, self.path
        stored = zip(ids, values, bounds, strict=False)
        return graph | more, [(TopKPart, *both, start, *facts) for *both, start in stored]

    def fingerprint(self) -> Any:
        both = [self.ids.fingerprint(), self.values.fingerprint()]
        return None if None in both else [*both, self.shape[1], self.tail]

    def facts(self) -> dict[str, Any]:
        stored = {"ids": self.ids.facts(), "log_probabilities": self.values.facts()}
        return {**super().facts(), **stored, "classes": self.shape[1], "tail": self.tail}

    def files(self) -> list[str]:
        return [*self.ids.files(), *self.values.files()]

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        return sum(source.check_complete(zeros_ok=zeros_ok) for source in (self.ids, self.values))


@dataclass(frozen=True)
class TopKPart(Part):
    """The rows of a chunk: ``ids`` and ``values`` are parts or arrays, as :func:`read_rows` takes them."""

    ids: Any
    values: Any
    first: int
    classes: int
    tail: str
    path: str | None

    def read(self, start: int, stop: int) -> TopKRows:
        return self.rows_of(read_rows(self.ids, start, stop), read_rows(self.values, start, stop), start)

    def read_with_nulls(self, start: int, stop: int) -> tuple[TopKRows, NDArray[np.bool_] | None]:
        (ids, null_ids), (values, null_values) = (
            read_rows_and_nulls(part, start, stop) for part in (self.ids, self.values)
        )
        nulls = [is_null for is_null in (null_ids, null_values) if is_null is not None]
        return self.rows_of(ids, values, start), np.logical_or.reduce(nulls) if nulls else None

    def rows_of(self, ids: Any, values: Any, start: int) -> TopKRows:
        """The rows from `start` on, of their ids and log-probabilities."""
        values = np.asarray(values).astype(np.float64)
        return TopKRows(np.asarray(ids), values, self.classes, self.tail, self.first + start, self.path)

    def edge(self, start: int, stop: int) -> int | None:
        """That of ids or values."""
        edges = (part.edge(start, stop) for part in (self.ids, self.values) if isinstance(part, Part))
        return next((edge for edge in edges if edge is not None), None)


@dataclass(frozen=True)
class TopKRows:
    """Some rows: ids, and log-probabilities in float64, both (rows, k); they begin at row `first` of the set.

    The log-probability of an id of -1 is minus infinity.
    """

    ids: NDArray[Any]
    values: NDArray[Any]
    classes: int
    tail: str
    first: int
    path: str | None

    @property
    def others(self) -> NDArray[Any]:
        """How many classes are not among the ids, shape (rows,)."""
        others: NDArray[Any] = self.classes - (self.ids != -1).sum(axis=1)
        return others

    @property
    def tail_value(self) -> NDArray[Any]:
        """The log-probability of each class that is not among the ids, shape (rows,); NaN if it is not known."""
        unknown = np.full(len(self.ids), np.nan)
        if self.tail == "uniform":
            with np.errstate(divide="ignore", invalid="ignore"):  # log 0, if nothing is left or there are no others
                left = np.log(np.maximum(1 - np.exp(self.values).sum(axis=1), 0))
                unknown = left - np.log(self.others)
        return np.where(self.others == 0, -np.inf, unknown)

    def outside(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The rows whose label is not among the ids and has no log-probability; none if the tail is uniform."""
        is_absent = ~(self.ids == labels[:, None]).any(axis=1)
        return is_absent if self.tail != "uniform" else np.zeros_like(is_absent)

    def check(self, ignored: NDArray[Any]) -> None:
        """Raise ReadError for the first row that is malformed, of those that are not ignored."""
        in_order, is_none = np.sort(self.ids, axis=1), (self.ids == -1) & (self.values == -np.inf)
        for flaw, bad in (
            ("an id outside its classes", (((self.ids < 0) & ~is_none) | (self.ids >= self.classes)).any(axis=1)),
            ("an id twice", ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] != -1)).any(axis=1)),
            ("log-probabilities of more than 1 together", np.exp(self.values).sum(axis=1) > 1 + SLACK),
        ):
            bad &= ~ignored
            if bad.any():
                row = self.first + int(np.argmax(bad))
                raise ReadError(f"evaluate: row {row} of {self.path or 'the ids'} has {flaw}.")

    def statistics(self, labels: NDArray[Any]) -> xent.RowStatistics:
        """As :func:`xent.row_statistics` of the log-probabilities of all classes."""
        values, others, tail_value = self.values, self.others, self.tail_value
        at_label = self.ids == labels[:, None]
        label_value = np.where(at_label.any(axis=1), np.where(at_label, values, 0.0).sum(axis=1), tail_value)
        label_value = np.where(np.isnan(values).any(axis=1), np.nan, label_value)
        is_before = (self.ids < labels[:, None]) & (self.ids != -1)
        ahead = (values > label_value[:, None]) | ((values == label_value[:, None]) & is_before)
        others_before = labels - is_before.sum(axis=1)
        tied = np.where(tail_value == label_value, others_before, 0)
        rank = ahead.sum(axis=1) + np.where(tail_value > label_value, others, tied)
        top = np.fmax(values.max(axis=1), tail_value)
        p, q = np.exp(values), np.exp(tail_value)
        with np.errstate(invalid="ignore"):  # 0 · −inf, which is selected out
            entropy = np.where(p == 0, 0.0, -values * p).sum(axis=1) + others * np.where(q == 0, 0.0, -tail_value * q)
        total = p.sum(axis=1) + others * (q if self.tail == "uniform" else 0.0)
        return xent.RowStatistics(
            loss=0.0 - label_value,
            lse=np.log(total),
            label_probability=np.exp(label_value),
            top_probability=np.exp(top),
            label_rank=np.where(np.isnan(label_value) | np.isnan(values).any(axis=1), -1, rank),
            entropy=entropy,
            sum_p_squared=(p * p).sum(axis=1) + others * q * q,
        )

    def highest(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The class of the highest log-probability of these rows; of equal ones the first."""
        values, ids, tail_value = self.values[rows], self.ids[rows], self.tail_value[rows]
        top = values.max(axis=1, keepdims=True)
        best: NDArray[Any] = np.where((values == top) & (ids != -1), ids, self.classes).min(axis=1)
        for row in np.flatnonzero((tail_value >= top[:, 0]) & (self.others[rows] > 0)):
            first_other = next(label for label in range(self.classes) if label not in ids[row])
            best[row] = first_other if tail_value[row] > top[row, 0] else min(best[row], first_other)
        return best


def pair_up(top: TopK, ids: Source, values: Source, argument: str) -> TopKSource:
    """The source of ids and values; TypeError or ValueError if they do not fit."""
    if top.tail not in TAILS:
        rule, remedy = "have the tail 'uniform', 'error' or 'skip'", "It says what is known of the other classes."
        raise ValueError(refusal(argument, rule, repr(top.tail), remedy))
    if len(values.shape) < 2 or ids.shape != values.shape:
        rule = "have ids and log-probabilities of one shape (rows, k)"
        raise ValueError(refusal(argument, rule, f"{ids} and {values}", "Save one of each for each id."))
    if ids.dtype.kind not in "iu":
        raise TypeError(refusal(argument, "have ids that are integers", ids, "Save ids.astype(numpy.int64)."))
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        raise TypeError(refusal(argument, "have real log-probabilities", values, "Save them as float32."))
    if not values.shape[-1] <= top.classes:
        rule = f"have at least {values.shape[-1]} classes, as many as ids in a row"
        raise ValueError(refusal(argument, rule, top.classes, "Pass the size of the whole vocabulary."))
    if not values.shape[-1]:
        raise ValueError(refusal(argument, "have at least one id in a row", ids, "Save the k largest."))
    return TopKSource(values.path, (*values.shape[:-1], top.classes), values.dtype, ids, values, top.tail)
