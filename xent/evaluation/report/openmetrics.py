"""An evaluation as OpenMetrics text [1]_, which Prometheus and what scrapes like it read.

Every number of the document is a gauge ``xent_…``, of all rows, of a slice (``xent_slice_…``) or of a class
(``xent_class_…``), with the model and the set as labels; standard errors are gauges of their own. Numbers of the first
rows of something are left out.

.. [1] https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import xent
from xent.evaluation.report.measures import Measure, Names, measures_of
from xent.text import visible

GROUPS = {"slices": "slice", "classes": "class"}
"""The label that names a group, which its families bear too."""
NAMES = {
    "bits": "loss",
    "counted": "counted_rows",
    "ignored": "ignored_rows",
    "positives": "positive_rows",
    "negatives": "negative_rows",
}
"""The names of numbers whose own says less, or is the unit."""
BOUNDS = {"0": "lower", "1": "upper"}
"""The labels of the ends of an interval."""


class Family(NamedTuple):
    """The name of a gauge, its unit, which is the end of its name, and what it is."""

    name: str
    unit: str | None
    meaning: str

    @classmethod
    def of(cls, words: str, unit: str | None, meaning: str) -> Family:
        """The family of a number that is called so."""
        return cls("_".join(["xent", words, *([unit] if unit else [])]), unit, meaning)


def openmetrics_text(document: Mapping[str, Any], names: Names) -> str:
    """The text of the document of an evaluation."""
    model, dataset, _ = names.of(document)
    common = {"model": model, "dataset": dataset}
    families: dict[Family, dict[str, float]] = {}  # of a family all samples are together, each once
    for family, labels, value in samples_of(document):
        families.setdefault(family, {})[shown(common | labels)] = value
    about = shown({**common, "kind": document["kind"], "version": xent.__version__})
    lines = [
        "# TYPE xent_evaluation info",
        "# HELP xent_evaluation What was evaluated, and by which version of xent.",
        f"xent_evaluation_info{about} 1",
    ]
    for family, samples in families.items():
        lines.append(f"# TYPE {family.name} gauge")
        if family.unit:
            lines.append(f"# UNIT {family.name} {family.unit}")
        lines.append(f"# HELP {family.name} {family.meaning}.")
        lines += [f"{family.name}{labels} {number(value)}" for labels, value in samples.items()]
    return "".join(f"{line}\n" for line in [*lines, "# EOF"])


def samples_of(document: Mapping[str, Any]) -> Iterator[tuple[Family, dict[str, str], float]]:
    """Every number of the document, its error, and how long it took: the family, the labels and the value of each."""
    for measure in measures_of(document):
        if not measure.name[-1].startswith("first_"):
            yield from samples_of_measure(measure)
    timing = document["timing"]
    yield Family.of("evaluation", "seconds", "Time that the evaluation took"), {}, timing["wall_seconds"]
    yield Family.of("predictions", "bytes", "Bytes of predictions that were read"), {}, timing["bytes"]


def samples_of_measure(measure: Measure) -> Iterator[tuple[Family, dict[str, str], float]]:
    """The value of a number, and its error."""
    labels = {GROUPS[group]: key for group, key in measure.groups}
    words, meaning = [*labels], "".join(f" of a {label}" for label in labels)
    if len(measure.name) > 1 and measure.name[-1] in BOUNDS:
        labels["bound"] = BOUNDS[measure.name[-1]]
        measure = measure._replace(name=measure.name[:-1])
    words.append(NAMES.get(measure.identifier, measure.identifier))
    meaning = f"{measure.words[:1].upper()}{measure.words[1:]}{meaning}"
    yield Family.of("_".join(words), measure.unit, meaning), labels, measure.value
    if measure.stderr is not None:
        errors = Family.of("_".join([*words, "stderr"]), measure.unit, f"{meaning}, standard error")
        yield errors, labels, measure.stderr


def shown(labels: Mapping[str, str]) -> str:
    """Labels as a line has them."""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}"


def escaped(text: str) -> str:
    """A text as the value of a label."""
    return visible(text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))


def number(value: float) -> str:
    """A number as the format writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value)).removesuffix(".0")
