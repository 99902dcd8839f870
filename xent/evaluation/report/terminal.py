"""What an evaluation looks like on a terminal: tables, remarks, and a progress bar.

rich draws the table and the bar where it is installed; without it the table is plain text and there is no bar.
Leaves out JSON (``json_document.py``).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from xent.evaluation.engine.schedulers import PROCESSES, projected_peak, threads_of
from xent.evaluation.report.wording import UNITS, remarks, with_error
from xent.text import visible

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import Comparison, PairPass
    from xent.evaluation.engine.evaluate_pass import Pass, Planned
    from xent.evaluation.statistics.metrics import Evaluation, GroupMetrics

SHOWN_GROUPS = 20
"""Rows of a table of classes or slices that a terminal is shown."""
Row = tuple[str, ...]


def told_inspection(facts: dict[str, Any]) -> str:
    """What ``documents.inspection`` says of a source, in lines."""
    rows, *classes = facts["shape"]
    size = f"{rows:,} rows" + (f" of {classes[0]:,} classes" if classes else "")
    return "\n".join(
        (
            visible(facts["path"] or "array"),
            f"{size}, {facts['dtype']}, {facts['bytes'] / 1e9:.3g} GB",
            f"read in {facts['chunks']:,} chunks of up to {facts['chunk_bytes'] / 2**20:.3g} MiB",
            f"peak on {facts['threads']} threads: about {facts['projected_peak_bytes'] / 2**20:,.0f} MiB",
        )
    )


def metric_rows(evaluation: Evaluation) -> list[Row]:
    """The table's rows: name, value, standard error, unit."""
    return [(name, *with_error(one.value, one.stderr), UNITS.get(name, "")) for name, one in evaluation.metrics.items()]


def group_rows(groups: Mapping[Any, GroupMetrics]) -> list[Row]:
    """The rows of a table of classes or slices, the first of them."""
    return [
        (str(key), *with_error(one.mean_loss, one.standard_error), f"{one.accuracy:.4f}", f"{one.counted:,}")
        for key, one in itertools.islice(groups.items(), SHOWN_GROUPS)
    ]


def summary(planned: Pass) -> str:
    """What is about to be evaluated, in one line: path, shape, dtype, bytes, chunks."""
    source = planned.predictions
    rows, classes = source.shape
    size = f"{planned.bytes / 1e9:.3g} GB in {planned.tasks} chunks of up to {planned.chunk_bytes / 2**20:.3g} MiB"
    return f"{visible(source.shown or 'array')}  {rows:,} × {classes:,}  {source.dtype}  {size}"


def told_plan(planned: Planned, scheduler: Any) -> str:
    """What is about to be done, and the memory that it takes, in a line."""
    size = f"{planned.bytes / 1e9:.3g} GB in {planned.tasks:,} chunks of up to {planned.chunk_bytes / 2**20:.3g} MiB"
    threads, each = threads_of(scheduler), projected_peak(1, planned.chunk_bytes)
    if threads is None:
        memory = f"a worker of one thread takes up to {each / 1e6:,.0f} MB"
    elif str(scheduler).startswith(PROCESSES):
        memory = f"{threads} processes take up to {each / 1e6:,.0f} MB each"
    else:
        memory = f"{threads} threads take up to {projected_peak(threads, planned.chunk_bytes) / 1e6:,.0f} MB"
    for name in ("labels", "slices", "clusters"):
        if name in planned.sources and (lost := planned.sources[name].missing()):
            memory += f"; {lost:,} chunks of the {name} are not stored, and are read as the fill value"
    kept = f"; {planned.kept_rows:,} of {planned.job.rows:,} rows are done" if planned.kept_rows else ""
    return f"{size}; {memory}{kept}."


def told_interruption(planned: Planned, what: str = "interrupted") -> str:
    """What a run leaves that was interrupted, or whatever else it is called, and how to go on."""
    if planned.job.store is None:
        return f"{what}; nothing was written. With --state DIR a run can be gone on with."
    done = f"{planned.kept_rows:,} of {planned.job.rows:,} rows are done"
    return f"{what}; {done} and kept in {planned.job.store.directory}. Run it again as it was to go on."


def print_table(evaluation: Evaluation, planned: Pass, *, wall_seconds: float, stream: TextIO | None = None) -> None:
    """Write the evaluation for a reader to `stream`, or to stdout."""
    stream = stream or sys.stdout
    low, high = evaluation.confidence_interval
    print(summary(planned), file=stream)
    _print_rows(("", "value", "std. error", ""), metric_rows(evaluation), stream)
    for name, groups in (("class", evaluation.classes), ("slice", evaluation.slices)):
        if groups:
            _print_rows((name, "loss", "std. error", "accuracy", "rows"), group_rows(groups), stream)
        if len(groups) > SHOWN_GROUPS:
            print(f"The first {SHOWN_GROUPS} of {len(groups):,}; --json has them all.", file=stream)
    footer = [f"95 % interval of the loss: {low:.6g} to {high:.6g} nats.", *remarks(evaluation)]
    print("\n".join([*footer, speed(planned, evaluation.rows, wall_seconds)]), file=stream)


def print_comparison(
    found: Comparison, planned: PairPass, *, wall_seconds: float, stream: TextIO | None = None
) -> None:
    """Write the comparison for a reader to `stream`, or to stdout."""
    stream = stream or sys.stdout
    names = [source.shown or "array" for source in (planned.predictions, planned.b)]
    rows: list[Row] = [
        ("A  " + names[0], *with_error(found.a.mean_loss, found.a.standard_error), f"{found.a.accuracy:.4f}"),
        ("B  " + names[1], *with_error(found.b.mean_loss, found.b.standard_error), f"{found.b.accuracy:.4f}"),
        (
            "A − B",
            *with_error(found.mean_difference, found.standard_error),
            f"{found.a.accuracy - found.b.accuracy:+.4f}",
        ),
    ]
    _print_rows(("", "loss", "std. error", "accuracy"), rows, stream)
    groups: list[Row] = [
        (str(key), *with_error(one.mean_difference, one.standard_error), f"{one.share_better:.4f}", f"{one.counted:,}")
        for key, one in itertools.islice(found.slices.items(), SHOWN_GROUPS)
    ]
    if groups:
        _print_rows(("slice", "A − B", "std. error", "A better", "rows"), groups, stream)
    low, high = found.confidence_interval
    unit = f"{found.clusters:,} clusters" if found.clusters is not None else "rows"
    told = [
        f"95 % interval of A − B: {low:.6g} to {high:.6g} nats, p = {found.p_value:.3g}, {unit} taken as independent.",
        f"Of {found.counted:,} rows A is better in {found.better:,}, B in {found.worse:,}; {found.ties:,} are equal.",
        speed(planned, found.rows, wall_seconds),
    ]
    print("\n".join(told), file=stream)


def speed(planned: Planned, rows: int, wall_seconds: float) -> str:
    """How long it took, in a sentence."""
    return f"{wall_seconds:.1f} s, {planned.bytes / wall_seconds / 1e9:.2f} GB/s, {rows / wall_seconds:,.0f} rows/s."


def _print_rows(heads: tuple[str, ...], rows: list[Row], stream: TextIO) -> None:
    rows = [tuple(map(visible, row)) for row in rows]
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ModuleNotFoundError:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, *rows):
            first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join((first.strip().ljust(widths[0]), *others)).rstrip(), file=stream)
        return
    table = Table(*heads)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    Console(file=stream).print(table)


@contextmanager
def progress_bar(planned: Planned, *, quiet: bool = False) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr with rows, GB/s and time left, and the function that moves it by a number of rows.

    None where there is no bar: stderr is no terminal, `quiet` is true, or rich is not installed.
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        quiet = True
    if quiet or not sys.stderr.isatty():
        yield None
        return
    rows = planned.predictions.shape[0]
    row_gigabytes = planned.bytes / rows / 1e9 if rows else 0.0
    columns = (
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=rows, rate="")  # rows that are kept are counted as they are loaded

        def advance(rows: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=rows, rate=f"{speed * row_gigabytes:.2f} GB/s" if speed else "")

        yield advance
