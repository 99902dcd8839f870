"""The index of a set in many files: what is in each of them, so that nobody needs to open them to know.

It is the file ``_xent_index.parquet`` in the folder of the set, with a row for each file and array: file, array, rows,
dtype, row_shape, bytes, checksum. Names that begin with an underscore are no shards.
Leaves out who writes it (``indexing.py``), and how shards are opened (``unopened.py``).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import NamedTuple

from xent.evaluation.sources.messages import ReadError, refusal
from xent.evaluation.sources.storage import INDEX_NAME, folder_of, is_glob, join, open_file, status
from xent.optional import require

COLUMNS = ("file", "array", "rows", "dtype", "row_shape", "bytes", "checksum")


class Entry(NamedTuple):
    """What an index tells of an array of a file; the checksum is empty where none was made."""

    rows: int
    dtype: str
    row_shape: list[int]
    size: int
    checksum: str


def relative(path: str, folder: str) -> str:
    """The path of a file in a folder from there on; its name alone, where a file system spells the two otherwise."""
    prefix = join(folder, "")
    return path.removeprefix(prefix) if path.startswith(prefix) else posixpath.basename(path)


def index_command(path: str, name: str) -> str:
    """The command that makes the index of a folder or a glob, and of an array after the # if it has a name."""
    return f"xent index '{path}{f'#{name}' if name else ''}'"


def entries_of(path: str, paths: Sequence[str], name: str, argument: str) -> list[Entry] | None:
    """What the index of a folder or a glob tells of some of its files; None if it has no index of that array.

    Raises
    ------
    ValueError
        If files are not in it, or it has files that are not in the folder.
    ReadError
        If it cannot be read.
    """
    folder = folder_of(path)
    found = read_index(folder)
    if found is None or not (of_array := found.get(name)):
        return None
    remedy = f"Make it anew, with: {index_command(path, name)}."
    entries = list[Entry]()
    for shard in paths:
        entry = of_array.get(relative(shard, folder))
        if entry is None:
            raise ValueError(refusal(argument, "have all its shards in its index", f"{shard}, which is not", remedy))
        entries.append(entry)
    if not is_glob(path) and len(of_array) != len(paths):
        gone = next(iter(of_array.keys() - {relative(shard, folder) for shard in paths}))
        got = f"{join(folder, gone)}, which is gone"
        raise ValueError(refusal(argument, "have all the shards that its index names", got, remedy))
    return entries


def read_index(folder: str) -> dict[str, dict[str, Entry]] | None:
    """The entries of the index in a folder, by array and file; None if there is none."""
    path = join(folder, INDEX_NAME)
    try:
        status(path)
    except FileNotFoundError:
        return None
    parquet = require("pyarrow.parquet", "parquet", "an index")
    try:
        with open_file(path) as file:
            columns = parquet.ParquetFile(file, pre_buffer=False).read([*COLUMNS], use_threads=False).to_pydict()
        found: dict[str, dict[str, Entry]] = {}
        for file_name, array, *facts in zip(*(columns[each] for each in COLUMNS), strict=True):
            found.setdefault(array, {})[file_name] = Entry(*facts)
        return found
    except ReadError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ReadError(f"evaluate: {path} is no index ({reason}). Delete it, or make it anew.") from error
