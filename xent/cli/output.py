"""How a command runs a planned pass and shows its result: a table or a JSON document, and the files beside it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, overload

import click

from xent.cli.exits import (
    BAD_INPUT,
    UNAVAILABLE,
    environment_checked,
    fail,
    input_checked,
    interruption_code,
    interruption_name,
    say,
)
from xent.cli.exports import Exports, option_of
from xent.errors import Interrupted

if TYPE_CHECKING:
    from xent.evaluation.engine.evaluate_pass import Pass, Planned
    from xent.evaluation.outputs import Target
    from xent.evaluation.report.result import AnyReport, EvaluationReport, Report

NO_FORMS: Mapping[str, str | None] = {}
LABEL_REMEDY = (
    "Pass --on-bad-label skip to leave such rows out, or --ignore-index {label} if that marks rows to ignore."
)


@dataclass(frozen=True)
class Output:
    """What a command writes: a table or a JSON document to stdout, its progress to stderr, and files.

    Attributes
    ----------
    as_json : bool
    quiet : bool
        Whether the plan and the progress are not shown.
    html, tables : Path, Destination or None
        The page, and the folder of tables.
    exports : Exports
        The files in the forms of other programs.
    overwrite : bool
        Whether they may be there already.
    """

    as_json: bool
    quiet: bool
    html: Target | None
    tables: Target | None
    overwrite: bool
    exports: Exports = field(default_factory=Exports)

    @classmethod
    def checked(
        cls,
        *,
        as_json: bool,
        quiet: bool,
        html: str | None,
        tables: str | None,
        overwrite: bool,
        forms: Mapping[str, str | None] = NO_FORMS,
    ) -> Output:
        """The output that the options of a command name; an error if a file of it cannot be written."""
        from xent.dispatch import settings
        from xent.evaluation.report.page import page_path
        from xent.evaluation.report.parquet import tables_path

        with environment_checked():
            settings.current()
        folder = tables_path(tables, overwrite=overwrite, argument="--tables") if tables is not None else None
        page = page_path(html, overwrite=overwrite, argument="--html") if html is not None else None
        exports = Exports.checked(forms, overwrite=overwrite)
        return cls(as_json=as_json, quiet=quiet, html=page, tables=folder, overwrite=overwrite, exports=exports)

    @property
    def files(self) -> dict[str, Target]:
        """The files and folders, by their options."""
        named = {"--tables": self.tables, "--html": self.html}
        forms = {option_of(form): path for form, path in self.exports.files.items()}
        return {option: path for option, path in named.items() if path is not None} | forms


@overload
def run_and_show(planned: Pass, output: Output, scheduler: str | None) -> EvaluationReport: ...
@overload
def run_and_show(planned: Planned, output: Output, scheduler: str | None) -> AnyReport: ...
def run_and_show(planned: Planned, output: Output, scheduler: str | None) -> AnyReport:
    """Run a pass on the scheduler that the option names, show its result, and return it."""
    from xent.evaluation.outputs import WriteError, check_no_input
    from xent.evaluation.report import terminal
    from xent.evaluation.report.running import run_pass

    with input_checked():
        for option, target in output.files.items():
            check_no_input(option, target, planned.sources.values())
        scheduler = scheduler_named(scheduler)
        if not output.quiet:
            click.echo(terminal.format_plan(planned, scheduler), err=True)
    failures: list[Exception] = []
    try:
        with environment_checked(), terminal.progress_bar(planned, quiet=output.quiet) as progress:
            result = run_pass(planned, scheduler=scheduler, progress=progress, label_remedy=LABEL_REMEDY)
    except (Interrupted, KeyboardInterrupt) as error:
        fail(terminal.format_interruption(planned, interruption_name(error)), interruption_code(error))
    except WriteError as error:
        if error.result is None:
            raise
        result = error.result
        failures.append(error)
    show_and_end(result, output, failures)
    if planned.part is not None and not output.quiet:
        click.echo(terminal.format_part(planned), err=True)
    return result


def show_and_end(result: AnyReport, output: Output, failures: Sequence[Exception] = ()) -> None:
    """Show a result, and say what there is to doubt; end the command if an output could not be written.

    `failures` are the errors of outputs before.
    """
    from xent.evaluation.engine.kinds import kind_doubts
    from xent.evaluation.report.result import sets_of

    for doubt in kind_doubts(sets_of(result)):
        say(doubt)
    failures = [*failures, *show(result, output)]
    if failures:
        fail("\n".join(map(str, failures)), BAD_INPUT)


def show(result: Report, output: Output) -> list[Exception]:
    """Write the result of an evaluation or a comparison, as a document or a table, and to the files of the output.

    What cannot be written keeps none of the rest from being written; the errors are returned.
    """
    from xent.evaluation.outputs import WriteError
    from xent.evaluation.report.result import EvaluationReport

    def write_numbers(stream: TextIO) -> None:
        print(result.to_json() if output.as_json else result, file=stream)
        stream.flush()

    def write_to_stdout() -> None:
        try:
            write_numbers(sys.stdout)
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk
            write_numbers(sys.stderr)
            reason = error.strerror or error
            raise WriteError(f"evaluate: stdout could not be written ({reason}); the numbers are above.") from error

    writers: list[Callable[[], None]] = [write_to_stdout] if sys.stdout else []  # None if it was closed before
    if output.html:
        writers.append(lambda: result.to_html(output.html, overwrite=output.overwrite))
    if output.tables:
        writers.append(lambda: result.to_parquet(output.tables, overwrite=output.overwrite))
    if isinstance(result, EvaluationReport):
        writers += output.exports.writers(result, overwrite=output.overwrite)
    failures: list[Exception] = []
    for write in writers:
        try:
            write()
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:  # ValueError: what is there by now may not be replaced
            failures.append(error)
    return failures


def scheduler_named(option: str | None) -> Any:
    """The option; without one the address in Dask's configuration, or else what :func:`chosen` finds there."""
    from xent.evaluation.engine.scheduler_choice import chosen, configured

    if option is None:
        address = configured("scheduler-address")
        if address:
            return address if "://" in address else f"tcp://{address}"  # as distributed.Client reads it
        option = chosen(None)
        if not isinstance(option, str):  # a function or a Client of a program that calls this one
            return option
    if os.path.isfile(option):
        if not is_scheduler_file(option):
            rule = "must be the file of a running scheduler, with its address"
            fail(f"evaluate: `--scheduler` {rule}, got {option}. Start one with: dask scheduler", UNAVAILABLE)
    elif not re.fullmatch(r"threads|sync|processes(:[1-9]\d*)?|.*://.*", option):
        rule = "must be threads, sync, processes:2, an address such as tcp://host:8786, or a scheduler file"
        raise ValueError(f"evaluate: `--scheduler` {rule}, got {option}. Leave it out for threads.")
    return option


def is_scheduler_file(path: str) -> bool:
    """Whether a file holds the address of a scheduler, as ``dask scheduler --scheduler-file`` writes it."""
    try:
        with open(path, encoding="utf-8") as file:
            return bool(json.load(file)["address"])
    except (ValueError, KeyError, TypeError):
        return False
