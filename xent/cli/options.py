"""The options that several commands have."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from xent.checks import KINDS
from xent.cli.exits import input_checked
from xent.cli.parameters import ByteSize, Label, RowRange


def part_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a job that evaluates some of the rows of a set."""
    for option in (
        click.option(
            "--state-out",
            type=click.Path(),
            metavar="FILE.json",
            help="Keep the sums of these rows in this file, from which `xent merge` makes the result of all.",
        ),
        click.option(
            "--rows", type=RowRange(), metavar="START:STOP", help="Of these rows alone; either end may be left out."
        ),
    ):
        command = option(command)
    return command


def result_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options on where a result goes."""
    for option in (
        click.option("--tables", type=click.Path(), help="Write the tables to this folder, as Parquet files."),
        click.option("--html", type=click.Path(), help="Write a page with plots to this file."),
        click.option("--overwrite", is_flag=True, help="Outputs may be there already."),
        click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of a table."),
    ):
        command = option(command)
    return command


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every command that evaluates has."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="No progress bar."),
        click.option(
            "--scheduler",
            help="threads, sync, processes:2 (of this machine), the address of a Dask scheduler (tcp://…), or its "
            "scheduler file.  [default: DASK_SCHEDULER_ADDRESS where it is set, else threads]",
        ),
        result_options,
        click.option("--state", type=click.Path(), help="Keep finished chunks here, to go on after an interruption."),
        click.option(
            "--chunk-bytes",
            type=ByteSize(),
            default="64MiB",
            show_default=True,
            help="Bytes of predictions in a task; a thread takes about twice this.",
        ),
    ):
        command = option(command)
    return command


def outside_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option on files outside of a set."""
    option = click.option(
        "--allow-outside",
        multiple=True,
        metavar="FOLDER",
        help="Parts that a set names itself may lie in this folder too (links of folders and of HDF5 files, virtual "
        "sources, raw storage); may be given several times.",
    )
    return option(command)  # type: ignore[no-any-return]  # click's decorators return what they are given


def storage_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option on the file systems of URLs, which holds to the end of the command."""

    def hold(context: click.Context, _: click.Parameter, texts: tuple[str, ...]) -> None:
        if texts:
            with input_checked():
                from xent.evaluation.sources.storage_options import options_in_texts, storage_options_set

                context.with_resource(storage_options_set(options_in_texts(texts)))

    option = click.option(
        "--storage-option",
        multiple=True,
        metavar="NAME=VALUE",
        callback=hold,
        expose_value=False,
        help="An option of the file system behind URLs, such as anon=true, endpoint_url=https://… or s3.profile=lab; "
        "may be given several times. A secret is better in the environment or a profile, which no list of processes "
        "shows.",
    )
    return option(command)  # type: ignore[no-any-return]  # click's decorators return what they are given


def shards_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option on the files of a set, which holds to the end of the command."""

    def hold(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
        if is_wanted:
            with input_checked():
                from xent.evaluation.sources.unopened import shards_checked

                context.with_resource(shards_checked(True))

    option = click.option(
        "--check-shards",
        is_flag=True,
        callback=hold,
        expose_value=False,
        help="Open every file of a set in many files before the run; else those of more than 64 are opened by the "
        "tasks, where their sizes or an index (xent index) tell their rows.",
    )
    return option(command)  # type: ignore[no-any-return]  # click's decorators return what they are given


def axis_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option on the place of the classes."""
    option = click.option("--axis", type=int, default=-1, show_default=True, help="Which axis the classes are along.")
    return option(command)  # type: ignore[no-any-return]  # click's decorators return what they are given


def spare_blas_threads(context: click.Context, parameter: click.Parameter, classifier: str | None) -> str | None:
    """Keep OpenBLAS from starting threads where nothing is multiplied: it starts them as NumPy is imported."""
    if classifier is None and "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return classifier


def head_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options on what makes logits of hidden states."""
    for option in (
        click.option("--softcap", type=float, help="With --classifier: logits z become softcap · tanh(z / softcap)."),
        click.option("--bias", help="With --classifier: a number for each class that is added to its logits."),
        click.option(
            "--classifier",
            callback=spare_blas_threads,
            help="The predictions are hidden states (rows × features), and this (classes × features) makes logits of "
            "them, a tile at a time: x.safetensors#lm_head.weight.",
        ),
    ):
        command = option(command)
    return command


def input_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options on the inputs of an evaluation or a comparison."""
    for option in (
        outside_option,
        storage_option,
        shards_option,
        click.option(
            "--zeros-ok",
            is_flag=True,
            help="Chunks of Zarr arrays that are not stored hold the fill value; else they are an error.",
        ),
        click.option(
            "--cross",
            multiple=True,
            metavar="NAME,NAME",
            help="With several --slices: a slice for each pair of their keys too; may be given several times.",
        ),
        click.option(
            "--slices",
            multiple=True,
            metavar="[NAME=]FILE",
            help="The slice of each row (a file as the labels, or text), for a table of them; may be given several "
            "times, with a name each: language=languages.npy.",
        ),
        click.option("--weights", help="The weight of each row in every mean (a file as the labels); 0 leaves it out."),
        click.option("--mask", help="Whether each row counts (a file as the labels, of true and false or integers)."),
        click.option("--clusters", help="The cluster of each row: standard errors take clusters as independent."),
        click.option(
            "--on-bad-label",
            type=click.Choice(("error", "skip")),
            default="error",
            show_default=True,
            help="A label outside [0, classes): stop, or count and leave out.",
        ),
        click.option(
            "--on-error",
            type=click.Choice(("error", "skip")),
            default="error",
            show_default=True,
            help="Rows that cannot be read: stop, or count and leave out.",
        ),
        click.option(
            "--ignore-index",
            type=Label(),
            multiple=True,
            help="A label whose rows are left out; may be given several times.",
        ),
        click.option(
            "--class-names",
            help="The names of the classes, in their order: a file of JSON, or of a name in each line; or the word "
            "columns, where PREDICTIONS are columns of these names. Labels may be text then.",
        ),
        click.option(
            "--strict-kind", is_flag=True, help="Logits that look like probabilities are an error, not a warning."
        ),
        click.option(
            "--binary",
            is_flag=True,
            help="Predictions are of class 1 of two alone: a logit, or by --kind a probability, for each label.",
        ),
        axis_option,
        click.option(
            "--kind", type=click.Choice(KINDS), default="logits", show_default=True, help="What the predictions are."
        ),
    ):
        command = option(command)
    return command
