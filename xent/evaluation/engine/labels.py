"""Labels without a loss: ignored ones, those out of range, and those outside the k classes that are known of a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.options import Options
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.topk import TopKRows, TopKSource
from xent.evaluation.statistics.state import State, Tally

LABEL_REMEDY = "Pass on_bad_label='skip' to leave such rows out, or ignore_index={label} if that marks rows to ignore."
TAIL_REMEDY = "Pass tail='skip' to leave such rows out, or tail='uniform' if the other classes share what is left."


def ignored_and_bad(options: Options, classes: int, labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows that are ignored, and those of a label outside ``[0, classes)``; no row is both."""
    ignored = np.zeros(labels.shape, bool)
    for value in options.ignore_index:
        ignored |= labels == value  # false everywhere for a value that the labels' dtype cannot hold
    return ignored, ~ignored & ((labels < 0) | (labels >= classes))


def outside_top_k(predictions: Any, labels: NDArray[Any]) -> NDArray[Any]:
    """The rows whose label is not among the k classes that are known of the row, and so has no loss."""
    return predictions.outside(labels) if isinstance(predictions, TopKRows) else np.zeros(labels.shape, bool)


def check_labels(state: State, options: Options, predictions: Source, remedy: str) -> None:
    """Raise LabelError for bad labels, or labels outside the top k, unless the options or the tail say to skip them."""
    classes = predictions.shape[1]
    if state.bad_label.count and options.on_bad_label == "error":
        raise label_error(state.bad_label, f"lie in [0, {classes})", remedy)
    if state.outside_top_k.count and isinstance(predictions, TopKSource) and predictions.tail == "error":
        raise label_error(state.outside_top_k, "be among the ids of their rows", TAIL_REMEDY)


def label_error(tally: Tally, rule: str, remedy: str) -> xent.LabelError:
    """The error of the labels of a tally."""
    count, row, label = tally.count, tally.first_row, tally.label
    got = f"{count} that do not, the first {label} in row {row}"
    message = refusal("labels", rule, got, remedy.format(label=label))
    return xent.LabelError(message, count, () if row is None else (row,), label)
