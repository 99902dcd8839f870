"""The sections of a page that an evaluation and a comparison share.

Leaves out which of them a page has (``page.py``), the plots (``figures.py``), and how elements are written
(``html.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree.ElementTree import Element

from xent.evaluation.report import figures
from xent.evaluation.report.html import facts, table, tag, told
from xent.evaluation.report.json_document import heading, timing
from xent.evaluation.report.tables import Sheet, sheets
from xent.evaluation.statistics.state import SEGMENTS

if TYPE_CHECKING:
    from xent.evaluation.engine.evaluate_pass import Planned
    from xent.evaluation.sources.source import Source
    from xent.evaluation.statistics.metrics import Evaluation

SHOWN_BARS = 30
SHOWN_ROWS = 1000
"""Of classes or slices, how many have a bar and how many a row in a table."""
Group = TypeVar("Group")


def header(kind: str, title: str, sources: Mapping[str, Source], written: datetime | None) -> Element:
    """What the page is of, and of when."""
    now = written or datetime.now().astimezone()
    date = tag("time", now.strftime("%d %B %Y, %H:%M %Z").strip(), datetime=now.isoformat(timespec="seconds"))
    shapes = [(name, one.shown or "array in hand", " × ".join(map(told, one.shape)), str(one.dtype))
              for name, one in sources.items()]  # fmt: skip
    inputs = Sheet({"input": str, "path": str, "shape": str, "dtype": str}, shapes)
    kicker = tag("p", f"{kind} · ", date, class_="kicker")
    return tag("header", kicker, tag("h1", title), table("What was read", inputs))


def title_of(source: Source) -> str:
    """The last part of a path."""
    path = (source.shown or "array in hand").rstrip("/")
    return path.rpartition("/")[2] or path


def cards(numbers: Sequence[tuple[str, str, str, str]]) -> Element:
    """The numbers that are read first: what each is, its value, its error, and its unit."""
    found = []
    for name, value, error, note in numbers:
        paint = "value odd" if value in ("nan", "inf") else "value"
        number = tag("dd", tag("span", value, class_=paint), tag("span", error, class_="error") if error else None)
        found.append(tag("div", tag("dt", name), number, tag("dd", note, class_="note")))
    return tag("dl", *found, class_="cards")


def sentences(told: Sequence[str]) -> Element:
    """A list of sentences."""
    return tag("ul", *(tag("li", one) for one in told), class_="remarks")


def plots(sets: Mapping[str, Evaluation]) -> list[Element]:
    """The plots of one or two sets, each with the sheets behind it; a sentence where there is nothing to plot."""
    every, found = list(sets.values()), {key: sheets(one) for key, one in sets.items()}
    rows = [part.mean_loss for one in every for part in one.positions]
    as_right = "How often the highest probability is right, over how high it is; on the dashed line just as often."
    wanted = (
        (
            "positions",
            "Loss over position",
            figures.loss_over_position,
            over_rows(every),
            any(map(math.isfinite, rows)),
        ),
        ("histogram", "Losses", figures.loss_histogram, of_losses(every), any(one.histogram for one in every)),
        ("reliability", "Reliability", figures.reliability, as_right, any(one.reliability for one in every)),
    )
    found_plots = []
    for name, title, draw, note, has_some in wanted:
        if has_some:
            tables = [table(f"{title}, {key}" if key else title, one[name]) for key, one in found.items()]
            found_plots.append(figure(title, draw(sets), note, tables))
        else:
            empty = tag("p", "Nothing to plot: no row has a finite number here.", class_="empty")
            found_plots.append(tag("figure", tag("h2", title), empty))
    return found_plots


def over_rows(every: Sequence[Evaluation]) -> str:
    """What is to be known of the loss over position."""
    told = f"The mean loss of up to {SEGMENTS} parts of the rows, in their order."
    if any(math.isfinite(one.mean_loss) for one in every):
        told += " Dashed: the mean of each set." if len(every) > 1 else " Dashed: the mean of all."
    if not all(math.isfinite(part.mean_loss) for one in every for part in one.positions):
        told += " Gaps: a loss there is NaN or infinite."
    return told


def of_losses(every: Sequence[Evaluation]) -> str:
    """What is to be known of the histogram."""
    bins = [each for one in every for each in one.histogram]
    told = ["Rows by their loss; the area of a bar is its rows."]
    under, over = (next(iter(ends), None) for ends in (
        (one.high for one in bins if one.low == 0), (one.low for one in bins if one.high == math.inf)
    ))  # fmt: skip
    if under is not None:
        told.append(f"The first bar holds all losses under {under:.2g} nats.")
    if over is not None:
        told.append(f"The last bar holds all losses from {over:g} nats.")
    if infinite := sum(one.infinite_rows for one in every):
        told.append(f"{infinite:,} infinite losses are not there.")
    return " ".join(told)


def figure(title: str, svg: Element, note: str, tables: Sequence[Element]) -> Element:
    """A plot with its caption and, folded away, its numbers."""
    numbers = tag("details", tag("summary", "Numbers"), *tables)
    return tag("figure", tag("h2", title), svg, tag("figcaption", note), numbers)


def most(groups: Mapping[Any, Group], number: Callable[[Group], float], count: int) -> dict[Any, Group]:
    """All groups, or so many of them whose number is highest, NaN before all."""
    if len(groups) <= count:
        return dict(groups)

    def order(key: Any) -> tuple[bool, float]:
        value = number(groups[key])
        return not math.isnan(value), -value

    return {key: groups[key] for key in sorted(groups, key=order)[:count]}


def made(planned: Planned, sources: Mapping[str, Source], scheduler: str, wall_seconds: float) -> Element:
    """The options, the environment and the time."""
    found = heading(planned, scheduler)
    return tag(
        "section",
        facts("Options", words(found["options"])),
        facts("Environment", words(found["environment"])),
        facts("Time", words(timing(planned, wall_seconds))),
        class_="made",
    )


def words(named: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with names for a reader."""
    return {name.replace("_", " "): value for name, value in named.items()}
