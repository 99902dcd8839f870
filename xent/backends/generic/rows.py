"""What the caller says of each row: whether it is ignored, whether its label is bad, and its weight."""

from __future__ import annotations

from typing import Any

from ... import checks
from ...arrays import Array
from ...contract.problem import Problem
from ...numerics import listed, targets
from ...numerics.targets import NO_ROWS, Rows
from .blocks import ListedTargets


def rows_of(
    xp: Any,
    problem: Problem,
    labels: Array | None,
    classes: int,
    dtype: Any,
    sample_weight: Array | None,
    class_weight: Array | None,
) -> Rows:
    """The rows of a call, in operations that every library can differentiate.

    ``labels`` (rows,) are wide; None for soft targets or no targets. ``class_weight`` is (classes,) with labels, and
    Σ t_c w_c (rows,) with soft targets.
    """
    weight = ignored = bad = None
    if sample_weight is not None:
        weight, ignored = targets.sample(xp, sample_weight, dtype)
    if labels is not None and problem.method not in ("partial", "gradient"):
        ignore_index = problem.options.ignore_index
        if ignore_index:
            ignore_index = targets.holdable(problem.target_dtype, ignore_index)
            ignored = targets.either(ignored, targets.ignored_by_label(labels, ignore_index))
        bad = (labels < 0) | (labels >= classes)
        bad = bad if ignored is None else bad & ~ignored
    if class_weight is not None:
        if labels is None:
            weightless = class_weight == 0
        else:  # a row whose label is bad has no class weight, and stays bad
            has_class = (labels >= 0) & (labels < classes)
            class_weight = xp.take(class_weight, xp.where(has_class, labels, 0))
            weightless = has_class & (class_weight == 0)
        ignored, weight = targets.either(ignored, weightless), targets.times(weight, class_weight)
    return Rows(ignored, bad, weight)


def without_bad_labels(xp: Any, problem: Problem, rows: Rows, labels: Array | None, classes: int) -> Rows:
    """The rows, once no label is known to be bad; raises LabelError if one is and the problem says so.

    ``labels`` are as the caller gave them. The rows are as they were if bad labels are NaN in their rows.
    """
    if rows.bad is None or not problem.raises:
        return rows
    assert labels is not None
    if xp.any(rows.bad):
        checks.labels(problem.function, xp.reshape(rows.bad, labels.shape), labels, classes)
    return NO_ROWS if rows.ignored is None and rows.weight is None else rows._replace(bad=None)


def rows_of_ids(
    xp: Any,
    problem: Problem,
    few: ListedTargets,
    classes: int,
    sample_weight: Array | None,
    class_weight: Array | None,
) -> Rows:
    """The rows of a call whose soft targets are of a few classes; ``class_weight`` is (classes,).

    A row is bad if an id with a weight is outside.
    """
    ids, weights = few.ids, few.weights
    of_rows = None if class_weight is None else listed.class_weight(xp, ids, weights, class_weight)
    rows = rows_of(xp, problem, None, classes, weights.dtype, sample_weight, of_rows)
    if problem.method in ("partial", "gradient"):
        return rows
    bad = xp.any(listed.bad_ids(ids, weights, classes), axis=-1)
    return rows._replace(bad=bad if rows.ignored is None else bad & ~rows.ignored)


def without_bad_ids(xp: Any, problem: Problem, rows: Rows, few: ListedTargets, classes: int, ids: Array) -> Rows:
    """The rows, once no id is known to be bad; raises LabelError if one is and the problem says so.

    ``ids`` are as the caller gave them.
    """
    if rows.bad is None or not problem.raises:
        return rows
    if xp.any(rows.bad):
        bad = listed.bad_ids(few.ids, few.weights, classes) & rows.bad[:, None]
        checks.labels(problem.function, xp.reshape(bad, ids.shape), ids, classes, "ids")
    return NO_ROWS if rows.ignored is None and rows.weight is None else rows._replace(bad=None)
