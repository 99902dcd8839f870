"""The plots of a page, as SVG elements for HTML.

matplotlib draws them in paints that become colours of the page's style sheet, light or dark. No name that a user gave
is passed to matplotlib: it draws a placeholder, which the name replaces in the SVG. Leaves out the text and the tables
beside a plot (``sections.py``).
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree.ElementTree import Element, fromstring

from xent.evaluation.report.html import REFERENCE, tag
from xent.optional import require
from xent.text import visible

if TYPE_CHECKING:
    from xent.evaluation.statistics.evaluation import Evaluation, LossBin

WIDTH = 5.4  # inches of 72 units each
INK, SOFT, LINE, FIRST, SECOND = (f"#0a0a0{i}" for i in range(1, 6))
PAINTS = {INK: "ink", SOFT: "soft", LINE: "line", FIRST: "first", SECOND: "second"}
"""The custom property of the style sheet that each paint becomes."""
PAIR, DASHED = (FIRST, SECOND), (0, (4, 3))
LONGEST_NAME = 24
"""The width of the longest name beside a bar, in Latin letters."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "xent",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.major.size": 0,
    "xtick.major.pad": 7,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


class Bar(NamedTuple):
    """A bar with a name: its length, and half its 95 % interval."""

    name: str
    value: float
    margin: float


def check_matplotlib() -> None:
    """Raise ModuleNotFoundError if matplotlib is not installed."""
    require("matplotlib.figure", "report", "an HTML page")


def has_matplotlib() -> bool:
    """Whether plots can be drawn."""
    try:
        check_matplotlib()
    except ModuleNotFoundError:
        return False
    return True


def svg_figure(
    key: str, title: str, height: float, draw: Callable[[Any], None], names: Mapping[str, str] | None = None
) -> Element:
    """A figure that `draw` fills, as an SVG element whose ids begin with `key`; `names` replace their placeholders."""
    matplotlib, figures = require("matplotlib", "report", "a plot"), require("matplotlib.figure", "report", "a plot")
    out = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own settings must not change the page
        matplotlib.rcParams.update(STYLE)
        figure = figures.Figure(figsize=(WIDTH, height))
        draw(figure)
        figure.savefig(out, format="svg")
    return embedded_svg(fromstring(out.getvalue()), key, title, names or {})


def embedded_svg(svg: Element, key: str, title: str, names: Mapping[str, str]) -> Element:
    """The SVG for a page of several: ids of its own, no namespaces, no style sheet, the page's colours and font."""
    for parent in svg.iter():
        for child in [child for child in parent if child.tag.rpartition("}")[2] in ("style", "metadata")]:
            parent.remove(child)
    for element in svg.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text, element.tail = (element.text or "").strip() or None, None
        element.text = names.get(element.text or "", element.text)
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: with_page_style(value) for name, value in attributes.items()})
    values = [value for element in svg.iter() for value in element.attrib.values()]
    referenced = {name for value in values for _, name in REFERENCE.findall(value)}
    for element in svg.iter():
        element.attrib.update({n: REFERENCE.sub(rf"\1{key}-\2", value) for n, value in element.attrib.items()})
        name = element.attrib.pop("id", None)
        if name in referenced:
            element.set("id", f"{key}-{name}")
    for name in ("width", "height", "version"):
        svg.attrib.pop(name, None)
    svg.insert(0, tag("title", title, id=f"{key}-title"))
    svg.attrib |= {"role": "img", "aria-labelledby": f"{key}-title"}
    return svg


def with_page_style(value: str) -> str:
    """An attribute in the page's colours and font, on one line."""
    value = re.sub(r"font-family:[^;]*;\s*", "", " ".join(value.split()))
    return re.sub("|".join(PAINTS), lambda match: f"var(--{PAINTS[match.group()]})", value)


def loss_over_position(sets: Mapping[str, Evaluation]) -> Element:
    """The mean loss of each part of the rows."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for (name, evaluation), paint in zip(sets.items(), PAIR, strict=False):
            parts = [(part.first_row, part.stop_row, part.mean_loss) for part in evaluation.positions]
            values, edges = stairs([part for part in parts if math.isfinite(part[2])], math.nan)
            if values:
                axes.stairs(values, edges, baseline=None, color=paint, linewidth=1.6, label=name)
            if math.isfinite(evaluation.mean_loss):
                axes.axhline(evaluation.mean_loss, color=paint, linewidth=1, linestyle=DASHED, alpha=0.7)
        rows = max(evaluation.rows for evaluation in sets.values())
        axes.set(xlabel="row", ylabel="mean loss (nats)", xlim=(0, rows))
        axes.margins(y=0.12)
        set_integer_ticks(axes.xaxis)
        add_legend(axes, sets)

    return svg_figure("positions", "Mean loss over the position of rows in the set", 3.4, draw)


def loss_histogram(sets: Mapping[str, Evaluation]) -> Element:
    """The rows by their loss, on a logarithmic axis; bins differ in width, so the area of a bar is its rows."""
    ends = [end for evaluation in sets.values() for each in evaluation.histogram for end in drawn_ends(each)]
    low, high = min(ends) / 2, max(ends) * 2

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for (name, evaluation), paint in zip(sets.items(), PAIR, strict=False):
            bins = [(*drawn_ends(each), each.counted) for each in evaluation.histogram]
            draw_bins(axes, [(a, b, rows / math.log2(b / a)) for a, b, rows in bins], paint, name, sets)
        axes.set_xscale("log")
        axes.set(xlabel="loss (nats)", ylabel="rows per octave", xlim=(low, high))
        ticks = log_ticks(low * 1.2, high / 1.2)  # none at the very edge
        axes.set_xticks(ticks, [format_tick(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.grid(axis="x", visible=False)
        set_integer_ticks(axes.yaxis)
        add_legend(axes, sets)

    return svg_figure("histogram", "Histogram of the losses of rows", 3.4, draw)


def drawn_ends(loss_bin: LossBin) -> tuple[float, float]:
    """The ends of a bin, with finite and positive ones in place of infinity and 0."""
    return loss_bin.low or loss_bin.high * 4 / 5, loss_bin.high if loss_bin.high < math.inf else loss_bin.low * 8 / 7


def reliability(sets: Mapping[str, Evaluation]) -> Element:
    """Accuracy over confidence, each with its interval, the diagonal, and the rows of each bin."""

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot((0, 1), (0, 1), color=SOFT, linewidth=1, linestyle=DASHED)
        for (name, evaluation), paint in zip(sets.items(), PAIR, strict=False):
            bins = evaluation.reliability
            confidence, accuracy = [each.confidence for each in bins], [each.accuracy for each in bins]
            lows, highs = [each.accuracy_low for each in bins], [each.accuracy_high for each in bins]
            upper.vlines(confidence, lows, highs, color=paint, linewidth=5, alpha=0.25)
            upper.plot(confidence, accuracy, color=paint, linewidth=1.6, marker="o", markersize=4.5, label=name)
            draw_bins(lower, [(each.low, each.high, each.counted) for each in bins], paint, name, sets)
        upper.set(ylabel="accuracy", xlim=(-0.01, 1.01), ylim=(-0.02, 1.04))
        lower.set(xlabel="confidence: the highest probability", ylabel="rows")
        lower.grid(axis="x", visible=False)
        set_integer_ticks(lower.yaxis, 2)
        add_legend(upper, sets)

    return svg_figure("reliability", "Reliability diagram: accuracy over confidence, and rows", 4.4, draw)


def draw_bins(
    axes: Any, bins: Sequence[tuple[float, float, float]], paint: str, name: str, sets: Mapping[str, Any]
) -> None:
    """Bars side by side, each (low, high, height); of two sets, which lie over each other, their outline too."""
    if not bins:
        return
    values, edges = stairs(bins, 0.0)
    is_alone = len(sets) == 1
    axes.stairs(values, edges, fill=True, color=paint, alpha=0.85 if is_alone else 0.2, linewidth=0)
    if not is_alone:
        axes.stairs(values, edges, color=paint, linewidth=1.4, label=name)


def stairs(parts: Sequence[tuple[float, float, float]], gap: float) -> tuple[list[float], list[float]]:
    """The heights and the edges of parts (low, high, height) in increasing order, with height `gap` between them."""
    values: list[float] = []
    edges: list[float] = []
    for low, high, height in parts:
        if edges and low > edges[-1]:
            values.append(gap)
            edges.append(low)
        values.append(height)
        edges += [high] if edges else [low, high]
    return values, edges


def bar_chart(key: str, title: str, axis: str, bars: Sequence[Bar], *, line: float, signed: bool = False) -> Element:
    """Horizontal bars, the first at the top, with 95 % error bars and a line at `line`.

    If they are `signed`, those under 0 are in A's colour and those over it in B's.
    """
    names = {placeholder(i, bar.name): shorten(bar.name) for i, bar in enumerate(bars)}

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        positions = range(len(bars))
        lengths = [bar.value if math.isfinite(bar.value) else 0.0 for bar in bars]
        errors = [bar.margin if math.isfinite(bar.margin) else math.nan for bar in bars]
        paints = [SECOND if signed and length > 0 else FIRST for length in lengths]
        axes.barh(positions, lengths, 0.7, color=paints, alpha=0.85, linewidth=0)
        axes.errorbar(lengths, positions, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        for position, bar in zip(positions, bars, strict=True):
            if not math.isfinite(bar.value):
                axes.text(0, position, f" {bar.value}", va="center")
        if math.isfinite(line):
            axes.axvline(line, color=SOFT, linewidth=1, linestyle=DASHED if line else "solid", zorder=1)
        axes.set_yticks(positions, list(names))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=axis, ylim=(len(bars) - 0.4, -0.6))
        set_short_ticks(axes.xaxis)
        if not any(lengths):
            axes.set_xlim(-1 if signed else 0, 1)

    return svg_figure(key, title, 0.75 + 0.25 * len(bars), draw, names)


def placeholder(index: int, name: str) -> str:
    """A text about as wide as the name will be."""
    return f"@{index:0{max(4, text_width(shorten(name)))}}"


def shorten(name: str) -> str:
    """The name, or its beginning and its end if it is longer than `LONGEST_NAME`."""
    text = visible(name)
    if text_width(text) <= LONGEST_NAME:
        return text
    head, tail = text, text[::-1]
    while text_width(head) > LONGEST_NAME * 2 // 3:
        head = head[:-1]
    while text_width(tail) > LONGEST_NAME // 3 - 1:
        tail = tail[:-1]
    return f"{head}…{tail[::-1]}"


def text_width(text: str) -> int:
    """The width of a text in Latin letters; an East Asian character is as wide as two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char) for char in text)


def add_legend(axes: Any, sets: Mapping[str, Any]) -> None:
    """Add a legend if there is more than one set."""
    if len(sets) > 1:
        axes.legend()


def set_integer_ticks(axis: Any, ticks: int = 5) -> None:
    """Put the ticks at integers, with k, M and G for large ones."""
    ticker = require("matplotlib.ticker", "report", "a plot")
    axis.set_major_locator(ticker.MaxNLocator(ticks, integer=True))
    axis.set_major_formatter(ticker.EngFormatter(sep=""))


def set_short_ticks(axis: Any) -> None:
    """Put a few ticks at numbers of no more than four digits, which have room beside long names too."""
    ticker = require("matplotlib.ticker", "report", "a plot")
    axis.set_major_locator(ticker.MaxNLocator(4, steps=(1, 2, 5, 10)))
    formatter = ticker.ScalarFormatter()
    formatter.set_powerlimits((-3, 4))  # beyond them the power of ten is written once, at the end of the axis
    axis.set_major_formatter(formatter)


def log_ticks(low: float, high: float) -> list[float]:
    """At most seven round numbers between the two, which must have a ratio of 2.5 or more."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    ticks = [tick for tick in fine if low <= tick <= high]
    if len(ticks) > 7:
        ticks = [tick for tick in fine[::3] if low <= tick <= high]  # the powers of ten
    return ticks[:: -(-len(ticks) // 7)]


def format_tick(number: float) -> str:
    """A round number, a very small or large one as a power of ten."""
    if 1e-3 <= number < 1e5:
        return f"{number:g}"
    digit, _, exponent = f"{number:.0e}".partition("e")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{superscript}" if digit == "1" else f"{digit}·10{superscript}"
