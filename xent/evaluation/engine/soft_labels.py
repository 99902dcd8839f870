r"""Labels that are distributions over the classes, one-hot ones among them.

.. math:: \ell = -\sum_j t_j \log p_j, \qquad \sum_j (p_j - t_j)^2, \qquad -\sum_j t_j \log t_j

are the loss, the Brier score and the target's entropy of a row. What needs one label takes the class of the largest
:math:`t_j`, of equal ones the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.statistics.blocks import NORMALISED_WITHIN

BLOCK_ELEMENTS = 2**18
BAD = -1
"""The number in place of a label that is no distribution."""


class Targets(NamedTuple):
    """The targets of some rows, (rows, C); the class of the largest of each, or :data:`BAD`; and their entropies."""

    values: NDArray[Any]
    labels: NDArray[np.int64]
    entropy: NDArray[Any]


def targets_of(labels: Any) -> Targets | None:
    """The targets that labels (rows, C) are; None for labels (rows,)."""
    values: NDArray[Any] = to_numpy(labels)
    if values.ndim == 1:
        return None
    top, entropy = np.empty(len(values), np.int64), np.empty(len(values))
    for rows in blocks(values.shape):
        block = values[rows].astype(np.float64)
        is_one = (block >= 0).all(axis=1) & (np.abs(block.sum(axis=1) - 1) <= NORMALISED_WITHIN)
        top[rows] = np.where(is_one, block.argmax(axis=1), BAD)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy[rows] = np.where(block > 0, -block * np.log(block), 0.0).sum(axis=1)
    return Targets(values, top, entropy)


def of_targets(
    statistics: xent.RowStatistics, predictions: Any, targets: Targets, kind: Any, probabilities: Callable[..., Any]
) -> xent.RowStatistics:
    """The statistics of rows, which were taken with the labels of the targets, with what is another of the targets."""
    matched = np.empty(len(targets.values))
    for rows in blocks(targets.values.shape):
        target, p = targets.values[rows].astype(np.float64), probabilities(rows)
        # so that 1 − 2 p + Σ p² of the label's probability p is the Brier score Σ (p − t)²
        matched[rows] = (1 - (target * target).sum(axis=1)) / 2 + (target * p).sum(axis=1)
    loss: Any = xent.cross_entropy(predictions, targets.values, kind=kind)
    return statistics._replace(loss=loss, label_probability=matched)


def blocks(shape: tuple[int, ...]) -> list[slice]:
    """The rows, a few at a time."""
    step = max(1, BLOCK_ELEMENTS // max(1, shape[1]))
    return [slice(start, start + step) for start in range(0, shape[0], step)]
