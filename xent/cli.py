"""The command line: ``xent evaluate``, ``xent demo``, ``xent explain``, ``xent plugins``, ``xent doctor``.

Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 1 a kernel or a plugin is not sound, 2 usage,
or inputs or an environment that do not fit, 3 bad data, 4 a package or a scheduler is missing, 130 interrupted. NumPy
and Dask are imported when a command runs, not for ``--help``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

try:
    import click
except ModuleNotFoundError:
    print(
        "xent: the command line needs click, which is not installed. Install it with: pip install 'xent[cli]'",
        file=sys.stderr,
    )
    raise SystemExit(4) from None

if TYPE_CHECKING:
    from xent.evaluation.state import Evaluation

LOSSES = ("sparse_cross_entropy", "cross_entropy", "binary_cross_entropy")
LIBRARIES = ("numpy", "torch", "dask", "jax", "cupy", "array_api_strict")
KINDS = ("logits", "probabilities", "log_probabilities")
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
LABEL_REMEDY = (
    "Pass --on-bad-label skip to leave such rows out, or --ignore-index {label} if that marks rows to ignore."
)
UNSOUND, BAD_INPUT, BAD_DATA, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 130


@click.group(name="xent", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xent")
def main() -> None:
    """Cross entropy on any array."""


class ByteSize(click.ParamType):
    """A number of bytes, with or without a unit: 1000000, 64MiB, 1.5 GB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        number = text.rstrip("BbiIkKmMgG ")
        try:
            size = int(float(number) * UNITS[text[len(number) :].strip().upper()])
        except (KeyError, ValueError, OverflowError):
            size = 0
        if size < 1:
            self.fail(f"must be a number of bytes such as 64MiB, got {text}.", param, ctx)
        return size


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that evaluates."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="No progress bar."),
        click.option(
            "--scheduler",
            help="threads, sync, or the address of a Dask scheduler (tcp://…).  [default: DASK_SCHEDULER_ADDRESS where "
            "it is set, else threads]",
        ),
        click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of a table."),
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


@main.command()
@click.argument("predictions")
@click.argument("labels")
@click.option("--kind", type=click.Choice(KINDS), default="logits", show_default=True, help="What the predictions are.")
@click.option(
    "--ignore-index", type=int, multiple=True, help="A label whose rows are left out; may be given several times."
)
@click.option(
    "--on-bad-label",
    type=click.Choice(("error", "skip")),
    default="error",
    show_default=True,
    help="A label outside [0, classes): stop, or count and leave out.",
)
@run_options
def evaluate(
    predictions: str, labels: str, kind: str, ignore_index: tuple[int, ...], on_bad_label: str, **run: Any
) -> None:
    """Mean loss, perplexity and accuracy of PREDICTIONS (rows × classes) given LABELS (rows), of any size.

    Each is a .npy file or the directory of a Zarr array. Without --scheduler it runs where Dask's configuration says
    (`scheduler-address`, or DASK_SCHEDULER_ADDRESS in the environment), else on threads.
    """
    with told_plainly():
        options = {"kind": kind, "ignore_index": ignore_index, "on_bad_label": on_bad_label}
        _evaluate_and_report(predictions, labels, options, **run)


@main.command()
@click.option(
    "--keep", type=click.Path(file_okay=False), help="Write the predictions and labels to this directory and keep them."
)
@click.option("--files", type=click.IntRange(min=20), help="Take only so many files of the library.")
@run_options
def demo(keep: str | None, files: int | None, **run: Any) -> None:
    """Evaluate a language model of bytes on Python's own standard library.

    Trains an order-3 model on nine files of ten, writes its predictions for the others, and evaluates them as
    `xent evaluate` does.
    """
    with told_plainly(), nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="xent-demo-") as directory:
        with input_checked():
            from xent import demo as library_demo

            made = library_demo.make(directory, files=files)
        click.echo(made.story(), err=run["as_json"])
        kernel = library_demo.kernel()  # asked first: what it compiles is not the evaluation's time
        evaluation = _evaluate_and_report(str(made.predictions), str(made.labels), {}, **run)
        agrees, verdict = made.cross_check(evaluation.mean_loss)
        click.echo(f"{verdict}\nComputed by {kernel}.", err=run["as_json"])
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
def explain(as_json: bool, kernel: str | None, prefer: tuple[str, ...], disable: tuple[str, ...], **asked: Any) -> None:
    """Which kernel would serve a call of FUNCTION, and why not another; nothing is computed.

    FUNCTION is sparse_cross_entropy where it is not named. It takes its own defaults for what is left out.
    """
    with told_plainly(), input_checked():
        import xent
        from xent import question

        asked = {name: value for name, value in asked.items() if value is not None}
        with xent.using(kernel=kernel, prefer=prefer or None, disable=disable or None):
            decision = question.ask(**asked)
    click.echo(json.dumps(decision.to_dict(), indent=2) if as_json else decision)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of lines.")
def doctor(as_json: bool) -> None:
    """Say whether this installation is sound: versions, GPUs, plugins, and a quick test of every kernel."""
    with told_plainly(), environment_checked():
        from xent import doctor as examination

        diagnosis = examination.diagnose()
    click.echo(json.dumps(diagnosis.to_dict(), indent=2) if as_json else diagnosis)
    if not diagnosis.is_sound:
        raise SystemExit(UNSOUND)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Write a JSON list instead of lines.")
def plugins(as_json: bool) -> None:
    """The kernels and hooks that are installed, and what is wrong with those that did not load."""
    import xent
    from xent.doctor import aligned, plugin_rows

    with environment_checked():
        records = xent.plugins()
    if as_json:
        click.echo(json.dumps([record.to_dict() for record in records], indent=2))
        return
    for line in aligned(plugin_rows(records)):
        click.echo(line)


def _evaluate_and_report(
    predictions: str,
    labels: str,
    options: dict[str, Any],
    *,
    chunk_bytes: int,
    as_json: bool,
    scheduler: str | None,
    quiet: bool,
) -> Evaluation:
    with input_checked():
        from xent.evaluation import onepass, report

        planned = onepass.plan(predictions, labels, chunk_bytes=chunk_bytes, **options)
        scheduler = _scheduler(scheduler)
    start = time.perf_counter()
    with environment_checked(), report.progress_bar(planned, quiet=quiet) as progress:
        evaluation = planned.run(scheduler=scheduler, progress=progress, label_remedy=LABEL_REMEDY)
    seconds = time.perf_counter() - start
    if as_json:
        click.echo(report.to_json(report.document(evaluation, planned, scheduler=scheduler, wall_seconds=seconds)))
    else:
        report.print_table(evaluation, planned, wall_seconds=seconds)
    return evaluation


def _scheduler(option: str | None) -> str:
    """What the option says, else the address in Dask's configuration, else threads."""
    from xent.evaluation.sources import require

    if option is None:
        address = require("dask", "dask", "an evaluation").config.get("scheduler-address", None)
        if not address:
            return "threads"
        return address if "://" in address else f"tcp://{address}"  # as distributed.Client reads it
    if option not in ("threads", "sync") and "://" not in option:
        rule = f"must be threads, sync or an address such as tcp://host:8786, got {option}"
        raise ValueError(f"evaluate: `--scheduler` {rule}. Leave it out for threads.")
    return option


@contextmanager
def input_checked() -> Iterator[None]:
    """End with exit code 2 where the inputs, as far as their headers tell, cannot be evaluated."""
    from xent.evaluation.sources import ReadError

    try:
        yield
    except ReadError:
        raise
    except (TypeError, ValueError, OSError) as error:
        fail(error, BAD_INPUT)


@contextmanager
def environment_checked() -> Iterator[None]:
    """End with exit code 2 where a call is refused and the environment asks for something of xent.

    The inputs have been checked by then: without such a variable a refusal is a fault of xent's own, and is not hidden.
    """
    from xent.errors import LabelError
    from xent.settings import VARIABLES

    try:
        yield
    except ValueError as error:
        asked = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
        if isinstance(error, LabelError) or not asked:
            raise
        fail(f"{error}\nThe environment sets {asked}.", BAD_INPUT)


@contextmanager
def told_plainly() -> Iterator[None]:
    """End with one line and an exit code where the fault lies outside: bad data, a missing package, an interruption."""
    try:
        from xent.errors import LabelError
        from xent.evaluation.sources import ReadError

        yield
    except (LabelError, ReadError) as error:
        fail(error, BAD_DATA)
    except (ModuleNotFoundError, ConnectionError) as error:
        fail(error, UNAVAILABLE)
    except KeyboardInterrupt:
        fail("interrupted; nothing was written.", INTERRUPTED)


def fail(error: object, code: int) -> NoReturn:
    """Write one line to stderr and exit."""
    *lines, last = str(error).splitlines() or [""]
    told = [*(f"{line.strip().rstrip('.')}." for line in lines), last]
    click.echo(f"xent: {' '.join(told).removeprefix('xent: ')}", err=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
