"""More than two prediction sets of the same rows, every two of them compared row by row, in one pass.

A row counts where it counts in all sets. Leaves out what is computed of two (``compare_pass.py``) and how the result
is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.engine.compare_pass import (
    SETS,
    Comparison,
    Pair,
    SetsPass,
    SliceDifference,
    chunk_sets,
    comparison,
    options_of,
    planned_sets,
    unreadable_pair,
)
from xent.evaluation.engine.tasks import Job, unreadable_state
from xent.evaluation.options import Keys, Options, Outputs, Rows
from xent.evaluation.sources.hidden_states import Head
from xent.evaluation.sources.messages import refusal
from xent.evaluation.statistics.evaluation import Evaluation, short_repr
from xent.evaluation.statistics.metrics import finish
from xent.evaluation.statistics.paired_tests import McNemar, holm
from xent.evaluation.statistics.state import State, Tally, merge

PairOfSets = tuple[str, str]
"""The letters of two sets."""


@dataclass(frozen=True, slots=True)
class SeveralSets:
    """The sums of some rows of several sets, and of the differences of every two: a and b, a and c, …, b and c, …

    Those of no rows have no set either.
    """

    sets: tuple[State, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def rows(self) -> int:
        return self.sets[0].rows if self.sets else 0

    @property
    def unreadable(self) -> Tally:
        """The rows that could not be read in one of the sets."""
        return self.pairs[0].unreadable if self.pairs else Tally()

    def merge(self, other: SeveralSets) -> SeveralSets:
        """The sums of the rows of both."""
        if not self.sets or not other.sets:
            return self if self.sets else other
        sets = tuple(map(merge, self.sets, other.sets))
        return SeveralSets(sets, tuple(map(merge, self.pairs, other.pairs)))


class PairDifference(NamedTuple):
    """The losses of the first of two sets less those of the second, over the same rows.

    The numbers are those of a :class:`Comparison`, by the same names; the adjusted p-values are for as many tests as
    there are pairs, those of slices for as many as there are pairs and slices, by Holm's correction.
    """

    mean_difference: float
    standard_error: float
    confidence_interval: tuple[float, float]
    degrees_of_freedom: int
    p_value: float
    adjusted_p_value: float
    better: int
    worse: int
    ties: int
    counted: int
    clusters: int | None
    mcnemar: McNemar
    adjusted_mcnemar_p_value: float
    rows_needed: int | None
    slices: Mapping[Any, SliceDifference]


@dataclass(frozen=True, repr=False)
class PairwiseComparison:
    """The differences of the losses of every two of several prediction sets of the same rows.

    Attributes
    ----------
    pairs : mapping of pairs of str to PairDifference
        By the letters of the sets, ("a", "b"), ("a", "c"), ("b", "c"); negative where the first is better.
    sets : mapping of str to Evaluation
        The numbers of each set by itself, by its letter, in the order in which they were given.
    counted, rows : int
        Rows that count in all sets; all rows.
    clusters : int or None
    unstored_chunks : mapping of str to int
        As in an evaluation.
    """

    pairs: Mapping[PairOfSets, PairDifference]
    sets: Mapping[str, Evaluation]
    counted: int
    rows: int
    clusters: int | None
    unstored_chunks: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        losses = ", ".join(f"{name}={each.mean_loss:.6g}" for name, each in self.sets.items())
        return short_repr("PairwiseComparison", self, ("counted", "rows")).replace("(", f"({losses}, ", 1)


@dataclass(frozen=True, eq=False)
class PairwisePass(SetsPass):
    """A planned comparison of every two of several sets."""

    command = "compare_all"

    @property
    def empty(self) -> SeveralSets:
        return no_rows(len(self.sets))

    def finish(self, sums: SeveralSets) -> PairwiseComparison:
        return pairwise(sums, self.options, self.names, self.job.rows)


def plan_pairwise(
    sets: Sequence[Any],
    labels: Any,
    options: Options = Options(),  # noqa: B008  # it cannot be changed
    *,
    keys: Keys = Keys(),  # noqa: B008  # the same
    outputs: Outputs = Outputs(),  # noqa: B008  # the same
    class_names: Any = None,
    head: Head = Head(),  # noqa: B008  # the same
    rows: Rows | None = None,
) -> PairwisePass:
    """The plan of :func:`xent.compare` of more than two sets; only headers are read.

    Raises
    ------
    ValueError
        If there are not 2 to 26 sets; else the errors are those of :func:`plan_pair`.
    """
    if not 2 <= len(sets) <= len(SETS):
        remedy = "Pass another one." if len(sets) < 2 else "Compare those first that matter most."
        raise ValueError(refusal("sets", f"be two to {len(SETS)} prediction sets", len(sets), remedy))
    given = dict(zip(SETS, sets, strict=False))
    measures = chunk_several, partial(unreadable_sets, len(sets))
    wanted: dict[str, Any] = {"class_names": class_names, "heads": dict.fromkeys(given, head), "rows": rows}
    return PairwisePass(**planned_sets(given, labels, options, *measures, keys=keys, outputs=outputs, **wanted))


def chunk_several(job: Job, first_row: int, *blocks: Any, unread: NDArray[np.bool_] | None = None) -> SeveralSets:
    """The sums of some rows; the blocks are those of each set, labels, slices, clusters and weights."""
    states, pairs = chunk_sets(job, first_row, *blocks, unread=unread)
    return SeveralSets(tuple(states), tuple(pair for _, pair in pairs))


def no_rows(count: int) -> SeveralSets:
    """The sums of no rows of so many sets."""
    return SeveralSets((State(),) * count, (Pair(),) * math.comb(count, 2))


def unreadable_sets(count: int, first_row: int, rows: int) -> SeveralSets:
    """The sums of rows that could not be read in one of so many sets."""
    pair = replace(unreadable_pair(first_row, rows), a=State(), b=State())
    return SeveralSets((unreadable_state(first_row, rows),) * count, (pair,) * math.comb(count, 2))


def pairwise(
    sums: SeveralSets, options: Options, names: Sequence[str] = (), all_rows: int | None = None
) -> PairwiseComparison:
    """The comparison of every two sets, from their sums; `names` and `all_rows` are as :func:`finish` takes them."""
    letters = SETS[: len(sums.sets)]
    found = [comparison(pair, options, names, all_rows) for pair in sums.pairs]
    return PairwiseComparison(
        pairs=dict(zip(combinations(letters, 2), adjusted(found), strict=True)),
        sets={
            name: finish(state, options_of(options, name), names, all_rows)
            for name, state in zip(letters, sums.sets, strict=True)
        },
        counted=found[0].counted if found else 0,
        rows=sums.rows,
        clusters=found[0].clusters if found else None,
    )


def adjusted(found: Sequence[Comparison]) -> list[PairDifference]:
    """The numbers of each pair, with p-values that are adjusted for all of them."""
    losses = holm([each.p_value for each in found])
    right = holm([each.mcnemar.p_value for each in found])
    of_slices = iter(holm([group.p_value for each in found for group in each.slices.values()]))
    differences = []
    for each, loss, one in zip(found, losses, right, strict=True):
        slices = {key: group._replace(adjusted_p_value=next(of_slices)) for key, group in each.slices.items()}
        numbers = {name: getattr(each, name) for name in PairDifference._fields if hasattr(each, name)}
        numbers |= {"adjusted_p_value": loss, "adjusted_mcnemar_p_value": one, "slices": slices}
        differences.append(PairDifference(**numbers))
    return differences
