"""The request of a caller, checked before any work: the options of a pass, the keys of its rows, and its outputs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, NamedTuple, get_args

from xent.checks import KINDS, Kind, flag, integer

Policy = Literal["error", "skip"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
CHUNK_BYTES = 64 * 2**20
MOST_BINS = 2**16
TOP_K_REMEDY = "Pass 5, or (1, 5)."
Ignored = int | str | Iterable[int | str] | None
"""What ``ignore_index`` may be."""
Rows = tuple[int, int | None]
"""The first row of a range and the row after its last; None is the end of the set."""


@dataclass(frozen=True)
class Options:
    """The options of a pass, as :func:`xent.evaluate` documents them; every task has them.

    Raises
    ------
    TypeError, ValueError
        If an option is invalid.
    """

    kind: Kind = "logits"
    axis: int = -1
    binary: bool = False
    strict_kind: bool = False
    ignore_index: tuple[int | str, ...] = ()
    on_bad_label: Policy = "error"
    on_error: Policy = "error"
    top_k: tuple[int, ...] = ()
    bins: int = 15
    by_class: bool = False
    classwise: bool = False
    calibration: bool = False
    confusion: bool = False
    auc: bool = False
    predicted_bytes: int | None = None
    chunk_bytes: int = CHUNK_BYTES
    zeros_ok: bool = False
    allow_outside: tuple[str, ...] = ()
    kind_b: Kind | None = None  # of a comparison, where that of B is another

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, KINDS)
        if self.kind_b is not None:
            _check_choice("kind_b", self.kind_b, KINDS)
        _check_choice("on_bad_label", self.on_bad_label, POLICIES)
        _check_choice("on_error", self.on_error, POLICIES)
        _check_count("chunk_bytes", self.chunk_bytes, CHUNK_BYTES, "Pass 64 * 2**20 for 64 MiB.")
        _check_count("bins", self.bins, 15, "Pass a number of bins.")
        if self.bins > MOST_BINS:
            rule = f"must be at most {MOST_BINS:,}, got {self.bins:,}"
            raise ValueError(f"evaluate: `bins` {rule}. The default is 15.")
        if self.predicted_bytes is not None:
            _check_count("predicted_bytes", self.predicted_bytes, None, "Pass the number of bytes of the text.")
        axis: Any = self.axis
        if isinstance(axis, bool) or not isinstance(axis, Integral):
            raise TypeError(f"evaluate: `axis` must be an int, got {axis!r}. The classes are last by default, -1.")
        ranks = tuple(sorted(set(self.top_k)))
        for k in ranks:
            _check_count("top_k", k, (), TOP_K_REMEDY)
        plain = {  # Python's own types, which JSON can hold
            "top_k": ranks,
            "bins": int(self.bins),
            "axis": int(axis),
            "binary": flag("evaluate", "binary", self.binary),
            "strict_kind": flag("evaluate", "strict_kind", self.strict_kind),
            "by_class": flag("evaluate", "by_class", self.by_class),
            "classwise": flag("evaluate", "classwise", self.classwise),
            "calibration": flag("evaluate", "calibration", self.calibration),
            "confusion": flag("evaluate", "confusion", self.confusion),
            "auc": flag("evaluate", "auc", self.auc),
            "predicted_bytes": None if self.predicted_bytes is None else int(self.predicted_bytes),
            "chunk_bytes": int(self.chunk_bytes),
            "zeros_ok": flag("evaluate", "zeros_ok", self.zeros_ok),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def of_b(self) -> Options:
        """The options for B of a comparison."""
        return self if self.kind_b is None else replace(self, kind=self.kind_b, kind_b=None)

    @property
    def ranks(self) -> int:
        """How many ranks of the label are counted, from 0."""
        return max(self.top_k, default=1)

    @property
    def shares(self) -> dict[str, int]:
        """The names of the accuracies, and among how many of the highest predictions the label is to be in each."""
        return {"accuracy": 1, **{top_k_name(k): k for k in self.top_k}}

    @property
    def are_probabilities(self) -> bool:
        """Whether the exponentials of the log-probabilities of a row must sum to 1."""
        return self.kind != "logits"


class Keys(NamedTuple):
    """The slice, cluster and weight of each row, whether it counts, its bytes: files, arrays or sources, or None."""

    slices: Any = None
    clusters: Any = None
    weights: Any = None
    mask: Any = None
    predicted_bytes: Any = None


@dataclass(frozen=True)
class Outputs:
    """The outputs of an evaluation; one that is None is not written.

    ``per_example`` is the path of the rows' losses, ``state`` the directory of finished chunks, and ``state_out`` the
    path of the part that :func:`xent.merge_parts` takes. If ``overwrite`` is true the files may be there already.
    """

    per_example: Any = None
    overwrite: bool = False
    state: Any = None
    state_out: Any = None

    def __post_init__(self) -> None:
        flag("evaluate", "overwrite", self.overwrite)


def bytes_of_all(predicted_bytes: Any) -> int | None:
    """The bytes of all rows, None where those of each row are given, or none."""
    has_rows = isinstance(predicted_bytes, str | os.PathLike) or bool(getattr(predicted_bytes, "shape", ()))
    return None if has_rows else predicted_bytes


def bytes_of_rows(predicted_bytes: Any) -> Any:
    """The bytes of each row; None where those of all are given, or none."""
    return predicted_bytes if bytes_of_all(predicted_bytes) is None else None


def top_k_name(k: int) -> str:
    """The name of a top-k accuracy among the metrics."""
    return f"top-{k} accuracy"


def ignored_labels(ignore_index: Ignored) -> tuple[int | str, ...]:
    """The labels that ``ignore_index`` names; none for None."""
    if ignore_index is None or isinstance(ignore_index, str):
        return () if ignore_index is None else (ignore_index,)
    several = tuple(ignore_index) if isinstance(ignore_index, list | tuple | set | frozenset) else ()
    text = tuple(label for label in several if isinstance(label, str))
    numbers: Any = tuple(label for label in several if not isinstance(label, str)) if text else ignore_index
    return (*_integers("ignore_index", numbers, "Labels are integers, or text."), *text)


def ranks_of(top_k: int | Iterable[int]) -> tuple[int, ...]:
    """The k that ``top_k`` names."""
    return _integers("top_k", top_k, TOP_K_REMEDY)


def checked_rows(rows: Any, count: int) -> tuple[int, int]:
    """The first row of a range of a set of `count` rows, and the row after its last; all rows for None.

    Raises
    ------
    TypeError, ValueError
        If it is no pair of whole numbers, or no range of these rows.
    """
    start: Any
    stop: Any
    start, stop = (0, None) if rows is None else rows if isinstance(rows, tuple) and len(rows) == 2 else (None, None)
    stop = count if stop is None and start is not None else stop
    if not all(isinstance(row, Integral) and not isinstance(row, bool) for row in (start, stop)):
        rule = f"must be a pair of whole numbers, the first row and the one after the last, got {rows!r}"
        raise TypeError(f"evaluate: `rows` {rule}. Pass rows=(0, {count}) for all.")
    if not 0 <= start <= stop <= count:
        rule = f"must be a range within the {count:,} rows of the set, got {start}:{stop}"
        raise ValueError(f"evaluate: `rows` {rule}. Pass rows=(0, {count}) for all.")
    return int(start), int(stop)


def folders_of(allow_outside: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """The real paths of the folders that ``allow_outside`` names; TypeError or ValueError if one is no folder."""
    is_one = isinstance(allow_outside, str | bytes | os.PathLike) or not isinstance(allow_outside, Iterable)
    folders: tuple[Any, ...] = (allow_outside,) if is_one else tuple(allow_outside)  # type: ignore[arg-type]
    remedy = "Name a folder in which parts of the set may lie."
    for folder in folders:
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"evaluate: `allow_outside` must be folders, got {folder!r}. {remedy}")
        if not os.path.isdir(folder):
            raise ValueError(f"evaluate: `allow_outside` must be folders, got {os.fspath(folder)!r}. {remedy}")
    return tuple(os.path.realpath(folder) for folder in folders)


def _integers(argument: str, value: int | Iterable[int], remedy: str) -> tuple[int, ...]:
    """One integer, or several, as a tuple."""
    try:
        several = value if isinstance(value, Iterable) and not isinstance(value, bytes) else (value,)
        return tuple(map(integer, several))
    except TypeError as error:
        none = ", or None" if argument == "ignore_index" else ""
        message = f"evaluate: `{argument}` must be an int, an iterable of ints{none}, got {value!r}."
        raise TypeError(f"{message} {remedy}") from error


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        rule = f"must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ValueError(f"evaluate: `{argument}` {rule}. The default is {choices[0]!r}.")


def _check_count(argument: str, value: Any, default: Any, remedy: str) -> None:
    """Raise TypeError or ValueError unless the value is a whole number, at least 1."""
    message = f"evaluate: `{argument}` must be a whole number, at least 1, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{message} {remedy}")
    if value < 1:
        raise ValueError(f"{message} The default is {default}.")
