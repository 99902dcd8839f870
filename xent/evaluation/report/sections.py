"""The sections of a page, each as an element.

Leaves out which of them a page has (``page.py``), the plots (``figures.py``), and how elements are written
(``html.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree.ElementTree import Element

from xent.evaluation.engine.compare_pass import SliceDifference
from xent.evaluation.report import figures
from xent.evaluation.report.figures import Bar
from xent.evaluation.report.html import facts_element, scrolling_table, table_element, tag
from xent.evaluation.report.tables import (
    Table,
    class_calibration_table,
    confusion_tables,
    difference_table,
    evaluation_tables,
    group_table,
    key_text,
    matrix,
    ranking_tables,
    standing_out,
)
from xent.evaluation.report.wording import format_confusion, format_ranking, format_value
from xent.evaluation.statistics.exact_sums import ratio
from xent.evaluation.statistics.state import SEGMENTS
from xent.evaluation.statistics.student import margin

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import Comparison
    from xent.evaluation.report.run import Run
    from xent.evaluation.statistics.confusion import Confusion
    from xent.evaluation.statistics.evaluation import ClassMetrics, Evaluation, GroupMetrics
    from xent.evaluation.statistics.ranking import Ranking

IN_HAND = "array in hand"
"""The path of what has none."""
SHOWN_BARS, SHOWN_ROWS = 30, 1000
"""The most classes or slices that have a bar, and that have a row in a table."""
SHOWN_SQUARE = 20
"""The most classes whose confusion is shown as a square."""
SQUARE = "Rows by label and predicted class"
SHADE, DARKEST = "background: color-mix(in srgb, var(--first) ", 60
"""The background of a cell, and the most percent of colour in it."""
Group = TypeVar("Group")


def header(kind: str, title: str, run: Run, written: datetime | None) -> Element:
    """The subject and the date of the page, and the sources that were read."""
    date = written or datetime.now().astimezone()
    text = date.strftime("%d %B %Y, %H:%M %Z").strip()
    sources = Table(
        {"input": str, "path": str, "shape": str, "dtype": str},
        [
            (name, facts["path"] or IN_HAND, " × ".join(map(format_value, facts["shape"])), facts["dtype"])
            for name, facts in run.read.items()
        ],
    )
    return tag(
        "header",
        tag("p", f"{kind} · ", tag("time", text, datetime=date.isoformat(timespec="seconds")), class_="kicker"),
        tag("h1", title),
        table_element("What was read", sources),
    )


def title_of(run: Run) -> str:
    """The last part of the path of the predictions, of both sets of a comparison."""
    paths = [(facts["path"] or IN_HAND).rstrip("/") for facts in run.predictions]
    return " and ".join(path.rpartition("/")[2] or path for path in paths) or "no block"


def cards(numbers: Sequence[tuple[str, str, str, str]]) -> Element:
    """The most important numbers: name, value, error and unit of each."""
    elements = []
    for name, value, error, note in numbers:
        css_class = "value odd" if value in ("nan", "inf") else "value"
        number = tag("dd", tag("span", value, class_=css_class), tag("span", error, class_="error") if error else None)
        elements.append(tag("div", tag("dt", name), number, tag("dd", note, class_="note")))
    return tag("dl", *elements, class_="cards")


def sentence_list(sentences: Sequence[str]) -> Element:
    """A list of sentences."""
    return tag("ul", *(tag("li", sentence) for sentence in sentences), class_="remarks")


def plots(sets: Mapping[str, Evaluation]) -> list[Element]:
    """The plots of one or two sets, each with the tables of its numbers; a sentence in place of an empty plot."""
    evaluations = list(sets.values())
    tables = {key: evaluation_tables(evaluation) for key, evaluation in sets.items()}
    has_position = any(math.isfinite(part.mean_loss) for each in evaluations for part in each.positions)
    has_loss, has_bin = any(each.histogram for each in evaluations), any(each.reliability for each in evaluations)
    calibration = (
        "How often the highest probability is right, with 95 % intervals by Wilson, over how high it is; on the "
        "dashed line just as often."
    )
    described = (
        ("positions", "Loss over position", figures.loss_over_position, position_note(evaluations), has_position),
        ("histogram", "Losses", figures.loss_histogram, histogram_note(evaluations), has_loss),
        ("reliability", "Reliability", figures.reliability, calibration, has_bin),
    )
    elements = []
    for name, title, draw, note, is_plotted in described:
        if is_plotted:
            captions = {key: f"{title}, {key}" if key else title for key in sets}
            numbers = [table_element(captions[key], tables[key][name]) for key in sets]
            if name == "reliability":
                numbers += [table for key in sets for table in calibration_details(key, sets[key], tables[key])]
            elements.append(figure(title, draw(sets), note, numbers))
        else:
            empty = tag("p", "Nothing to plot: no row has a finite number here.", class_="empty")
            elements.append(tag("figure", tag("h2", title), empty))
    return elements


def calibration_details(key: str, evaluation: Evaluation, tables: Mapping[str, Table]) -> list[Element]:
    """The bins of equal mass and the calibration of each class, if they were asked for; `key` names the set of two."""
    elements, of = [], f", {key}" if key else ""
    if "equal_mass" in tables:
        elements.append(table_element(f"Bins of as many rows each{of}", tables["equal_mass"]))
    if evaluation.calibration.classwise is not None:
        classes = evaluation.calibration.classwise.classes
        shown = highest(classes, lambda each: each.error, SHOWN_ROWS)
        listed = selection(shown, classes, "classes", "of the largest error")
        elements.append(table_element(f"The calibration of {listed}{of}", class_calibration_table(shown)))
    return elements


def position_note(evaluations: Sequence[Evaluation]) -> str:
    """The note below the loss over position."""
    note = f"The mean loss of up to {SEGMENTS} parts of the rows, in their order."
    if any(math.isfinite(evaluation.mean_loss) for evaluation in evaluations):
        note += " Dashed: the mean of each set." if len(evaluations) > 1 else " Dashed: the mean of all."
    if not all(math.isfinite(part.mean_loss) for evaluation in evaluations for part in evaluation.positions):
        note += " Gaps: a loss there is NaN or infinite."
    return note


def histogram_note(evaluations: Sequence[Evaluation]) -> str:
    """The note below the histogram of losses."""
    bins = [each for evaluation in evaluations for each in evaluation.histogram]
    sentences = ["Rows by their loss; the area of a bar is its rows."]
    first = next((each for each in bins if each.low == 0), None)
    last = next((each for each in bins if each.high == math.inf), None)
    if first is not None:
        sentences.append(f"The first bar holds all losses under {first.high:.2g} nats.")
    if last is not None:
        sentences.append(f"The last bar holds all losses from {last.low:g} nats.")
    if infinite := sum(evaluation.infinite_rows for evaluation in evaluations):
        sentences.append(f"{infinite:,} infinite losses are not there.")
    return " ".join(sentences)


def confusion_figure(confusion: Confusion | None) -> Element | None:
    """How often each class was predicted for each label, and the scores of the classes; None of None."""
    if confusion is None:
        return None
    order = "of the most rows"
    classes = highest(confusion.classes, lambda each: each.label_rows, SHOWN_ROWS)
    tables = confusion_tables(replace(confusion, classes=classes))
    listed = selection(classes, confusion.classes, "classes", order)
    scores = table_element(f"The scores of {listed}", tables["scores"])
    pairs = tables["confusion"]._replace(rows=tables["confusion"].rows[:SHOWN_ROWS])
    counted = selection(pairs.rows, confusion.cells, "pairs", order)
    counts = table_element(f"Labels and predicted classes: {counted}", pairs)
    if len(confusion.classes) > SHOWN_SQUARE:
        return figure("Confusion", scores, format_confusion(confusion), [counts])
    return figure("Confusion", confusion_matrix(confusion), format_confusion(confusion), [scores, counts])


def confusion_matrix(confusion: Confusion) -> Element:
    """The rows of each label and predicted class, the darker the larger a part of the label's rows."""
    heads, rows = matrix(confusion)
    lines = []
    for label, counts in rows:
        whole = max(1, sum(counts))
        cells = [
            tag("td", f"{count:,}", class_="number", style=f"{SHADE}{count * DARKEST // whole}%, transparent)")
            for count in counts
        ]
        lines.append(tag("tr", tag("th", label, scope="row", class_="text"), *cells))
    columns = [tag("th", head, scope="col", class_="number") for head in heads]
    corner = tag("th", "label, and as what it is predicted", scope="col", class_="text")
    return scrolling_table(SQUARE, "", tag("thead", tag("tr", corner, *columns)), tag("tbody", *lines))


def ranking_figure(ranking: Ranking | None) -> Element | None:
    """How well each class is ranked above the others; None of None."""
    if ranking is None:
        return None
    classes = highest(ranking.classes, lambda each: each.positives, SHOWN_ROWS)
    tables = ranking_tables(replace(ranking, classes=classes))
    listed = selection(classes, ranking.classes, "classes", "of the most rows")
    gains = tables["gains"]._replace(rows=tables["gains"].rows[:SHOWN_ROWS])
    shares = selection(gains.rows, tables["gains"].rows, "shares", "that come first")
    table = table_element(f"The ranking of {listed}", tables["ranking"])
    return figure("Ranking", table, format_ranking(ranking), [table_element(f"Gains: {shares}", gains)])


def group_plot(
    key_column: str, title: str, groups: Mapping[Any, ClassMetrics | GroupMetrics], mean_loss: float
) -> Element | None:
    """The bars and the table of classes or slices; None if there are none."""
    if not groups:
        return None
    order, plural = "of the highest loss", title.lower()
    shown, listed = (highest(groups, lambda group: group.mean_loss, count) for count in (SHOWN_BARS, SHOWN_ROWS))
    bars = [Bar(key_text(key), group.mean_loss, margin_of(group)) for key, group in shown.items()]
    note = f"The mean loss of {selection(shown, groups, plural, order)}, with 95 % intervals."
    if math.isfinite(mean_loss):
        note += " Dashed: that of all rows."
    svg = figures.bar_chart(plural, f"Mean loss of {plural}", "mean loss (nats)", bars, line=mean_loss)
    caption = f"The loss of {selection(listed, groups, plural, order)}"
    return figure(title, svg, note, [table_element(caption, group_table(key_column, standing_out(listed)))])


def difference_plot(comparison: Comparison) -> Element:
    """The bars and the tables of the difference of all rows and of each slice."""
    slices, order = comparison.slices, "of the largest difference"
    shown, listed = (highest(slices, lambda group: abs(group.mean_difference), n) for n in (SHOWN_BARS, SHOWN_ROWS))
    share_better = ratio(comparison.better, comparison.counted)
    mean, error, degrees = comparison.mean_difference, comparison.standard_error, comparison.degrees_of_freedom
    all_rows = SliceDifference(comparison.counted, mean, error, share_better, degrees, *[comparison.p_value] * 2)
    bars = [Bar("all rows", mean, margin_of(all_rows))]
    bars += [Bar(key_text(key), group.mean_difference, margin_of(group)) for key, group in shown.items()]
    axis = "loss of A − loss of B (nats)"
    svg = figures.bar_chart("differences", "Mean difference of losses", axis, bars, line=0.0, signed=True)
    note = "The mean of the differences, with 95 % intervals; under 0 A is better"
    tables = [table_element("All rows", difference_table("of", {"all rows": all_rows}))]
    if slices:
        note += f". Below: {selection(shown, slices, 'slices', order)}"
        caption = f"The difference of {selection(listed, slices, 'slices', order)}"
        tables.append(table_element(caption, difference_table("slice", listed)))
    return figure("Differences", svg, f"{note}.", tables)


def margin_of(group: ClassMetrics | GroupMetrics | SliceDifference) -> float:
    """Half the 95 % interval of the mean of a group."""
    return margin(group.standard_error, group.degrees_of_freedom)


def highest(groups: Mapping[Any, Group], number: Callable[[Group], float], count: int) -> dict[Any, Group]:
    """The `count` groups whose number is highest, NaN before all; all groups in their own order if they are no more."""
    if len(groups) <= count:
        return dict(groups)

    def order(key: Any) -> tuple[bool, float]:
        value = number(groups[key])
        return not math.isnan(value), -value

    return {key: groups[key] for key in sorted(groups, key=order)[:count]}


def selection(shown: Sized, groups: Sized, plural: str, order: str) -> str:
    """What is shown in words: all of them, or how many of how many and in which order."""
    if len(shown) == len(groups):
        return f"all {len(groups):,} {plural}"
    return f"the {len(shown):,} {plural} {order}, of {len(groups):,}"


def figure(title: str, picture: Element, note: str, tables: Sequence[Element]) -> Element:
    """A plot, or a table, with its note and, folded away, its numbers."""
    numbers = tag("details", tag("summary", "Numbers"), *tables)
    return tag("figure", tag("h2", title), picture, tag("figcaption", note), numbers)


def better_rows(comparison: Comparison) -> Element:
    """The number of rows in which each set is better, as a bar and as text."""
    rows = comparison.counted
    counts = (
        ("A is better", "first", comparison.better),
        ("equal", "line", comparison.ties),
        ("B is better", "second", comparison.worse),
    )
    parts = [tag("span", class_=paint, style=f"flex-grow: {count}") for _, paint, count in counts if count]
    bar = tag("div", *parts, class_="share", role="img", aria_label="The shares of rows in which each is better")
    keys = []
    for name, paint, count in counts:
        percent = f", {count / rows:.2%}" if rows else ""
        keys.append(tag("li", tag("span", class_=f"key {paint}"), f"{name} in {count:,} rows{percent}"))
    key_list = tag("ul", *keys, class_="keys")
    return tag("section", tag("h2", "Row by row"), bar if parts else None, key_list, class_="box")


def environment_section(run: Run) -> Element:
    """The options, the environment and the time."""
    document = run.to_dict()
    return tag(
        "section",
        facts_element("Options", document["options"]),
        facts_element("Environment", document["environment"]),
        facts_element("Time", run.timing()),
        class_="made",
    )
