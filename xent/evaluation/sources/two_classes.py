r"""Predictions of two classes that are stored as one number a row, of class 1.

.. math:: z \mapsto (0, z), \qquad p \mapsto (1 - p, p), \qquad \log p \mapsto (\log(1 - p), \log p)

for logits, probabilities and log-probabilities. 1 − p is taken in float64, so that a p of float32 keeps its digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.checks import Kind
from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.sources.source import Part, Source, read_rows, read_rows_and_nulls


def two_classes(source: Source, kind: Kind) -> Source:
    """The source of one number a row, (rows,), as that of both classes, (rows, 2)."""
    dtype = source.dtype if kind == "logits" else np.dtype(np.float64)
    return TwoClasses(source.path, (source.shape[0], 2), dtype, source, kind)


@dataclass(frozen=True, eq=False)
class TwoClasses(Source):
    """Both classes of ``source``, which has the numbers of class 1."""

    source: Source
    kind: Kind

    @property
    def shown_shape(self) -> tuple[int, ...]:
        return self.source.shown_shape

    @property
    def shown_dtype(self) -> str:
        return self.source.shown_dtype

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.source.bounds(max(1, chunk_bytes * self.source.row_bytes // self.row_bytes))

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        graph, parts = self.source.parts(bounds)
        return graph, [(TwoClassesPart, part, self.kind) for part in parts]

    def for_tasks(self) -> Source:
        return replace(self, source=self.source.for_tasks())

    def files(self) -> list[str]:
        return self.source.files()

    def fingerprint(self) -> Any:
        return self.source.fingerprint()

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        return self.source.check_complete(zeros_ok=zeros_ok)


@dataclass(frozen=True)
class TwoClassesPart(Part):
    """Both classes of the rows of a chunk; ``numbers`` is what :func:`read_rows` takes."""

    numbers: Any
    kind: Kind

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return both(read_rows(self.numbers, start, stop), self.kind)

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        numbers, is_null = read_rows_and_nulls(self.numbers, start, stop)
        return both(numbers, self.kind), is_null

    def edge(self, start: int, stop: int) -> int | None:
        return self.numbers.edge(start, stop) if isinstance(self.numbers, Part) else None


def both(numbers: Any, kind: Kind) -> NDArray[Any]:
    """The numbers of both classes, (rows, 2), of those of class 1.

    Examples
    --------
    >>> both(np.asarray([0.25]), "probabilities")
    array([[0.75, 0.25]])
    """
    one: NDArray[Any] = to_numpy(numbers)
    if kind == "logits":
        return np.stack([np.zeros_like(one), one], axis=1)
    one = one.astype(np.float64)
    if kind == "probabilities":
        return np.stack([np.maximum(1 - one, 0), one], axis=1)  # a number above 1 is found as no probability
    log_p = np.minimum(one, 0)  # nor is one above 0 a log-probability
    with np.errstate(divide="ignore"):  # each formula keeps its digits on one side
        other = np.where(log_p > -math.log(2), np.log(-np.expm1(log_p)), np.log1p(-np.exp(log_p)))
    return np.stack([other, one], axis=1)
