"""What the clients share: two trainings that must run alike, and how far their losses may lie apart."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

UNITS = 8
"""Units of rounding that a step may add: those of a loss, of its gradient and of the update, added in another order."""
EPSILON = float(np.finfo(np.float32).eps)


class Run(NamedTuple):
    """The loss of every step, and the median of the steps' seconds of a processor, all threads."""

    losses: list[float]
    seconds: float


def train(step: Callable[[Any], Any], batches: Iterable[Any]) -> Run:
    """The run of ``step(batch)``, which returns the loss, over the batches; the first, which compiles, is not timed."""
    losses, seconds = [], []
    for batch in batches:
        start = time.process_time()
        losses.append(float(step(batch)))
        seconds.append(time.process_time() - start)
    return Run(losses, statistics.median(seconds[1:]))


def are_one_curve(ours: Iterable[float], theirs: Iterable[float], epsilon: float = EPSILON) -> bool:
    """Whether the losses of two runs are finite, fall, and differ by rounding: so many units for each step so far."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    allowed = UNITS * epsilon * np.arange(1, len(theirs) + 1) * np.abs(theirs)
    falls = np.isfinite(theirs).all() and theirs[-1] < theirs[0]
    return bool(falls and np.all(np.abs(ours - theirs) <= allowed))
