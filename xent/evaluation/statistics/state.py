"""The sums of a prediction set, merged exactly: what a pass keeps of some rows.

The size of a state does not grow with its rows; with the tables that are asked for it grows with the classes,
slices and clusters that it has met. Leaves out how a block of rows makes a state (``blocks.py``), and the means and
errors that follow from the sums (``metrics.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, reduce
from typing import Any, NamedTuple

from xent.evaluation.statistics.classwise import Classwise
from xent.evaluation.statistics.cluster_sums import Clusters
from xent.evaluation.statistics.exact_sums import Moments
from xent.evaluation.statistics.score_counts import ScoreCounts

SEGMENTS = 100
"""Into how many parts the rows are cut, for the loss over their position."""
WORST = 10
"""How many rows of the highest loss are kept."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows share a flaw, the first such row of the whole set, and its label if that is the flaw."""

    count: int = 0
    first_row: int | None = None
    label: int | None = None

    def merge(self, other: Tally) -> Tally:
        """The tally of both."""
        seen = [tally for tally in (self, other) if tally.first_row is not None]
        first = min(seen, key=lambda tally: tally.first_row or 0, default=Tally())
        return Tally(self.count + other.count, first.first_row, first.label)


class Group(NamedTuple):
    """The rows of one class or slice: how many count and are right, and the moments of finite losses.

    ``weight`` and ``correct_weight`` are the moments of the weights of these rows, if rows have weights.
    """

    counted: int = 0
    correct: int = 0
    loss: Moments = Moments()
    weight: Moments = Moments()
    correct_weight: Moments = Moments()

    def merge(self, other: Group) -> Group:
        """The group of both."""
        return Group(*map(merge, self, other))


class Bin(NamedTuple):
    """The rows whose highest probability lies in one bin: the moments of that probability where it is right, and wrong.

    ``squares`` are those of its square, if rows have weights; else the sums of squares of the others tell as much.
    """

    right: Moments = Moments()
    wrong: Moments = Moments()
    squares: Moments = Moments()

    def merge(self, other: Bin) -> Bin:
        """The bin of both."""
        return Bin(*map(merge, self, other))

    @property
    def all(self) -> Moments:
        """The moments of the highest probability of all rows."""
        return self.right.merge(self.wrong)


class Example(NamedTuple):
    """A row of high loss; `predicted` is the class of its highest prediction, None if it is not known.

    In a state they are numbers; in a result they are names where the classes have names.
    """

    row: int
    label: int | str
    predicted: int | str | None
    loss: float


@dataclass(frozen=True, slots=True)
class Worst:
    """The rows of the highest loss, the highest first; of equal ones the first."""

    examples: tuple[Example, ...] = ()

    def merge(self, other: Worst) -> Worst:
        """The worst of both."""
        return Worst(
            tuple(sorted(self.examples + other.examples, key=lambda example: (-example.loss, example.row))[:WORST])
        )


@dataclass(frozen=True, slots=True)
class State:
    """The sums of some rows of a prediction set; ``State()`` is that of no rows.

    Attributes
    ----------
    rows, ignored : int
    unreadable : Tally
        Rows that could not be read and were skipped; nothing else of them is known.
    outside_top_k : Tally
        Rows whose label is not among the k classes that are known of a row, and the first one's label.
    bad_label, nan, infinite, unnormalised : Tally
        A row whose loss is NaN or −inf (no distribution has one) is in ``nan``, one of loss +inf in ``infinite``, one
        of probabilities that do not sum to 1 in ``unnormalised``; all these are counted rows. Rows ignored or of a bad
        label are not.
    above_one : Tally
        Counted rows with a probability above 1, beyond rounding.
    like_probabilities : int
        How many counted rows of logits lie in [0, 1] and sum to 1.
    loss, brier, entropy, confidence : Moments
        Over counted rows in which the number is finite.
    ranks : mapping of int to int
        How many counted rows have their label at each of the first ``options.ranks`` ranks.
    labels : mapping of int to int
        How many counted rows have each label.
    bins : mapping of int to Bin
        The rows by their highest probability.
    histogram : mapping of int to int
        The rows of a finite loss by :func:`histogram_bin`.
    segments : mapping of int to Group
        The rows by the part of the set in which they are.
    worst : Worst
    classes, slices : mapping to Group
        The tables, each empty unless it is asked for.
    clusters : Clusters or None
        If rows have clusters.
    classwise : Classwise or None
        If it is asked for.
    bad_weight : Tally
        Rows of a weight that is negative or no finite number, which do not count.
    weight : Moments
        Of the weights of counted rows, if rows have weights.
    target_entropy : Moments
        Over counted rows, if labels are distributions.
    rank_weights, label_weights : mapping of int to Moments
        Of the weights of the rows of ``ranks`` and ``labels``.
    predicted_bytes : int or None
        Of counted rows, times their weights if they have any, in units of 2**-1126; None if they are not known of each.
    slice_brier : mapping to Moments
        The Brier scores of the rows of each slice.
    slice_bins : mapping to mapping of int to Bin
        The rows of each slice by their highest probability, if it is asked for.
    slice_bytes : mapping to int
        The same of each slice, if both are given.
    confusion, confusion_weights : mapping of pairs of int to int
        The counted rows of each label and predicted class, which is −1 where there is none, and their weights in units
        of 2**-1126; empty unless asked for.
    score_counts : mapping of int to ScoreCounts
        The scores of each class that is ranked against the others; empty unless asked for.
    confidence_counts : ScoreCounts or None
        The highest probabilities of the rows that are right and of the others; None unless asked for.
    """

    rows: int = 0
    ignored: int = 0
    unreadable: Tally = field(default_factory=Tally)
    bad_label: Tally = field(default_factory=Tally)
    outside_top_k: Tally = field(default_factory=Tally)
    nan: Tally = field(default_factory=Tally)
    infinite: Tally = field(default_factory=Tally)
    unnormalised: Tally = field(default_factory=Tally)
    above_one: Tally = field(default_factory=Tally)
    like_probabilities: int = 0
    loss: Moments = field(default_factory=Moments)
    brier: Moments = field(default_factory=Moments)
    entropy: Moments = field(default_factory=Moments)
    confidence: Moments = field(default_factory=Moments)
    ranks: Mapping[int, int] = field(default_factory=dict)
    labels: Mapping[int, int] = field(default_factory=dict)
    bins: Mapping[int, Bin] = field(default_factory=dict)
    histogram: Mapping[int, int] = field(default_factory=dict)
    segments: Mapping[int, Group] = field(default_factory=dict)
    worst: Worst = field(default_factory=Worst)
    classes: Mapping[int, Group] = field(default_factory=dict)
    slices: Mapping[Any, Group] = field(default_factory=dict)
    clusters: Clusters | None = None
    classwise: Classwise | None = None
    bad_weight: Tally = field(default_factory=Tally)
    weight: Moments = field(default_factory=Moments)
    rank_weights: Mapping[int, Moments] = field(default_factory=dict)
    label_weights: Mapping[int, Moments] = field(default_factory=dict)
    target_entropy: Moments = field(default_factory=Moments)
    predicted_bytes: int | None = None
    slice_bytes: Mapping[Any, int] = field(default_factory=dict)
    slice_brier: Mapping[Any, Moments] = field(default_factory=dict)
    slice_bins: Mapping[Any, Mapping[int, Bin]] = field(default_factory=dict)
    confusion: Mapping[tuple[int, int], int] = field(default_factory=dict)
    confusion_weights: Mapping[tuple[int, int], int] = field(default_factory=dict)
    score_counts: Mapping[int, ScoreCounts] = field(default_factory=dict)
    confidence_counts: ScoreCounts | None = None

    @property
    def counted(self) -> int:
        """The rows in every mean: neither ignored nor unreadable, of a weight, and of a label that has a loss."""
        flawed = (self.bad_label, self.outside_top_k, self.unreadable, self.bad_weight)
        return self.rows - self.ignored - sum(tally.count for tally in flawed)

    @property
    def correct(self) -> int:
        """How many counted rows have the highest prediction at their label."""
        return self.ranks.get(0, 0)


def merge(a: Any, b: Any) -> Any:
    """The sum of two states, or of two fields of them: exactly associative and commutative.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.evaluation.statistics.exact_sums import moments_of
    >>> small, large = (State(rows=1, loss=moments_of(np.asarray([loss]))) for loss in (2.0**-60, 2.0**60))
    >>> merge(small, large).loss.total == small.loss.total + large.loss.total != large.loss.total
    True
    """
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, int):
        return a + b
    if isinstance(a, Mapping):
        if not (a and b):
            return a or b
        return {**a, **b, **{key: merge(a[key], b[key]) for key in a.keys() & b.keys()}}
    if hasattr(a, "merge"):
        return a.merge(b)
    kind: Any = type(a)
    return kind(*[merge(getattr(a, name), getattr(b, name)) for name in field_names(kind)])


@cache
def field_names(kind: Any) -> tuple[str, ...]:
    """The names of the fields of a state, in their order."""
    return tuple(each.name for each in fields(kind))


def merge_all(states: Iterable[Any]) -> Any:
    """The state of the rows of all of them, which are taken one at a time; ``State()`` of none."""
    merged = reduce(merge, states, None)
    return State() if merged is None else merged
