"""The options of a pass, checked before any work."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

KINDS = ("logits", "probabilities", "log_probabilities")
POLICIES = ("error", "skip")
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Options:
    """What is asked of a pass, as :func:`xent.evaluate` says; it travels to every task."""

    kind: str = "logits"
    ignore_index: tuple[int, ...] = ()
    on_bad_label: str = "error"
    on_error: str = "error"
    top_k: tuple[int, ...] = ()
    bins: int = 15
    by_class: bool = False
    classwise: bool = False
    predicted_bytes: int | None = None
    chunk_bytes: int = CHUNK_BYTES

    def wanted(self, rows: int) -> Wanted:
        """What each chunk's state keeps, of a set of so many rows."""
        return Wanted(max(self.top_k, default=1), self.bins, self.by_class, self.kind != "logits", rows)


def options_of(
    *,
    kind: str = "logits",
    ignore_index: int | Iterable[int] | None = None,
    on_bad_label: str = "error",
    on_error: str = "error",
    by_class: bool = False,
    classwise: bool = False,
    top_k: int | Iterable[int] = (),
    bins: int = 15,
    predicted_bytes: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Options:
    """The options of a pass, checked."""
    _check_choice("kind", kind, KINDS)
    _check_choice("on_bad_label", on_bad_label, POLICIES)
    _check_choice("on_error", on_error, POLICIES)
    _check_count("chunk_bytes", chunk_bytes, CHUNK_BYTES, "Pass 64 * 2**20 for 64 MiB.")
    _check_count("bins", bins, 15, "Pass a number of bins.")
    if predicted_bytes is not None:
        _check_count("predicted_bytes", predicted_bytes, None, "Pass the number of bytes of the text.")
    ranks = tuple(sorted(set(_integers("top_k", top_k, "Pass 5, or (1, 5)."))))
    for k in ranks:
        _check_count("top_k", k, (), "Pass 5, or (1, 5).")
    return Options(
        kind=kind,
        ignore_index=_ignored_labels(ignore_index),
        on_bad_label=on_bad_label,
        on_error=on_error,
        top_k=ranks,
        bins=int(bins),
        by_class=bool(by_class),
        classwise=bool(classwise),
        predicted_bytes=None if predicted_bytes is None else int(predicted_bytes),
        chunk_bytes=int(chunk_bytes),
    )


def _ignored_labels(ignore_index: int | Iterable[int] | None) -> tuple[int, ...]:
    return () if ignore_index is None else _integers("ignore_index", ignore_index, "Labels are integers.")


def _integers(argument: str, given: Any, remedy: str) -> tuple[int, ...]:
    """One integer, or several."""
    try:
        return tuple(operator.index(value) for value in (given if isinstance(given, Iterable) else (given,)))
    except TypeError as error:
        none = ", or None" if argument == "ignore_index" else ""
        message = f"evaluate: `{argument}` must be an int, an iterable of ints{none}, got {given!r}."
        raise TypeError(f"{message} {remedy}") from error


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        rule = f"must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ValueError(f"evaluate: `{argument}` {rule}. The default is {choices[0]!r}.")


def _check_count(argument: str, value: Any, default: Any, remedy: str) -> None:
    message = f"evaluate: `{argument}` must be a whole number, at least 1, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{message} {remedy}")
    if value < 1:
        raise ValueError(f"{message} The default is {default}.")


class Wanted(NamedTuple):
    """What a state keeps beside the sums of whole numbers of rows.

    Attributes
    ----------
    ranks : int
        How many ranks of the label are counted, from 0.
    bins : int
        How many bins of equal width the highest probability has.
    by_class : bool
        Whether there is a table of the classes.
    are_probabilities : bool
        Whether rows must sum to 1.
    rows : int
        The rows of the whole set, which :data:`SEGMENTS` cut; 0 where they are not known, and not cut.
    """

    ranks: int = 1
    bins: int = 15
    by_class: bool = False
    are_probabilities: bool = False
    rows: int = 0
