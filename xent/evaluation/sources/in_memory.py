"""Arrays in memory, Dask arrays, and statistics of rows that Dask computes."""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from array_api_compat import array_namespace

import xent
from xent.evaluation.sources.columns import KEYS
from xent.evaluation.sources.messages import INPUTS, refusal
from xent.evaluation.sources.source import TEXT, Source
from xent.optional import require


@dataclass(frozen=True, eq=False)
class ArraySource(Source):
    """An array in memory, NumPy's or on a GPU; each task gets a view of its rows."""

    array: Any

    def take(self, index: tuple[int | slice, ...]) -> Any:
        return self.array[index]

    def piece(self, axis: int) -> int:
        return 1

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        return {}, [self.array[start:stop] for start, stop in pairwise(bounds)]

    def files(self) -> list[str]:
        """The file of a memory map."""
        base = self.array.base if isinstance(self.array, np.ndarray) else None
        return [str(base.filename)] if isinstance(base, np.memmap) and base.filename else []


@dataclass(frozen=True, eq=False)
class DaskSource(Source):
    """A Dask array; as predictions it keeps its row chunks, as labels it is rechunked to the predictions' rows."""

    array: Any

    def bounds(self, chunk_bytes: int) -> list[int]:
        return [0, *np.cumsum(self.array.chunks[0], dtype=np.int64).tolist()]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        chunks = (tuple(stop - start for start, stop in pairwise(bounds)), *((size,) for size in self.shape[1:]))
        if not chunks[0]:
            return {}, []
        array = self.rows(bounds)
        array = array if array.chunks == chunks else array.rechunk(chunks)
        futures = futures_of(array)
        (array,) = importlib.import_module("dask").optimize(array)
        keys = [(array.name, i, *(0 for _ in self.shape[1:])) for i in range(len(chunks[0]))]
        return {**futures, **array.__dask_graph__()}, keys

    def rows(self, bounds: list[int]) -> Any:
        """The array of the rows from the first of some bounds to the last."""
        start, stop = bounds[0], bounds[-1]
        return self.array if (start, stop) == (0, self.shape[0]) else self.array[start:stop]

    @property
    def is_of_dask(self) -> bool:
        return True

    @property
    def has_whole_rows(self) -> bool:
        """Whether its classes are in one chunk."""
        return len(self.shape) < 2 or self.array.numblocks[1] == 1


@dataclass(frozen=True, eq=False)
class StatisticsSource(Source):
    """The statistics of the rows of a Dask array whose classes are in several chunks, which are never joined.

    ``fields`` are Dask arrays (rows,), those of ``xent.RowStatistics``.
    """

    fields: tuple[Any, ...]

    @property
    def is_of_dask(self) -> bool:
        return True

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        # subtle: dask.optimize would optimise the graph of all fields once for each of them
        merge = importlib.import_module("dask.highlevelgraph").HighLevelGraph.merge
        keys = [key for field in self.fields for key in field.__dask_keys__()]
        graph = self.fields[0].__dask_optimize__(merge(*(field.__dask_graph__() for field in self.fields)), keys)
        names = [field.name for field in self.fields]
        tasks = [(xent.RowStatistics, *((name, i) for name in names)) for i in range(len(bounds) - 1)]
        futures = {key: future for field in self.fields for key, future in futures_of(field).items()}
        return {**futures, **graph}, tasks


def futures_of(array: Any) -> dict[Any, Any]:
    """The futures in the graph of a Dask array, by their keys: what a cluster holds, which ``optimize`` leaves out."""
    layers = [layer for layer in array.__dask_graph__().layers.values() if layer.is_materialized()]
    return {key: value for layer in layers for key, value in layer.items() if is_future(value)}


def is_future(value: Any) -> bool:
    """Whether a value in a graph of Dask's is that of a task of a cluster, or of a scheduler like it."""
    library = sys.modules.get("distributed")  # without the module there is no future
    return (library is not None and isinstance(value, library.Future)) or getattr(value, "__dask_future__", False)


def open_dask(array: Any, argument: str) -> DaskSource:
    """The source of a Dask array; ValueError if it does not know the sizes of its chunks."""
    if any(math.isnan(size) for size in array.shape):
        remedy = "Call its compute_chunk_sizes() first."
        raise ValueError(refusal(argument, "know the sizes of its chunks", "a Dask array of unknown sizes", remedy))
    return DaskSource(None, tuple(array.shape), np.dtype(array.dtype), array)


def open_array(array: Any, argument: str) -> ArraySource:
    """The source of an array of any library whose memory NumPy can see; TypeError for anything else."""
    reason = ""
    is_subclass = isinstance(array, np.ndarray) and type(array) not in (np.ndarray, np.memmap)  # a mask for instance
    if not is_subclass and (hasattr(array, "__array__") or hasattr(array, "__dlpack__")):
        try:
            view = to_numpy(array)
            if argument in KEYS and view.dtype.hasobject and all(isinstance(text, str) for text in view.flat):
                view = view.astype(TEXT)
            return ArraySource(None, view.shape, view.dtype, view)
        except Exception as error:  # it is on a GPU, needs a gradient, or has a dtype that NumPy has not
            reason = f" ({error})"
    kind = f"{type(array).__module__}.{type(array).__name__}"
    rule = f"be {INPUTS}, or a NumPy or Dask array, or one that NumPy can see"
    remedy = "Convert it with numpy.asarray, or save it."
    if isinstance(array, xent.SparseTargets):
        remedy = "Call xent.cross_entropy, which takes it, or pass the soft targets of all classes."
    if isinstance(array, np.ma.MaskedArray):  # numpy.asarray would take what is under the mask
        filled = {"labels": "filled(-100), and ignore_index=-100", "weights": "filled(0)"}
        remedy = f"Pass {argument}.{filled.get(argument, 'filled()' if argument in KEYS else 'filled(numpy.nan)')}."
    raise TypeError(refusal(argument, rule, f"{kind}{reason}", remedy))


def is_on_a_gpu(array: Any) -> bool:
    """Whether it is an array of CuPy, or a tensor on a GPU."""
    return hasattr(array, "__cuda_array_interface__")


def to_numpy(array: Any) -> Any:
    """The array as NumPy's, a copy of one on a GPU and a view of any other; None for None."""
    if array is None or type(array) is np.ndarray:
        return array
    if hasattr(array, "detach"):  # a tensor, whose graph is not needed
        array = array.detach()
    if str(getattr(array, "dtype", "")) == "torch.bfloat16":
        numbers = array.cpu().contiguous().view(array_namespace(array).int16)
        return np.asarray(numbers).view(require("ml_dtypes", "bfloat16", "bfloat16").bfloat16)
    if is_on_a_gpu(array):
        return array.get() if hasattr(array, "get") else np.asarray(array.cpu())  # CuPy's, torch's
    if hasattr(array, "__dlpack__") and not hasattr(array, "__array__"):
        return np.from_dlpack(array)
    return np.asarray(array)
