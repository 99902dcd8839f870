"""An evaluation as sheets of typed columns: what a page shows in tables and what Parquet files hold.

A column's name ends in its unit where it has one. Leaves out how a number is written (``html.py``) and files
(``parquet.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from xent.evaluation.report.wording import UNITS

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import SliceDifference
    from xent.evaluation.statistics.metrics import Evaluation, GroupMetrics

Row = tuple[Any, ...]


class Sheet(NamedTuple):
    """Rows of columns; a column is of int, float or str, and may hold None."""

    columns: dict[str, type]
    rows: list[Row]


def sheets(evaluation: Evaluation) -> dict[str, Sheet]:
    """The sheets of one set by their name; classes and slices only where there are some.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> found = sheets(xent.evaluate(np.zeros((3, 4), np.float32), np.asarray([0, 1, 2])))
    >>> found["positions"].rows[1]
    (1, 2, 1, 1.3862943649291992)
    """
    found = {
        "metrics": metric_sheet(evaluation),
        "counts": count_sheet(evaluation),
        "classes": group_sheet("class", evaluation.classes),
        "slices": group_sheet("slice", evaluation.slices),
        "reliability": Sheet(
            {"low": float, "high": float, "rows": int, "confidence": float, "accuracy": float},
            plain(evaluation.reliability),
        ),
        "histogram": Sheet({"low_nats": float, "high_nats": float, "rows": int}, plain(evaluation.histogram)),
        "positions": Sheet(
            {"first_row": int, "stop_row": int, "rows": int, "mean_loss_nats": float}, plain(evaluation.positions)
        ),
        "worst": Sheet({"row": int, "label": int, "predicted": int, "loss_nats": float}, plain(evaluation.worst)),
    }
    return {name: sheet for name, sheet in found.items() if sheet.rows or name not in ("classes", "slices")}


def metric_sheet(evaluation: Evaluation) -> Sheet:
    """Every number that is of the whole set; those without a standard error have None."""
    n, best = evaluation.counted, evaluation.temperature
    rows: list[Row] = [
        (name, one.value, one.stderr, UNITS.get(name, ""), one.n) for name, one in evaluation.metrics.items()
    ]
    others: dict[str, tuple[float | None, str]] = {
        "calibration error": (evaluation.calibration_error, ""),
        "classwise calibration error": (evaluation.classwise_calibration_error, ""),
        "bits per byte": (evaluation.bits_per_byte, "bits"),
        "prior loss": (evaluation.prior_loss, "nats"),
        "skill": (evaluation.skill, ""),
        "temperature": (None if best is None else best.value, ""),
        "loss at the temperature": (None if best is None else best.mean_loss, "nats"),
        "calibration error at the temperature": (None if best is None else best.calibration_error, ""),
    }
    rows += [(name, value, None, unit, n) for name, (value, unit) in others.items() if value is not None]
    return Sheet({"metric": str, "value": float, "standard_error": float, "unit": str, "rows": int}, rows)


def count_sheet(evaluation: Evaluation) -> Sheet:
    """How many rows are what, and the first of them where it is known."""
    rows: list[Row] = [
        ("rows", evaluation.rows, None),
        ("counted", evaluation.counted, None),
        ("ignored", evaluation.ignored, None),
        ("of a bad label", evaluation.bad_labels, evaluation.first_bad_label),
        ("of a label beyond the ids", evaluation.beyond_rows, evaluation.first_beyond),
        ("not read", evaluation.unread_rows, evaluation.first_unread),
        ("counted, loss NaN", evaluation.nan_rows, evaluation.first_nan),
        ("counted, loss infinite", evaluation.infinite_rows, evaluation.first_infinite),
        ("counted, not summing to 1", evaluation.unnormalised_rows, evaluation.first_unnormalised),
    ]
    if evaluation.clusters is not None:
        rows.append(("clusters", evaluation.clusters, None))
    return Sheet({"what": str, "count": int, "first_row": int}, rows)


def group_sheet(name: str, groups: Mapping[Any, GroupMetrics]) -> Sheet:
    """The numbers of each class or slice."""
    columns = {"mean_loss_nats": float, "standard_error_nats": float, "accuracy": float, "rows": int}
    rows = [(one.mean_loss, one.standard_error, one.accuracy, one.counted) for one in groups.values()]
    return keyed(name, groups, columns, rows)


def difference_sheet(name: str, groups: Mapping[Any, SliceDifference]) -> Sheet:
    """The difference of each slice."""
    columns = {"mean_difference_nats": float, "standard_error_nats": float, "share_A_better": float, "rows": int}
    rows = [(one.mean_difference, one.standard_error, one.share_better, one.counted) for one in groups.values()]
    return keyed(name, groups, columns, rows)


def keyed(name: str, keys: Iterable[Any], columns: dict[str, type], rows: Iterable[Row]) -> Sheet:
    """The sheet of these rows with their keys before them, whole numbers if all of them are, else text."""
    keys = list(keys)
    are_whole = all(type(key) is int for key in keys)
    named = [(key if are_whole else text_of(key), *row) for key, row in zip(keys, rows, strict=True)]
    return Sheet({name: int if are_whole else str, **columns}, named)


def text_of(key: Any) -> str:
    """The name of a class or a slice as text that UTF-8 can hold."""
    text = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
    return text.encode("utf-8", "backslashreplace").decode()


def plain(rows: Iterable[tuple[Any, ...]]) -> list[Row]:
    """Named tuples as plain ones."""
    return [tuple(row) for row in rows]
