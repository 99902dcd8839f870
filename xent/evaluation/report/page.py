"""One HTML page of an evaluation or a comparison: it needs no other file, asks nothing of a server and runs nothing.

Leaves out the sections that both have (``sections.py``).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from xent.evaluation.engine.compare_pass import Comparison, SliceDifference
from xent.evaluation.outputs import move, output_path, remove, written
from xent.evaluation.report import figures
from xent.evaluation.report.figures import Bar
from xent.evaluation.report.html import html_of, measured, table, tag, told
from xent.evaluation.report.sections import (
    SHOWN_BARS,
    SHOWN_ROWS,
    cards,
    figure,
    header,
    made,
    most,
    plots,
    sentences,
    title_of,
)
from xent.evaluation.report.tables import Sheet, difference_sheet, group_sheet, metric_sheet, sheets, text_of
from xent.evaluation.report.wording import remarks
from xent.evaluation.statistics.exact_sums import ratio

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import PairPass
    from xent.evaluation.engine.evaluate_pass import Pass, Planned
    from xent.evaluation.statistics.metrics import Evaluation, GroupMetrics


def page_path(path: Any, *, overwrite: bool = False, argument: str = "html") -> Path:
    """The path of a page, checked before any work; `argument` is what a message calls it.

    Raises
    ------
    FileExistsError, FileNotFoundError, ValueError
        If it is there and may not be overwritten or is a folder, lies in no folder, or is not named .html.
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    figures.check_figures()
    return output_path(argument, path, (".html", ".htm"), overwrite=overwrite)


def write_page(
    target: Path, found: Evaluation | Comparison, planned: Planned, *, scheduler: str, wall_seconds: float
) -> None:
    """Write the page of an evaluation or a comparison; it is there whole or not at all."""
    make: Any = pair_page if isinstance(found, Comparison) else page
    text = make(found, planned, scheduler=scheduler, wall_seconds=wall_seconds)
    draft = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    with written(target):
        try:
            draft.write_text(text, "utf-8")
            move(draft, target)
        finally:
            remove(draft)


def page(
    evaluation: Evaluation, planned: Pass, *, scheduler: str, wall_seconds: float, written: datetime | None = None
) -> str:
    """The page of an evaluation, as HTML text.

    Parameters
    ----------
    evaluation : Evaluation
    planned : Pass
        What was evaluated.
    scheduler : str
        Where it ran.
    wall_seconds : float
        How long it took.
    written : datetime, optional
        The date on the page; now where it is left out.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    found, title = sheets(evaluation), title_of(planned.predictions)
    sources = planned.sources
    loss, perplexity, accuracy = (evaluation.metrics[name] for name in ("loss", "perplexity", "accuracy"))
    numbers = [
        ("Loss", *measured(loss.value, loss.stderr), f"nats; {interval(*evaluation.confidence_interval, loss.stderr)}"),
        ("Perplexity", *measured(perplexity.value, perplexity.stderr), f"{told(evaluation.bits)} bits"),
        ("Accuracy", *measured(accuracy.value, accuracy.stderr), "the label has the highest prediction"),
        ("Calibration error", f"{evaluation.calibration_error:.4f}", "", "between confidence and accuracy"),
    ]
    rows = f"Means divide by the {evaluation.counted:,} counted: {evaluation.denominator}."
    return html_of(
        f"{title}: evaluation",
        header("Evaluation", title, sources, written),
        cards(numbers),
        sentences(remarks(evaluation)),
        tag("section", table("Metrics", found["metrics"]), table("Rows", found["counts"], rows), class_="tables"),
        tag(
            "section",
            *plots({"": evaluation}),
            table("Worst rows", found["worst"], "Those of the highest loss, the highest first."),
            groups("class", "Classes", evaluation.classes, evaluation.mean_loss),
            groups("slice", "Slices", evaluation.slices, evaluation.mean_loss),
            class_="plots",
        ),
        made(planned, sources, scheduler, wall_seconds),
    )


def groups(kind: str, title: str, found: Mapping[Any, GroupMetrics], mean: float) -> Element | None:
    """The bars of classes or slices, and their numbers; None where there are none."""
    if not found:
        return None
    which, what = "of the highest loss", title.lower()
    chosen, listed = (most(found, lambda one: one.mean_loss, count) for count in (SHOWN_BARS, SHOWN_ROWS))
    lengths = [Bar(text_of(key), one.mean_loss, one.standard_error) for key, one in chosen.items()]
    note = f"The mean loss of {told_of(chosen, found, what, which)}, with 95 % intervals."
    if math.isfinite(mean):
        note += " Dashed: that of all rows."
    drawing = figures.bars(what, f"Mean loss of {what}", "mean loss (nats)", lengths, line=mean)
    caption = f"The loss of {told_of(listed, found, what, which)}"
    return figure(title, drawing, note, [table(caption, group_sheet(kind, listed))])


def interval(low: float, high: float, error: float) -> str:
    """A 95 % interval, to as many digits as the error allows."""
    return f"95 %: {measured(low, error)[0]} to {measured(high, error)[0]}"


def told_of(chosen: Mapping[Any, Any], found: Mapping[Any, Any], what: str, which: str) -> str:
    """How many of how many there are, and which."""
    if len(chosen) == len(found):
        return f"all {len(found):,} {what}"
    return f"the {len(chosen):,} {what} {which}, of {len(found):,}"


def pair_page(
    found: Comparison, planned: PairPass, *, scheduler: str, wall_seconds: float, written: datetime | None = None
) -> str:
    """The page of a comparison, as HTML text; parameters and errors are those of :func:`page`."""
    sources = planned.sources
    title = f"{title_of(planned.predictions)} and {title_of(planned.b)}"
    unit = "rows" if found.clusters is None else f"{found.clusters:,} clusters"
    within = f"nats; {interval(*found.confidence_interval, found.standard_error)}; {unit} taken as independent"
    chance = f"{found.p_value:.3g}" if found.p_value else "under 1e-300"
    numbers = [
        ("Loss of A − loss of B", *measured(found.mean_difference, found.standard_error), within),
        ("p", chance, "", "of as much or more if there were no difference"),
    ]
    sets = {"A": found.a, "B": found.b}
    return html_of(
        f"{title}: comparison",
        header("Comparison", title, sources, written),
        tag("p", verdict(found), class_="verdict"),
        cards(numbers),
        wins(found),
        tag("section", table("Metrics of A and of B", pair_sheet(found)), class_="tables"),
        tag("section", differences(found), *plots(sets), class_="plots"),
        tag(
            "section",
            *(tag("div", tag("h2", name), sentences(remarks(one))) for name, one in sets.items()),
            class_="tables",
        ),
        made(planned, sources, scheduler, wall_seconds),
    )


def verdict(found: Comparison) -> str:
    """Which set has the lower loss, if that can be told."""
    low, high = found.confidence_interval
    if not found.counted:
        return "No row counts, so there is nothing to compare."
    if math.isnan(found.mean_difference):
        return "The mean difference is NaN: that of some row is."
    if math.isnan(low):
        return "Too few rows to tell how far the difference can be trusted."
    if low <= 0 <= high:
        return "Neither set is shown to be better: the 95 % interval of the difference holds 0."
    better, worse = "AB" if high < 0 else "BA"
    return f"{better} is better than {worse}: its loss is lower by {abs(found.mean_difference):.4g} nats."


def wins(found: Comparison) -> Element:
    """In how many rows each is better, as a bar and in numbers."""
    counts = (
        ("A is better", "first", found.better),
        ("equal", "line", found.ties),
        ("B is better", "second", found.worse),
    )
    parts = [tag("span", class_=paint, style=f"flex-grow: {count}") for _, paint, count in counts if count]
    keys = [
        tag("li", tag("span", class_=f"key {paint}"), f"{what} in {count:,} rows{percent(count, found.counted)}")
        for what, paint, count in counts
    ]
    bar = tag("div", *parts, class_="share", role="img", aria_label="The shares of rows in which each is better")
    return tag(
        "section", tag("h2", "Row by row"), bar if parts else None, tag("ul", *keys, class_="keys"), class_="box"
    )


def percent(count: int, rows: int) -> str:
    """A count as a share of the rows, if there are any."""
    return f", {count / rows:.2%}" if rows else ""


def differences(found: Comparison) -> Element:
    """The difference of all rows and of each slice, as bars with their errors."""
    chosen, listed = (most(found.slices, lambda one: abs(one.mean_difference), n) for n in (SHOWN_BARS, SHOWN_ROWS))
    share = ratio(found.better, found.counted)
    whole = SliceDifference(found.counted, found.mean_difference, found.standard_error, share)
    lengths = [Bar("all rows", whole.mean_difference, whole.standard_error)]
    lengths += [Bar(text_of(key), one.mean_difference, one.standard_error) for key, one in chosen.items()]
    axis = "loss of A − loss of B (nats)"
    drawing = figures.bars("differences", "Mean difference of losses", axis, lengths, line=0.0, signed=True)
    note, which = "The mean of the differences, with 95 % intervals; under 0 A is better", "of the largest difference"
    tables = [table("All rows", difference_sheet("of", {"all rows": whole}))]
    if found.slices:
        note += f". Below: {told_of(chosen, found.slices, 'slices', which)}"
        caption = f"The difference of {told_of(listed, found.slices, 'slices', which)}"
        tables.append(table(caption, difference_sheet("slice", listed)))
    return figure("Differences", drawing, f"{note}.", tables)


def pair_sheet(found: Comparison) -> Sheet:
    """The metrics of both sets beside each other."""
    others = {name: (value, error) for name, value, error, *_ in metric_sheet(found.b).rows}
    kinds = {"metric": str, "A": float, "standard_error_A": float, "B": float, "standard_error_B": float}
    rows = [(name, value, error, *others[name], *rest) for name, value, error, *rest in metric_sheet(found.a).rows]
    return Sheet({**kinds, "unit": str, "rows": int}, rows)
