"""Indexes of sets in many files, which are made once: :func:`index_shards`.

Leaves out how they are read (``sources/shard_index.py``).
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, TypeGuard

from xent.evaluation.outputs import draft_of, move, output_path, written
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.opening import open_source, split_name
from xent.evaluation.sources.shard_index import COLUMNS, Entry, read_index, relative
from xent.evaluation.sources.shards import ShardedSource
from xent.evaluation.sources.source import FileSource, Source, native
from xent.evaluation.sources.storage import INDEX_NAME, folder_of, join, open_file, status
from xent.evaluation.sources.storage_options import StorageOptions, reading_threads, storage_options_set
from xent.evaluation.sources.unopened import shards_checked
from xent.optional import require

__all__ = ["index_shards"]

HASHED_AT_ONCE, PIECE_BYTES = 4, 2**24


def index_shards(
    path: str | os.PathLike[str], *, checksums: bool = True, storage_options: StorageOptions | None = None
) -> str:
    """The path of the index of a set in many files, which is written into its folder.

    An evaluation of the set takes the lengths of its files from the index, and opens none but the first before its
    tasks do; a file that is not as the index tells is an error then, which names it. An index has the arrays of several
    calls, as of predictions and labels in one folder.

    Parameters
    ----------
    path : str or path
        A folder or a glob of files, as :func:`xent.evaluate` takes it, with the name of an array after a # where
        they have several. Every file is opened, and must be like the first.
    checksums : bool
        Whether to read every file whole for its SHA-256, by which the states and parts of a run tell another file of
        the same size, beside its time of change or its tag.
    storage_options : mapping, optional
        As in :func:`xent.evaluate`.

    Returns
    -------
    str
        The path of ``_xent_index.parquet``.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError, ReadError, TypeError, ValueError
        If the files cannot be opened or are not alike, or it is no set of several files.
    WriteError
        If the index cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in range(3):
    ...         np.save(f"{folder}/part-{part}.npy", np.zeros((5, 2)))
    ...     print(index_shards(folder).removeprefix(folder))
    /_xent_index.parquet
    """
    plain, name = split_name(os.fspath(path))
    with storage_options_set(storage_options), shards_checked(True):
        try:
            source = open_source(path, "predictions")
        except TypeError:
            source = open_source(path, "slices")  # text
        shards = [shard for shard in source.shards if is_file(shard)] if isinstance(source, ShardedSource) else []
        if not shards or len(shards) != len(source.shards):  # type: ignore[attr-defined]  # it is a ShardedSource then
            rule, remedy = "be a folder or a glob of several files", "Name the folder that holds the files themselves."
            raise ValueError(refusal("path", rule, source, remedy))
        folder = folder_of(plain)
        kept = read_index(folder) or {}
        with reading_threads(HASHED_AT_ONCE) as pool:
            sums = list(pool.map(checksum, (shard.file for shard in shards))) if checksums else [""] * len(shards)
        kept[name] = {
            relative(shard.file, folder): Entry(
                shard.shape[0], str(native(shard.dtype)), [*shard.shape[1:]], shard.stamp[0], own
            )
            for shard, own in zip(shards, sums, strict=True)
        }
        return write_index(folder, kept)


def is_file(shard: Source) -> TypeGuard[FileSource]:
    """Whether a shard is one file, and no folder or set."""
    return isinstance(shard, FileSource) and not status(shard.file).is_folder


def write_index(folder: str, entries: dict[str, dict[str, Entry]]) -> str:
    """Write an index of these entries, by array and file; returns its path, or raises WriteError."""
    pyarrow, parquet = (require(module, "parquet", "an index") for module in ("pyarrow", "pyarrow.parquet"))
    text, number = pyarrow.string(), pyarrow.int64()
    types = (text, text, number, text, pyarrow.list_(number), number, text)
    rows = [(file, array, *entry) for array, files in entries.items() for file, entry in files.items()]
    columns: list[Any] = [[*column] for column in zip(*rows, strict=True)]
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    target = output_path("path", join(folder, INDEX_NAME), (".parquet",), overwrite=True)
    with written(target), draft_of(target) as draft:
        parquet.write_table(pyarrow.table(arrays, names=[*COLUMNS]), draft)
        move(draft, target, overwrite=True)
    return str(target)


def checksum(path: str) -> str:
    """The SHA-256 of a file, behind its name."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"
