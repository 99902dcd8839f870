"""Labels without a loss: ignored ones, those out of range, and those outside the k classes that are known of a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.options import Options
from xent.evaluation.sources.class_names import NamedLabels, examples_of
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.topk import TopKRows, TopKSource
from xent.evaluation.statistics.state import State, Tally

LABEL_REMEDY = "Pass on_bad_label='skip' to leave such rows out, or ignore_index={label} if that marks rows to ignore."
TAIL_REMEDY = "Pass tail='skip' to leave such rows out, or tail='uniform' if the other classes share what is left."


def ignored_and_bad(
    ignored_labels: Iterable[int], classes: int, labels: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows that are ignored, and those of a label outside ``[0, classes)``; no row is both."""
    ignored = np.zeros(labels.shape, bool)
    for value in ignored_labels:
        ignored |= labels == value  # false everywhere for a value that the labels' dtype cannot hold
    return ignored, ~ignored & ((labels < 0) | (labels >= classes))


def outside_top_k(predictions: Any, labels: NDArray[Any]) -> NDArray[Any]:
    """The rows whose label is not among the k classes that are known of the row, and so has no loss."""
    return predictions.outside(labels) if isinstance(predictions, TopKRows) else np.zeros(labels.shape, bool)


def check_labels(
    state: State, options: Options, predictions: Source, labels: Source, remedy: str, first_row: int = 0
) -> None:
    """Raise LabelError for bad labels, or labels outside the top k, unless the options or the tail say to skip them.

    The labels begin at row `first_row` of the state's rows.
    """
    if state.bad_label.count and options.on_bad_label == "error":
        rule = f"lie in [0, {predictions.shape[1]})"
        if len(labels.shape) == 2:
            rule = "lie in [0, 1] and sum to 1 in each row"
            remedy = "Pass on_bad_label='skip' to leave such rows out, or give them the weight 0."
        elif isinstance(labels, NamedLabels):
            rule = f"be among the {len(labels.names):,} classes{examples_of(labels.names)}"
        elif predictions.shape[1] == 1:
            remedy = "Pass binary=True if the predictions are those of class 1 of two."
        raise label_error(state.bad_label, labels, first_row, rule, remedy)
    if state.outside_top_k.count and isinstance(predictions, TopKSource) and predictions.tail == "error":
        raise label_error(state.outside_top_k, labels, first_row, "be among the ids of their rows", TAIL_REMEDY)


def label_error(tally: Tally, labels: Source, first_row: int, rule: str, remedy: str) -> xent.LabelError:
    """The error of the labels of a tally."""
    count, row, label = tally.count, tally.first_row, tally.label
    if isinstance(labels, NamedLabels) and row is not None:
        label = labels.label_at(row - first_row)
    if len(labels.shape) == 2:
        message = refusal("labels", rule, f"{count} rows that do not, the first is row {row}", remedy)
        return xent.LabelError(message, count, () if row is None else (row,))
    got = f"{count} that {'are' if rule.startswith('be ') else 'do'} not, the first {label!r} in row {row}"
    message = refusal("labels", rule, got, remedy.format(label=repr(label)))
    return xent.LabelError(message, count, () if row is None else (row,), label)
