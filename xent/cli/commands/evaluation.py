"""``xent evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xent.checks import Kind
from xent.cli.exits import input_checked
from xent.cli.exports import export_options
from xent.cli.gates import Gates, gate_options
from xent.cli.options import head_options, input_options, part_options, run_options
from xent.cli.parameters import Count
from xent.evaluation.formats import help_text

if TYPE_CHECKING:
    from xent.evaluation.options import Policy


@click.command(epilog=help_text())
@click.argument("predictions")
@click.argument("labels")
@head_options
@input_options
@click.option("--by-class", is_flag=True, help="A table of the labels.")
@click.option("--top-k", type=click.IntRange(min=1), multiple=True, help="Top-k accuracy; may be given several times.")
@click.option(
    "--bins", type=click.IntRange(min=1), default=15, show_default=True, help="Bins of the calibration error."
)
@click.option("--classwise", is_flag=True, help="The calibration of the probability of each class too.")
@click.option(
    "--calibration", is_flag=True, help="The calibration error in bins of as many rows each, and without bins, too."
)
@click.option(
    "--confusion",
    is_flag=True,
    help="Which class was predicted for which label: precision, recall, F1, kappa and Matthews's coefficient.",
)
@click.option(
    "--auc",
    is_flag=True,
    help="ROC AUC, average precision, KS and gains too: of class 1 of two, else of each class against the rest.",
)
@click.option("--fit-temperature", is_flag=True, help="The temperature of the least loss too, in a few more passes.")
@click.option("--ids", help="PREDICTIONS are the largest log-probabilities of each row; these are their classes.")
@click.option("--classes", type=click.IntRange(min=1), help="With --ids: how many classes there are.")
@click.option(
    "--tail",
    type=click.Choice(("uniform", "error", "skip")),
    default="error",
    show_default=True,
    help="With --ids: what of a label that is not among them: it shares what is left, stop, or leave out.",
)
@click.option("--per-example", type=click.Path(), help="Write the loss of every row to this .npy, .parquet or .zarr.")
@click.option(
    "--predicted-bytes",
    type=Count(),
    help="Bytes of the text predicted, or a file of those of each row: bits per byte.",
)
@gate_options
@part_options
@export_options
@run_options
def evaluate(
    predictions: Any,
    labels: str,
    *,
    classifier: str | None,
    bias: str | None,
    softcap: float | None,
    kind: Kind,
    axis: int,
    binary: bool,
    strict_kind: bool,
    class_names: str | None,
    ignore_index: tuple[int | str, ...],
    on_bad_label: Policy,
    on_error: Policy,
    slices: tuple[str, ...],
    cross: tuple[str, ...],
    clusters: str | None,
    weights: str | None,
    mask: str | None,
    zeros_ok: bool,
    allow_outside: tuple[str, ...],
    by_class: bool,
    top_k: tuple[int, ...],
    bins: int,
    classwise: bool,
    calibration: bool,
    confusion: bool,
    auc: bool,
    fit_temperature: bool,
    predicted_bytes: int | str | None,
    chunk_bytes: int,
    ids: str | None,
    classes: int | None,
    tail: str,
    per_example: str | None,
    state: str | None,
    overwrite: bool,
    fail_if: tuple[str, ...],
    fail_if_worse: str | None,
    by: str | None,
    junit: str | None,
    rows: tuple[int, int | None] | None,
    state_out: str | None,
    scheduler: str | None,
    as_json: bool,
    quiet: bool,
    html: str | None,
    tables: str | None,
    **forms: str | None,
) -> None:
    """Loss, accuracy and calibration of PREDICTIONS (rows × classes) given LABELS (rows), of any size.

    Each is a file or a directory of files, of a format that is listed below. Without --scheduler it runs where Dask's
    configuration says (`scheduler-address`, or DASK_SCHEDULER_ADDRESS in the environment), else on threads.
    """
    if (ids is None) != (classes is None):
        raise click.UsageError("--ids and --classes go together.")
    with input_checked():
        from xent.cli.output import Output, run_and_show
        from xent.evaluation.engine.evaluate_pass import plan
        from xent.evaluation.options import Keys, Options, Outputs, bytes_of_all, bytes_of_rows, folders_of
        from xent.evaluation.sources.hidden_states import Head
        from xent.evaluation.sources.slice_columns import slices_in_texts
        from xent.evaluation.sources.topk import TopK

        if ids is not None and classes is not None:
            predictions = TopK(ids, predictions, classes, tail)
        output = Output.checked(
            as_json=as_json, quiet=quiet, html=html, tables=tables, overwrite=overwrite, forms=forms
        )
        options = Options(
            kind=kind,
            axis=axis,
            binary=binary,
            strict_kind=strict_kind,
            ignore_index=ignore_index,
            on_bad_label=on_bad_label,
            on_error=on_error,
            top_k=top_k,
            bins=bins,
            by_class=by_class,
            classwise=classwise,
            calibration=calibration,
            confusion=confusion,
            auc=auc,
            predicted_bytes=bytes_of_all(predicted_bytes),
            chunk_bytes=chunk_bytes,
            zeros_ok=zeros_ok,
            allow_outside=folders_of(allow_outside),
        )
        keys = Keys(slices_in_texts(slices, cross), clusters, weights, mask, bytes_of_rows(predicted_bytes))
        outputs = Outputs(per_example, overwrite, state, state_out)
        wanted: dict[str, Any] = {"class_names": class_names, "fit_temperature": fit_temperature}
        wanted["head"] = Head(classifier, bias, softcap)
        gates = Gates.checked(fail_if, junit, overwrite=overwrite, fail_if_worse=fail_if_worse, by=by)
        planned = plan(predictions, labels, options, keys=keys, outputs=outputs, rows=rows, **wanted)
        gates.check_pass(planned)
    gates.end("evaluate", run_and_show(planned, output, scheduler))
