"""A prediction set, opened: predictions (rows, classes), one or two, labels (rows,), and the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from xent.evaluation.options import Options
from xent.evaluation.sources.class_names import class_names_of, ignored_numbers, numbered
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.opening import check_pair, open_source
from xent.evaluation.sources.source import Source


class PredictionSet(NamedTuple):
    """What is read, and what is known of its classes.

    Attributes
    ----------
    predictions : mapping of str to Source
        By the names of the arguments: predictions, or a and b.
    labels : Source
    names : tuple of str
        Of the classes; empty if they have none.
    ignored : tuple of int
        The labels of rows to leave out, as numbers.
    """

    predictions: Mapping[str, Source]
    labels: Source
    names: tuple[str, ...]
    ignored: tuple[int, ...]


def open_set(predictions: Mapping[str, Any], labels: Any, options: Options, class_names: Any = None) -> PredictionSet:
    """The set of predictions, by the names of the arguments, and labels; only headers are read.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError, ReadError, TypeError, ValueError
        If a source cannot be opened, or they do not fit.
    """
    opened = {name: open_source(given, name, options.allow_outside) for name, given in predictions.items()}
    truth = open_source(labels, "labels", options.allow_outside)
    first, *others = opened.values()
    for name, other in zip([*opened][1:], others, strict=True):
        if len(first.shape) == len(other.shape) == 2 and first.shape != other.shape:  # else the labels would be blamed
            rule = f"have the shape of a, {first.shape}"
            raise ValueError(refusal(name, rule, other, "Compare sets of the same rows."))
    names: tuple[str, ...] = ()
    if len(first.shape) == 2:
        names = class_names_of(class_names, first)
        truth = numbered(truth, first, names, options.ignore_index)
    for source in opened.values():
        check_pair(source, truth)
    return PredictionSet(opened, truth, names, ignored_numbers(truth, options.ignore_index))
