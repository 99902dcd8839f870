"""A result as HTML: a page that needs no other file, asks nothing of a server and runs nothing, or its inner part.

Leaves out the content of its sections (``sections.py``).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from xent import distribution
from xent.evaluation.outputs import Target, output_path
from xent.evaluation.report import figures
from xent.evaluation.report.html import html_document, html_fragment, table_element, tag
from xent.evaluation.report.sections import (
    better_rows,
    cards,
    confusion_figure,
    difference_plot,
    environment_section,
    group_plot,
    header,
    plots,
    ranking_figure,
    sentence_list,
    title_of,
)
from xent.evaluation.report.tables import comparison_table, evaluation_tables
from xent.evaluation.report.wording import (
    format_degrees,
    format_interval,
    format_p_value,
    format_short_estimate,
    format_tests,
    format_unstored,
    format_value,
    remarks,
    verdict,
)

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import Comparison
    from xent.evaluation.report.run import Run
    from xent.evaluation.statistics.evaluation import Evaluation


def page_path(path: Any, *, overwrite: bool = False, argument: str = "html") -> Target:
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


def evaluation_page(evaluation: Evaluation, run: Run, *, written: datetime | None = None) -> str:
    """The page of an evaluation, as HTML text.

    Parameters
    ----------
    evaluation : Evaluation
    run : Run
        The pass that computed it.
    written : datetime, optional
        The date on the page; now by default.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    title = title_of(run)
    return html_document(
        f"{title}: evaluation",
        header("Evaluation", title, run, written),
        *evaluation_numbers(evaluation),
        evaluation_plots(evaluation),
        environment_section(run),
    )


def evaluation_fragment(evaluation: Evaluation, run: Run) -> str:
    """The numbers and the plots of that page for a notebook, as HTML text; without matplotlib the numbers alone."""
    drawn = evaluation_plots(evaluation) if figures.has_matplotlib() else missing_plots()
    return html_fragment(
        tag("p", f"Evaluation · {title_of(run)}", class_="kicker"), *evaluation_numbers(evaluation), drawn
    )


def evaluation_numbers(evaluation: Evaluation) -> list[Element]:
    """The numbers of an evaluation, and the sentences beside them."""
    tables = evaluation_tables(evaluation)
    loss, perplexity, accuracy = (evaluation.metrics[name] for name in ("loss", "perplexity", "accuracy"))
    degrees = format_degrees(evaluation.degrees_of_freedom)
    interval = f"{format_interval(*evaluation.confidence_interval, loss.stderr)} ({degrees})"
    bits = f"{format_value(evaluation.bits)} bits"
    numbers = [
        ("Loss", *format_short_estimate(loss.value, loss.stderr), f"nats; {interval}"),
        ("Perplexity", *format_short_estimate(perplexity.value, perplexity.stderr), bits),
        (
            "Accuracy",
            *format_short_estimate(accuracy.value, accuracy.stderr),
            "the label has the highest prediction",
        ),
        (
            "Calibration error",
            f"{evaluation.calibration_error:.4f}",
            "",
            f"between confidence and accuracy; calibrated predictions show {evaluation.calibration.noise_floor:.4f}",
        ),
    ]
    denominator = f"Means divide by the {evaluation.counted:,} counted: {evaluation.denominator}."
    if evaluation.total_weight is not None:
        denominator = f"Means divide by {evaluation.total_weight:.6g}: {evaluation.denominator}."
    return [
        cards(numbers),
        sentence_list(remarks(evaluation)),
        tag(
            "section",
            table_element("Metrics", tables["metrics"]),
            table_element("Rows", tables["counts"], denominator),
            class_="tables",
        ),
    ]


def evaluation_plots(evaluation: Evaluation) -> Element:
    """The plots of an evaluation, each with its numbers, and its worst rows."""
    tables = evaluation_tables(evaluation)
    worst, clusters = tables["worst"], tables.get("worst_clusters")
    return tag(
        "section",
        *plots({"": evaluation}),
        table_element("Worst rows", worst, "Those of the highest loss, the highest first."),
        None
        if clusters is None
        else table_element("Worst clusters", clusters, "Those of the highest mean loss, the highest first."),
        confusion_figure(evaluation.confusion),
        ranking_figure(evaluation.ranking),
        group_plot("class", "Classes", evaluation.classes, evaluation.mean_loss),
        group_plot("slice", "Slices", evaluation.slices, evaluation.mean_loss),
        class_="plots",
    )


def comparison_page(comparison: Comparison, run: Run, *, written: datetime | None = None) -> str:
    """The page of a comparison, as HTML text; parameters and errors are those of :func:`evaluation_page`."""
    title = title_of(run)
    return html_document(
        f"{title}: comparison",
        header("Comparison", title, run, written),
        *comparison_numbers(comparison),
        comparison_plots(comparison),
        environment_section(run),
    )


def comparison_fragment(comparison: Comparison, run: Run) -> str:
    """The numbers and the plots of that page for a notebook, as HTML text; without matplotlib the numbers alone."""
    drawn = comparison_plots(comparison) if figures.has_matplotlib() else missing_plots()
    return html_fragment(
        tag("p", f"Comparison · {title_of(run)}", class_="kicker"), *comparison_numbers(comparison), drawn
    )


def comparison_numbers(comparison: Comparison) -> list[Element]:
    """The numbers of a comparison, and the sentences beside them."""
    mean, error = comparison.mean_difference, comparison.standard_error
    unit = "rows" if comparison.clusters is None else f"{comparison.clusters:,} clusters"
    degrees = format_degrees(comparison.degrees_of_freedom)
    interval = f"{format_interval(*comparison.confidence_interval, error)} ({degrees})"
    p_value = format_p_value(comparison.p_value).removeprefix("p ").removeprefix("= ")
    numbers = [
        (
            "Loss of A − loss of B",
            *format_short_estimate(mean, error),
            f"nats; {interval}; {unit} taken as independent",
        ),
        ("p", p_value, "", "of as much or more if there were no difference"),
    ]
    return [
        tag("p", verdict(comparison), class_="verdict"),
        *(tag("p", sentence) for sentence in format_unstored(comparison.unstored_chunks)),
        cards(numbers),
        better_rows(comparison),
        sentence_list(format_tests(comparison)),
        tag("section", table_element("Metrics of A and of B", comparison_table(comparison)), class_="tables"),
        tag(
            "section",
            *(tag("div", tag("h2", name), sentence_list(remarks(each))) for name, each in sets_of(comparison).items()),
            class_="tables",
        ),
    ]


def comparison_plots(comparison: Comparison) -> Element:
    """The plots of a comparison, each with its numbers."""
    return tag("section", difference_plot(comparison), *plots(sets_of(comparison)), class_="plots")


def sets_of(comparison: Comparison) -> dict[str, Evaluation]:
    """The two sets, by the names that they have on a page."""
    return {"A": comparison.a, "B": comparison.b}


def missing_plots() -> Element:
    """What stands in the place of the plots where they cannot be drawn."""
    return tag(
        "p", f"The plots need matplotlib, which is not installed. {distribution.install('report')}", class_="empty"
    )
