"""Gates: conditions on the numbers of a result under which a pipeline is to stop.

A number has the name that it has in the JSON document: the keys on the way to it joined by dots, without ``metrics``
and a last ``value``: ``accuracy``, ``loss.stderr``, ``calibration.error``, ``slices.de.accuracy``. A ``*`` stands for
any key. A number that is NaN, or not there, fails each gate on it. Leaves out how a gate is told (``junit.py``, the
command line).
"""

from __future__ import annotations

import difflib
import json
import math
import operator
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xent.evaluation.engine.compare_pass import SETS, Pair, SliceDifference, comparison
from xent.evaluation.engine.pairwise_pass import no_rows, pairwise
from xent.evaluation.options import Options
from xent.evaluation.report.json_document import (
    SCHEMA_VERSION,
    comparison_numbers,
    evaluation_numbers,
    pairwise_numbers,
)
from xent.evaluation.sources.messages import refusal
from xent.evaluation.statistics.cluster_losses import ClusterLosses
from xent.evaluation.statistics.evaluation import ClassMetrics, GroupMetrics
from xent.evaluation.statistics.metrics import finish
from xent.evaluation.statistics.state import State
from xent.text import shown_path

Name = tuple[str, ...]
"""The keys on the way to a number."""
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
CONDITION = re.compile(r"\s*(.*\S)\s*(<=|>=|<|>)\s*([^<>=]+)")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
ANY = "*"
SUMS = {"prior": "shares of the labels", "weight": "weights of the rows"}
"""Facts of a set that follow from all its counted rows, and what they tell of."""
COUNTED = "counted rows"
"""That of the rows of the sums, which depends on the model too."""
NOT_NUMBERS = ("schema_version", "inputs", "set", "options", "environment", "unstored_chunks", "timing")
"""What a document says of the run and not of the predictions."""
LOWER_IS_BETTER = ("loss", "mean_loss", "brier", "error", "classwise_error", "calibration_error")
HIGHER_IS_BETTER = re.compile(
    r"(top-\d+ )?accuracy|skill|precision|recall|f1|balanced_accuracy|kappa|mcc|"
    r"((macro|weighted)_)?(auc|average_precision)|ks"
)
"""Names of numbers of which more is better; bits, perplexity and bits per byte are the loss in other units."""


TOPS = {(), *((name,) for name in SETS)}
"""Where a document has the numbers of a set."""


class Known(NamedTuple):
    """What is known of a result before the work is done.

    ``command`` is "evaluate", "compare" or "compare_all"; ``inputs`` are the names of what is read, ``rows`` are those
    that are read, None if they are not known yet.
    """

    command: str
    options: Options
    inputs: Collection[str]
    rows: int | None
    classes: int | None
    fits_temperature: bool = False

    @property
    def names(self) -> set[Name]:
        """The names of the numbers that it will have."""
        if self.command == "evaluate":
            return names_of_evaluation(self.options, self.inputs, fits_temperature=self.fits_temperature)
        if self.command == "compare":
            return names_of_comparison(self.options, self.inputs)
        return names_of_pairwise(sum(name in SETS for name in self.inputs), self.options, self.inputs)


class Verdict(NamedTuple):
    """A gate as it was asked for, what was found, and whether it failed."""

    gate: str
    found: str
    failed: bool


@dataclass(frozen=True)
class Condition:
    """A gate that fails where a number satisfies it: ``accuracy<0.7``."""

    text: str
    name: str
    sign: str
    limit: float

    @classmethod
    def parsed(cls, text: str) -> Condition:
        """The condition that a text states; ValueError if it states none."""
        match = CONDITION.fullmatch(text)
        if match is None or not NUMBER.fullmatch(match[3].strip()):
            rule = "be a condition: the name of a number, <, <=, > or >=, and a limit"
            raise ValueError(refusal("--fail-if", rule, repr(text), 'Pass --fail-if "accuracy<0.7".'))
        return cls(text.strip(), match[1], match[2], float(match[3]))

    def check_name(self, known: Iterable[Name]) -> None:
        """Raise ValueError unless it names one of the numbers that a run will have."""
        known = [*known]
        if any(is_named(self.name, name) for name in known):
            return
        near = nearest(self.name, map(".".join, known))
        rule = "name numbers that this run has"
        raise ValueError(refusal("--fail-if", rule, repr(self.name), f"The nearest are {', '.join(near)}."))

    def verdicts(self, numbers: Mapping[Name, float]) -> list[Verdict]:
        """One for each number that it names; a failed one if there is none."""
        found = {name: value for name, value in numbers.items() if is_named(self.name, name, ANY not in self.name)}
        if not found:
            near = nearest(self.name, map(".".join, numbers))
            return [Verdict(self.text, f"there is no {self.name}; the nearest are {', '.join(near)}", failed=True)]
        return [
            Verdict(
                self.text,
                f"{'.'.join(name)} is {value:.9g}",
                failed=math.isnan(value) or OPERATORS[self.sign](value, self.limit),
            )
            for name, value in found.items()
        ]


@dataclass(frozen=True)
class Tolerance:
    """How much worse a number may be: by so much, or by this share of the number before."""

    amount: float
    is_share: bool

    @classmethod
    def parsed(cls, text: str) -> Tolerance:
        """The tolerance that a text states, such as 0.01 or 1%; ValueError if it states none."""
        number, is_share = text.strip().removesuffix("%"), text.strip().endswith("%")
        if not NUMBER.fullmatch(number) or float(number) < 0:
            raise ValueError(refusal("--by", "be a number from 0, or a percentage", repr(text), "Pass --by 0.01."))
        return cls(float(number) / (100 if is_share else 1), is_share)

    def of(self, before: float) -> float:
        """How much worse than this number another may be; 0 of an infinite one."""
        if math.isinf(before):
            return 0.0
        return self.amount * (abs(before) if self.is_share else 1)


@dataclass(frozen=True)
class Baseline:
    """A gate that fails where a number is worse than in the document of an earlier run, by more than a tolerance.

    It is on every number that has a better side, slices and classes among them.
    """

    path: str
    numbers: Mapping[Name, float]
    tolerance: Tolerance
    facts: Mapping[str, float]

    @classmethod
    def read(cls, path: str, tolerance: Tolerance) -> Baseline:
        """The baseline in a file that ``xent evaluate --json`` wrote; ValueError or OSError if it is none."""
        rule, remedy = (
            "be the document of `xent evaluate --json`",
            "Make it with: xent evaluate … --json > baseline.json",
        )
        if not os.path.isfile(path):
            raise FileNotFoundError(refusal("--fail-if-worse", rule, f"{path}, where no file is", remedy))
        try:
            with open(path, encoding="utf-8") as file:
                document = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(refusal("--fail-if-worse", rule, f"{path}, which is no JSON", remedy)) from error
        if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(refusal("--fail-if-worse", rule, f"{path}, which is another document", remedy))
        if not isinstance(document.get("metrics"), dict):
            got = f"{path}, which is of {'a comparison' if 'difference' in document else 'another command'}"
            raise ValueError(refusal("--fail-if-worse", rule, got, remedy))
        numbers = {name: value for name, value in numbers_of(document).items() if better(name)}
        if not numbers:
            raise ValueError(refusal("--fail-if-worse", rule, f"{path}, which has no numbers", remedy))
        return cls(path, numbers, tolerance, facts_of_set(document))

    def check_set(self, facts: Mapping[str, float]) -> None:
        """Raise ValueError where these facts of a run, of those that :func:`facts_of_set` has, are of another set."""
        before = {name: self.facts[name] for name in facts if name in self.facts}
        counts = [name for name in before if name not in (COUNTED, *SUMS) and facts[name] != before[name]]
        sums = [name for name in SUMS if name in before and not is_close(facts[name], before[name])]
        got = [f"{name} {before[name]:,.9g}, here {facts[name]:,.9g}" for name in counts]
        if not got and facts.get(COUNTED) == before.get(COUNTED):  # else they are of other rows
            got = [f"other {SUMS[name]}" for name in sums]
        if got:
            rule = "be of the same rows, classes and labels as this run"
            remedy = "Make one of this set with: xent evaluate … --json > baseline.json, or state limits by --fail-if."
            shown = f"{shown_path(self.path)}, which has {', '.join(got)}"
            raise ValueError(refusal("--fail-if-worse", rule, shown, remedy))

    def verdicts(self, numbers: Mapping[Name, float]) -> list[Verdict]:
        """One for each number of the baseline; that is a failed one where this run has no such number."""
        shown = shown_path(self.path)
        verdicts = []
        for name, before in self.numbers.items():
            sign, slack, gate = better(name), self.tolerance.of(before), f"{'.'.join(name)} worse than in {shown}"
            if name not in numbers:
                verdicts.append(Verdict(gate, "this run has no such number", failed=True))
                continue
            value, limit = numbers[name], before - sign * slack
            is_fine = value >= limit if sign > 0 else value <= limit  # a NaN is not
            found = f"{value:.9g} is {'within' if is_fine else 'not within'} {slack:.9g} of {before:.9g}"
            verdicts.append(Verdict(gate, found, failed=not is_fine))
        return verdicts


Gate = Condition | Baseline


def facts_of_set(document: Mapping[str, Any]) -> dict[str, float]:
    """What the document of an evaluation tells of its set, whatever the model."""
    numbers = numbers_of(document)
    given = {
        "rows": numbers.get(("counts", "rows")),
        "classes": document.get("set", {}).get("classes"),
        "bins": document.get("options", {}).get("bins"),
        "ignored rows": numbers.get(("counts", "ignored")),
        "rows of a bad label": numbers.get(("counts", "bad_labels")),
        "rows of a bad weight": numbers.get(("counts", "bad_weights")),
        "prior": numbers.get(("prior", "loss")),
        "weight": numbers.get(("weights", "total"), 1.0),
        COUNTED: numbers.get(("counts", "counted")),
    }
    return {name: float(value) for name, value in given.items() if value is not None}


def is_close(one: float, other: float) -> bool:
    """Whether two sums are the same but for rounding, or one is of nothing."""
    return math.isclose(one, other, rel_tol=1e-9) or math.isnan(one) or math.isnan(other)


def better(name: Name) -> int:
    """1 if more of the number is better, -1 if less is, and 0 if neither is known."""
    if name[0] == "prior" and name[-1] != "skill":
        return 0
    return -1 if name[-1] in LOWER_IS_BETTER else int(bool(HIGHER_IS_BETTER.fullmatch(name[-1])))


def is_named(pattern: str, name: Name, is_literal: bool = False) -> bool:
    """Whether a name is that of a number; a ``*`` on either side stands for any key, unless the pattern is literal."""
    text = ".".join(name)
    if pattern == text:
        return True
    if is_literal and ANY not in name:
        return False
    mine, theirs = (re.escape(each).replace(re.escape(ANY), ".+") for each in (pattern, text))
    return bool(re.fullmatch(mine, text) or re.fullmatch(theirs, pattern))


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like one: those that end as it does before others."""
    names = [*dict.fromkeys(names)]
    last = name.rpartition(".")[2]
    ends = [each for each in names if each.rpartition(".")[2] == last]
    like = difflib.get_close_matches(name, names, count, cutoff=0)
    return [*dict.fromkeys([*difflib.get_close_matches(name, ends, count, cutoff=0), *like])][:count]


def numbers_of(document: Mapping[str, Any]) -> dict[Name, float]:
    """The numbers of a document by their names; those of the run itself are left out."""
    found: dict[Name, float] = {}

    def walk(value: Any, name: Name) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(item, name if key == "metrics" and name in TOPS else (*name, str(key)))
        elif isinstance(value, list | tuple) and not any(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                walk(item, (*name, str(index)))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name[:-1] if len(name) > 1 and name[-1] == "value" else name] = float(value)
        elif value in ("nan", "inf", "-inf"):  # as the document writes them
            walk(float(value), name)

    walk({key: value for key, value in document.items() if key not in NOT_NUMBERS}, ())
    return found


def names_of_evaluation(options: Options, keys: Iterable[str], *, fits_temperature: bool = False) -> set[Name]:
    """The names of the numbers that an evaluation will have; ``*`` stands for slices and classes, not known before.

    `keys` are the names of what is given beside the labels: slices, clusters, weights.
    """
    document = evaluation_numbers(finish(State(), options))
    return set(numbers_of(document)) | groups_of(document, options, {*keys}, fits_temperature)


def groups_of(document: dict[str, Any], options: Options, keys: set[str], fits_temperature: bool) -> set[Name]:
    """The names of what the document of no rows lacks."""
    names: set[Name] = {("counts", name) for name in document["counts"] if name != "clusters"}
    if "clusters" in keys:
        names |= {("counts", "clusters"), *(("cluster_losses", name) for name in ClusterLosses._fields[:3])}
    if "slices" in keys:
        asked_for = {"bits_per_byte"} if options.calibration else {"bits_per_byte", "calibration_error", "noise_floor"}
        names |= {("slices", ANY, name) for name in GroupMetrics._fields if name not in asked_for}
    if "predicted_bytes" in keys:
        names |= {("bits_per_byte",), *([("slices", ANY, "bits_per_byte")] if "slices" in keys else [])}
    if "weights" in keys:
        names |= {("weights", name) for name in document["weights"]}
    if options.by_class:
        names |= {("classes", ANY, name) for name in ClassMetrics._fields}
    if options.classwise:
        names |= {("calibration", "classwise_error"), ("calibration", "classwise", ANY)}
    if options.confusion:
        names.add(("confusion", "classes", ANY))
    if options.auc:
        names.add(("ranking", "classes", ANY))
    if fits_temperature:
        names |= {("temperature",), ("temperature", ANY)}
    return names | {("target entropy",), ("target entropy", "stderr"), ("target entropy", "n")}  # of soft labels


def names_of_comparison(options: Options, keys: Iterable[str]) -> set[Name]:
    """The names of the numbers that a comparison will have, as of an evaluation."""
    document, keys = comparison_numbers(comparison(Pair(), options)), {*keys}
    names = set(numbers_of(document))
    if "slices" in keys:
        names |= {("slices", ANY, name) for name in SliceDifference._fields}
    names.add(("difference", "rows_needed"))
    if "clusters" in keys:
        names.add(("difference", "clusters"))
    return names | {(side, *name) for side in "ab" for name in groups_of(document[side], options, keys, False)}


def names_of_pairwise(count: int, options: Options, keys: Iterable[str]) -> set[Name]:
    """The names of the numbers that a comparison of so many sets will have, as of an evaluation."""
    document, keys = pairwise_numbers(pairwise(no_rows(count), options)), {*keys}
    names = set(numbers_of(document))
    for pair in document["pairs"]:
        names.add(("pairs", pair, "rows_needed"))
        if "clusters" in keys:
            names.add(("pairs", pair, "clusters"))
        if "slices" in keys:
            names |= {("pairs", pair, "slices", ANY, name) for name in SliceDifference._fields}
    return names | {(name, *each) for name in SETS[:count] for each in groups_of(document[name], options, keys, False)}


def verdicts_of(gates: Sequence[Gate], document: Mapping[str, Any]) -> list[Verdict]:
    """What each gate says of a document; all of them are asked."""
    numbers = numbers_of(document)
    return [verdict for gate in gates for verdict in gate.verdicts(numbers)]
