"""Labels that have no loss: the ignored ones, those out of range, and those of which nothing is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.options import Options
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.topk import TopKRows
from xent.evaluation.statistics.state import State, Tally

LABEL_REMEDY = "Pass on_bad_label='skip' to leave such rows out, or ignore_index={label} if that marks rows to ignore."
BEYOND_REMEDY = "Pass tail='skip' to leave such rows out, or tail='uniform' if the other classes share what is left."


def left_out(options: Options, classes: int, labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows that are ignored, and those whose label is none; no row is both."""
    ignored = np.zeros(labels.shape, bool)
    for value in options.ignore_index:
        ignored |= labels == value  # false everywhere for a value that the labels' dtype cannot hold
    return ignored, ~ignored & ((labels < 0) | (labels >= classes))


def beyond_of(predictions: Any, labels: NDArray[Any]) -> NDArray[Any]:
    """The rows whose label has no loss, for nothing is known of its class."""
    return predictions.beyond(labels) if isinstance(predictions, TopKRows) else np.zeros(labels.shape, bool)


def check_labels(state: State, options: Options, predictions: Source, remedy: str) -> None:
    """Raise LabelError where labels are bad, and that is an error."""
    classes = predictions.shape[1]
    if state.bad_label.count and options.on_bad_label == "error":
        raise label_error(state.bad_label, f"lie in [0, {classes})", remedy)
    if state.beyond.count and getattr(predictions, "tail", None) == "error":
        raise label_error(state.beyond, "be among the ids of their rows", BEYOND_REMEDY)


def label_error(tally: Tally, rule: str, remedy: str) -> xent.LabelError:
    """The error of the labels of a tally."""
    count, row, label = tally.count, tally.first_row, tally.label
    got = f"{count} that do not, the first {label} in row {row}"
    message = refusal("labels", rule, got, remedy.format(label=label))
    return xent.LabelError(message, count, () if row is None else (row,), label)
