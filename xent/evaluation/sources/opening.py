"""Predictions and labels: which source is behind a path, a URL, or an array in memory.

A path is that of a file or a folder, or a glob of several. After a # it may have the name of an array in the file, or
the dtype and shape of a raw one. Only headers are read when a source is opened, and an error of a header is raised
there, before any work. Nothing is ever unpickled.
Leaves out the formats themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from xent.evaluation.formats import SUFFIXES
from xent.evaluation.sources.archives import open_npz
from xent.evaluation.sources.arrow import open_arrow, open_parquet
from xent.evaluation.sources.boundary import check_inside
from xent.evaluation.sources.columns import KEYS
from xent.evaluation.sources.delimited import open_delimited
from xent.evaluation.sources.hdf5 import open_hdf
from xent.evaluation.sources.in_memory import ArraySource, is_on_a_gpu, open_array, open_dask
from xent.evaluation.sources.messages import INPUTS, MalformedError, ReadError, refusal
from xent.evaluation.sources.npy import RAW_FORM, is_npy, named_dtype, open_npy, open_raw
from xent.evaluation.sources.partitions import open_partitions, partitions_in
from xent.evaluation.sources.pt import open_torch
from xent.evaluation.sources.responses import open_json_lines
from xent.evaluation.sources.safetensors import open_safetensors
from xent.evaluation.sources.shards import ShardedSource, open_shards
from xent.evaluation.sources.source import TEXT, Source, native
from xent.evaluation.sources.storage import (
    check_ranges,
    folder_of,
    is_glob,
    is_url,
    matches,
    members,
    remembering,
    status,
    suffix,
    without_file_protocol,
)
from xent.evaluation.sources.topk import TopK, pair_up
from xent.evaluation.sources.unopened import unopened_shards
from xent.evaluation.sources.zarr import is_zarr, open_zarr

OPENERS: dict[str, Any] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".safetensors": open_safetensors,
    ".parquet": open_parquet,
    ".pq": open_parquet,
    ".arrow": open_arrow,
    ".arrows": open_arrow,
    ".ipc": open_arrow,
    ".feather": open_arrow,
    ".h5": open_hdf,
    ".hdf5": open_hdf,
    ".hdf": open_hdf,
    ".he5": open_hdf,
    ".nc": open_hdf,
    ".nc4": open_hdf,
    ".zarr.zip": open_zarr,
    ".csv": open_delimited,
    ".tsv": open_delimited,
    ".csv.gz": open_delimited,
    ".tsv.gz": open_delimited,
    ".jsonl": open_json_lines,
    ".ndjson": open_json_lines,
    ".jsonl.gz": open_json_lines,
    ".ndjson.gz": open_json_lines,
    ".pt": open_torch,
    ".pth": open_torch,
}
"""The function that opens the files of each suffix of ``formats.FORMATS`` but those of folders."""


WITH_CHUNKS = {".zarr", *(own for own, opener in OPENERS.items() if opener in (open_hdf, open_zarr))}
"""The suffixes of files of which chunks may not be stored, which is looked into before a run."""


UNENCODED = re.compile(r"""://[^/?#\s:]*:(?!\d+[/?#])[^@]*[/?#<>"\s][^@]*@""")
"""A password at which readers of URLs do not agree where it ends, and may tell parts of it; not a port and a path."""


def open_source(source: Any, argument: str, allowed: Sequence[str] = ()) -> Source:
    """The source behind a path or an array.

    Parameters
    ----------
    source : str, os.PathLike, array, or TopK
        A path or an fsspec URL: a file of any of ``formats.FORMATS``, with the name of an array of it after a #, as in
        ``run.h5#logits``, if it is not the only one; a Zarr array; raw numbers, as in ``logits.bin#float16,1000,256``;
        a folder or a glob of such files, in natural order.
        An array is NumPy's, Dask's, an xarray.DataArray, or one of any library whose memory NumPy can see.
    argument : str
        What a message calls it: "predictions" or "labels".
    allowed : sequence of str
        Real paths of folders in which files may lie that a set names by itself, beside those of the set.

    Raises
    ------
    FileNotFoundError
        If nothing is at the path.
    TypeError, ValueError
        If it is no such file or array, or holds Python objects.
    ReadError
        If a file is truncated, or so corrupt that its header cannot be read, or leads out of its set.
    ModuleNotFoundError
        If the library that the format needs is not installed.
    """
    if isinstance(source, str | os.PathLike):
        with remembering():
            return open_path(os.fspath(source), argument, allowed)
    if isinstance(source, Source):
        return source
    if isinstance(source, TopK):
        ids, values = (open_source(each, argument, allowed) for each in (source.ids, source.log_probabilities))
        return pair_up(source, ids, values, argument)
    kind = f"{type(source).__module__}.{type(source).__name__}"
    if kind.startswith("xarray.") and hasattr(source, "dims") and hasattr(source, "data"):
        return open_source(source.data, argument, allowed)
    if is_on_a_gpu(source):
        return ArraySource(None, tuple(source.shape), named_dtype(str(source.dtype).removeprefix("torch.")), source)
    if hasattr(source, "__dask_graph__") and hasattr(source, "chunks"):
        return open_dask(source, argument)
    if kind.startswith(("h5py.", "zarr.")):  # NumPy would read them whole
        remedy = "Pass its path, with its name after a #, so that each task opens it."
        raise TypeError(refusal(argument, "be read in parts", f"an open {kind}", remedy))
    return open_array(source, argument)


def check_pair(predictions: Source, labels: Source) -> None:
    """Raise TypeError or ValueError unless they are (rows, classes) floats and (rows,) integers of as many rows."""
    shape, dtype = predictions.shape, predictions.dtype
    if len(shape) != 2 or shape[1] == 0:
        rule = "have shape (rows, classes), with at least one class"
        raise ValueError(refusal("predictions", rule, predictions, shape_remedy(predictions, labels)))
    if not (dtype.kind == "f" and dtype.itemsize <= 8) and dtype.name != "bfloat16":
        rule, remedy = "be float16, bfloat16, float32 or float64", "Save predictions.astype(numpy.float32)."
        raise TypeError(refusal("predictions", rule, predictions, remedy))
    if labels.shape == shape:  # a distribution for each row
        return
    if len(labels.shape) != 1:
        remedy = "Save labels[:, 0]." if labels.shape[1:] == (1,) else "Save one class index per row."
        raise ValueError(refusal("labels", f"have shape ({shape[0]},)", labels, remedy))
    if labels.dtype.kind not in "iu":
        remedy = "Save labels.astype(numpy.int64)."
        if labels.dtype.kind == "f":
            whole = "numpy.nan_to_num(labels, nan=-100).astype(numpy.int64)"
            remedy = f"Save {whole}, and pass ignore_index=-100 where a NaN is among them."
        elif labels.dtype.kind in "USTO":
            remedy = "Save the number of each class: numpy.unique(labels, return_inverse=True)[1], in their order."
        raise TypeError(refusal("labels", "be integers", labels, remedy))
    if labels.shape[0] != shape[0]:
        rule, remedy = f"have shape ({shape[0]},), one for each row", "Pass the labels of these predictions."
        raise ValueError(refusal("labels", rule, labels, remedy))


def shape_remedy(predictions: Source, labels: Source) -> str:
    """What to do about predictions that are not (rows, classes)."""
    ndim, column = len(predictions.shape), (predictions.path or "").rpartition("#")[2]
    if predictions.dtype.kind in "iu" and len(labels.shape) == 2:
        return "Pass the predictions first, then the labels."
    if ndim == 1 and column and column[-1:].isdigit():
        return f"Name all columns with a pattern: #{column.rstrip('0123456789')}*."
    if ndim == 1:
        return "Pass binary=True if they are the logits, or by `kind` the probabilities, of class 1 of two."
    return "Save one column for each class."


def open_keys(batch: tuple[int, ...], keys: Mapping[str, Any], allowed: Sequence[str] = ()) -> dict[str, Source]:
    """The sources of what is beside the labels, by the names of the arguments: slices, clusters, weights, a mask.

    Raises
    ------
    TypeError, ValueError
        Unless they are integers or text, weights numbers, a mask and bytes integers, of the shape of the rows, `batch`,
        or of its first sizes, for all rows of a sequence; bytes are of each row.
    """
    sources = {name: open_source(key, name, allowed) for name, key in keys.items()}
    for argument, source in sources.items():
        if not source.shape or source.shape != batch[: len(source.shape)]:
            rule = f"have shape {batch}, one for each row"
            rule += "" if len(batch) < 2 else f", or {batch[:1]}, one for each sequence"
            raise ValueError(refusal(argument, rule, source, "Pass one key per row."))
        if argument == "weights":
            if source.dtype.kind not in "biuf" and source.dtype.name != "bfloat16":
                raise TypeError(refusal(argument, "be real numbers", source, "Save weights.astype(numpy.float32)."))
        elif argument == "predicted_bytes":
            if source.dtype.kind not in "iu" or source.shape != batch:
                rule = f"be integers of shape {batch}, the bytes of each row, or the number of all"
                raise TypeError(
                    refusal(argument, rule, source, "Pass those of the first row of a text, and 0 of others.")
                )
        elif argument == "mask":
            if source.dtype.kind not in "biu":
                raise TypeError(refusal(argument, "be true and false, or 1 and 0", source, "Save mask.astype(bool)."))
        elif source.dtype.kind not in "biuUST":
            remedy = "Pass integers, or text such as numpy.asarray(…, dtype=str)."
            raise TypeError(refusal(argument, "be integers or text", source, remedy))
    return sources


def unstored_of(sources: Mapping[str, Source], *, zeros_ok: bool) -> dict[str, int]:
    """How many chunks of each source are not stored, of those that lack any; ReadError unless `zeros_ok`."""
    counts = {name: source.check_complete(zeros_ok=zeros_ok) for name, source in sources.items()}
    return {name: count for name, count in counts.items() if count}


def check_still_stored(sources: Mapping[str, Source], unstored: Mapping[str, int]) -> None:
    """Raise ReadError if chunks were lost while they were read, which no task sees where some were never there."""
    for name, count in unstored.items():
        if sources[name].check_complete(zeros_ok=True) != count:
            raise ReadError(f"evaluate: chunks of {sources[name]} were lost or written during the run. Run it again.")


def open_path(text: str, argument: str, allowed: Sequence[str] = (), folders: dict[str, str] | None = None) -> Source:
    """The source at a path, with the name of an array after its # if it has one.

    `folders` are those of shards that the set has led to so far, by their real paths.
    """
    folders = {} if folders is None else folders
    if not text:
        raise ValueError(refusal(argument, f"be {INPUTS}", "an empty path", "A dot is the current folder."))
    if is_url(text) and any(UNENCODED.search(link) for link in text.split("::")):
        remedy = "Write them as urllib.parse.quote does: %2F for a slash."
        rule = "have no slash, space, ?, #, <, > or quotation mark in its password"
        raise ValueError(refusal(argument, rule, "a URL with one", remedy))
    path, name = split_name(text)
    if is_glob(path):
        return open_members(path, matches(path), name, argument, allowed, folders)
    opener = OPENERS.get(suffix(path))
    try:
        if is_url(path) and not opener and is_zarr(path):  # before status: a web server tells of no folders
            return numbers_only(open_zarr(path, name, argument), argument)
        entry = status(path)
    except FileNotFoundError as error:
        got = f"{path}, where nothing is"
        raise FileNotFoundError(refusal(argument, f"be {INPUTS}", got, "Check the spelling.")) from error
    if entry.is_folder:
        if is_zarr(path):
            return numbers_only(open_zarr(path, name, argument, allowed), argument)
        # links can lead to a folder on more ways than can ever be walked, and without an end to the folder itself
        if not is_url(path) and (first := folders.setdefault(os.path.realpath(path), path)) != path:
            rule = "have each of its folders once"
            raise MalformedError(refusal(argument, rule, f"{path}, which is {first} again", "Remove that link."))
        inside = members(path)
        shards = [member for member in inside if suffix(member) in SUFFIXES]
        if partitions := partitions_in(inside):
            if set(shards) - set(partitions):
                got, remedy = f"{shards[0]} beside {partitions[0]}", "Move it into a partition."
                raise ValueError(refusal(argument, "hold its files in partitions where it has any", got, remedy))

            def open_folder(folder: str, inner: str) -> Source:
                return open_path(f"{folder}#{inner}" if inner else folder, argument, allowed, folders)

            return open_partitions(path, name, argument, allowed, open_folder)
        return open_members(path, shards, name, argument, allowed, folders)
    check_ranges(path, entry.stamp)
    if opener in (open_hdf, open_zarr):
        return numbers_only(opener(path, name, argument, allowed), argument)
    if not opener and not name and suffix(path) != ".npy" and not is_npy(path):
        got, remedy = path, f"Give it the suffix of its format ({', '.join(SUFFIXES)}), or name the {RAW_FORM}."
        raise MalformedError(refusal(argument, f"be {INPUTS}", got, remedy))
    if not opener:
        opener = open_raw if name else open_npy
    return numbers_only(opener(path, name, argument), argument)


def open_members(
    path: str, shards: list[str], name: str, argument: str, allowed: Sequence[str], folders: dict[str, str]
) -> Source:
    """The source of the shards of a folder or a glob; ValueError if there are none, or they are of several formats."""
    suffixes = sorted({suffix(shard) for shard in shards})
    if not shards:
        rule = "be a folder of shards or a Zarr array, or a glob of shards"
        remedy = "Pass the directory that holds zarr.json or .zarray, or files of one format."
        raise ValueError(refusal(argument, rule, f"{path}, which has none", remedy))
    if len(suffixes) > 1:
        rule, remedy = "have shards of one format", f"Pass a glob such as {path}/*{suffixes[0]}."
        raise ValueError(refusal(argument, rule, f"{', '.join(suffixes)} in {path}", remedy))
    if not is_url(path):
        own = (os.path.realpath(folder_of(path)), *allowed)
        for inner in {os.path.dirname(shard) for shard in shards}:
            check_inside(inner, own, argument, f"the link {inner}")
        for shard in filter(os.path.islink, shards):
            check_inside(shard, own, argument, f"the link {shard}")
    fragment = f"#{name}" if name else ""

    def open_shard(shard: str) -> Source:
        return open_path(f"{shard}{fragment}", argument, allowed, folders)

    if suffixes[0] not in WITH_CHUNKS:
        unopened = unopened_shards(path, shards, name, argument, allowed, open_shard)
        if unopened is not None:
            first, rows = unopened.first, unopened.starts[-1]
            return ShardedSource(
                f"{path}{fragment}", (rows, *first.shape[1:]), native(first.dtype), unopened, unopened.starts
            )
    return open_shards(f"{path}{fragment}", shards, argument, open_shard)


def split_name(text: str) -> tuple[str, str]:
    """The path, absolute if it is local, and the name after the last #, unless the # is part of a file's own name."""
    path, _, name = text.rpartition("#")
    in_password = is_url(text) and "@" in name and "@" not in path
    if not path or in_password or (not is_url(text) and os.path.exists(text)):
        path, name = text, ""
    path = without_file_protocol(path)
    return (path if is_url(path) else os.path.abspath(path)), name


def numbers_only(source: Source, argument: str) -> Source:
    """The source, if it holds no Python objects; keys may be text."""
    if source.dtype.hasobject and not (source.dtype == TEXT and argument in KEYS):
        text = f", or text, {argument}.astype(str)" if argument in KEYS else ""
        remedy = f"They are never unpickled: save numbers{text}."
        raise TypeError(refusal(argument, "hold no Python objects", source, remedy))
    return source
