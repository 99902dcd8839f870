"""An evaluation, a comparison or a source as a JSON document, for other programs.

Numbers that JSON cannot hold are the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xent.evaluation.engine.memory import largest_chunk, projected_peak
from xent.evaluation.engine.schedulers import local_threads
from xent.evaluation.report.tables import key_text
from xent.evaluation.report.wording import format_p_value
from xent.evaluation.sources.messages import SeveralArrays, name_to_pass, refusal
from xent.evaluation.statistics.evaluation import FLAWS

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import Comparison
    from xent.evaluation.engine.pairwise_pass import PairDifference, PairwiseComparison
    from xent.evaluation.report.run import Run
    from xent.evaluation.sources.source import Source
    from xent.evaluation.statistics.classwise import ClasswiseCalibration
    from xent.evaluation.statistics.cluster_losses import ClusterLosses
    from xent.evaluation.statistics.confusion import Confusion
    from xent.evaluation.statistics.evaluation import Evaluation
    from xent.evaluation.statistics.ranking import Ranking

SCHEMA_VERSION = 1
COUNTS = (
    *("rows", "counted", "ignored"),
    *(flaw.count for flaw in FLAWS),
    *(flaw.first for flaw in FLAWS),
    "clusters",
)

MOST_LISTED = 100
"""The most arrays of a file that an inspection opens."""


def evaluation_document(evaluation: Evaluation, run: Run) -> dict[str, Any]:
    """The document of ``xent evaluate --json``: schema version, inputs, options, counts, metrics, timing."""
    return {
        **heading(run, evaluation.unstored_chunks),
        **evaluation_numbers(evaluation),
        "timing": run.timing(),
    }


def comparison_document(comparison: Comparison, run: Run) -> dict[str, Any]:
    """The document of ``xent compare --json``: the difference, and the numbers of each set."""
    return {
        **heading(run, comparison.unstored_chunks),
        **comparison_numbers(comparison),
        "timing": run.timing(),
    }


def comparison_numbers(comparison: Comparison) -> dict[str, Any]:
    """The difference, by slice too, and the numbers of each set."""
    return {
        "difference": difference_numbers(comparison),
        "mcnemar": comparison.mcnemar._asdict(),
        "slices": {str(key): group._asdict() for key, group in comparison.slices.items()},
        "a": evaluation_numbers(comparison.a),
        "b": evaluation_numbers(comparison.b),
    }


def difference_numbers(difference: Comparison | PairDifference) -> dict[str, Any]:
    """The difference of two sets over all rows."""
    return {
        "value": difference.mean_difference,
        "stderr": difference.standard_error,
        "n": difference.counted,
        "interval_95": list(difference.confidence_interval),
        "degrees_of_freedom": difference.degrees_of_freedom,
        "p_value": difference.p_value,
        "p_value_text": format_p_value(difference.p_value),
        "clusters": difference.clusters,
        "better": difference.better,
        "worse": difference.worse,
        "ties": difference.ties,
        "rows_needed": difference.rows_needed,
    }


def pairwise_document(comparison: PairwiseComparison, run: Run) -> dict[str, Any]:
    """The document of ``xent compare --json`` of more than two sets: each pair, as "a-b", and each set."""
    return {
        **heading(run, comparison.unstored_chunks),
        **pairwise_numbers(comparison),
        "timing": run.timing(),
    }


def pairwise_numbers(comparison: PairwiseComparison) -> dict[str, Any]:
    """The differences of every two sets, by slice too, and the numbers of each set."""
    pairs = {
        "-".join(pair): {
            **difference_numbers(each),
            "adjusted_p_value": each.adjusted_p_value,
            "mcnemar": each.mcnemar._asdict() | {"adjusted_p_value": each.adjusted_mcnemar_p_value},
            "slices": {str(key): group._asdict() for key, group in each.slices.items()},
        }
        for pair, each in comparison.pairs.items()
    }
    return {"pairs": pairs, **{name: evaluation_numbers(each) for name, each in comparison.sets.items()}}


def heading(run: Run, unstored_chunks: Mapping[str, int]) -> dict[str, Any]:
    """The schema version, the inputs, the options and the environment."""
    return {"schema_version": SCHEMA_VERSION, **run.to_dict(), "unstored_chunks": dict(unstored_chunks)}


def evaluation_numbers(evaluation: Evaluation) -> dict[str, Any]:
    """The counts and the metrics of one set."""
    return {
        "kind": evaluation.kind,
        "looks_like_probabilities": evaluation.looks_like_probabilities,
        "counts": {name: getattr(evaluation, name) for name in COUNTS},
        "denominator": evaluation.denominator,
        "weights": {"total": evaluation.total_weight, "effective_rows": evaluation.effective_rows},
        "metrics": {name: asdict(metric) for name, metric in evaluation.metrics.items()},
        "loss_interval_95": list(evaluation.confidence_interval),
        "degrees_of_freedom": evaluation.degrees_of_freedom,
        "bits_per_byte": evaluation.bits_per_byte,
        "prior": {"loss": evaluation.prior_loss, "skill": evaluation.skill},
        "calibration": calibration_numbers(evaluation),
        "temperature": None if evaluation.temperature is None else evaluation.temperature._asdict(),
        "histogram": [each._asdict() for each in evaluation.histogram],
        "positions": [segment._asdict() for segment in evaluation.positions],
        "worst": [example._asdict() for example in evaluation.worst],
        "classes": {str(key): group._asdict() for key, group in evaluation.classes.items()},
        "slices": {str(key): group._asdict() for key, group in evaluation.slices.items()},
        "cluster_losses": None if evaluation.cluster_losses is None else cluster_numbers(evaluation.cluster_losses),
        "ranking": None if evaluation.ranking is None else ranking_numbers(evaluation.ranking),
        "confusion": None if evaluation.confusion is None else confusion_numbers(evaluation.confusion),
    }


def calibration_numbers(evaluation: Evaluation) -> dict[str, Any]:
    """The calibration errors, the noise floor, the bins, and the parts of the Brier score of the confidence."""
    found = evaluation.calibration
    equal, of_classes = found.equal_mass, found.classwise
    return {
        "error": found.error,
        "debiased_error": found.debiased_error,
        "noise_floor": found.noise_floor,
        "noise_deviation": found.noise_deviation,
        "confidence": found.decomposition._asdict(),
        "bins": [each._asdict() for each in evaluation.reliability],
        "equal_mass": None if equal is None else {**equal._asdict(), "bins": [each._asdict() for each in equal.bins]},
        "smooth": None if found.smooth is None else found.smooth._asdict(),
        "classwise_error": evaluation.classwise_calibration_error,
        "classwise": None if of_classes is None else classwise_numbers(of_classes),
    }


def classwise_numbers(calibration: ClasswiseCalibration) -> dict[str, Any]:
    """The means and sums over classes, and the numbers of each."""
    return {**vars(calibration), "classes": {str(key): each._asdict() for key, each in calibration.classes.items()}}


def cluster_numbers(losses: ClusterLosses) -> dict[str, Any]:
    """The mean losses of clusters; a key that is bytes as text."""
    worst = [{**each._asdict(), "cluster": key_in_json(each.cluster)} for each in losses.worst]
    return {**losses._asdict(), "histogram": [each._asdict() for each in losses.histogram], "worst": worst}


def key_in_json(key: Any) -> int | str:
    """The key of a cluster."""
    return key if isinstance(key, int) else key_text(key)


def confusion_numbers(confusion: Confusion) -> dict[str, Any]:
    """The pairs of labels and predicted classes, and the scores."""
    means = {name: getattr(confusion, name)._asdict() for name in ("macro", "micro", "weighted")}
    return {
        **{name: getattr(confusion, name) for name in ("balanced_accuracy", "kappa", "mcc")},
        **means,
        "classes": {str(key): scores._asdict() for key, scores in confusion.classes.items()},
        "cells": [cell._asdict() for cell in confusion.cells],
    }


def ranking_numbers(ranking: Ranking) -> dict[str, Any]:
    """The means, and the numbers of each class with their gains."""
    means = ("macro_auc", "weighted_auc", "macro_average_precision", "weighted_average_precision")
    classes = {
        str(key): {**scores._asdict(), "gains": [gain._asdict() for gain in scores.gains]}
        for key, scores in ranking.classes.items()
    }
    return {**{name: getattr(ranking, name) for name in means}, "classes": classes}


def inspection(source: Source, chunk_bytes: int) -> dict[str, Any]:
    """The document of ``xent inspect --json``: a source and how it would be read.

    The peak of memory is that of as many threads as an evaluation has by default.
    """
    if not source.shape:
        raise ValueError(refusal("predictions", "have rows", source, "Save an array of shape (rows, classes)."))
    bounds = source.bounds(chunk_bytes)
    chunk, threads = largest_chunk(bounds) * source.row_bytes, local_threads()
    return {
        **source.facts(),
        "rows": source.shape[0],
        "classes": source.shape[1] if len(source.shape) > 1 else None,
        "chunks": len(bounds) - 1,
        "chunk_bytes": chunk,
        "threads": threads,
        "projected_peak_bytes": projected_peak(threads, chunk) + source.memory(threads),
    }


def contents(held: SeveralArrays, open_array: Callable[[str], Source]) -> dict[str, Any]:
    """The document of ``xent inspect --json`` of what holds several arrays: of each its name to pass, shape and dtype.

    An array that cannot be opened has the reason instead.
    """
    arrays: list[dict[str, Any]] = []
    names = [*held.names]
    pattern = name_to_pass(names) if held.are_columns else ""
    if pattern.endswith("*"):
        names = [pattern, *(name for name in names if not name.startswith(pattern[:-1]))]
    for name in names[:MOST_LISTED]:
        facts: dict[str, Any] = {"name": f"{held.path}#{name}"}
        try:
            source = open_array(facts["name"])
            facts |= {"shape": list(source.shape), "dtype": source.shown_dtype}
        except (ValueError, TypeError, OSError) as error:
            facts["error"] = str(error)
        arrays.append(facts)
    return {"path": held.path, "arrays": arrays, "more": len(names[MOST_LISTED:])}


def to_json(value: dict[str, Any]) -> str:
    """The document as JSON text, without a bare NaN or Infinity."""
    return json.dumps(json_value(value), indent=2, allow_nan=False)


def json_value(value: Any) -> Any:
    """The value with floats that are not finite as strings."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
