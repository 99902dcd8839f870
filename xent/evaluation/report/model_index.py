"""An evaluation as the ``model-index`` of a model card of the Hugging Face Hub [1]_, in YAML.

Every scalar is one of JSON, which YAML 1.2 permits, in a form that readers of YAML 1.1 take for the same. A number
that is not finite is a string, for the Hub keeps the index as JSON. The form has no place for standard errors.

.. [1] https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from xent.evaluation.report.measures import Measure, Names, scores_of
from xent.text import visible

METRICS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "brier": ("brier_score", {}),
    "mcc": ("matthews_correlation", {}),
    **{
        f"{average}_{score}": (score, {"average": average})
        for average in ("macro", "micro", "weighted")
        for score in ("precision", "recall", "f1")
    },
    **{f"{average}_auc": ("roc_auc", {"average": average}) for average in ("macro", "weighted")},
}
"""The Hub's names of numbers that have another name here, and what tells apart numbers of one name."""


def model_index(document: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """The index of the document of an evaluation: one result, and one for each slice, as a configuration of the set."""
    model, dataset, task = names.of(document)

    def result(key: str | None) -> dict[str, Any]:
        config = {} if key is None else {"config": key}
        return {
            "task": {"type": task},
            "dataset": {"name": dataset if key is None else f"{dataset} ({key})", "type": dataset, **config},
            "metrics": [metric(each) for each in scores_of(document, () if key is None else (("slices", key),))],
        }

    results = [result(None), *(result(key) for key in document["slices"])]
    return {"model-index": [{"name": model, "results": results}]}


def metric(measure: Measure) -> dict[str, Any]:
    """A number as the index has it."""
    kind, arguments = METRICS.get(measure.identifier, (measure.identifier, {}))
    options: dict[str, Any] = dict(arguments)
    if top := re.fullmatch(r"top_(\d+)_accuracy", kind):
        kind, options = "top_k_accuracy", {"k": int(top[1])}
    unit = f" ({measure.unit})" if measure.unit and measure.unit != measure.words else ""
    given = {"args": options} if options else {}
    return {"type": kind, "value": measure.value, "name": f"{measure.words}{unit}", **given}


def model_index_yaml(document: Mapping[str, Any], names: Names) -> str:
    """The text of the index.

    Examples
    --------
    >>> print("\\n".join(yaml_lines({"name": "a: b", "results": [{"value": 1e-7, "args": {"k": 3}}]})))
    name: "a: b"
    results:
    - value: 1.0e-07
      args:
        k: 3
    """
    return "".join(f"{line}\n" for line in yaml_lines(model_index(document, names)))


def yaml_lines(value: Any) -> list[str]:
    """The lines of a mapping or a list that is not empty."""
    if isinstance(value, Mapping):
        lines = []
        for key, item in value.items():
            if isinstance(item, Mapping):
                lines += [f"{key}:", *(f"  {line}" for line in yaml_lines(item))]
            elif isinstance(item, Sequence) and not isinstance(item, str):
                lines += [f"{key}:", *yaml_lines(item)]
            else:
                lines.append(f"{key}: {yaml_scalar(item)}")
        return lines
    return [f"{'  ' if i else '- '}{line}" for item in value for i, line in enumerate(yaml_lines(item))]


def yaml_scalar(value: float | str) -> str:
    """A number or a text."""
    if isinstance(value, str):
        return json.dumps(visible(value), ensure_ascii=False)
    if not math.isfinite(value):
        return json.dumps(str(value))
    text = repr(value)
    # subtle: a reader of YAML 1.1 takes 1e-07 for text
    return text.replace("e", ".0e") if "e" in text and "." not in text else text
