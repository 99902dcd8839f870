"""Whether predictions are of the kind that they are said to be, as far as their numbers tell."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.options import Options
from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.topk import TopKRows
from xent.evaluation.statistics.blocks import NORMALISED_WITHIN, ONE_WITHIN
from xent.evaluation.statistics.evaluation import Evaluation
from xent.evaluation.statistics.metrics import looks_like_probabilities
from xent.evaluation.statistics.state import State

BLOCK_ELEMENTS = 2**16
LOOKS = "nothing but rows in [0, 1] that sum to 1, as probabilities do"


def counter_of_probabilities(
    options: Options, predictions: Any, statistics: xent.RowStatistics
) -> Callable[[NDArray[np.bool_]], int] | None:
    """A function that counts the rows of a mask that look like probabilities; None unless these are whole logits.

    It reads only rows whose log Σ exp is one that probabilities may have, which hardly any row of logits has.
    """
    if options.kind != "logits" or isinstance(predictions, TopKRows | xent.RowStatistics):
        return None

    if options.binary:  # 0 and the number that was given
        return lambda rows: int(
            np.count_nonzero((predictions[rows, 1] >= 0) & (predictions[rows, 1] <= 1 + ONE_WITHIN))
        )

    def count(rows: NDArray[np.bool_]) -> int:
        classes = predictions.shape[1]
        lse = np.asarray(statistics.lse, np.float64)
        # of all distributions the uniform one has the least Σ exp, and one that is sure of a class the largest
        least, most = math.log(classes) + 1 / classes, math.log(classes - 1 + math.e)
        possible = np.flatnonzero(rows & (lse >= least - NORMALISED_WITHIN) & (lse <= most + NORMALISED_WITHIN))
        step, number = max(1, BLOCK_ELEMENTS // classes), 0
        for start in range(0, len(possible), step):
            block = to_numpy(predictions[possible[start : start + step]]).astype(np.float64)
            inside = (block >= 0).all(axis=1) & (block <= 1 + ONE_WITHIN).all(axis=1)
            number += int(np.count_nonzero(inside & (np.abs(block.sum(axis=1) - 1) <= NORMALISED_WITHIN)))
        return number

    return count


def check_kind_of_rows(state: State, options: Options, name: str = "predictions") -> None:
    """Raise KindError for probabilities above 1, and for logits that look like probabilities under ``strict_kind``."""
    if state.above_one.count and options.on_error == "error":
        rule = "be at most 0, as log-probabilities" if options.kind == "log_probabilities" else "be at most 1"
        got = f"{state.above_one.count} rows with a larger one, the first is row {state.above_one.first_row}"
        remedy = f"{remedy_of(name, 'logits')}, or on_error='skip' to take them as they are."
        raise xent.KindError(refusal(name, rule, got, remedy))
    if options.strict_kind and looks_like_probabilities(state):
        raise xent.KindError(doubt_of(name))


def kind_doubts(sets: Mapping[str, Evaluation]) -> list[str]:
    """A sentence for each set of logits of which every row looks like probabilities."""
    return [doubt_of(name) for name, each in sets.items() if each.looks_like_probabilities]


def doubt_of(name: str) -> str:
    """What is said of logits that look like probabilities."""
    return refusal(name, "be logits", LOOKS, f"{remedy_of(name, 'probabilities')}.")


def remedy_of(name: str, kind: str) -> str:
    """The beginning of a remedy: the argument that says of which kind these predictions are."""
    return f"Pass {'kind_b' if name == 'b' else 'kind'}='{kind}' if that is what they are"


def warn_of_kind(**sets: Evaluation) -> None:
    """Warn of each set of logits of which every row looks like probabilities."""
    for doubt in kind_doubts(sets):
        warnings.warn(doubt, stacklevel=3)
