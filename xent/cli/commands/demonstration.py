"""``xent demo``."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext

import click

from xent.cli.exits import BAD_DATA, input_checked
from xent.cli.options import run_options

DEMO_OPTIONS = {
    "digits": ("keep",),
    "hidden": ("keep", "files"),
    "stdlib": ("keep", "files"),
    "vocabulary": ("rows", "class_chunks"),
}


@click.command()
@click.argument("name", type=click.Choice(tuple(DEMO_OPTIONS)), default="stdlib")
@click.option(
    "--keep",
    type=click.Path(file_okay=False),
    help="Of digits, hidden and stdlib: write the predictions and labels to this directory and keep them.",
)
@click.option(
    "--files",
    type=click.IntRange(min=20),
    help="Of hidden and stdlib: take only so many files of the library.  [default: 120 and all]",
)
@click.option("--rows", type=click.IntRange(min=1), help="Of vocabulary: so many rows.  [default: 32768]")
@click.option(
    "--class-chunks",
    type=click.IntRange(min=1, max=128_256),
    help="Of vocabulary: cut the classes into so many chunks.  [default: 8]",
)
@run_options
def demo(
    name: str,
    *,
    keep: str | None,
    files: int | None,
    rows: int | None,
    class_chunks: int | None,
    chunk_bytes: int,
    state: str | None,
    scheduler: str | None,
    as_json: bool,
    quiet: bool,
    html: str | None,
    tables: str | None,
    overwrite: bool,
) -> None:
    """Make a prediction set, evaluate it as `xent evaluate` does, and check its loss in another way.

    stdlib trains an order-3 language model of bytes on nine files of ten of Python's own standard library and predicts
    the others. digits trains a softmax regression on scikit-learn's handwritten digits. hidden trains a language model
    of 4,096 words, and evaluates its hidden states and classifier in place of logits 128 times their size. vocabulary
    generates logits of Zipf's law over 128,256 classes in the tasks, and knows the loss in closed form.
    """
    options = {"keep": keep, "files": files, "rows": rows, "class_chunks": class_chunks}
    options = {option: value for option, value in options.items() if value is not None}
    for option in options.keys() - set(DEMO_OPTIONS[name]):
        raise click.UsageError(f"--{option.replace('_', '-')} is not an option of the demo of {name}.")
    options.pop("keep", None)
    with input_checked():
        from xent.cli.output import Output, run_and_show
        from xent.evaluation.outputs import local_path

        output = Output.checked(as_json=as_json, quiet=quiet, html=html, tables=tables, overwrite=overwrite)
        for argument, path in (("--keep", keep), ("--state", state)):  # before the set is made
            if path is not None:
                local_path(argument, path)
    with nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="xent-demo-") as directory:
        with input_checked():
            from xent import demo as demos
            from xent.evaluation.engine.evaluate_pass import plan
            from xent.evaluation.options import Keys, Options, Outputs
            from xent.evaluation.sources.hidden_states import Head

            prediction_set = demos.make(directory, name=name, **options)
        click.echo(prediction_set.description(), err=as_json)
        kernel = demos.kernel(prediction_set)  # before the evaluation, whose time must not count its compiling
        with input_checked():
            planned = plan(
                prediction_set.predictions,
                prediction_set.labels,
                Options(chunk_bytes=chunk_bytes),
                keys=Keys(slices=prediction_set.slices),
                outputs=Outputs(state=state),
                head=Head(**prediction_set.head),
            )
        evaluation = run_and_show(planned, output, scheduler)
        agrees, verdict = prediction_set.cross_check(evaluation.mean_loss)
        click.echo(f"{verdict}\nComputed by {kernel}.", err=as_json)
        if not agrees:
            raise SystemExit(BAD_DATA)
