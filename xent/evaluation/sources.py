"""Predictions and labels: which source is behind a path, a URL, or an array in hand.

A path is that of a file or a folder, or a glob of several. What it does not say itself comes after a #: the name of an
array in the file, or the dtype and shape of a raw one. Only headers are read when a source is opened, and whatever is
wrong with them is said there, before any work. Nothing is ever unpickled.
Leaves out the formats themselves.
"""

from __future__ import annotations

import importlib
import math
import os
import uuid
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from array_api_compat import array_namespace

import xent
from xent.evaluation.archives import open_npz, open_safetensors
from xent.evaluation.hierarchies import is_zarr, open_hdf, open_zarr
from xent.evaluation.mapped import named_dtype, open_npy, open_raw
from xent.evaluation.options import Options
from xent.evaluation.places import check_ranges, is_glob, is_url, look, matches, members, suffix
from xent.evaluation.shards import open_shards
from xent.evaluation.source import ReadError, Source, is_on_a_gpu, refusal, take
from xent.evaluation.tables import open_arrow, open_parquet
from xent.evaluation.topk import TopK, pair_up
from xent.optional import require

__all__ = ["FORMATS", "ReadError", "Source", "TopK", "check_pair", "open_keys", "open_source", "refusal", "require"]

OPENERS = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".safetensors": open_safetensors,
    ".parquet": open_parquet,
    ".pq": open_parquet,
    ".arrow": open_arrow,
    ".feather": open_arrow,
    ".h5": open_hdf,
    ".hdf5": open_hdf,
}
FORMATS = "the path of a .npy file, of a .npz, safetensors, Parquet, Arrow or HDF5 file, or of a Zarr array"


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


def open_source(source: Any, argument: str) -> Source:
    """The source behind a path or an array.

    Parameters
    ----------
    source : str, os.PathLike, array, or TopK
        A path or an fsspec URL: a .npy file; an array of a .npz, safetensors, Parquet, Arrow or HDF5 file, or of a
        Zarr group, as in ``run.h5#logits``, where it is not the only one; a Zarr array; raw numbers, as in
        ``logits.bin#float16,1000,256``; a folder or a glob of such files, in natural order.
        An array is NumPy's, Dask's, an xarray.DataArray, or one of any library whose memory NumPy can see.
    argument : str
        What a message calls it: "predictions" or "labels".

    Raises
    ------
    FileNotFoundError
        If nothing is at the path.
    TypeError, ValueError
        If it is no such file or array, or holds Python objects.
    ReadError
        If a file is truncated, or so corrupt that its header cannot be read.
    ModuleNotFoundError
        If the library that the format needs is not installed.
    """
    if isinstance(source, str | os.PathLike):
        return open_path(os.fspath(source), argument)
    if isinstance(source, Source):
        return source
    if isinstance(source, TopK):
        ids, values = open_source(source.ids, argument), open_source(source.log_probabilities, argument)
        return pair_up(source, ids, values, argument)
    if type(source) in (np.ndarray, np.memmap):
        array = np.asarray(source)
        return InHand(None, array.shape, array.dtype, array)
    kind = f"{type(source).__module__}.{type(source).__name__}"
    if kind.startswith("xarray.") and hasattr(source, "dims") and hasattr(source, "data"):
        return open_source(source.data, argument)
    if is_on_a_gpu(source):
        return InHand(None, tuple(source.shape), named_dtype(str(source.dtype).removeprefix("torch.")), source)
    if hasattr(source, "__dask_graph__") and hasattr(source, "chunks"):
        return open_dask(source, argument)
    if kind.startswith(("h5py.", "zarr.")):  # NumPy would read them whole
        remedy = "Pass its path, with its name after a #, so that each task opens it."
        raise TypeError(refusal(argument, "be read in parts", f"an open {kind}", remedy))
    array = seen_by_numpy(source, kind, argument)
    return InHand(None, array.shape, array.dtype, array)


def check_pair(predictions: Source, labels: Source) -> None:
    """Raise TypeError or ValueError unless they are (rows, classes) floats and (rows,) integers of as many rows."""
    shape, dtype = predictions.shape, predictions.dtype
    if len(shape) != 2 or shape[1] == 0:
        rule = "have shape (rows, classes), with at least one class"
        raise ValueError(refusal("predictions", rule, predictions, "Reshape it."))
    if not (dtype.kind == "f" and dtype.itemsize <= 8) and dtype.name != "bfloat16":
        rule, remedy = "be float16, bfloat16, float32 or float64", "Save predictions.astype(numpy.float32)."
        raise TypeError(refusal("predictions", rule, predictions, remedy))
    if len(labels.shape) != 1:
        remedy = "Save labels[:, 0]." if labels.shape[1:] == (1,) else "Save one class index per row."
        raise ValueError(refusal("labels", f"have shape ({shape[0]},)", labels, remedy))
    if labels.dtype.kind not in "iu":
        raise TypeError(refusal("labels", "be integers", labels, "Save labels.astype(numpy.int64)."))
    if labels.shape[0] != shape[0]:
        rule, remedy = f"have shape ({shape[0]},), one for each row", "Pass the labels of these predictions."
        raise ValueError(refusal("labels", rule, labels, remedy))


def cut_statistics(predictions: Source, labels: Source, bounds: list[int], options: Options) -> Source:
    """The statistics of predictions whose classes lie in several chunks; other predictions as they are."""
    if not isinstance(predictions, DaskSource) or predictions.has_whole_rows:
        return predictions
    dask_array = importlib.import_module("dask.array")
    graph, parts = labels.parts(bounds)
    name, sizes = f"xent-labels-{uuid.uuid4().hex}", [stop - start for start, stop in pairwise(bounds)]
    graph |= {(name, i): (take, part, 0, size) for i, (part, size) in enumerate(zip(parts, sizes, strict=True))}
    lazy = dask_array.Array(graph, name, (tuple(sizes),), labels.dtype.newbyteorder("="))
    array = predictions.array
    if array.chunks[0] != tuple(sizes):
        array = array.rechunk({0: tuple(sizes)})
    meta = array._meta
    if is_on_a_gpu(meta):
        xp = array_namespace(meta)
        lazy = lazy.map_blocks(xp.asarray, dtype=lazy.dtype, meta=xp.empty((0,), dtype=lazy.dtype))
    with xent.using(validate="never"):
        ignored = options.ignore_index or None
        found = xent.row_statistics(array, lazy, kind=options.kind, ignore_index=ignored)
    return StatisticsSource(predictions.path, predictions.shape, predictions.dtype, tuple(found))


def open_keys(predictions: Source, **given: Any) -> list[Source | None]:
    """The sources of each row's slice and cluster, by the names of the arguments; None where there is none.

    Raise TypeError or ValueError unless they are (rows,) integers or text of as many rows.
    """
    found: list[Source | None] = []
    rows = predictions.shape[0]
    for argument, one in given.items():
        keys = None if one is None else open_source(one, argument)
        if keys is not None and keys.shape != (rows,):
            raise ValueError(
                refusal(argument, f"have shape ({rows},), one for each row", keys, "Pass one key per row.")
            )
        if keys is not None and keys.dtype.kind not in "biuUS":
            remedy = "Pass integers, or an array of strings of fixed width."
            raise TypeError(refusal(argument, "be integers or text", keys, remedy))
        found.append(keys)
    return found


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


def open_path(text: str, argument: str) -> Source:
    """The source at a path, with the name of an array after its # if it has one."""
    path, name = split(text)
    if is_glob(path):
        return open_members(path, matches(path), name, argument)
    opener = OPENERS.get(suffix(path))
    if is_url(path) and not opener and is_zarr(path):  # before look: a web server tells of no folders
        return numbers_only(open_zarr(path, name, argument), argument)
    try:
        entry = look(path)
    except FileNotFoundError as error:
        got = f"{path}, where nothing is"
        raise FileNotFoundError(refusal(argument, f"be {FORMATS}", got, "Check the spelling.")) from error
    if entry.is_folder:
        if is_zarr(path):
            return numbers_only(open_zarr(path, name, argument), argument)
        found = [member for member in members(path) if suffix(member) in (*OPENERS, ".zarr")]
        return open_members(path, found, name, argument)
    check_ranges(path, entry.size)
    if not opener:
        opener = open_raw if name else open_npy
    return numbers_only(opener(path, name, argument), argument)


def open_members(path: str, found: list[str], name: str, argument: str) -> Source:
    """The shards of a folder or a glob."""
    kinds = sorted({suffix(member) for member in found})
    if not found:
        rule = "be a folder of shards or a Zarr array, or a glob of shards"
        remedy = "Pass the directory that holds zarr.json or .zarray, or files of one format."
        raise ValueError(refusal(argument, rule, f"{path}, which has none", remedy))
    if len(kinds) > 1:
        rule, remedy = "have shards of one format", f"Pass a glob such as {path}/*{kinds[0]}."
        raise ValueError(refusal(argument, rule, f"{', '.join(kinds)} in {path}", remedy))
    named = f"#{name}" if name else ""
    return open_shards(f"{path}{named}", [f"{member}{named}" for member in found], argument, open_path)


def split(text: str) -> tuple[str, str]:
    """The path, absolute if it is local, and what comes after the last #, unless that is part of a file's own name."""
    path, _, name = text.rpartition("#")
    if not path or (not is_url(text) and os.path.exists(text)):
        path, name = text, ""
    path = path.removeprefix("file://")
    return (path if is_url(path) else os.path.abspath(path)), name


def numbers_only(source: Source, argument: str) -> Source:
    """The source, if it holds no Python objects."""
    if source.dtype.hasobject:
        remedy = "They are never unpickled: save numbers."
        raise TypeError(refusal(argument, "hold no Python objects", source, remedy))
    return source
