"""An evaluation on a terminal: the plan, a progress bar, tables and remarks.

rich draws the tables and the bar if it is installed; without it a table is plain text and there is no bar.
Leaves out the sentences that a page has too (``wording.py``).
"""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xent.evaluation.engine.clusters import PROCESSES
from xent.evaluation.engine.memory import projected_peak, table_bytes
from xent.evaluation.engine.schedulers import threads_of
from xent.evaluation.report.tables import bits_per_byte_of, matrix, standing_out
from xent.evaluation.report.wording import (
    UNITS,
    format_confusion,
    format_degrees,
    format_estimate,
    format_p_value,
    format_ranking,
    format_tests,
    format_unstored,
    format_weights,
    remarks,
)
from xent.text import visible

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import Comparison
    from xent.evaluation.engine.evaluate_pass import Planned
    from xent.evaluation.report.run import Run
    from xent.evaluation.statistics.confusion import Confusion
    from xent.evaluation.statistics.evaluation import ClassMetrics, Evaluation, GroupMetrics
    from xent.evaluation.statistics.ranking import Ranking

SHOWN_GROUPS = 20
"""The most rows of a table of classes or slices."""
UNBOUNDED = 1 << 16
"""Columns of what is no terminal: more than any table has."""
SHOWN_SQUARE = 8
"""The most classes whose confusion is shown as a square."""
Cells = tuple[str, ...]


def format_inspection(facts: dict[str, Any]) -> str:
    """The facts of ``json_document.inspection``, in lines."""
    size = f"{facts['rows']:,} rows" + (f" of {facts['classes']:,} classes" if facts["classes"] is not None else "")
    if "classifier" in facts:
        size += f", of {facts['shape'][-1]:,} features" if len(facts["shape"]) == 2 else ""
    if len(facts["shape"]) > 2:
        size += f", stored as {' × '.join(f'{n:,}' for n in facts['shape'])}"
    return "\n".join(
        (
            visible(facts["path"] or "array"),
            f"{size}, {facts['dtype']}, {facts['bytes'] / 1e9:.3g} GB",
            *head_lines(facts),
            f"read in {facts['chunks']:,} chunks of up to {facts['chunk_bytes'] / 2**20:.3g} MiB",
            f"peak on {facts['threads']} threads: about {facts['projected_peak_bytes'] / 2**20:,.0f} MiB",
        )
    )


def head_lines(facts: dict[str, Any]) -> list[str]:
    """Of hidden states: the classifier, and what their logits would take; else nothing."""
    if "classifier" not in facts:
        return []
    head, logits = facts["classifier"], facts["logits_bytes"]
    more = " and a bias" * ("bias" in facts) + (f" and softcap {facts['softcap']:g}" if "softcap" in facts else "")
    times = f", {logits / facts['bytes']:,.3g} times as much" if facts["bytes"] else ""
    size = f"{head['dtype']}, {head['bytes'] / 1e9:.3g} GB"
    return [
        f"classifier {visible(head['path'] or 'array')}, {size}{more}",
        f"the logits would take {logits / 1e9:.3g} GB{times}; they are made a tile at a time",
    ]


def format_contents(contents: dict[str, Any]) -> str:
    """The document of ``json_document.contents``, an array in each line, by the name to pass."""
    lines = [f"{visible(contents['path'])} holds"]
    for array in contents["arrays"]:
        size = " × ".join(f"{n:,}" for n in array.get("shape", ())) or "()"
        lines.append(f"  {visible(array['name'])}  " + visible(array.get("error", f"{size}  {array.get('dtype')}")))
    return "\n".join([*lines, f"  and {contents['more']:,} more"] if contents["more"] else lines)


def format_plan(planned: Planned, scheduler: Any) -> str:
    """The size of a pass and the memory that it takes, in a line."""
    size = f"{planned.bytes / 1e9:.3g} GB in {planned.tasks:,} chunks of up to {planned.chunk_bytes / 2**20:.3g} MiB"
    threads = threads_of(scheduler, is_remote=any(source.is_remote for source in planned.sources.values()))
    is_local = threads is not None and not str(scheduler).startswith(PROCESSES)
    at_once = threads if is_local and threads is not None else 1
    tables = table_bytes(planned, at_once)
    peak = projected_peak(at_once, planned.chunk_bytes) + planned.shared_bytes(at_once)
    most = f"{(peak + tables) / 1e6:,.0f} MB"
    if threads is None:
        memory = f"a worker of one thread takes up to {most}"
    else:
        memory = f"{threads} threads take up to {most}" if is_local else f"{threads} processes take up to {most} each"
    if any(planned.keys[:2]) and tables > 10**7:
        apart = ", and rows of clusters lie apart" * (planned.keys.clusters is not None)
        memory += f" ({tables / 1e6:,.0f} MB of it for tables, if every row has a slice or cluster of its own{apart})"
    kept = f"; {planned.kept_rows:,} of {planned.rows:,} rows are done" if planned.kept_rows else ""
    return f"{size}; {memory}{kept}."


def format_part(planned: Planned) -> str:
    """Where the sums of a part are, and what to do with them."""
    rows = f"rows {planned.bounds[0]:,} to {planned.bounds[-1]:,} of {planned.job.rows:,}"
    return (
        f"The sums of {rows} are in {planned.part and planned.part.target}: xent merge makes one result of all parts."
    )


def format_interruption(planned: Planned, word: str = "interrupted") -> str:
    """What an interrupted run has kept, and how to continue it; `word` is how the run ended."""
    if planned.job.store is None:
        return f"{word}; nothing was written. With --state DIR a run can be gone on with."
    done = f"{planned.kept_rows:,} of {planned.rows:,} rows are done"
    return f"{word}; {done} and kept in {planned.job.store.directory}. Run it again as it was to go on."


def evaluation_text(evaluation: Evaluation, run: Run) -> str:
    """The evaluation for a reader."""
    low, high = evaluation.confidence_interval
    size = f"{run.bytes / 1e9:.3g} GB in {run.chunks} chunks of up to {run.chunk_bytes / 2**20:.3g} MiB"
    metrics = [
        (name, *format_estimate(metric.value, metric.stderr), UNITS.get(name, ""))
        for name, metric in evaluation.metrics.items()
    ]
    parts = [
        f"{format_input(run, 'predictions')}  {size}",
        *format_ranges(run),
        cells_text(("", "value", "std. error", ""), metrics),
    ]
    parts += group_text("class", evaluation.classes) + group_text("slice", evaluation.slices)
    if evaluation.confusion is not None:
        parts += confusion_text(evaluation.confusion)
    if evaluation.ranking is not None:
        parts += ranking_text(evaluation.ranking)
    degrees = format_degrees(evaluation.degrees_of_freedom)
    interval = f"95 % interval of the loss: {low:.6g} to {high:.6g} nats ({degrees})."
    return "\n".join([*parts, interval, *remarks(evaluation), format_speed(run)])


def group_text(name: str, groups: Mapping[Any, ClassMetrics | GroupMetrics]) -> list[str]:
    """The table of the first classes or slices, and where the others are; nothing of none."""
    shown: list[Cells] = []
    groups = standing_out(groups)
    for key, group in itertools.islice(groups.items(), SHOWN_GROUPS):
        share, error = group[3], group[5]
        estimates = (*format_estimate(group.mean_loss, group.standard_error), *format_estimate(share, error))
        shown.append((str(key), *estimates, f"{group.counted:,}"))
    heads: Cells = (name, "loss", "std. error", "recall" if name == "class" else "accuracy", "std. error", "rows")
    if (in_bytes := bits_per_byte_of(groups)) is not None:
        heads, shown = (
            (*heads, "bits/byte"),
            [(*row, f"{bits:.4f}") for row, bits in zip(shown, in_bytes, strict=False)],
        )
    kept = {"brier": "brier", "calibration_error": "cal. error", "adjusted_p_value": "Holm p"}
    for number, head in kept.items():
        values = [getattr(group, number, None) for group in itertools.islice(groups.values(), SHOWN_GROUPS)]
        if values and None not in values:
            form = ".3g" if number == "adjusted_p_value" else ".4f"
            heads = (*heads, head)
            shown = [(*row, format(value, form)) for row, value in zip(shown, values, strict=True)]
    return [cells_text(heads, shown), *format_rest(len(groups))] if shown else []


def confusion_text(confusion: Confusion) -> list[str]:
    """The scores of the classes and their means, and the most frequent confusions."""
    rows: list[Cells] = [
        (str(key), *(f"{score:.4f}" for score in (one.precision, one.recall, one.f1)), f"{one.label_rows:,}")
        for key, one in itertools.islice(confusion.classes.items(), SHOWN_GROUPS)
    ]
    for name in ("macro", "micro", "weighted"):
        rows.append((f"{name} average", *(f"{score:.4f}" for score in getattr(confusion, name)), ""))
    parts = [cells_text(("class", "precision", "recall", "F1", "rows"), rows), *format_rest(len(confusion.classes))]
    if len(confusion.classes) <= SHOWN_SQUARE:
        heads, counts = matrix(confusion)
        square = [(label, *(f"{count:,}" for count in row)) for label, row in counts]
        parts.append(cells_text(("label", *(f"as {head}" for head in heads)), square))
    return [*parts, visible(format_confusion(confusion))]


def ranking_text(ranking: Ranking) -> list[str]:
    """How well each class is ranked above the others."""
    rows = [
        (str(key), *(f"{number:.4f}" for number in (one.auc, one.average_precision, one.ks)), f"{one.positives:,}")
        for key, one in itertools.islice(ranking.classes.items(), SHOWN_GROUPS)
    ]
    parts = [cells_text(("class", "ROC AUC", "avg. precision", "KS", "rows"), rows), *format_rest(len(ranking.classes))]
    return [*parts, visible(format_ranking(ranking))]


def format_rest(groups: int) -> list[str]:
    """Where the rows of a table are that are not shown, in a sentence; none if all are."""
    if groups <= SHOWN_GROUPS:
        return []
    return [f"The first {SHOWN_GROUPS} of {groups:,}; the JSON document has them all."]


def comparison_text(comparison: Comparison, run: Run) -> str:
    """The comparison for a reader."""
    a, b, (low, high) = comparison.a, comparison.b, comparison.confidence_interval
    path_a, path_b = (path_of(run.inputs[name]) for name in "ab")
    difference = format_estimate(comparison.mean_difference, comparison.standard_error)
    sets = [
        (f"A  {path_a}", *format_estimate(a.mean_loss, a.standard_error), f"{a.accuracy:.4f}"),
        (f"B  {path_b}", *format_estimate(b.mean_loss, b.standard_error), f"{b.accuracy:.4f}"),
        ("A − B", *difference, f"{a.accuracy - b.accuracy:+.4f}"),
    ]
    parts = [*format_ranges(run), cells_text(("", "loss", "std. error", "accuracy"), sets)]
    slices = [
        (
            str(key),
            *format_estimate(group.mean_difference, group.standard_error),
            f"{group.share_better:.4f}",
            *(f"{p:.3g}" for p in (group.p_value, group.adjusted_p_value)),
            f"{group.counted:,}",
        )
        for key, group in itertools.islice(comparison.slices.items(), SHOWN_GROUPS)
    ]
    if slices:
        parts.append(cells_text(("slice", "A − B", "std. error", "A better", "p", "Holm p", "rows"), slices))
    degrees = format_degrees(comparison.degrees_of_freedom)
    interval = f"95 % interval of A − B: {low:.6g} to {high:.6g} nats ({degrees})"
    unit = f"{comparison.clusters:,} clusters" if comparison.clusters is not None else "rows"
    better = f"A is better in {comparison.better:,}, B in {comparison.worse:,}; {comparison.ties:,} are equal"
    footer = [
        f"{interval}, {format_p_value(comparison.p_value)}, {unit} taken as independent.",
        f"Of {comparison.counted:,} rows {better}.",
        *format_tests(comparison),
        *format_kinds(a, b),
        *format_weights(a),
        *format_unstored(comparison.unstored_chunks),
        format_speed(run),
    ]
    return "\n".join([*parts, *footer])


def format_kinds(a: Evaluation, b: Evaluation) -> list[str]:
    """What the predictions of two sets were taken for, in a sentence."""
    kinds = [each.kind.replace("_", "-") for each in (a, b)]
    return [f"Both are taken for {kinds[0]}." if a.kind == b.kind else f"A is taken for {kinds[0]}, B for {kinds[1]}."]


def format_input(run: Run, name: str) -> str:
    """The path, the shape and the dtype of an input; of a stream without a block, that there is none."""
    if name not in run.inputs:
        return "no block"
    facts = run.inputs[name]
    shape = " × ".join(f"{size:,}" for size in facts["shape"])
    return f"{visible(path_of(facts))}  {shape}  {facts['dtype']}"


def format_ranges(run: Run) -> list[str]:
    """Which rows of the set the numbers are of, in a line; none where it is all of them."""
    if run.ranges is None:
        return []
    shown = ", ".join(f"{start:,} to {stop:,}" for start, stop in run.ranges[:SHOWN_GROUPS])
    more = f" and {len(run.ranges) - SHOWN_GROUPS:,} ranges more" * (len(run.ranges) > SHOWN_GROUPS)
    return [f"Of the rows {shown or 'none'}{more}: {run.rows:,} of {run.set_rows:,}."]


def path_of(facts: Mapping[str, Any]) -> str:
    """The path of predictions, and of what makes logits of them."""
    path = facts["path"] or "array"
    return f"{path} with {facts['classifier']['path'] or 'array'}" if "classifier" in facts else path


def format_speed(run: Run) -> str:
    """The time that a pass took, in a sentence."""
    return f"{run.wall_seconds:.1f} s, {run.gigabytes_per_second:.2f} GB/s, {run.rows / run.wall_seconds:,.0f} rows/s."


def cells_text(heads: Cells, rows: Sequence[Cells]) -> str:
    """A table, the first column to the left and the others to the right."""
    rows = [tuple(map(visible, row)) for row in rows]
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ModuleNotFoundError:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = []
        for row in (heads, *rows):
            first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join((first.strip().ljust(widths[0]), *others)).rstrip())
        return "\n".join(lines)
    table = Table(*heads)
    for column in table.columns:
        column.overflow = "fold"  # a name that is cut says less than one in two lines
        column.justify = "left" if column is table.columns[0] else "right"
    for row in rows:
        table.add_row(*map(escape, row))
    # A stream of the encoding of stdout, which may lack the lines of a table; none that a notebook shows things in.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    width = None if getattr(sys.stdout, "isatty", bool)() else UNBOUNDED  # what is no terminal has no width
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=file, width=width, color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(table)
    return str(capture.get()).rstrip("\n")


@contextmanager
def progress_bar(planned: Planned, *, quiet: bool = False) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr with rows, GB/s and time left; yields the function that advances it by a number of rows.

    Yields None if there is no bar: stderr is no terminal, `quiet` is true, or rich is not installed.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        yield None
        return
    rows = planned.rows
    row_gigabytes = planned.bytes / rows / 1e9 if rows else 0.0
    columns = (
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=rows, rate="")  # kept rows are counted as they are loaded

        def advance(rows: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=rows, rate=f"{speed * row_gigabytes:.2f} GB/s" if speed else "")

        yield advance
