"""The plots of a page, as SVG elements to stand in HTML.

matplotlib draws them in paints that become colours of the page's style sheet, light or dark. No name that a user gave
goes into matplotlib: it draws a stand-in, which the name replaces in the SVG. Leaves out what is beside a plot
(``page.py``).
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree.ElementTree import Element, fromstring

from xent.evaluation.report.html import tag
from xent.evaluation.statistics.metrics import NORMAL_95
from xent.optional import require
from xent.text import visible

if TYPE_CHECKING:
    from xent.evaluation.statistics.metrics import Evaluation, LossBin

WIDTH = 5.4  # inches of 72 units each
INK, SOFT, LINE, FIRST, SECOND = (f"#0a0a0{i}" for i in range(1, 6))
PAINTS = {INK: "ink", SOFT: "soft", LINE: "line", FIRST: "first", SECOND: "second"}
"""The custom property of the style sheet that each paint becomes."""
PAIR, DASHED = (FIRST, SECOND), (0, (4, 3))
REFERENCE = re.compile(r"(^#|url\(#)([^)]+)")
"""How an attribute names another element: its whole value, or in url()."""
LONGEST_NAME = 24
"""The columns of a name that are shown beside a bar."""
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
    """A bar of a name: its length, and the standard error of that."""

    name: str
    value: float
    error: float


def check_figures() -> None:
    """Raise ModuleNotFoundError where matplotlib is not installed."""
    require("matplotlib.figure", "report", "an HTML page")


def drawn(
    key: str, title: str, height: float, draw: Callable[[Any], None], names: Mapping[str, str] | None = None
) -> Element:
    """What `draw` makes of a figure, as an SVG element whose ids begin with `key`; `names` replace their stand-ins."""
    matplotlib, figures = require("matplotlib", "report", "a plot"), require("matplotlib.figure", "report", "a plot")
    out = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what a user's own settings say
        matplotlib.rcParams.update(STYLE)
        figure = figures.Figure(figsize=(WIDTH, height))
        draw(figure)
        figure.savefig(out, format="svg")
    return embedded(fromstring(out.getvalue()), key, title, names or {})


def embedded(svg: Element, key: str, title: str, names: Mapping[str, str]) -> Element:
    """The SVG for a page of several: ids of its own, no namespaces, no style sheet, the page's colours and font."""
    for parent in svg.iter():
        for child in [one for one in parent if one.tag.rpartition("}")[2] in ("style", "metadata")]:
            parent.remove(child)
    for element in svg.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text, element.tail = (element.text or "").strip() or None, None
        element.text = names.get(element.text or "", element.text)
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: painted(value) for name, value in attributes.items()})
    used = {name for one in svg.iter() for value in one.attrib.values() for _, name in REFERENCE.findall(value)}
    for element in svg.iter():
        element.attrib.update({n: REFERENCE.sub(rf"\1{key}-\2", value) for n, value in element.attrib.items()})
        found = element.attrib.pop("id", None)
        if found in used:
            element.set("id", f"{key}-{found}")
    for name in ("width", "height", "version"):
        svg.attrib.pop(name, None)
    svg.insert(0, tag("title", title, id=f"{key}-title"))
    svg.attrib |= {"role": "img", "aria-labelledby": f"{key}-title"}
    return svg


def painted(value: str) -> str:
    """An attribute in the page's colours and font, on one line."""
    value = re.sub(r"font-family:[^;]*;\s*", "", " ".join(value.split()))
    return re.sub("|".join(PAINTS), lambda found: f"var(--{PAINTS[found.group()]})", value)


def loss_over_position(sets: Mapping[str, Evaluation]) -> Element:
    """The mean loss of each part of the rows."""

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        for (name, one), paint in zip(sets.items(), PAIR, strict=False):
            parts = [(part.first_row, part.stop_row, part.mean_loss) for part in one.positions]
            values, edges = steps([part for part in parts if math.isfinite(part[2])], math.nan)
            if values:
                panel.stairs(values, edges, baseline=None, color=paint, linewidth=1.6, label=name)
            if math.isfinite(one.mean_loss):
                panel.axhline(one.mean_loss, color=paint, linewidth=1, linestyle=DASHED, alpha=0.7)
        panel.set(xlabel="row", ylabel="mean loss (nats)", xlim=(0, max(one.rows for one in sets.values())))
        panel.margins(y=0.12)
        whole_numbers(panel.xaxis)
        legend(panel, sets)

    return drawn("positions", "Mean loss over the position of rows in the set", 3.4, draw)


def loss_histogram(sets: Mapping[str, Evaluation]) -> Element:
    """How many rows have which loss, on a logarithmic axis; bins differ in width, so the area of a bar is its rows."""
    ends = [end for evaluation in sets.values() for one in evaluation.histogram for end in closed(one)]
    low, high = min(ends) / 2, max(ends) * 2

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        for (name, one), paint in zip(sets.items(), PAIR, strict=False):
            bins = [(*closed(each), each.counted) for each in one.histogram]
            area(panel, [(a, b, rows / math.log2(b / a)) for a, b, rows in bins], paint, name, sets)
        panel.set_xscale("log")
        panel.set(xlabel="loss (nats)", ylabel="rows per octave", xlim=(low, high))
        ticks = log_ticks(low * 1.2, high / 1.2)  # none at the very edge
        panel.set_xticks(ticks, [power(one) for one in ticks])
        panel.set_xticks([], minor=True)
        panel.grid(axis="x", visible=False)
        whole_numbers(panel.yaxis)
        legend(panel, sets)

    return drawn("histogram", "Histogram of the losses of rows", 3.4, draw)


def closed(found: LossBin) -> tuple[float, float]:
    """The ends of a bin; those that are open as if the bin were an ordinary one."""
    return found.low or found.high * 4 / 5, found.high if found.high < math.inf else found.low * 8 / 7


def reliability(sets: Mapping[str, Evaluation]) -> Element:
    """Accuracy over confidence, with the diagonal, and the rows of each bin."""

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot((0, 1), (0, 1), color=SOFT, linewidth=1, linestyle=DASHED)
        for (name, one), paint in zip(sets.items(), PAIR, strict=False):
            at, right = [each.confidence for each in one.reliability], [each.accuracy for each in one.reliability]
            above.vlines(at, at, right, color=paint, linewidth=5, alpha=0.25)
            above.plot(at, right, color=paint, linewidth=1.6, marker="o", markersize=4.5, label=name)
            area(below, [(each.low, each.high, each.counted) for each in one.reliability], paint, name, sets)
        above.set(ylabel="accuracy", xlim=(-0.01, 1.01), ylim=(-0.02, 1.04))
        below.set(xlabel="confidence: the highest probability", ylabel="rows")
        below.grid(axis="x", visible=False)
        whole_numbers(below.yaxis, 2)
        legend(above, sets)

    return drawn("reliability", "Reliability diagram: accuracy over confidence, and rows", 4.4, draw)


def area(
    panel: Any, bins: Sequence[tuple[float, float, float]], paint: str, name: str, sets: Mapping[str, Any]
) -> None:
    """Bars side by side, each (low, high, height); of two sets, which lie over each other, their outline too."""
    if not bins:
        return
    values, edges = steps(bins, 0.0)
    is_alone = len(sets) == 1
    panel.stairs(values, edges, fill=True, color=paint, alpha=0.85 if is_alone else 0.2, linewidth=0)
    if not is_alone:
        panel.stairs(values, edges, color=paint, linewidth=1.4, label=name)


def steps(parts: Sequence[tuple[float, float, float]], gap: float) -> tuple[list[float], list[float]]:
    """The heights and the edges of parts (low, high, height) that follow each other, with `gap` between them."""
    values: list[float] = []
    edges: list[float] = []
    for low, high, height in parts:
        if edges and low > edges[-1]:
            values.append(gap)
            edges.append(low)
        values.append(height)
        edges += [high] if edges else [low, high]
    return values, edges


def bars(key: str, title: str, axis: str, found: Sequence[Bar], *, line: float, signed: bool = False) -> Element:
    """Horizontal bars, the first at the top, with 95 % error bars and a line at `line`.

    Where they are `signed`, those under 0 are in A's colour and those over it in B's.
    """
    names = {stand_in(i, one.name): shortened(one.name) for i, one in enumerate(found)}

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        at = range(len(found))
        lengths = [one.value if math.isfinite(one.value) else 0.0 for one in found]
        errors = [NORMAL_95 * one.error if math.isfinite(one.error) else math.nan for one in found]
        paints = [SECOND if signed and one > 0 else FIRST for one in lengths]
        panel.barh(at, lengths, 0.7, color=paints, alpha=0.85, linewidth=0)
        panel.errorbar(lengths, at, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        for place, one in zip(at, found, strict=True):
            if not math.isfinite(one.value):
                panel.text(0, place, f" {one.value}", va="center")
        if math.isfinite(line):
            panel.axvline(line, color=SOFT, linewidth=1, linestyle=DASHED if line else "solid", zorder=1)
        panel.set_yticks(at, list(names))
        panel.tick_params(axis="y", labelcolor=INK)
        panel.grid(axis="y", visible=False)
        panel.set(xlabel=axis, ylim=(len(found) - 0.4, -0.6))
        if not any(lengths):
            panel.set_xlim(-1 if signed else 0, 1)

    return drawn(key, title, 0.75 + 0.25 * len(found), draw, names)


def stand_in(index: int, name: str) -> str:
    """A text about as wide as the name will be."""
    return f"@{index:0{max(4, width_of(shortened(name)))}}"


def shortened(name: str) -> str:
    """The name, or its beginning and its end."""
    text = visible(name)
    if width_of(text) <= LONGEST_NAME:
        return text
    head, tail = text, text[::-1]
    while width_of(head) > LONGEST_NAME * 2 // 3:
        head = head[:-1]
    while width_of(tail) > LONGEST_NAME // 3 - 1:
        tail = tail[:-1]
    return f"{head}…{tail[::-1]}"


def width_of(text: str) -> int:
    """The columns that a text takes where each Latin letter takes one."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else not unicodedata.combining(one) for one in text)


def legend(panel: Any, sets: Mapping[str, Any]) -> None:
    """A legend where there is more than one set."""
    if len(sets) > 1:
        panel.legend()


def whole_numbers(axis: Any, ticks: int = 5) -> None:
    """Ticks at whole numbers, with k, M and G for large ones."""
    ticker = require("matplotlib.ticker", "report", "a plot")
    axis.set_major_locator(ticker.MaxNLocator(ticks, integer=True))
    axis.set_major_formatter(ticker.EngFormatter(sep=""))


def log_ticks(low: float, high: float) -> list[float]:
    """At most seven round numbers between the two, of which one is at least 2.5 times the other."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [float(f"{digit}e{one}") for one in exponents for digit in (1, 2, 5)]
    inside = [one for one in fine if low <= one <= high]
    if len(inside) > 7:
        inside = [one for one in map(float, (f"1e{one}" for one in exponents)) if low <= one <= high]
    return inside[:: -(-len(inside) // 7)]


def power(number: float) -> str:
    """A round number, a very small or large one as a power of ten."""
    if 1e-3 <= number < 1e5:
        return f"{number:g}"
    digit, _, exponent = f"{number:.0e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digit == "1" else f"{digit}·10{raised}"
