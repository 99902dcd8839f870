"""Folders as Hive lays them out: ``split=test/lang=de/part-0.parquet``. The rows of one follow those of the other.

The keys are the rows' too: each is an array of its own, as in ``folder#lang``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.formats import SUFFIXES
from xent.evaluation.sources.boundary import check_inside
from xent.evaluation.sources.messages import MalformedError, SeveralArrays, refusal
from xent.evaluation.sources.shards import joined, open_shards
from xent.evaluation.sources.source import TEXT, Source
from xent.evaluation.sources.storage import is_url, members, status, suffix

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
WHOLE_NUMBER = re.compile("-?(0|[1-9][0-9]{0,17})")
MOST_KEYS = 16


@dataclass(frozen=True, eq=False)
class KeySource(Source):
    """The value of a key, once for each row of a partition; ``rows_of`` is a source of as many rows."""

    value: Any
    rows_of: Source

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return np.full(stop - start, self.value, self.dtype)

    def files(self) -> list[str]:
        return self.rows_of.files()

    def fingerprint(self) -> Any:
        of_rows = self.rows_of.fingerprint()
        return None if of_rows is None else [self.value, of_rows]


def key_of(folder: str) -> tuple[str, str] | None:
    """The key and the value in a folder's name; None if it has no such name."""
    name, equals, value = os.path.basename(folder.rstrip("/")).partition("=")
    return (name, "" if value == NO_VALUE else unquote(value)) if name and equals else None


def partitions_in(inside: Iterable[str]) -> list[str]:
    """Of what is in a folder, the folders whose names have a key and a value."""
    named = [path for path in inside if "=" in path and key_of(path) and suffix(path) not in SUFFIXES]
    return [path for path in named if status(path).is_folder]


def open_partitions(
    folder: str, name: str, argument: str, allowed: Sequence[str], open_folder: Callable[[str, str], Source]
) -> Source:
    """The rows of all partitions, or the value of a key for each of them; ``open_folder`` opens a folder and a name.

    Raises
    ------
    MalformedError
        If a folder lies outside of the set, or a key comes twice on the way to one.
    """
    own = () if is_url(folder) else (os.path.realpath(folder), *allowed)
    leaves = leaves_of(folder, {}, own, argument)
    keys = {key for _, values in leaves for key in values}
    shown = f"{folder}#{name}" if name else folder
    if name not in keys:
        return open_shards(shown, [path for path, _ in leaves], argument, lambda path: open_folder(path, name))
    lacking = next((path for path, values in leaves if name not in values), None)
    if lacking:
        raise ValueError(refusal(argument, "be a key of every partition", f"{name}, which {lacking} lacks", "Move it."))
    texts = [values[name] for _, values in leaves]
    is_whole = all(map(WHOLE_NUMBER.fullmatch, texts))
    dtype: Any = np.dtype(np.int64) if is_whole else TEXT
    sources = []
    for (path, _), text in zip(leaves, texts, strict=True):
        rows = any_array(path, open_folder)
        sources.append(KeySource(shown, (rows.shape[0],), dtype, int(text) if is_whole else text, rows))
    return joined(shown, sources)


def leaves_of(
    folder: str, values: dict[str, str], own: Sequence[str], argument: str
) -> list[tuple[str, dict[str, str]]]:
    """The folders that have no partitions in them, each with the values of the keys on the way to it."""
    found: list[tuple[str, dict[str, str]]] = []
    for path in partitions_in(members(folder)):
        if own:
            check_inside(path, own, argument, f"the link {path}")
        key, value = key_of(path) or ("", "")
        if key in values or len(values) == MOST_KEYS:
            rule, remedy = f"have each key of its partitions once, and at most {MOST_KEYS}", "Remove that folder."
            raise MalformedError(refusal(argument, rule, path, remedy))
        found += leaves_of(path, {**values, key: value}, own, argument) or [(path, {**values, key: value})]
    return found


def any_array(folder: str, open_folder: Callable[[str, str], Source]) -> Source:
    """An array of a folder, whichever: all have as many rows."""
    try:
        return open_folder(folder, "")
    except SeveralArrays as held:
        for name in held.names[:-1]:
            try:
                return open_folder(folder, name)
            except (TypeError, ValueError):  # of a type that is not read
                continue
        return open_folder(folder, held.names[-1])
