"""``xent compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xent.checks import KINDS, Kind
from xent.cli.exits import input_checked
from xent.cli.gates import Gates, condition_options
from xent.cli.options import head_options, input_options, part_options, run_options
from xent.evaluation.formats import help_text

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import SetsPass
    from xent.evaluation.options import Policy


@click.command(epilog=help_text())
@click.argument("sets", nargs=-1, required=True, metavar="A B [C]...")
@click.argument("labels")
@head_options
@input_options
@click.option("--classifier-b", help="The classifier of B, if not that of A. Logits beside hidden states are A.")
@click.option("--bias-b", help="With --classifier-b: its bias.")
@click.option("--softcap-b", type=float, help="With --classifier-b: its softcap.")
@click.option("--kind-b", type=click.Choice(KINDS), help="What the predictions of B are, if not of the kind of A.")
@condition_options
@part_options
@run_options
def compare(
    sets: tuple[str, ...],
    labels: str,
    *,
    classifier: str | None,
    bias: str | None,
    softcap: float | None,
    classifier_b: str | None,
    bias_b: str | None,
    softcap_b: float | None,
    kind: Kind,
    kind_b: Kind | None,
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
    rows: tuple[int, int | None] | None,
    state_out: str | None,
    fail_if: tuple[str, ...],
    junit: str | None,
    chunk_bytes: int,
    state: str | None,
    scheduler: str | None,
    as_json: bool,
    quiet: bool,
    html: str | None,
    tables: str | None,
    overwrite: bool,
) -> None:
    """The difference of the losses of two prediction sets, A and B, of the same rows, given LABELS.

    Of more sets every two are compared, in one pass; they are of one kind then, and p-values are corrected for the
    number of pairs.
    """
    if len(sets) < 2:
        raise click.UsageError("Missing argument 'B'.")
    with input_checked():
        from xent.cli.output import Output, run_and_show
        from xent.evaluation.engine.compare_pass import plan_pair
        from xent.evaluation.engine.pairwise_pass import plan_pairwise
        from xent.evaluation.options import Keys, Options, Outputs, folders_of
        from xent.evaluation.sources.hidden_states import Head
        from xent.evaluation.sources.slice_columns import slices_in_texts

        output = Output.checked(as_json=as_json, quiet=quiet, html=html, tables=tables, overwrite=overwrite)
        options = Options(
            kind=kind,
            kind_b=kind_b,
            axis=axis,
            binary=binary,
            strict_kind=strict_kind,
            ignore_index=ignore_index,
            on_bad_label=on_bad_label,
            on_error=on_error,
            chunk_bytes=chunk_bytes,
            zeros_ok=zeros_ok,
            allow_outside=folders_of(allow_outside),
        )
        keys = Keys(slices_in_texts(slices, cross), clusters, weights, mask)
        outputs = Outputs(None, overwrite, state, state_out)
        head, head_b = Head(classifier, bias, softcap), Head(classifier_b, bias_b, softcap_b, "_b")
        wanted: dict[str, Any] = {"keys": keys, "outputs": outputs, "class_names": class_names, "rows": rows}
        gates = Gates.checked(fail_if, junit, overwrite=overwrite)
        planned: SetsPass
        if len(sets) == 2:
            planned = plan_pair(*sets, labels, options, heads=(head, head_b), **wanted)
        else:
            own = {"kind": kind_b, "classifier": classifier_b, "bias": bias_b, "softcap": softcap_b}
            for name, value in own.items():
                if value is not None:
                    raise click.UsageError(f"--{name}-b goes with two sets, and here are {len(sets)}.")
            planned = plan_pairwise(sets, labels, options, head=head, **wanted)
        gates.check_pass(planned)
    gates.end("compare", run_and_show(planned, output, scheduler))
