"""One HTML page of an evaluation or a comparison: it needs no other file, asks nothing of a server and runs nothing.

Leaves out the content of its sections (``sections.py``).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xent.evaluation.engine.compare_pass import Comparison
from xent.evaluation.outputs import move, output_path, remove, written
from xent.evaluation.report import figures
from xent.evaluation.report.html import html_document, table_element, tag
from xent.evaluation.report.sections import (
    better_rows,
    cards,
    difference_plot,
    environment_section,
    group_plot,
    header,
    plots,
    sentence_list,
    title_of,
)
from xent.evaluation.report.tables import comparison_table, evaluation_tables
from xent.evaluation.report.wording import (
    format_interval,
    format_p_value,
    format_short_estimate,
    format_unstored,
    format_value,
    remarks,
    verdict,
)

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import PairPass
    from xent.evaluation.engine.evaluate_pass import Pass, Planned
    from xent.evaluation.statistics.metrics import Evaluation


def page_path(path: Any, *, overwrite: bool = False, argument: str = "html") -> Path:
    """The path of a page, checked before any work; `argument` is its name in a message.

    Raises
    ------
    FileExistsError, FileNotFoundError, ValueError
        If it exists and may not be overwritten or is a folder, its folder does not exist, or it is not named .html.
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    figures.check_matplotlib()
    return output_path(argument, path, (".html", ".htm"), overwrite=overwrite)


def write_page(
    target: Path,
    result: Evaluation | Comparison,
    planned: Planned,
    *,
    scheduler: str,
    wall_seconds: float,
    overwrite: bool = False,
) -> None:
    """Write the page of an evaluation or a comparison, whole or not at all; WriteError if it cannot be written."""
    make: Any = comparison_page if isinstance(result, Comparison) else evaluation_page
    text = make(result, planned, scheduler=scheduler, wall_seconds=wall_seconds)
    draft = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    with written(target):
        try:
            draft.write_text(text, "utf-8")
            move(draft, target, overwrite=overwrite)
        finally:
            remove(draft)


def evaluation_page(
    evaluation: Evaluation, planned: Pass, *, scheduler: str, wall_seconds: float, written: datetime | None = None
) -> str:
    """The page of an evaluation, as HTML text.

    Parameters
    ----------
    evaluation : Evaluation
    planned : Pass
        The pass that computed it.
    scheduler : str
        Where it ran.
    wall_seconds : float
        How long it took.
    written : datetime, optional
        The date on the page; now by default.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    title, tables = title_of(planned.predictions), evaluation_tables(evaluation)
    loss, perplexity, accuracy = (evaluation.metrics[name] for name in ("loss", "perplexity", "accuracy"))
    interval = format_interval(*evaluation.confidence_interval, loss.stderr)
    bits = f"{format_value(evaluation.bits)} bits"
    numbers = [
        ("Loss", *format_short_estimate(loss.value, loss.stderr), f"nats; {interval}"),
        ("Perplexity", *format_short_estimate(perplexity.value, perplexity.stderr), bits),
        (
            "Accuracy",
            *format_short_estimate(accuracy.value, accuracy.stderr),
            "the label has the highest prediction",
        ),
        ("Calibration error", f"{evaluation.calibration_error:.4f}", "", "between confidence and accuracy"),
    ]
    denominator = f"Means divide by the {evaluation.counted:,} counted: {evaluation.denominator}."
    return html_document(
        f"{title}: evaluation",
        header("Evaluation", title, planned, written),
        cards(numbers),
        sentence_list(remarks(evaluation)),
        tag(
            "section",
            table_element("Metrics", tables["metrics"]),
            table_element("Rows", tables["counts"], denominator),
            class_="tables",
        ),
        tag(
            "section",
            *plots({"": evaluation}),
            table_element("Worst rows", tables["worst"], "Those of the highest loss, the highest first."),
            group_plot("class", "Classes", evaluation.classes, evaluation.mean_loss),
            group_plot("slice", "Slices", evaluation.slices, evaluation.mean_loss),
            class_="plots",
        ),
        environment_section(planned, scheduler, wall_seconds),
    )


def comparison_page(
    comparison: Comparison, planned: PairPass, *, scheduler: str, wall_seconds: float, written: datetime | None = None
) -> str:
    """The page of a comparison, as HTML text; parameters and errors are those of :func:`evaluation_page`."""
    title = f"{title_of(planned.predictions)} and {title_of(planned.b)}"
    mean, error = comparison.mean_difference, comparison.standard_error
    unit = "rows" if comparison.clusters is None else f"{comparison.clusters:,} clusters"
    interval = format_interval(*comparison.confidence_interval, error)
    p_value = format_p_value(comparison.p_value).removeprefix("p ").removeprefix("= ")
    numbers = [
        (
            "Loss of A − loss of B",
            *format_short_estimate(mean, error),
            f"nats; {interval}; {unit} taken as independent",
        ),
        ("p", p_value, "", "of as much or more if there were no difference"),
    ]
    sets = {"A": comparison.a, "B": comparison.b}
    return html_document(
        f"{title}: comparison",
        header("Comparison", title, planned, written),
        tag("p", verdict(comparison), class_="verdict"),
        *(tag("p", sentence) for sentence in format_unstored(comparison.unstored_chunks)),
        cards(numbers),
        better_rows(comparison),
        tag("section", table_element("Metrics of A and of B", comparison_table(comparison)), class_="tables"),
        tag("section", difference_plot(comparison), *plots(sets), class_="plots"),
        tag(
            "section",
            *(tag("div", tag("h2", name), sentence_list(remarks(each))) for name, each in sets.items()),
            class_="tables",
        ),
        environment_section(planned, scheduler, wall_seconds),
    )
