"""A key of each sequence, such as its document, repeated over the tokens of the sequence."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.flat_rows import flat
from xent.evaluation.sources.in_memory import ArraySource, DaskSource
from xent.evaluation.sources.source import Source


def of_rows(source: Source, batch: tuple[int, ...]) -> Source:
    """The source as (rows,), of a value for each row of a batch of this shape, or for all rows of an index of it.

    The shape of the source is that of the batch, or the first sizes of it.
    """
    times = math.prod(batch[len(source.shape) :])
    if source.shape == batch:
        return flat(source, None)
    if isinstance(source, ArraySource):
        beside = (*source.shape, *(1 for _ in batch[len(source.shape) :]))
        return flat(
            ArraySource(source.path, batch, source.dtype, np.broadcast_to(source.array.reshape(beside), batch)), None
        )
    source = flat(source, None)
    shape = (source.shape[0] * times,)
    if isinstance(source, DaskSource):
        repeated = importlib.import_module("dask.array").repeat(source.array, times)
        return DaskSource(source.path, shape, source.dtype, repeated)
    return RepeatedSource(source.path, shape, source.dtype, source, times)


@dataclass(frozen=True, eq=False)
class RepeatedSource(Source):
    """The rows of ``source``, each of them so many ``times``."""

    source: Source
    times: int

    @property
    def shown_shape(self) -> tuple[int, ...]:
        return self.source.shown_shape

    def for_tasks(self) -> Source:
        return replace(self, source=self.source.for_tasks())

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.read_with_nulls(start, stop)[0]

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        first = start // self.times
        block, is_null = self.source.read_with_nulls(first, -(-stop // self.times))
        wanted = slice(start - first * self.times, stop - first * self.times)
        rows = np.repeat(block, self.times)[wanted]
        return rows, None if is_null is None else np.repeat(is_null, self.times)[wanted]

    def edge(self, start: int, stop: int) -> int | None:
        edge = self.source.edge(start // self.times, -(-stop // self.times))
        row = None if edge is None else edge * self.times
        return row if row is not None and start < row < stop else None

    def files(self) -> list[str]:
        return self.source.files()

    def fingerprint(self) -> Any:
        return self.source.fingerprint()

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        return self.source.check_complete(zeros_ok=zeros_ok)

    @property
    def has_nulls(self) -> bool:
        return self.source.has_nulls
