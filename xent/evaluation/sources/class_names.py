"""The names of the classes: how a caller gives them, and labels that are names and no numbers.

Leaves out where names are shown (``report/``).
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import ReadError, refusal
from xent.evaluation.sources.shards import ShardedSource
from xent.evaluation.sources.source import Part, Source, read_rows, read_rows_and_nulls
from xent.evaluation.sources.storage import open_file
from xent.optional import require

COLUMNS = "columns"
"""The word that names the classes as the columns of the predictions are named."""
FORMS = "the name of each class: a list in their order, a mapping, a file of them, or 'columns'"
SHOWN_NAMES = 6
TRUTHS, TWO = {"false", "true"}, {False: 0, True: 1}
BAD_NAME, IGNORED_NAME = -(2**31), 1 - 2**31
"""The numbers of a label that is no name of a class, and of one that ``ignore_index`` names."""


def class_names_of(given: Any, predictions: Source) -> tuple[str, ...]:
    """The names of the classes of some predictions, in their order; none for None.

    Parameters
    ----------
    given : mapping, iterable, str, os.PathLike, or None
        The name of each class in their order; a mapping of names to numbers, or of numbers to names; a file of either
        as JSON, or of a name in each line; or "columns".
    predictions : Source

    Raises
    ------
    FileNotFoundError, ReadError, TypeError, ValueError
        If there is no such file, it cannot be read, or they are not one name for each class.
    """
    if given is None:
        return ()
    classes = predictions.shape[-1]
    if isinstance(given, str | os.PathLike):
        is_word = given == COLUMNS
        given = names_of_columns(predictions) if is_word else names_in_file(os.fspath(given))
        if is_word and not given:
            rule, got = "be names where the predictions are no columns of a table", f"'columns' of {predictions}"
            raise ValueError(refusal("class_names", rule, got, "List them, or name a file of them."))
    if isinstance(given, Mapping):
        given = names_in_mapping(given)
    if not isinstance(given, Iterable) or isinstance(given, bytes | set | frozenset):  # a set has no order
        raise TypeError(refusal("class_names", f"be {FORMS}", type(given).__name__, "Pass a list of text."))
    given = [*given]
    if None in given:
        rule, got = "name every class", f"None for class {given.index(None)}"
        raise TypeError(refusal("class_names", rule, got, "Pass text, '?' for instance."))
    names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in given)
    if len(names) != classes:
        got, remedy = f"{len(names):,}{examples_of(names)}", "Name every class, and no other."
        raise ValueError(refusal("class_names", f"be {classes:,}, one for each class", got, remedy))
    if twice := next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None:
        raise ValueError(refusal("class_names", "be different names", f"{twice!r} twice", "Rename one."))
    return names


def examples_of(names: Iterable[str]) -> str:
    """The first of some names, in brackets; nothing of none."""
    names = [*names]
    shown = [*map(repr, names[:SHOWN_NAMES]), *("…",) * (len(names) > SHOWN_NAMES)]
    return f" ({', '.join(shown)})" if shown else ""


def names_in_mapping(given: Mapping[Any, Any]) -> list[Any]:
    """The names of a mapping of names to numbers, or of numbers to names, in the order of the numbers."""
    by_number = {str(number): name for number, name in given.items()}
    if all(type(number) is int or isinstance(number, np.integer) for number in given.values()):
        by_number = {str(number): name for name, number in given.items()}
    missing = next((i for i in range(len(given)) if str(i) not in by_number), None)
    if missing is not None:
        rule, got = f"be {FORMS}", f"a mapping of {len(given)} without the number {missing}"
        raise ValueError(refusal("class_names", rule, got, "Number the classes from 0."))
    return [by_number[str(i)] for i in range(len(given))]


def names_in_file(path: str) -> Any:
    """The list or the mapping of a JSON file, or the lines of any other."""
    try:
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig")
    except FileNotFoundError as error:
        rule, got = f"be {FORMS}", f"{path}, where nothing is"
        raise FileNotFoundError(refusal("class_names", rule, got, "Check the spelling.")) from error
    except IsADirectoryError as error:
        raise ValueError(refusal("class_names", f"be {FORMS}", f"the folder {path}", "Name a file in it.")) from error
    except UnicodeDecodeError as error:
        raise ReadError(f"evaluate: {path} is no text in UTF-8 ({error}). Write it again.") from error
    if not text.lstrip().startswith(("[", "{")):
        return text.rstrip().splitlines()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if path.endswith(".json"):
            raise ReadError(f"evaluate: {path} is no JSON ({error}). Write it again.") from error
        return text.rstrip().splitlines()


def names_of_columns(predictions: Source) -> list[str]:
    """The names of the columns of a table, or what the star of a glob stands for in each; none of anything else."""
    source: Any = predictions
    while isinstance(source, ShardedSource) and source.shards:
        source = source.shards[0]
    columns: list[str] = source.columns()
    if len(columns) != predictions.shape[-1]:  # a list column is one
        return []
    globs = [term for term in source.name.split(",") if not term.startswith("!")]
    if len(globs) == 1 and re.fullmatch(r"[^*?\[]*\*[^*?\[]*", globs[0]) and globs[0] not in columns:
        head, _, tail = globs[0].partition("*")
        return [column[len(head) : len(column) - len(tail)] for column in columns]
    return columns


@dataclass(frozen=True)
class Codes:
    """The number of each label, as ``tolist`` gives it, that has one."""

    numbers: Mapping[Any, int]

    def of(self, labels: Any) -> NDArray[np.int64]:
        """The numbers of some labels."""
        values = np.asarray(labels).tolist()
        number = self.numbers.get
        return np.fromiter((number(value, BAD_NAME) for value in values), np.int64, len(values))


@dataclass(frozen=True, eq=False)
class NamedLabels(Source):
    """Labels that are names, as the numbers of their classes: ``labels`` are the names."""

    labels: Source
    codes: Codes
    token: str = field(default_factory=lambda: uuid.uuid4().hex, init=False, repr=False)

    @property
    def shown_dtype(self) -> str:
        return self.labels.shown_dtype

    @property
    def shown_shape(self) -> tuple[int, ...]:
        return self.labels.shown_shape

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.labels.bounds(chunk_bytes)

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        graph, parts = self.labels.parts(bounds)
        codes = f"xent-codes-{self.token}"  # once in the graph, and not in each task
        return {**graph, codes: self.codes}, [(NamedPart, part, codes) for part in parts]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.codes.of(self.labels.read(start, stop))

    @property
    def names(self) -> list[Any]:
        """The labels that are those of a class."""
        return [label for label, number in self.codes.numbers.items() if number >= 0]

    def label_at(self, row: int) -> Any:
        """The label of one row, as it is written."""
        bounds = sorted({0, row, row + 1, self.shape[0]})
        graph, parts = self.labels.parts(bounds)
        part = parts[bounds.index(row)]
        part = require("dask", "dask", "a row of Dask").get(graph, part) if graph else part
        return np.asarray(read_rows(part, 0, 1)).tolist()[0]

    def files(self) -> list[str]:
        return self.labels.files()

    def fingerprint(self) -> Any:
        own = self.labels.fingerprint()
        return None if own is None else [*own, [[str(label), number] for label, number in self.codes.numbers.items()]]

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        return self.labels.check_complete(zeros_ok=zeros_ok)


@dataclass(frozen=True)
class NamedPart(Part):
    """The numbers of the labels of a chunk: ``labels`` is what :func:`read_rows` takes."""

    labels: Any
    codes: Codes

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        return self.codes.of(read_rows(self.labels, start, stop))

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        labels, is_null = read_rows_and_nulls(self.labels, start, stop)
        return self.codes.of(labels), is_null

    def edge(self, start: int, stop: int) -> int | None:
        return self.labels.edge(start, stop) if isinstance(self.labels, Part) else None


def numbered(labels: Source, predictions: Source, names: tuple[str, ...], ignored: Iterable[int | str]) -> Source:
    """The labels of some predictions as the numbers of their classes; numbers as they are.

    Integers are names where every name is an integer. True and false are names where both are the names of two
    classes, and else 1 and 0.

    Raises
    ------
    TypeError, ValueError
        If they are text and the classes have no names, or true and false and there are not two classes, or text is to
        be ignored among numbers.
    """
    kind, classes = labels.dtype.kind, predictions.shape[-1]
    is_text = kind in "UST"
    numbers: dict[Any, int] = {name: number for number, name in enumerate(names)}
    if kind == "O":
        remedy = "Pass labels.astype(object).fillna('?') of a Series, and ignore_index='?', where some are missing."
        held = getattr(labels, "array", None)  # Dask's is not computed for a message
        if isinstance(held, np.ndarray) and any(isinstance(value, bool | np.bool_) for value in held.flat):
            remedy = "Pass labels.astype('Int64').fillna(-100).astype(int) of a Series, and ignore_index=-100."
        raise TypeError(refusal("labels", "be all integers, or all text", labels, remedy))
    if is_text and not names:
        remedy = "Pass `class_names`, the name of each class in the order of the predictions."
        if columns := names_of_columns(predictions):
            remedy = f"Pass class_names='columns' if the classes are{examples_of(columns)}, else a list of them."
        raise TypeError(refusal("labels", "be integers where the classes have no names", labels, remedy))
    text = next((label for label in ignored if isinstance(label, str)), None)
    if text is not None and not is_text:
        got = f"{text!r} for {labels}"
        raise TypeError(refusal("ignore_index", "be integers where the labels are no text", got, "Pass its number."))
    if kind == "b":
        if classes != 2:
            rule = "be integers, or true and false of two classes"
            raise TypeError(refusal("labels", rule, f"{labels} for {classes} classes", "Save the class of each row."))
        order = [name.lower() for name in names]
        numbers = {value: order.index(str(value).lower()) for value in (False, True)} if {*order} == TRUTHS else TWO
    elif kind in "iu":
        are_integers = bool(names) and all(re.fullmatch("-?[0-9]+", name) for name in names)
        if not are_integers or [*names] == [*map(str, range(classes))]:
            return labels
        numbers = {int(name): number for name, number in numbers.items()} | dict.fromkeys(ignored, IGNORED_NAME)
    elif is_text:
        numbers |= dict.fromkeys(map(str, ignored), IGNORED_NAME)
    else:
        return labels
    return NamedLabels(labels.path, labels.shape, np.dtype(np.int64), labels, Codes(numbers))


def ignored_numbers(labels: Source, ignored: tuple[int | str, ...]) -> tuple[int, ...]:
    """The numbers of the labels that ``ignore_index`` names."""
    if isinstance(labels, NamedLabels):
        return (IGNORED_NAME,) if ignored else ()
    return tuple(label for label in ignored if isinstance(label, int))
