"""The numbers of a document one by one, each with its error, for the forms of other programs.

``lm_eval.py``, ``model_index.py`` and ``openmetrics.py`` make these forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from xent.evaluation.report.gates import Name, better, numbers_of
from xent.evaluation.sources.messages import refusal
from xent.text import shown_path

LM_EVAL = (".json",)
MODEL_INDEX = (".yaml", ".yml", ".md")
OPENMETRICS = (".prom", ".txt")
"""The suffixes of the files of each form."""

ERRORS = {"standard_error": "mean_loss", "accuracy_error": "accuracy", "recall_error": "recall"}
"""The last keys of standard errors, and those of the numbers beside that they are of."""
LOSSES = ("loss", "bits", "perplexity", "bits_per_byte")
"""The loss of all rows, in several units."""
UNITS = {
    **dict.fromkeys(("loss", "mean_loss", "loss_interval_95", "entropy", "target entropy"), "nats"),
    "bits": "bits",
}
"""The units of numbers by their last key; the others have none."""


Groups = tuple[tuple[str, str], ...]


class Measure(NamedTuple):
    """A number: what it is of, the keys that name it there, its value, and its standard error.

    ``groups`` are pairs of "slices" or "classes" and the name of the slice or the class; there is none of all rows.
    """

    groups: Groups
    name: Name
    value: float
    stderr: float | None

    @property
    def words(self) -> str:
        """Its name as it is read: "top-3 accuracy"."""
        return " ".join(self.name).replace("_", " ")

    @property
    def identifier(self) -> str:
        """Its name in letters, digits and underscores: "top_3_accuracy"."""
        return re.sub(r"[^A-Za-z0-9]+", "_", "_".join(self.name))

    @property
    def unit(self) -> str | None:
        return UNITS.get(self.name[-1])

    @property
    def better(self) -> int:
        """1 if more of it is better, -1 if less is, and 0 if neither is known."""
        return -1 if self.name[-1] in LOSSES and len(self.name) == 1 else better(self.name)


@dataclass(frozen=True)
class Names:
    """What the model, the set and the type of the task are called in the forms of other programs.

    Without a name a model is called as the file of the predictions, a set as the file of the labels, and a task
    "other", which is the Hub's word for one that it has no word for.
    """

    model_name: str | None = None
    dataset_name: str | None = None
    task_type: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not (isinstance(value, str) and value.strip()):
                raise ValueError(refusal(each.name, "be a text that is not empty", repr(value), "Leave it out."))

    def of(self, document: Mapping[str, Any]) -> tuple[str, str, str]:
        """The three for a document."""
        inputs = document["inputs"]
        model = self.model_name or file_name(inputs.get("predictions"), "model")
        dataset = self.dataset_name or file_name(inputs.get("labels"), "dataset")
        return model, dataset, self.task_type or "other"


def file_name(facts: Mapping[str, Any] | None, default: str) -> str:
    """The name of an input's file or folder without its suffix; the default where it has no path."""
    path = shown_path(str((facts or {}).get("path") or "")).partition("#")[0].partition("?")[0]
    parts = [part for part in PurePosixPath(path).parts if not set("*[") & {*part}]
    return PurePosixPath(parts[-1]).stem if parts else default


def measures_of(document: Mapping[str, Any]) -> list[Measure]:
    """The numbers of the document of an evaluation, in its order, without the denominator of each mean.

    A number that the document has twice is there once.
    """
    numbers, found = numbers_of(document), dict[tuple[Groups, str], Measure]()
    errors = {error_of(name): value for name, value in numbers.items() if name[-1] in ("stderr", *ERRORS)}
    for name, value in numbers.items():
        if name[-1] not in ("stderr", *ERRORS, "n"):
            measure = Measure(*placed(name), value, errors.get(name))
            found.setdefault((measure.groups, measure.identifier), measure)
    return [*found.values()]


def error_of(name: Name) -> Name:
    """The name of the number that a standard error is of."""
    return name[:-1] if name[-1] == "stderr" else (*name[:-1], ERRORS[name[-1]])


def placed(name: Name) -> tuple[Groups, Name]:
    """What a number is of, and its name there, without that of its section."""
    rest = name[1:] if name[0] in ("confusion", "ranking", "counts") else name
    groups, own = [], []
    while rest:
        if rest[0] in ("slices", "classes") and len(rest) > 2:
            groups.append((rest[0], rest[1]))
            rest = rest[2:]
        else:
            own.append(rest[0])
            rest = rest[1:]
    return tuple(groups), tuple(own)


def scores_of(document: Mapping[str, Any], groups: Groups = ()) -> list[Measure]:
    """The means of all rows, or of a group, and the other numbers of which more or less is better.

    The mean loss of a group is called its loss.
    """
    found = (each for each in measures_of(document) if each.groups == groups)
    renamed = (each._replace(name=("loss",)) if each.name == ("mean_loss",) else each for each in found)
    means = {(name,) for name in document["metrics"]}
    return [each for each in renamed if each.better or each.name in means]
