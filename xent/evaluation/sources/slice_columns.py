"""Slices by several columns of keys, and by crosses of them: a row is in a slice of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import InputError, refusal
from xent.evaluation.sources.source import TEXT, Part, Source, read_rows_and_nulls

NAMED = re.compile(r"([A-Za-z_][\w-]*)=(.+)", re.DOTALL)
Cross = tuple[str, ...]


@dataclass(frozen=True)
class SliceColumns:
    """Columns of keys by their names, as a caller has them, and which of them are crossed."""

    columns: Mapping[str, Any]
    crosses: tuple[Cross, ...] = ()

    def __post_init__(self) -> None:
        for name in self.columns:
            if not isinstance(name, str) or not NAMED.fullmatch(f"{name}=x"):
                rule = "have names of letters, digits, _ and -"
                raise ValueError(refusal("slices", rule, repr(name), 'Pass {"language": …}.'))
        if not self.columns:
            raise ValueError(refusal("slices", "have a column", "none", "Leave slices out."))
        for cross in self.crosses:
            unknown = [name for name in cross if name not in self.columns]
            if unknown or len({*cross}) < max(2, len(cross)):
                rule = f"be of two or more of the columns {', '.join(self.columns)}"
                raise ValueError(refusal("cross", rule, ",".join(cross), 'Pass cross=[("a", "b")] of slices a and b.'))
            if sum({*cross} == {*other} for other in self.crosses) > 1:
                rule = "have each cross once, in one order"
                raise ValueError(refusal("cross", rule, f"{','.join(cross)} twice", "Leave one of them out."))


def slice_keys(slices: Any, cross: Iterable[Any] = ()) -> Any:
    """The slices as :class:`SliceColumns`, if they are a mapping; else as they are.

    Raises
    ------
    TypeError, ValueError
        If a name cannot be one, or a cross is not of two or more of them.
    """
    crosses = (cross,) if isinstance(cross, str) else tuple(cross)
    if crosses and all(isinstance(name, str) and "," not in name for name in crosses):
        crosses = (crosses,)  # one cross, of these names
    texts = [tuple(each.split(",")) if isinstance(each, str) else tuple(each) for each in crosses]
    if isinstance(slices, Mapping):
        return SliceColumns(dict(slices), tuple(texts))
    if texts:
        rule = "be left out unless slices have names"
        raise ValueError(refusal("cross", rule, ",".join(texts[0]), 'Pass slices={"a": …, "b": …}.'))
    return slices


def slices_in_texts(texts: Sequence[str], crosses: Sequence[str] = ()) -> Any:
    """The slices that a command line names, NAME=PATH each, or one path; None for none."""
    if len(texts) < 2 and not crosses and not any(map(NAMED.fullmatch, texts)):
        return texts[0] if texts else None
    columns = {}
    for text in texts:
        match = NAMED.fullmatch(text)
        if match is None or match[1] in columns:
            rule, remedy = "have a name of their own where there are several", "Pass --slices language=languages.npy."
            raise ValueError(refusal("slices", rule, text, remedy))
        columns[match[1]] = match[2]
    return slice_keys(columns, [tuple(cross.split(",")) for cross in crosses])


@dataclass(frozen=True, eq=False)
class SliceSource(Source):
    """The slices of each row: (rows, columns and crosses), text such as "language=de" and "language=de, domain=law"."""

    keys: Mapping[str, Source]
    crosses: tuple[Cross, ...]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        own = [source.parts(bounds)[1] for source in self.keys.values()]
        return {}, [SlicePart(tuple(self.keys), self.crosses, each) for each in zip(*own, strict=True)]

    def files(self) -> list[str]:
        return [file for source in self.keys.values() for file in source.files()]

    def fingerprint(self) -> Any:
        own = {name: source.fingerprint() for name, source in self.keys.items()}
        return None if None in own.values() else [own, self.crosses]

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        return sum(source.check_complete(zeros_ok=zeros_ok) for source in self.keys.values())

    @property
    def has_nulls(self) -> bool:
        return any(source.has_nulls for source in self.keys.values())

    @property
    def is_remote(self) -> bool:
        return any(source.is_remote for source in self.keys.values())

    @property
    def shown(self) -> str | None:
        names = [f"{name}={source.shown or 'array'}" for name, source in self.keys.items()]
        return ", ".join([*names, *(" × ".join(cross) for cross in self.crosses)])


@dataclass(frozen=True)
class SlicePart(Part):
    """The slices of the rows of a chunk, whose keys are in one part for each column."""

    names: tuple[str, ...]
    crosses: tuple[Cross, ...]
    columns: tuple[Any, ...]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.read_with_nulls(start, stop)[0]

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        blocks, is_null = [], None
        for part in self.columns:
            block, nulls = read_rows_and_nulls(part, start, stop)
            blocks.append(np.asarray(block))
            if nulls is not None:
                is_null = nulls if is_null is None else is_null | nulls
        return named_slices(self.names, self.crosses, blocks), is_null

    def edge(self, start: int, stop: int) -> int | None:
        edges = (part.edge(start, stop) for part in self.columns if isinstance(part, Part))
        return next((edge for edge in edges if edge is not None), None)


def named_slices(names: Sequence[str], crosses: Sequence[Cross], blocks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The names of the slices of each row, by column and cross, from the keys of each column.

    Raises
    ------
    InputError
        If a key reads as the keys of a cross do, so that two slices would have one name.

    Examples
    --------
    >>> named_slices(["a", "b"], [("a", "b")], [np.asarray([1, 2]), np.asarray(["x", "x"])])[1].tolist()
    ['a=2', 'b=x', 'a=2, b=x']
    """
    rows = len(blocks[0])
    found = np.empty((rows, len(names) + len(crosses)), TEXT)
    keys = {}
    links = [f", {name}=" for name in names] if crosses else []
    for column, (name, block) in enumerate(zip(names, blocks, strict=True)):
        values, index = np.unique(block, return_inverse=True)
        texts = [f"{name}={value}" for value in values.tolist()]
        link = next((link for link in links if any(link in text for text in texts)), None)
        if link is not None:
            rule, got = f"have no key with {link!r} in it where they are crossed", f"one in {name}"
            raise InputError(refusal("slices", rule, got, "Write such keys otherwise, or leave `cross` out."))
        keys[name] = np.asarray(texts, TEXT), index
        found[:, column] = keys[name][0][index]
    for column, cross in enumerate(crosses, start=len(names)):
        crossed, index = keys[cross[0]]
        for name in cross[1:]:
            more, other = keys[name]
            pairs, index = np.unique(index * len(more) + other, return_inverse=True)
            crossed = np.asarray(
                [f"{crossed[pair // len(more)]}, {more[pair % len(more)]}" for pair in pairs.tolist()], TEXT
            )
        found[:, column] = crossed[index]
    return found


def slice_source(sources: Mapping[str, Source], crosses: tuple[Cross, ...]) -> SliceSource:
    """The slices by these columns, (rows,) each; ValueError for a Dask array, whose chunks are made by its graph."""
    for source in sources.values():
        if source.is_of_dask:
            rule = "be files or arrays in hand where they are several"
            raise ValueError(refusal("slices", rule, source, "Call .compute() of a Dask array."))
    rows = next(iter(sources.values())).shape[0]
    return SliceSource(None, (rows, len(sources) + len(crosses)), TEXT, dict(sources), crosses)
