"""The command line: ``xent evaluate``, ``compare``, ``merge``, ``inspect``, ``demo``, ``explain``, ``doctor`` and more.

Results go to stdout, progress and messages to stderr; ``exits.py`` has the exit codes. NumPy and Dask are imported when
a command runs, not for ``--help``.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

from xent import distribution

try:
    import click
except ModuleNotFoundError:
    print(
        f"xent: the command line needs click, which is not installed. {distribution.install('cli')}",
        file=sys.stderr,
    )
    raise SystemExit(4) from None

from xent.checks import KINDS, Kind
from xent.cli.exits import BAD_DATA, UNSOUND, environment_checked, errors_reported, input_checked
from xent.cli.gates import Gates, condition_options, gate_options
from xent.evaluation.formats import help_text

if TYPE_CHECKING:
    from xent.evaluation.options import Policy

LOSSES = ("sparse_cross_entropy", "cross_entropy", "binary_cross_entropy")
LIBRARIES = ("numpy", "torch", "dask", "jax", "cupy", "array_api_strict")
BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
DEMO_OPTIONS = {
    "digits": ("keep",),
    "hidden": ("keep", "files"),
    "stdlib": ("keep", "files"),
    "vocabulary": ("rows", "class_chunks"),
}


class Program(click.Group):
    """The commands; how they end, whichever runs, is said in ``exits.py``."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        with errors_reported():
            return super().main(*arguments, **settings)

    # subtle: click gives the errors of a closed stdout an exit code of its own, so they may not reach its main

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        with errors_reported():  # --help is printed here
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with errors_reported():
            return super().invoke(ctx)


@click.group(name="xent", cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=distribution.NAME)
def main() -> None:
    """Cross entropy on any array."""
    if hasattr(sys.stdout, "reconfigure"):  # the terminal's encoding may lack a character of a name
        sys.stdout.reconfigure(errors="backslashreplace")


class ByteSize(click.ParamType):
    """A number of bytes, with or without a unit: 1000000, 64MiB, 1.5 GB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        number = text.rstrip("BbiIkKmMgG ")
        try:
            size = int(float(number) * BYTE_UNITS[text[len(number) :].strip().upper()])
        except (KeyError, ValueError, OverflowError):
            size = 0
        if size < 1:
            self.fail(f"must be a number of bytes such as 64MiB, got {text}.", param, ctx)
        return size


class Label(click.ParamType):
    """A label: a number, or the name of a class."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        try:
            return int(value)
        except ValueError:
            return str(value)


class RowRange(click.ParamType):
    """A range of rows as Python writes it: 0:1000, :1000, 1000:."""

    name = "rows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        match = re.fullmatch(r"(\d*):(\d*)", str(value))
        if match is None:
            raise click.BadParameter(f"must be a range of rows such as 0:1000, got {value}.", ctx, param)
        return int(match[1] or 0), int(match[2]) if match[2] else None


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


def axis_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option on the place of the classes."""
    option = click.option("--axis", type=int, default=-1, show_default=True, help="Which axis the classes are along.")
    return option(command)  # type: ignore[no-any-return]  # click's decorators return what they are given


def head_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options on what makes logits of hidden states."""
    for option in (
        click.option("--softcap", type=float, help="With --classifier: logits z become softcap · tanh(z / softcap)."),
        click.option("--bias", help="With --classifier: a number for each class that is added to its logits."),
        click.option(
            "--classifier",
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
        click.option(
            "--zeros-ok",
            is_flag=True,
            help="Chunks of Zarr arrays that are not stored hold the fill value; else they are an error.",
        ),
        click.option("--slices", help="The slice of each row (a file as the labels, or text), for a table of them."),
        click.option("--weights", help="The weight of each row in every mean (a file as the labels); 0 leaves it out."),
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


@main.command(epilog=help_text())
@click.argument("predictions")
@click.argument("labels")
@head_options
@input_options
@click.option("--by-class", is_flag=True, help="A table of the labels.")
@click.option("--top-k", type=click.IntRange(min=1), multiple=True, help="Top-k accuracy; may be given several times.")
@click.option(
    "--bins", type=click.IntRange(min=1), default=15, show_default=True, help="Bins of the calibration error."
)
@click.option("--classwise", is_flag=True, help="The classwise calibration error too.")
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
@click.option("--predicted-bytes", type=click.IntRange(min=1), help="Bytes of the text predicted, for bits per byte.")
@gate_options
@part_options
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
    slices: str | None,
    clusters: str | None,
    weights: str | None,
    zeros_ok: bool,
    allow_outside: tuple[str, ...],
    by_class: bool,
    top_k: tuple[int, ...],
    bins: int,
    classwise: bool,
    confusion: bool,
    auc: bool,
    fit_temperature: bool,
    predicted_bytes: int | None,
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
        from xent.evaluation.options import Keys, Options, Outputs, folders_of
        from xent.evaluation.sources.hidden_states import Head
        from xent.evaluation.sources.topk import TopK

        if ids is not None and classes is not None:
            predictions = TopK(ids, predictions, classes, tail)
        output = Output.checked(as_json=as_json, quiet=quiet, html=html, tables=tables, overwrite=overwrite)
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
            confusion=confusion,
            auc=auc,
            predicted_bytes=predicted_bytes,
            chunk_bytes=chunk_bytes,
            zeros_ok=zeros_ok,
            allow_outside=folders_of(allow_outside),
        )
        keys, outputs = Keys(slices, clusters, weights), Outputs(per_example, overwrite, state, state_out)
        wanted: dict[str, Any] = {"class_names": class_names, "fit_temperature": fit_temperature}
        wanted["head"] = Head(classifier, bias, softcap)
        gates = Gates.checked(fail_if, junit, overwrite=overwrite, fail_if_worse=fail_if_worse, by=by)
        planned = plan(predictions, labels, options, keys=keys, outputs=outputs, rows=rows, **wanted)
        gates.check_names(planned)
    gates.end("evaluate", run_and_show(planned, output, scheduler))


@main.command(epilog=help_text())
@click.argument("a")
@click.argument("b")
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
    a: str,
    b: str,
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
    slices: str | None,
    clusters: str | None,
    weights: str | None,
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
    """The difference of the losses of two prediction sets, A and B, of the same rows, given LABELS."""
    with input_checked():
        from xent.cli.output import Output, run_and_show
        from xent.evaluation.engine.compare_pass import plan_pair
        from xent.evaluation.options import Keys, Options, Outputs, folders_of
        from xent.evaluation.sources.hidden_states import Head

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
        keys, outputs = Keys(slices, clusters, weights), Outputs(None, overwrite, state, state_out)
        heads = Head(classifier, bias, softcap), Head(classifier_b, bias_b, softcap_b, "_b")
        wanted: dict[str, Any] = {"class_names": class_names, "heads": heads, "rows": rows}
        gates = Gates.checked(fail_if, junit, overwrite=overwrite)
        planned = plan_pair(a, b, labels, options, keys=keys, outputs=outputs, **wanted)
        gates.check_names(planned)
    gates.end("compare", run_and_show(planned, output, scheduler))


@main.command()
@click.argument("parts", nargs=-1, required=True, type=click.Path())
@click.option("--partial", is_flag=True, help="Rows may be missing; the numbers are those of the rows that are there.")
@gate_options
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
) -> None:
    """The result of one run, from PARTS that independent jobs have made of its rows with --rows and --state-out.

    Parts of other inputs, options or versions are refused, and so are rows that are missing or there twice.
    """
    with input_checked():
        from xent.cli.output import Output, show_and_end
        from xent.evaluation.report.result import EvaluationReport, merged_report

        output = Output.checked(as_json=as_json, quiet=True, html=html, tables=tables, overwrite=overwrite)
        gates = Gates.checked(fail_if, junit, overwrite=overwrite, fail_if_worse=fail_if_worse, by=by)
        result = merged_report(parts, partial=partial)
        if fail_if_worse is not None and not isinstance(result, EvaluationReport):
            raise click.UsageError("--fail-if-worse is of parts of an evaluation, and these are of a comparison.")
    show_and_end(result, output)
    gates.end("evaluate" if isinstance(result, EvaluationReport) else "compare", result)


@main.command(epilog=help_text())
@click.argument("predictions")
@head_options
@click.option("--chunk-bytes", type=ByteSize(), default="64MiB", show_default=True, help="Bytes in a task.")
@axis_option
@outside_option
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of lines.")
def inspect(
    predictions: str,
    *,
    classifier: str | None,
    bias: str | None,
    softcap: float | None,
    chunk_bytes: int,
    axis: int,
    allow_outside: tuple[str, ...],
    as_json: bool,
) -> None:
    """What PREDICTIONS are and how they would be read: shape, dtype, chunks, projected memory; from headers alone.

    Of a file or a group that holds several arrays: the name to pass for each, its shape and its dtype.
    """
    with input_checked():
        from xent.evaluation.engine.prediction_sets import checked_axis, open_predictions
        from xent.evaluation.options import Options, folders_of
        from xent.evaluation.report import json_document, terminal
        from xent.evaluation.sources.flat_rows import flat
        from xent.evaluation.sources.hidden_states import Head
        from xent.evaluation.sources.messages import SeveralArrays
        from xent.evaluation.sources.opening import open_source

        allowed = folders_of(allow_outside)

        def opened(path: str) -> Any:
            try:
                return open_source(path, "predictions", allowed)
            except TypeError as error:
                try:
                    return open_source(path, "labels", allowed)  # text
                except TypeError:
                    raise error from None

        try:
            head = Head(classifier, bias, softcap)
            options = Options(axis=axis, chunk_bytes=chunk_bytes, allow_outside=allowed)
            is_plain = head == Head()
            source = opened(predictions) if is_plain else open_predictions("predictions", predictions, head, options)
            if len(source.shape) > 1:
                source = flat(source, checked_axis(axis, source))
            facts = json_document.inspection(source, chunk_bytes)
            text = terminal.format_inspection(facts)
        except SeveralArrays as held:
            facts = json_document.contents(held, opened)
            text = terminal.format_contents(facts)
    click.echo(json_document.to_json(facts) if as_json else text)


@main.command()
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


@main.command()
@click.argument("function", type=click.Choice(LOSSES), default=LOSSES[0])
@click.option(
    "--array", type=click.Choice(LIBRARIES), default="numpy", show_default=True, help="Library of the arrays."
)
@click.option("--dtype", default="float32", show_default=True, help="Dtype of the predictions.")
@click.option("--shape", default="4,10", show_default=True, help="Shape of the predictions.")
@click.option("--target-dtype", help="Dtype of the targets.  [default: int64 for labels, else that of the predictions]")
@click.option("--axis", type=int, help="The class axis.")
@click.option("--kind", type=click.Choice(KINDS), help="What the predictions are.")
@click.option("--label-smoothing", type=float, help="Share of the target that is spread over all classes.")
@click.option("--gradient", is_flag=True, help="Ask for the loss with its gradient (value_and_grad).")
@click.option("--kernel", help="Force this kernel.")
@click.option("--prefer", multiple=True, help="Prefer this kernel; may be given several times.")
@click.option("--disable", multiple=True, help="Leave out this kernel or plugin; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of lines.")
def explain(as_json: bool, kernel: str | None, prefer: tuple[str, ...], disable: tuple[str, ...], **call: Any) -> None:
    """Which kernel would serve a call of FUNCTION, and why not another; nothing is computed.

    FUNCTION is sparse_cross_entropy where it is not named. It takes its own defaults for what is left out.
    """
    with input_checked():
        import xent
        from xent.cli.explain import explain_call

        call = {name: value for name, value in call.items() if value is not None}
        with xent.using(kernel=kernel, prefer=prefer or None, disable=disable or None):
            decision = explain_call(**call)
    click.echo(json.dumps(decision.to_dict(), indent=2) if as_json else decision)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of lines.")
def doctor(as_json: bool) -> None:
    """Say whether this installation is sound: versions, GPUs, plugins, and a quick test of every kernel."""
    with environment_checked(), redirect_stdout(sys.stderr):  # a plugin may print
        from xent.cli.doctor import diagnose

        diagnosis = diagnose()
    click.echo(json.dumps(diagnosis.to_dict(), indent=2) if as_json else diagnosis)
    if not diagnosis.is_sound:
        raise SystemExit(UNSOUND)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Write a JSON list instead of lines.")
def plugins(as_json: bool) -> None:
    """The kernels and hooks that are installed, and what is wrong with those that did not load."""
    import xent
    from xent.cli.doctor import format_columns, plugin_lines

    with environment_checked(), redirect_stdout(sys.stderr):  # a plugin may print
        records = xent.plugins()
    if as_json:
        click.echo(json.dumps([record.to_dict() for record in records], indent=2))
        return
    for line in format_columns(plugin_lines(records)):
        click.echo(line)
