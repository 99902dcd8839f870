"""The memory that a pass takes at most, worked out before it from headers: chunks, tables, and the graph.

Measured in `benchmarks/results/scale.md` and by `tests/test_memory_plan.py`. Leaves out what a format reads whole.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from xent.evaluation.sources.messages import refusal
from xent.evaluation.statistics.classwise import block_rows
from xent.evaluation.statistics.score_counts import (
    BLOCK_ELEMENTS,
    KEY_BYTES,
    MOST_KEYS,
    WEIGHTED_KEY_BYTES,
    key_limit,
    scored_classes,
)

if TYPE_CHECKING:
    from xent.evaluation.engine.evaluate_pass import Planned
    from xent.evaluation.options import Options
    from xent.evaluation.sources.source import Source

RESIDENT_BYTES = 300 * 10**6
"""Of a process beside its chunks: Python, NumPy, Dask, a kernel's code."""
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells the limit of a container, of either version."""
MERGED_AT_ONCE = 16
"""How many states one task merges."""
BATCH_CHUNKS = 4096
"""The most chunks of a graph, where Dask makes no rows."""
TASK_BYTES = 4_000
"""Of a chunk's task in a graph, and of its state without tables."""
BOUND_BYTES = 40
"""Of a chunk that waits: the row at which it begins."""
GROUP_BYTES = 1_000
"""Of a class, slice or cluster in the state of some rows: exact sums of losses and of their squares."""
WEIGHTED = 3
"""How many times as much it is where rows have weights, whose sums are there too."""
WEIGHTED_CLASSWISE = 6
"""How many times as much the sums by class and bin are where rows have weights: four sums, of a few digits each."""
CONFUSION_BYTES = 250
"""Of a pair of a label and a predicted class that occurs; where rows have weights, twice as much."""
LABEL_BYTES = 120
"""Of a label that occurs, whose rows are counted."""


def largest_chunk(bounds: list[int]) -> int:
    """The rows of the largest chunk."""
    return max((stop - start for start, stop in pairwise(bounds)), default=0)


def projected_peak(threads: int, chunk_bytes: int) -> int:
    """The most memory of a process beside its tables: each thread its chunk and as much again, and the libraries."""
    return threads * chunk_bytes * 2 + RESIDENT_BYTES


def table_bytes(planned: Planned, threads: int) -> int:
    """The most memory of what grows with classes, slices, clusters and confusions, in states that wait to be merged.

    How many slices and clusters there are no header tells: as many as rows, or as their dtype has values.
    """
    rows, classes, options = planned.rows, planned.job.classes, planned.options
    states = waiting_states(planned.tasks, threads)

    def kept(keys: int, of_a_key: int) -> int:
        """The bytes of tables of so many keys at most, in the states that wait and in the one that they become."""
        in_a_chunk = min(keys, largest_chunk(planned.bounds))
        return of_a_key * min(states * in_a_chunk, rows) + of_a_key * keys // 2

    slices, clusters = (most_keys(source, rows) for source in planned.keys[:2])
    clusters = min(clusters, most_apart(planned))
    has_weights = planned.keys.weights is not None
    group_bytes = GROUP_BYTES * (WEIGHTED if has_weights else 1)
    is_of_dask = any(source.is_of_dask for source in planned.sources.values())
    in_graph = planned.tasks if is_of_dask else min(planned.tasks, BATCH_CHUNKS)
    total = planned.tasks * BOUND_BYTES + in_graph * TASK_BYTES
    total += kept(min(rows, classes), LABEL_BYTES + has_weights * GROUP_BYTES)
    total += kept(min(rows, options.bins), 2 * group_bytes)
    total += kept(clusters, group_bytes + width_of(planned.keys.clusters))
    total += slice_columns(planned) * kept(slices, group_bytes + width_of(planned.keys.slices))
    if slices and clusters:
        both = width_of(planned.keys.slices) + width_of(planned.keys.clusters)
        total += slice_columns(planned) * kept(min(rows, slices * clusters), group_bytes + both)
    if options.by_class:
        total += kept(min(rows, classes), group_bytes)
    if options.confusion:
        total += kept(min(rows, classes * (classes + 1)), CONFUSION_BYTES * (1 + has_weights))
    if options.auc:
        total += (states + threads + 1) * score_bytes(
            min(rows, largest_chunk(planned.bounds)), classes, WEIGHTED_KEY_BYTES if has_weights else KEY_BYTES
        )
        total += threads * (BLOCK_ELEMENTS * 8 * 2 + has_weights * largest_chunk(planned.bounds) * WEIGHTED_KEY_BYTES)
    if options.calibration:
        key_bytes = WEIGHTED_KEY_BYTES if has_weights else KEY_BYTES
        total += (states + threads + 1) * key_bytes * min(rows, largest_chunk(planned.bounds), MOST_KEYS)
    if options.classwise:
        sums = classwise_bytes(classes, options.bins) * (WEIGHTED_CLASSWISE if has_weights else 1)
        total += (states + threads + 1) * sums + threads * block_rows(classes) * classes * 8 * 6
    return total


def slice_columns(planned: Planned) -> int:
    """Of how many slices each row is one: those of its columns and crosses."""
    return math.prod(planned.keys.slices.shape[1:]) if planned.keys.slices is not None else 0


def most_apart(planned: Planned) -> int:
    """How many clusters may be kept whose rows lie apart: as many as half of the memory holds."""
    width = width_of(planned.keys.clusters) + width_of(planned.keys.slices)
    there = machine_bytes() / 2 // (GROUP_BYTES * WEIGHTED + width)
    return int(min(there, 2**62))


def classwise_bytes(classes: int, bins: int) -> int:
    """The bytes of the sums of one state by class and bin, whatever its rows are."""
    return 4 * 8 * classes * bins


def score_bytes(rows: int, classes: int, key_bytes: int = KEY_BYTES) -> int:
    """The bytes of the scores of one state, of so many rows at most, by class and score."""
    return key_bytes * len(scored_classes(classes)) * min(rows, key_limit(classes))


def machine_bytes() -> float:
    """The memory of this machine, or of the group that the system lets this process have; infinite if unknown."""
    limits = [math.inf]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError), open(path, encoding="ascii") as file:  # "max" is no limit
            limits.append(int(file.read()))
    return min(limits)


def check_fits(classes: int, options: Options) -> None:
    """Raise ValueError where the tables by class of a state, of bins or of scores, alone are more than the memory."""
    needed, there = classwise_bytes(classes, options.bins), machine_bytes()
    if options.classwise and needed > there:
        rule = f"have tables that fit into memory, of {there / 1e9:,.3g} GB"
        got = f"{options.bins:,} for each of {classes:,} classes with classwise=True, {needed / 1e9:,.3g} GB"
        raise ValueError(refusal("bins", rule, got, "Pass fewer, or leave out classwise=True."))
    needed = score_bytes(2**63, classes)
    if options.auc and needed > there:
        rule = f"be left out where its scores do not fit into memory, of {there / 1e9:,.3g} GB"
        got = f"True of {classes:,} classes, {needed / 1e9:,.3g} GB"
        raise ValueError(refusal("auc", rule, got, "Leave out auc=True."))


def waiting_states(tasks: int, threads: int) -> int:
    """How many states are there at once, at most: those of each level of the tree that wait for others."""
    levels, width = 1, tasks
    while width > MERGED_AT_ONCE:
        levels, width = levels + 1, -(-width // MERGED_AT_ONCE)
    return min(tasks, MERGED_AT_ONCE * levels + threads)


def most_keys(source: Source | None, rows: int) -> int:
    """How many different keys there can be."""
    if source is None:
        return 0
    return min(rows, 2 ** (8 * source.dtype.itemsize)) if source.dtype.kind in "biu" else rows


def width_of(source: Source | None) -> int:
    """The bytes of a key itself."""
    return 0 if source is None else source.dtype.itemsize
