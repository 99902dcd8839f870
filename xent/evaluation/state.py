r"""The sums of a prediction set, merged exactly.

A sum of floating-point numbers depends on the order of its additions; a sum of integers does not. Each loss is
an integer times a power of two, so its sum and the sum of its squares are kept as integers:

.. math:: \sum_n \ell_n = S \cdot 2^{-1126}, \qquad \sum_n \ell_n^2 = Q \cdot 2^{-2252}

which no split of the rows and no order of the merges can change, and from which mean and variance follow without
cancellation, rounded once. A state has a bounded size: S never passes 2200 bits and Q 4400, for up to 2**64 rows.
Leaves out how a loss is made, and where the rows come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

LOSS_BITS = (
    1126  # a loss is an integer times 2**-1126: the lowest exponent of frexp, -1073, less the 53 bits of its mantissa
)
ROOT_BITS = 1138  # a standard error is rounded at 2**-1138, below the smallest subnormal
LIMB_BITS = 18
LIMB_MASK = 2**LIMB_BITS - 1
BLOCK_ROWS = 2**14  # 16384 products of two limbs, 2**37 at most, add up in a float64 without rounding
NORMAL_95 = 1.959963984540054  # the 97.5 % point of the normal distribution


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows share a flaw, the first such row of the whole set, and its label where that is the flaw."""

    count: int = 0
    first_row: int | None = None
    label: int | None = None

    def merge(self, other: Tally) -> Tally:
        """The tally of both."""
        seen = [tally for tally in (self, other) if tally.first_row is not None]
        first = min(seen, key=lambda tally: tally.first_row or 0, default=Tally())
        return Tally(self.count + other.count, first.first_row, first.label)


@dataclass(frozen=True, slots=True)
class State:
    """The sums of some rows of a prediction set; ``State()`` is that of no rows.

    ``loss_sum`` and ``square_sum`` are the integers S and Q of the module's equation, over rows of finite loss.
    A row whose loss is NaN or −inf (no distribution has one) is tallied in ``nan``, one of loss +inf in ``infinite``;
    all these are counted rows. Rows ignored or of a bad label are not.
    """

    rows: int = 0
    ignored: int = 0
    correct: int = 0
    loss_sum: int = 0
    square_sum: int = 0
    bad_label: Tally = field(default_factory=Tally)
    nan: Tally = field(default_factory=Tally)
    infinite: Tally = field(default_factory=Tally)

    @property
    def counted(self) -> int:
        """The denominator of every mean: all rows but the ignored ones and those of a bad label."""
        return self.rows - self.ignored - self.bad_label.count


def merge(a: State, b: State) -> State:
    """The state of the rows of both; exactly associative and commutative.

    Examples
    --------
    >>> rank, labels = np.asarray([0]), np.asarray([1])
    >>> small, large = (state_of(np.asarray([loss]), rank, labels) for loss in (2.0**-60, 2.0**60))
    >>> merge(small, large).loss_sum == small.loss_sum + large.loss_sum != large.loss_sum
    True
    """
    return State(
        rows=a.rows + b.rows,
        ignored=a.ignored + b.ignored,
        correct=a.correct + b.correct,
        loss_sum=a.loss_sum + b.loss_sum,
        square_sum=a.square_sum + b.square_sum,
        bad_label=a.bad_label.merge(b.bad_label),
        nan=a.nan.merge(b.nan),
        infinite=a.infinite.merge(b.infinite),
    )


def merge_all(states: Iterable[State]) -> State:
    """The state of the rows of all of them."""
    return reduce(merge, states, State())


def state_of(
    loss: NDArray[np.floating],
    label_rank: NDArray[np.integer],
    labels: NDArray[np.integer],
    *,
    first_row: int = 0,
    ignored: NDArray[np.bool_] | None = None,
    bad: NDArray[np.bool_] | None = None,
) -> State:
    """The state of one block of rows.

    Parameters
    ----------
    loss : array, shape (rows,), float32 or float64
        In nats; read only where a row is neither ignored nor bad.
    label_rank : array, shape (rows,), integer
        0 where the label has the highest prediction.
    labels : array, shape (rows,), integer
        Read for the first bad one only.
    first_row : int
        Where the block begins in the whole set.
    ignored, bad : array, shape (rows,), bool, or None
        The rows to leave out; no row is both. None is none.
    """
    rows = len(loss)
    ignored = np.zeros(rows, bool) if ignored is None else ignored
    bad = np.zeros(rows, bool) if bad is None else bad
    counted = ~(ignored | bad)
    infinite = counted & np.isposinf(loss)
    finite = counted & np.isfinite(loss)
    loss_sum, square_sum = exact_moments(loss[finite])
    tally = tally_of(bad, first_row)
    if tally.first_row is not None:
        tally = Tally(tally.count, tally.first_row, int(labels[tally.first_row - first_row]))
    return State(
        rows=rows,
        ignored=int(np.count_nonzero(ignored)),
        correct=int(np.count_nonzero(counted & (label_rank == 0))),
        loss_sum=loss_sum,
        square_sum=square_sum,
        bad_label=tally,
        nan=tally_of(counted & ~finite & ~infinite, first_row),
        infinite=tally_of(infinite, first_row),
    )


def tally_of(flawed: NDArray[np.bool_], first_row: int) -> Tally:
    """The tally of the rows where `flawed` is true."""
    count = int(np.count_nonzero(flawed))
    return Tally(count, first_row + int(flawed.argmax())) if count else Tally()


def exact_moments(values: NDArray[np.floating]) -> tuple[int, int]:
    """The sum of finite `values` in units of 2**-1126 and of their squares in units of 2**-2252, both without rounding.

    Each value is cut into three limbs of 18 bits. The limbs, and the products of two limbs, are added per exponent in
    float64, where so few of them leave no rounding, and the totals are shifted into place as Python integers.
    """
    total = squares = 0
    for start in range(0, len(values), BLOCK_ROWS):
        fraction, exponent = np.frexp(values[start : start + BLOCK_ROWS].astype(np.float64))
        mantissa = np.ldexp(fraction, 53).astype(np.int64)  # value = mantissa * 2**(exponent - 53)
        lowest = int(exponent.min())
        place = exponent - lowest
        # subtle: >> rounds a negative mantissa down, so `high` alone carries the sign and the sum of the limbs is exact
        high, middle, low = (
            (limb & mask).astype(np.float64)
            for limb, mask in (
                (mantissa >> 2 * LIMB_BITS, -1),
                (mantissa >> LIMB_BITS, LIMB_MASK),
                (mantissa, LIMB_MASK),
            )
        )
        total += _placed(place, (low, middle, high), 1) << (lowest - 53 + LOSS_BITS)
        products = (low * low, 2 * (low * middle), 2 * (low * high) + middle * middle, 2 * (middle * high), high * high)
        squares += _placed(place, products, 2) << 2 * (lowest - 53 + LOSS_BITS)
    return total, squares


def _placed(place: NDArray[np.integer], limbs: tuple[NDArray[np.float64], ...], power: int) -> int:
    """The exact sum over rows and limbs i of limbs[i] · 2**(18 i) · 2**(power · place)."""
    total = 0
    for i, limb in enumerate(limbs):
        sums = np.bincount(place, weights=limb)
        for where in np.flatnonzero(sums):
            total += int(sums[where]) << (LIMB_BITS * i + power * int(where))
    return total


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean over rows: its value, its standard error with rows taken as independent, and its denominator."""

    value: float
    stderr: float
    n: int


@dataclass(frozen=True)
class Evaluation:
    """The numbers of a prediction set.

    Attributes
    ----------
    mean_loss : float
        Mean negative log-probability of the label over counted rows, in nats, rounded once. NaN where `nan_rows` is
        not 0, or no row counts.
    standard_error : float
        Of `mean_loss`, in nats: sqrt(sample variance / counted), rows taken as independent. NaN under two rows.
    confidence_interval : tuple of float
        95 %, in nats: mean_loss ± 1.96 standard errors.
    perplexity, bits : float
        exp(mean_loss), and mean_loss / log 2.
    accuracy : float
        Share of counted rows whose label has the highest prediction; of equal ones the first class wins. A NaN row is
        not right.
    rows, counted, ignored, bad_labels, nan_rows, infinite_rows : int
        counted = rows − ignored − bad_labels is the denominator of every mean; NaN and infinite rows are counted.
    first_bad_label, first_nan, first_infinite : int or None
        The row of the first one.
    denominator : str
        What the means divide by, in words.
    """

    mean_loss: float
    standard_error: float
    confidence_interval: tuple[float, float]
    perplexity: float
    bits: float
    accuracy: float
    rows: int
    counted: int
    ignored: int
    bad_labels: int
    nan_rows: int
    infinite_rows: int
    first_bad_label: int | None = None
    first_nan: int | None = None
    first_infinite: int | None = None
    denominator: str = "rows neither ignored nor of a bad label"

    @property
    def metrics(self) -> dict[str, Metric]:
        """Each mean with its standard error; those of perplexity and bits follow from the loss's (delta method)."""
        n, share = self.counted, self.accuracy
        spread = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else math.nan
        return {
            "loss": Metric(self.mean_loss, self.standard_error, n),
            "bits": Metric(self.bits, self.standard_error / math.log(2), n),
            "perplexity": Metric(self.perplexity, self.perplexity * self.standard_error, n),
            "accuracy": Metric(share, spread, n),
        }


def finish(state: State) -> Evaluation:
    """The numbers of a prediction set, from its sums; each is rounded once, so nothing cancels.

    Examples
    --------
    >>> finish(state_of(np.asarray([1.0, 3.0]), np.asarray([0, 1]), np.asarray([2, 2]))).standard_error
    1.0
    """
    n = state.counted
    mean, error = _mean(state), _standard_error(state)
    return Evaluation(
        mean_loss=mean,
        standard_error=error,
        confidence_interval=(mean - NORMAL_95 * error, mean + NORMAL_95 * error),
        perplexity=math.exp(mean) if not mean > 709.78 else math.inf,
        bits=mean / math.log(2),
        accuracy=state.correct / n if n else math.nan,
        rows=state.rows,
        counted=n,
        ignored=state.ignored,
        bad_labels=state.bad_label.count,
        nan_rows=state.nan.count,
        infinite_rows=state.infinite.count,
        first_bad_label=state.bad_label.first_row,
        first_nan=state.nan.first_row,
        first_infinite=state.infinite.first_row,
    )


def _mean(state: State) -> float:
    if state.nan.count or not state.counted:
        return math.nan
    # the division of two integers is rounded once, however long they are
    return math.inf if state.infinite.count else state.loss_sum / (state.counted << LOSS_BITS)


def _standard_error(state: State) -> float:
    n = state.counted
    if state.nan.count or state.infinite.count or n < 2:
        return math.nan
    # n Q - S**2 = n (n - 1) * sample variance, exactly; the root of an integer neither underflows nor overflows
    scatter = n * state.square_sum - state.loss_sum**2
    root = math.isqrt((scatter << 2 * ROOT_BITS) // (n * n * (n - 1) << 2 * LOSS_BITS))
    return root / (1 << ROOT_BITS)
