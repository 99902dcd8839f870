"""Arrays in memory, Dask arrays, and statistics of rows that Dask computes."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import xent
from xent.evaluation.sources.source import FORMATS, Source, refusal


@dataclass(frozen=True, eq=False)
class InHand(Source):
    """An array in hand, NumPy's or on a GPU; each task gets a view of its rows."""

    array: Any

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        return {}, [self.array[start:stop] for start, stop in pairwise(bounds)]


@dataclass(frozen=True, eq=False)
class DaskSource(Source):
    """A Dask array; as predictions it keeps its row chunks, as labels it is rechunked to the predictions' rows."""

    array: Any

    def bounds(self, chunk_bytes: int) -> list[int]:
        return [0, *np.cumsum(self.array.chunks[0], dtype=np.int64).tolist()]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        chunks = (tuple(stop - start for start, stop in pairwise(bounds)), *((size,) for size in self.shape[1:]))
        array = self.array if self.array.chunks == chunks else self.array.rechunk(chunks)
        (array,) = importlib.import_module("dask").optimize(array)
        return dict(array.__dask_graph__()), [
            (array.name, i, *(0 for _ in self.shape[1:])) for i in range(len(chunks[0]))
        ]

    @property
    def has_whole_rows(self) -> bool:
        """Whether its classes are in one chunk."""
        return len(self.shape) < 2 or self.array.numblocks[1] == 1


@dataclass(frozen=True, eq=False)
class StatisticsSource(Source):
    """The statistics of the rows of a Dask array that is cut along its classes, of which none is joined.

    ``fields`` are Dask arrays (rows,), those of ``xent.RowStatistics``.
    """

    fields: tuple[Any, ...]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        # subtle: dask.optimize would optimise the graph of all fields once for each of them
        merged = importlib.import_module("dask.highlevelgraph").HighLevelGraph.merge
        keys = [key for one in self.fields for key in one.__dask_keys__()]
        graph = self.fields[0].__dask_optimize__(merged(*(one.__dask_graph__() for one in self.fields)), keys)
        return dict(graph), [
            (xent.RowStatistics, *((one.name, i) for one in self.fields)) for i in range(len(bounds) - 1)
        ]


def open_dask(lazy: Any, argument: str) -> DaskSource:
    """A Dask array whose chunks are of known sizes."""
    if any(math.isnan(size) for size in lazy.shape):
        remedy = "Call its compute_chunk_sizes() first."
        raise ValueError(refusal(argument, "know the sizes of its chunks", "a Dask array of unknown sizes", remedy))
    return DaskSource(None, tuple(lazy.shape), np.dtype(lazy.dtype), lazy)


def seen_by_numpy(source: Any, kind: str, argument: str) -> np.ndarray[Any, Any]:
    """An array of another library as NumPy's, without a copy where its memory is the host's."""
    reason = ""
    if not isinstance(source, np.ndarray):  # a subclass has its own meaning: a mask for instance
        try:
            if hasattr(source, "__array__"):
                return np.asarray(source)
            if hasattr(source, "__dlpack__"):
                return np.from_dlpack(source)
        except Exception as error:  # it is on a GPU, needs a gradient, or has a dtype that NumPy has not
            reason = f" ({error})"
    rule = f"be {FORMATS}, or a NumPy or Dask array, or one that NumPy can see"
    raise TypeError(refusal(argument, rule, f"{kind}{reason}", "Convert it with numpy.asarray, or save it."))
