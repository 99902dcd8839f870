"""What is read of the predictions a second time: the values of all classes of some rows, as probabilities or scores.

Leaves out what one pass tells of a row (:func:`xent.row_statistics`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent.checks import Kind
from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.sources.topk import TopKRows

BLOCK_ELEMENTS, LEAST_ROWS = 2**20, 64


def predicted_classes(predictions: Any) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """A function that returns the class of the highest prediction of given rows, the first of equal ones.

    None if it is not known.
    """
    if isinstance(predictions, xent.RowStatistics):
        return None
    if isinstance(predictions, TopKRows):
        return predictions.highest
    step = max(LEAST_ROWS, BLOCK_ELEMENTS // max(1, predictions.shape[1]))

    def highest(rows: NDArray[Any]) -> NDArray[Any]:
        blocks = (rows[start : start + step] for start in range(0, len(rows), step))
        classes = [to_numpy(predictions[block]).argmax(axis=1) for block in blocks]
        return np.concatenate(classes) if classes else np.zeros(0, np.int64)

    return highest


def probabilities_of(kind: Kind, predictions: Any, lse: NDArray[Any]) -> Callable[[slice], NDArray[Any]]:
    """A function that returns the probabilities of some rows, in float64."""

    def probabilities(rows: slice) -> NDArray[Any]:
        block: NDArray[Any] = to_numpy(predictions[rows]).astype(np.float64)
        if kind == "probabilities":
            return block
        with np.errstate(invalid="ignore"):  # a row that is NaN, or all −inf
            p: NDArray[Any] = np.exp(block if kind == "log_probabilities" else block - lse[rows, None])
        return p

    return probabilities


def scores_of(kind: Kind, predictions: Any, lse: NDArray[Any]) -> Callable[[slice], NDArray[Any]]:
    """A function that returns the scores that some rows give the classes, in float64, as ``score_counts`` takes them.

    They are the probabilities that were given, or their logarithms; of two classes of logits the second less the first.
    """

    def scores(rows: slice) -> NDArray[Any]:
        block: NDArray[Any] = to_numpy(predictions[rows]).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a row that is NaN, or all −inf
            if block.shape[1] == 2:
                return block[:, 1:] - block[:, :1] if kind == "logits" else block[:, 1:]
            return block - lse[rows, None] if kind == "logits" else block

    return scores
