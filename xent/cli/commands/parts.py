"""``xent merge``: the result of parts that independent jobs have made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xent.cli.exits import input_checked
from xent.cli.exports import FORMS, export_options, option_of
from xent.cli.gates import Gates, gate_options
from xent.cli.options import result_options, storage_option

if TYPE_CHECKING:
    from xent.evaluation.report.gates import Known


@click.command()
@click.argument("parts", nargs=-1, required=True, type=click.Path())
@click.option("--partial", is_flag=True, help="Rows may be missing; the numbers are those of the rows that are there.")
@gate_options
@export_options
@storage_option
@result_options
def merge(
    parts: tuple[str, ...],
    *,
    partial: bool,
    fail_if: tuple[str, ...],
    fail_if_worse: str | None,
    by: str | None,
    junit: str | None,
    as_json: bool,
    html: str | None,
    tables: str | None,
    overwrite: bool,
    **forms: str | None,
) -> None:
    """The result of one run, from PARTS that independent jobs have made of its rows with --rows and --state-out.

    Parts of other inputs, options or versions are refused, and so are rows that are missing or there twice.
    """
    with input_checked():
        from xent.cli.output import Output, show_and_end
        from xent.evaluation.report.result import EvaluationReport
        from xent.evaluation.report.running import merged_report

        output = Output.checked(as_json=as_json, quiet=True, html=html, tables=tables, overwrite=overwrite, forms=forms)
        gates = Gates.checked(fail_if, junit, overwrite=overwrite, fail_if_worse=fail_if_worse, by=by)
        of_evaluations = {"--fail-if-worse": fail_if_worse, **{option_of(form): forms[form] for form in FORMS}}

        def check(known: Known) -> None:
            for option, value in of_evaluations.items():
                if value is not None and known.command != "evaluate":
                    raise click.UsageError(f"{option} is of parts of an evaluation, and these are of a comparison.")
            gates.check(known)

        result = merged_report(parts, partial=partial, check=check)
    show_and_end(result, output)
    gates.end("evaluate" if isinstance(result, EvaluationReport) else "compare", result)
