"""A result as tables of typed columns, for the page and for Parquet files.

A column's name ends in its unit if it has one. Leaves out how a number is written (``wording.py``) and files
(``parquet.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from xent.evaluation.report.wording import NO_VALUE, UNITS
from xent.evaluation.statistics.classwise import ClassCalibration
from xent.evaluation.statistics.evaluation import FLAWS
from xent.evaluation.statistics.ranking import RankingScores

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import Comparison, SliceDifference
    from xent.evaluation.statistics.calibration import Calibration
    from xent.evaluation.statistics.cluster_losses import ClusterLosses
    from xent.evaluation.statistics.confusion import Cell, Confusion
    from xent.evaluation.statistics.evaluation import ClassMetrics, Evaluation, GroupMetrics
    from xent.evaluation.statistics.ranking import Ranking

Row = tuple[Any, ...]


class Table(NamedTuple):
    """Rows of columns; a column is of int, float or str, and may hold None."""

    columns: dict[str, type]
    rows: list[Row]


def evaluation_tables(evaluation: Evaluation) -> dict[str, Table]:
    """The tables of one set by their names; those of those not asked for are left out.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> tables = evaluation_tables(xent.evaluate(np.zeros((3, 4), np.float32), np.asarray([0, 1, 2])))
    >>> tables["positions"].rows[1]
    (1, 2, 1, 1.3862943649291992)
    """
    part_columns = {"first_row": int, "stop_row": int, "rows": int, "mean_loss_nats": float}
    label: type = str if any(isinstance(example.label, str) for example in evaluation.worst) else int
    example_columns = {"row": int, "label": label, "predicted": label, "loss_nats": float}
    tables = {
        "metrics": metric_table(evaluation),
        "counts": count_table(evaluation),
        "classes": group_table("class", evaluation.classes),
        "slices": group_table("slice", evaluation.slices),
        **({} if evaluation.confusion is None else confusion_tables(evaluation.confusion)),
        **({} if evaluation.ranking is None else ranking_tables(evaluation.ranking)),
        **calibration_tables(evaluation),
        "histogram": Table({"low_nats": float, "high_nats": float, "rows": int}, [*map(tuple, evaluation.histogram)]),
        "positions": Table(part_columns, [*map(tuple, evaluation.positions)]),
        "worst": Table(example_columns, [*map(tuple, evaluation.worst)]),
        "worst_clusters": worst_clusters_table(evaluation.cluster_losses),
    }
    optional = ("classes", "slices", "worst_clusters")
    return {name: table for name, table in tables.items() if table.rows or name not in optional}


def comparison_tables(comparison: Comparison) -> dict[str, Table]:
    """The tables of a comparison by their names, and those of each of its sets, as "counts_a"; slices if it has any."""
    low, high = comparison.confidence_interval
    columns = {"mean_difference_nats": float, "standard_error_nats": float, "low_nats": float, "high_nats": float}
    counts = {"p_value": float, "rows": int, "better": int, "worse": int, "ties": int, "rows_needed": int}
    counts |= {"right_in_A_alone": int, "right_in_B_alone": int, "mcnemar_p_value": float}
    mean, error, rows = comparison.mean_difference, comparison.standard_error, comparison.counted
    row = (mean, error, low, high, comparison.p_value, rows, comparison.better, comparison.worse, comparison.ties)
    tests = (comparison.rows_needed, *comparison.mcnemar[:3])
    tables = {"difference": Table({**columns, **counts}, [(*row, *tests)]), "metrics": comparison_table(comparison)}
    if comparison.slices:
        tables["slices"] = difference_table("slice", comparison.slices)
    for name, each in (("a", comparison.a), ("b", comparison.b)):
        tables |= {f"{table}_{name}": content for table, content in evaluation_tables(each).items()}
    return tables


def worst_clusters_table(losses: ClusterLosses | None) -> Table:
    """The clusters of the highest mean loss, with their rows or the sum of their weights; no rows of None."""
    worst = () if losses is None else losses.worst
    columns: dict[str, type] = {"mean_loss_nats": float, "perplexity": float, "weight": float}
    rows = [(each.mean_loss, each.perplexity, each.weight) for each in worst]
    return keyed_table("cluster", [each.cluster for each in worst], columns, rows)


def metric_table(evaluation: Evaluation) -> Table:
    """Every number of the whole set; the standard error is None for those that have none."""
    n, best, losses = evaluation.counted, evaluation.temperature, evaluation.cluster_losses
    rows: list[Row] = [
        (name, metric.value, metric.stderr, UNITS.get(name, ""), metric.n)
        for name, metric in evaluation.metrics.items()
    ]
    others: dict[str, tuple[float | None, str]] = {
        **{name: (value, "") for name, value in confusion_metrics(evaluation.confusion).items()},
        **{name: (value, "") for name, value in ranking_metrics(evaluation.ranking).items()},
        **{name: (value, "") for name, value in calibration_metrics(evaluation.calibration).items()},
        "bits per byte": (evaluation.bits_per_byte, "bits"),
        "prior loss": (evaluation.prior_loss, "nats"),
        "skill": (evaluation.skill, ""),
        "mean loss of clusters": (losses and losses.mean_loss, "nats"),
        "perplexity of clusters": (losses and losses.perplexity, ""),
        "total weight": (evaluation.total_weight, ""),
        "effective rows": (evaluation.effective_rows, ""),
        "temperature": (None if best is None else best.value, ""),
        "loss at the temperature": (None if best is None else best.mean_loss, "nats"),
        "calibration error at the temperature": (None if best is None else best.calibration_error, ""),
    }
    rows += [(name, value, None, unit, n) for name, (value, unit) in others.items() if value is not None]
    return Table({"metric": str, "value": float, "standard_error": float, "unit": str, "rows": int}, rows)


def calibration_metrics(calibration: Calibration) -> dict[str, float | None]:
    """The numbers of a calibration as a whole, by their names; those not asked for are None."""
    parts, equal, smooth, of_classes = (
        getattr(calibration, name) for name in ("decomposition", "equal_mass", "smooth", "classwise")
    )
    return {
        "calibration error": calibration.error,
        "debiased calibration error": calibration.debiased_error,
        "calibration noise floor": calibration.noise_floor,
        "equal-mass calibration error": None if equal is None else equal.error,
        "smooth calibration error": None if smooth is None else smooth.error,
        "classwise calibration error": None if of_classes is None else of_classes.error,
        "confidence brier": parts.brier,
        "confidence reliability": parts.reliability,
        "confidence resolution": parts.resolution,
        "confidence uncertainty": parts.uncertainty,
    }


def confusion_metrics(confusion: Confusion | None) -> dict[str, float]:
    """The scores of a confusion as a whole, by their names; none of None."""
    if confusion is None:
        return {}
    means = {"macro": confusion.macro, "micro": confusion.micro, "weighted": confusion.weighted}
    names = {"precision": "precision", "recall": "recall", "f1": "F1"}
    return {
        "balanced accuracy": confusion.balanced_accuracy,
        **{f"{mean} {names[score]}": value for mean, each in means.items() for score, value in each._asdict().items()},
        "Cohen's kappa": confusion.kappa,
        "Matthews correlation": confusion.mcc,
    }


def ranking_metrics(ranking: Ranking | None) -> dict[str, float]:
    """The numbers of a ranking as a whole, by their names: of one class its own, else means; none of None."""
    if ranking is None:
        return {}
    if len(ranking.classes) == 1:
        (scores,) = ranking.classes.values()
        return {"ROC AUC": scores.auc, "average precision": scores.average_precision, "KS": scores.ks}
    return {
        "macro ROC AUC": ranking.macro_auc,
        "weighted ROC AUC": ranking.weighted_auc,
        "macro average precision": ranking.macro_average_precision,
        "weighted average precision": ranking.weighted_average_precision,
    }


def comparison_table(comparison: Comparison) -> Table:
    """The metrics of both sets beside each other."""
    of_b = {name: (value, error) for name, value, error, *_ in metric_table(comparison.b).rows}
    kinds = {"metric": str, "A": float, "standard_error_A": float, "B": float, "standard_error_B": float}
    of_a = metric_table(comparison.a).rows
    rows = [(name, value, error, *of_b[name], *rest) for name, value, error, *rest in of_a]
    return Table({**kinds, "unit": str, "rows": int}, rows)


def count_table(evaluation: Evaluation) -> Table:
    """The number of rows of each sort, and the first of them if it is known."""
    rows: list[Row] = [
        ("rows", evaluation.rows, None),
        ("counted", evaluation.counted, None),
        ("ignored", evaluation.ignored, None),
        *((flaw.description, getattr(evaluation, flaw.count), getattr(evaluation, flaw.first)) for flaw in FLAWS),
    ]
    if evaluation.clusters is not None:
        rows.append(("clusters", evaluation.clusters, None))
    return Table({"what": str, "count": int, "first_row": int}, rows)


def confusion_tables(confusion: Confusion) -> dict[str, Table]:
    """The scores of each class, and the pairs of labels and predicted classes, the most frequent first."""
    score_columns = {"precision": float, "recall": float, "f1": float, "rows": int, "predicted_rows": int}
    scores = [(*one[2:], one.label_rows, one.predicted_rows) for one in confusion.classes.values()]
    names: type = str if any(isinstance(cell.label, str) for cell in confusion.cells) else int
    columns = {"label": names, "predicted": names, "rows": int}
    cells: list[Row] = [(cell.label, cell.predicted, cell.rows) for cell in most_frequent(confusion.cells)]
    return {
        "scores": keyed_table("class", confusion.classes, score_columns, scores),
        "confusion": Table(columns, cells),
    }


def calibration_tables(evaluation: Evaluation) -> dict[str, Table]:
    """The bins of equal width; those of equal mass, and the calibration of each class, if they were asked for."""
    calibration, numbers = evaluation.calibration, ("confidence", "accuracy", "accuracy_low", "accuracy_high")
    kinds: dict[str, type] = dict.fromkeys(numbers, float)
    ends: dict[str, type] = {"low": float, "high": float}
    tables = {"reliability": Table({**ends, "rows": int, **kinds}, [*map(tuple, evaluation.reliability)])}
    if calibration.equal_mass is not None:
        tables["equal_mass"] = Table({**ends, "share": float, **kinds}, [*map(tuple, calibration.equal_mass.bins)])
    if calibration.classwise is not None:
        tables["calibration"] = class_calibration_table(calibration.classwise.classes)
    return tables


def class_calibration_table(classes: Mapping[Any, ClassCalibration]) -> Table:
    """The calibration of the probability of each class."""
    return keyed_table("class", classes, dict.fromkeys(ClassCalibration._fields, float), classes.values())


def matrix(confusion: Confusion) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """The predicted classes, and of each label how many of its rows have which of them; the last may be of no class."""
    classes = [*confusion.classes]
    if any(cell.predicted is None for cell in confusion.cells):
        classes.append(None)
    counts = {(cell.label, cell.predicted): cell.rows for cell in confusion.cells}
    names = [NO_VALUE if each is None else key_text(each) for each in classes]
    return names, [(key_text(y), [counts.get((y, c), 0) for c in classes]) for y in confusion.classes]


def ranking_tables(ranking: Ranking) -> dict[str, Table]:
    """How well each class is ranked, and its gains."""
    names = [name for name in RankingScores._fields if name != "gains"]
    columns: dict[str, type] = {name: int if name in ("positives", "negatives") else float for name in names}
    gain_columns: dict[str, type] = {"share": float, "captured": float, "lift": float}
    classes = ranking.classes
    gains = [(key, gain) for key, scores in classes.items() for gain in scores.gains]
    return {
        "ranking": keyed_table("class", classes, columns, [scores[:-1] for scores in classes.values()]),
        "gains": keyed_table("class", [key for key, _ in gains], gain_columns, [gain for _, gain in gains]),
    }


def most_frequent(cells: Iterable[Cell]) -> list[Cell]:
    """The cells of the most rows first; of equal ones the first."""
    return sorted(cells, key=lambda cell: -cell.rows)


def group_table(key_column: str, groups: Mapping[Any, ClassMetrics | GroupMetrics]) -> Table:
    """The numbers of each class or slice; the share of rows that are right is the recall of a class."""
    share = "recall" if key_column == "class" else "accuracy"
    columns = {"mean_loss_nats": float, "standard_error_nats": float, "degrees_of_freedom": int, share: float}
    columns |= {f"{share}_error": float, "rows": int}
    rows: list[Row] = [
        (loss, error, degrees, right, right_error, counted)
        for counted, loss, error, right, degrees, right_error, *_ in groups.values()
    ]
    if (in_bytes := bits_per_byte_of(groups)) is not None:
        columns, rows = (
            columns | {"bits_per_byte": float},
            [(*row, bits) for row, bits in zip(rows, in_bytes, strict=True)],
        )
    for name in ("brier", "p_value", "adjusted_p_value", "calibration_error", "noise_floor"):
        numbers = [getattr(group, name, None) for group in groups.values()]
        if key_column == "slice" and None not in numbers:
            columns, rows = columns | {name: float}, [(*row, number) for row, number in zip(rows, numbers, strict=True)]
    return keyed_table(key_column, groups, columns, rows)


def standing_out(groups: Mapping[Any, Any]) -> dict[Any, Any]:
    """Slices in the order of their p-values, the least first, of equal ones the first; others as they are."""

    def order(key: Any) -> tuple[bool, float]:
        chance = getattr(groups[key], "p_value", math.nan)
        return math.isnan(chance), 0.0 if math.isnan(chance) else chance

    return {key: groups[key] for key in sorted(groups, key=order)}


def bits_per_byte_of(groups: Mapping[Any, ClassMetrics | GroupMetrics]) -> list[float] | None:
    """The bits per byte of each group, None where the bytes of rows are not known."""
    each = (getattr(group, "bits_per_byte", None) for group in groups.values())
    found = [bits for bits in each if bits is not None]
    return found if found and len(found) == len(groups) else None


def difference_table(key_column: str, groups: Mapping[Any, SliceDifference]) -> Table:
    """The difference of each slice."""
    columns = {"mean_difference_nats": float, "standard_error_nats": float, "degrees_of_freedom": int}
    chances = {"p_value": float, "adjusted_p_value": float}
    rows = [
        (mean, error, degrees, share, *p_values, counted)
        for counted, mean, error, share, degrees, *p_values in groups.values()
    ]
    return keyed_table(key_column, groups, {**columns, "share_A_better": float, **chances, "rows": int}, rows)


def keyed_table(key_column: str, keys: Iterable[Any], columns: dict[str, type], rows: Iterable[Row]) -> Table:
    """The table of these rows with a column of their keys before them: int if all keys are, else text."""
    keys = list(keys)
    are_ints = all(type(key) is int for key in keys)
    keyed_rows = [(key if are_ints else key_text(key), *row) for key, row in zip(keys, rows, strict=True)]
    return Table({key_column: int if are_ints else str, **columns}, keyed_rows)


def key_text(key: Any) -> str:
    """The name of a class or a slice as text that can be encoded in UTF-8."""
    text = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
    return text.encode("utf-8", "backslashreplace").decode()
