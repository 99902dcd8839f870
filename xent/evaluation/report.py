"""What an evaluation looks like: a table, a JSON document, and a progress bar.

rich draws the table and the bar where it is installed; without it the table is plain text and there is no bar.
Numbers that JSON cannot hold are the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from xent.evaluation.onepass import Pass
    from xent.evaluation.state import Evaluation

SCHEMA_VERSION = 1
UNITS = {"loss": "nats", "bits": "bits", "perplexity": "", "accuracy": ""}


def document(evaluation: Evaluation, planned: Pass, *, scheduler: str, wall_seconds: float) -> dict[str, Any]:
    """What ``--json`` writes: schema version, inputs, options, counts, metrics with their errors, timing."""
    counts = {
        "rows": evaluation.rows,
        "counted": evaluation.counted,
        "ignored": evaluation.ignored,
        "bad_labels": evaluation.bad_labels,
        "nan_rows": evaluation.nan_rows,
        "infinite_rows": evaluation.infinite_rows,
        "first_bad_label": evaluation.first_bad_label,
        "first_nan": evaluation.first_nan,
        "first_infinite": evaluation.first_infinite,
    }
    inputs = {
        name: {"path": source.path, "shape": list(source.shape), "dtype": str(source.dtype)}
        for name, source in (("predictions", planned.predictions), ("labels", planned.labels))
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": inputs,
        "options": {
            **asdict(planned.options),
            "scheduler": scheduler,
            "chunk_bytes": planned.chunk_bytes,
            "chunks": planned.tasks,
        },
        "counts": counts,
        "denominator": evaluation.denominator,
        "metrics": {name: asdict(metric) for name, metric in evaluation.metrics.items()},
        "loss_interval_95": list(evaluation.confidence_interval),
        "timing": {
            "wall_seconds": wall_seconds,
            "bytes": planned.bytes,
            "gigabytes_per_second": planned.bytes / wall_seconds / 1e9,
        },
    }


def to_json(value: dict[str, Any]) -> str:
    """The document as JSON text, without a bare NaN or Infinity."""
    return json.dumps(_speakable(value), indent=2, allow_nan=False)


def _speakable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _speakable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_speakable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def metric_rows(evaluation: Evaluation) -> list[tuple[str, str, str, str]]:
    """The table's rows: name, value, standard error, unit."""
    rows = []
    for name, metric in evaluation.metrics.items():
        # two significant digits of the error say how far the value can be trusted
        digits = (
            6
            if not metric.stderr > 0 or math.isinf(metric.stderr)
            else max(0, 1 - math.floor(math.log10(metric.stderr)))
        )
        rows.append((name, f"{metric.value:.{digits}f}", f"± {metric.stderr:.{digits}f}", UNITS[name]))
    return rows


def summary(planned: Pass) -> str:
    """What is about to be evaluated, in one line: path, shape, dtype, bytes, chunks."""
    source = planned.predictions
    rows, classes = source.shape
    size = f"{planned.bytes / 1e9:.3g} GB in {planned.tasks} chunks of up to {planned.chunk_bytes / 2**20:.3g} MiB"
    return f"{source.path or 'array'}  {rows:,} × {classes:,}  {source.dtype}  {size}"


def remarks(evaluation: Evaluation) -> list[str]:
    """What a reader must know beside the numbers, one sentence each."""
    counted = f"{evaluation.counted:,} of {evaluation.rows:,} rows counted"
    left_out = f"{evaluation.ignored:,} ignored, {evaluation.bad_labels:,} of a bad label"
    told = [f"{counted} ({left_out}); standard errors take them as independent."]
    if evaluation.first_bad_label is not None:
        told.append(f"The first bad label is in row {evaluation.first_bad_label}.")
    if evaluation.nan_rows:
        told.append(f"{evaluation.nan_rows:,} rows are NaN, the first is row {evaluation.first_nan}; so is the mean.")
    if evaluation.infinite_rows:
        count, first = evaluation.infinite_rows, evaluation.first_infinite
        mean = "" if evaluation.nan_rows else "; the mean is infinite"  # with a NaN row it is NaN
        told.append(f"{count:,} rows give their label probability 0, the first is row {first}{mean}.")
    return told


def print_table(evaluation: Evaluation, planned: Pass, *, wall_seconds: float, stream: TextIO | None = None) -> None:
    """Write the evaluation for a reader to `stream`, or to stdout."""
    stream = stream or sys.stdout
    low, high = evaluation.confidence_interval
    footer = [f"95 % interval of the loss: {low:.6g} to {high:.6g} nats.", *remarks(evaluation)]
    speed = f"{planned.bytes / wall_seconds / 1e9:.2f} GB/s, {evaluation.rows / wall_seconds:,.0f} rows/s"
    footer.append(f"{wall_seconds:.1f} s, {speed}.")
    print(summary(planned), file=stream)
    _print_rows(("", "value", "std. error", ""), metric_rows(evaluation), stream)
    print("\n".join(footer), file=stream)


def _print_rows(heads: tuple[str, ...], rows: list[tuple[str, str, str, str]], stream: TextIO) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, *rows):
            name, *numbers, unit = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join((name.strip().ljust(widths[0]), *numbers, unit.strip())).rstrip(), file=stream)
        return
    table = Table(*heads)
    for column in table.columns[1:3]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console(file=stream).print(table)


@contextmanager
def progress_bar(planned: Pass, *, quiet: bool = False) -> Iterator[Callable[[int], None] | None]:
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
        task = bar.add_task("rows", total=rows, rate="")

        def advance(rows: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=rows, rate=f"{speed * row_gigabytes:.2f} GB/s" if speed else "")

        yield advance
