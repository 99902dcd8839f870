"""The options on gates of the commands that evaluate, and how a command ends where one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xent.cli.exits import UNSOUND, fail, say

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import SetsPass
    from xent.evaluation.engine.evaluate_pass import Pass
    from xent.evaluation.report.gates import Gate, Name, Verdict
    from xent.evaluation.report.result import Report

MOST_SHOWN = 20
"""The most gates that stderr shows; the file of JUnit has them all."""


def condition_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options on conditions and their file."""
    for option in (
        click.option("--junit", type=click.Path(), metavar="FILE.xml", help="Write the gates to this JUnit file too."),
        click.option(
            "--fail-if",
            multiple=True,
            metavar="CONDITION",
            help='End with exit code 1 where this holds of a number of the JSON document: "accuracy<0.7", '
            '"slices.*.accuracy<=0.6"; or where it is NaN. May be given several times.',
        ),
    ):
        command = option(command)
    return command


def gate_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options on gates of one set: conditions, and an earlier run."""
    for option in (
        condition_options,
        click.option("--by", metavar="NUMBER", help="With --fail-if-worse: how much worse is fine, as 0.01 or 1%."),
        click.option(
            "--fail-if-worse",
            metavar="BASELINE.json",
            help="End with exit code 1 where a number is worse than in this document of an earlier run.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Gates:
    """The gates of a command, and the file that tells of them."""

    gates: Sequence[Gate]
    junit: Path | None
    overwrite: bool

    @classmethod
    def checked(
        cls,
        fail_if: Sequence[str],
        junit: str | None,
        *,
        overwrite: bool,
        fail_if_worse: str | None = None,
        by: str | None = None,
    ) -> Gates:
        """The gates that the options state; an error if one states none, or if the file cannot be written."""
        from xent.evaluation.outputs import output_path
        from xent.evaluation.report.gates import Baseline, Condition, Tolerance

        if by is not None and fail_if_worse is None:
            raise click.UsageError("--by goes with --fail-if-worse.")
        if junit is not None and not fail_if and fail_if_worse is None:
            raise click.UsageError("--junit goes with --fail-if or --fail-if-worse.")
        gates: list[Gate] = [Condition.parsed(text) for text in fail_if]
        if fail_if_worse is not None:
            gates.append(Baseline.read(fail_if_worse, Tolerance.parsed(by or "0")))
        file = None if junit is None else output_path("--junit", junit, (".xml",), overwrite=overwrite)
        return cls(gates, file, overwrite)

    def check_names(self, planned: Pass | SetsPass) -> None:
        """Raise ValueError if a condition names no number that a planned pass will have."""
        from xent.evaluation.engine.compare_pass import PairPass
        from xent.evaluation.engine.evaluate_pass import Pass
        from xent.evaluation.report.gates import (
            Condition,
            names_of_comparison,
            names_of_evaluation,
            names_of_pairwise,
        )

        conditions = [gate for gate in self.gates if isinstance(gate, Condition)]
        if not conditions:
            return
        options, keys = planned.options_of_rows, planned.sources
        known: set[Name]
        if isinstance(planned, Pass):
            known = names_of_evaluation(options, keys, fits_temperature=planned.fits_temperature)
        elif isinstance(planned, PairPass):
            known = names_of_comparison(options, keys)
        else:
            known = names_of_pairwise(len(planned.sets), options, keys)
        for condition in conditions:
            condition.check_name(known)

    def end(self, command: str, result: Report) -> None:
        """Tell what each gate says of a result; end the command with exit code 1 if one failed."""
        from xent.evaluation.outputs import write_text
        from xent.evaluation.report.gates import verdicts_of
        from xent.evaluation.report.junit import junit_xml

        if not self.gates:
            return
        document: dict[str, Any] = result.to_dict()
        verdicts = verdicts_of(self.gates, document)
        failed = [verdict for verdict in verdicts if verdict.failed]
        passed = [verdict for verdict in verdicts if not verdict.failed]
        tell("passed", passed)
        tell("failed", failed)
        if self.junit:
            text = junit_xml(command, verdicts, document["timing"]["wall_seconds"])
            write_text(self.junit, text, overwrite=self.overwrite)
        if failed:
            fail(f"{len(failed)} of {len(verdicts)} gates failed.", UNSOUND)


def tell(word: str, verdicts: Sequence[Verdict]) -> None:
    """Write a line for each of these to stderr."""
    for verdict in verdicts[:MOST_SHOWN]:
        say(f"gate {word}: {verdict.gate}: {verdict.found}.")
    if len(verdicts) > MOST_SHOWN:
        say(f"gate {word}: {len(verdicts) - MOST_SHOWN:,} more; --junit writes them all.")
