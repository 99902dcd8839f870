"""An evaluation as lm-evaluation-harness writes its results [1]_: a task, or a group of tasks, one for each slice.

Metrics that the harness has too bear its names. A number that JSON cannot hold is a string, as in xent's own document;
an error that is not known is "N/A", as in the harness.

.. [1] https://github.com/EleutherAI/lm-evaluation-harness/blob/main/lm_eval/result_schema.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xent.evaluation.report.measures import Measure, Names, scores_of

METRICS = {"accuracy": "acc", "brier": "brier_score"}
"""The harness's names of numbers that have another name here."""
FILTER = "none"
"""The harness's name of answers that were not filtered."""


def lm_eval_results(document: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """The results of the document of an evaluation."""
    model, dataset, _ = names.of(document)
    scores = {dataset: scores_of(document)}
    aliases = {dataset: dataset}
    rows = {dataset: (document["counts"]["rows"], document["counts"]["counted"])}
    for key, group in document["slices"].items():
        task = f"{dataset}_{key}"
        scores[task], aliases[task] = scores_of(document, (("slices", key),)), key
        rows[task] = group["counted"], group["counted"]
    results = {
        task: {"name": task, "alias": aliases[task], "sample_len": rows[task][1], **task_metrics(measures)}
        for task, measures in scores.items()
    }
    inputs = document["inputs"]
    labels, predictions = (inputs.get(name, {}).get("path") for name in ("labels", "predictions"))
    return {
        "results": results,
        **({"groups": {dataset: results[dataset]}} if len(scores) > 1 else {}),
        "group_subtasks": {dataset: [task for task in scores if task != dataset]},
        "configs": {task: {"task": task, "dataset_path": labels, "num_fewshot": 0} for task in scores},
        "versions": dict.fromkeys(scores),
        "n-shot": dict.fromkeys(scores, 0),
        "higher_is_better": {
            task: {metric_name(each): None if not each.better else each.better > 0 for each in measures}
            for task, measures in scores.items()
        },
        "n-samples": {task: {"original": all_rows, "effective": counted} for task, (all_rows, counted) in rows.items()},
        "config": {
            "model": "xent",
            "model_args": {"predictions": predictions, "kind": document["options"]["kind"]},
            "model_dtype": inputs.get("predictions", {}).get("dtype"),
        },
        "model_source": "xent",
        "model_name": model,
        "model_name_sanitized": "".join(char if char.isalnum() or char in "-_." else "__" for char in model),
        "total_evaluation_time_seconds": str(document["timing"]["wall_seconds"]),
    }


def task_metrics(measures: Sequence[Measure]) -> dict[str, float | str]:
    """The value of each metric, and its error."""
    found: dict[str, float | str] = {}
    for each in measures:
        name, error = metric_name(each), each.stderr
        found[f"{name},{FILTER}"] = each.value
        found[f"{name}_stderr,{FILTER}"] = "N/A" if error is None or not math.isfinite(error) else error
    return found


def metric_name(measure: Measure) -> str:
    """What the harness calls a number."""
    return METRICS.get(measure.identifier, measure.identifier)
