"""The options on gates of the commands that evaluate, and how a command ends where one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from xent.cli.exits import UNSOUND, fail, input_checked, say

if TYPE_CHECKING:
    from xent.evaluation.engine.evaluate_pass import Planned
    from xent.evaluation.outputs import Target
    from xent.evaluation.report.gates import Gate, Known, Verdict
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
    junit: Target | None
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

    def check(self, known: Known) -> None:
        """Raise ValueError if a condition names no number that a result will have, or a baseline is of another set."""
        from xent.evaluation.report.gates import Baseline, Condition

        names = known.names if any(isinstance(gate, Condition) for gate in self.gates) else set()
        sizes = {"rows": known.rows, "classes": known.classes, "bins": known.options.bins}
        for gate in self.gates:
            if isinstance(gate, Condition):
                gate.check_name(names)
            elif isinstance(gate, Baseline):
                gate.check_set({name: float(size) for name, size in sizes.items() if size is not None})

    def check_pass(self, planned: Planned) -> None:
        """Raise ValueError as :meth:`check` does, for the result of a planned pass."""
        from xent.evaluation.report.gates import Known

        options, fits = planned.options_of_rows, getattr(planned, "fits_temperature", False)
        self.check(Known(planned.command, options, planned.sources, planned.rows, planned.job.classes, fits))

    def end(self, command: str, result: Report) -> None:
        """Tell what each gate says of a result; end the command with exit code 1 if one failed, 2 if one cannot be."""
        from xent.evaluation.outputs import write_text
        from xent.evaluation.report.gates import Baseline, facts_of_set, verdicts_of
        from xent.evaluation.report.junit import junit_xml

        if not self.gates:
            return
        document: dict[str, Any] = result.to_dict()
        with input_checked():
            for gate in self.gates:
                if isinstance(gate, Baseline):
                    gate.check_set(facts_of_set(document))
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
