"""The page of an evaluation or a comparison: its numbers are theirs, and no name and no edge case breaks it."""

import math
import re
import sys
from datetime import UTC, datetime
from itertools import pairwise
from xml.etree.ElementTree import tostring

import matplotlib
import numpy as np
import pytest
from matplotlib.textpath import TextPath
from pages import HOSTILE, compared, evaluated, hostile_slices, random_set, read, value_of

from xent.evaluation import outputs
from xent.evaluation.report.figures import Bar, bar_chart, shorten
from xent.evaluation.report.html import POLICY
from xent.evaluation.report.page import comparison_page, evaluation_page, page_path
from xent.evaluation.report.running import report_of
from xent.evaluation.report.wording import format_short_estimate, format_tests, remarks, verdict
from xent.evaluation.statistics.student import margin

ROWS, CLASSES = 507, 7
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
RUN = {"written": NOON}


@pytest.fixture(scope="module")
def single():
    """An evaluation with all that a page may show, and its pass."""
    logits, labels = random_set()
    slices, clusters = hostile_slices(ROWS), np.arange(ROWS) // 5
    return evaluated(logits, labels, slices=slices, clusters=clusters, by_class=True, top_k=(1, 3), ignore_index=(6,))


@pytest.fixture(scope="module")
def evaluation(single):
    return single[0]


@pytest.fixture(scope="module")
def text(single):
    return evaluation_page(*single, **RUN)


@pytest.fixture(scope="module")
def html(text):
    return read(text)


@pytest.fixture(scope="module")
def pair():
    logits, labels = random_set()
    other = logits + np.random.default_rng(5).normal(size=logits.shape)
    return compared(logits, other, labels, slices=hostile_slices(ROWS))


@pytest.fixture(scope="module")
def pair_html(pair):
    return read(comparison_page(*pair, **RUN))


def svg_of(html, title):
    """The plot whose title begins so."""
    (svg,) = (svg for svg in html.iter("svg") if next(svg.iter("title")).text.startswith(title))
    return svg


def points(path):
    """The points of an SVG path."""
    return np.asarray(re.findall(r"[ML] (\S+) (\S+)", path.attributes["d"]), float)


def painted(svg, paint, what="fill"):
    """The points of each path of one paint, but markers."""
    style = re.compile(rf"\b{what}: var\(--{paint}\)")
    return [
        points(path)
        for path in svg.iter("path")
        if style.search(path.attributes.get("style", "")) and "id" not in path.attributes
    ]


def staircase(svg):
    """The line of a plot over position; its last point is there twice."""
    (line,) = (path for path in painted(svg, "first", "stroke") if len(path) > 2)
    return line[:-1]


def is_affine(drawn, values):
    """Whether the one is a line of the other, to a thousandth of its range."""
    drawn, values = np.asarray(drawn, float), np.asarray(values, float)
    fit = np.polyval(np.polyfit(values, drawn, 1), values)
    return np.ptp(drawn) > 0 and np.abs(fit - drawn).max() < 1e-3 * np.ptp(drawn)


# The numbers


def test_every_metric_is_there_with_its_error_and_its_rows(html, evaluation):
    rows = {row[0].text: [*map(value_of, row[1:])] for row in html.table("Metrics")}

    for name, metric in evaluation.metrics.items():
        value, error, _, n = rows[name]
        assert (value, error, n) == (metric.value, metric.stderr, metric.n)
    assert rows["calibration error"][0] == evaluation.calibration_error
    assert (rows["prior loss"][0], rows["skill"][0]) == (evaluation.prior_loss, evaluation.skill)


def test_a_metric_is_written_to_the_digits_of_its_error(html, evaluation):
    loss = html.table("Metrics")[0]

    assert [cell.text for cell in loss[:3]] == [
        "loss",
        *format_short_estimate(evaluation.mean_loss, evaluation.standard_error),
    ]
    assert float(loss[1].text) == pytest.approx(evaluation.mean_loss, abs=evaluation.standard_error / 10)


def test_the_numbers_on_top_are_those_of_the_table(html, evaluation):
    cards = {card.only("dt").text: card.text for card in html.only("dl").iter("div")}

    assert f"{evaluation.calibration_error:.4f}" in cards["Calibration error"]
    for name in ("loss", "perplexity", "accuracy"):
        metric = evaluation.metrics[name]
        assert "".join(format_short_estimate(metric.value, metric.stderr)) in cards[name.capitalize()]


def test_the_counts_name_their_denominator(html, evaluation):
    rows = {row[0].text: value_of(row[1]) for row in html.table("Rows")}

    assert (rows["rows"], rows["counted"], rows["ignored"]) == (ROWS, evaluation.counted, evaluation.ignored)
    assert f"divide by the {evaluation.counted:,} counted: {evaluation.denominator}" in html.text


@pytest.mark.parametrize("caption, name", [
    ("Loss over position", "positions"),
    ("Losses", "histogram"),
    ("Reliability", "reliability"),
    ("Worst rows", "worst"),
])  # fmt: skip
def test_the_numbers_of_a_plot_are_in_a_table(html, evaluation, caption, name):
    rows = [tuple(map(value_of, row)) for row in html.table(caption)]

    assert rows == [tuple(row) for row in getattr(evaluation, name)]


@pytest.mark.parametrize("caption, name", [("all 6 classes", "classes"), ("all 12 slices", "slices")])
def test_the_numbers_of_every_group_are_in_a_table(html, evaluation, caption, name):
    groups = getattr(evaluation, name)
    rows = [[value_of(cell) for cell in row] for row in html.table(f"The loss of {caption}")]

    share = "recall" if name == "classes" else "accuracy"
    fields = ("mean_loss", "standard_error", "degrees_of_freedom", share, f"{share}_error", "counted")
    fields += ("brier", "p_value", "adjusted_p_value") if name == "slices" else ()
    first = [*groups] if name == "classes" else sorted(groups, key=lambda key: groups[key].p_value)
    assert [row[1:] for row in rows] == [[getattr(groups[key], field) for field in fields] for key in first]
    assert [row[0] for row in rows] == first


def test_the_heading_says_what_was_read_when_and_how(html, single):
    options = {row[0].text: row[1].text for row in html.table("Options")}
    environment = {row[0].text: row[1].text for row in html.table("Environment")}

    read_from = [[cell.text for cell in row] for row in html.table("What was read")]
    assert read_from[0] == ["predictions", "array in hand", "507 × 7", "float64"]
    assert [row[0] for row in read_from] == ["predictions", "labels", "slices", "clusters"]
    assert html.only("time").attributes["datetime"] == "2026-03-04T12:00:00+00:00"
    assert "04 March 2026, 12:00 UTC" in html.text
    assert (options["top k"], options["ignore index"], options["scheduler"]) == ("1, 3", "6", "threads")
    assert environment["numpy"] == np.__version__
    assert html.table("Time")[0][1].text == "2"


def test_a_path_is_the_title(tmp_path):
    logits, labels = random_set()
    np.save(tmp_path / "a <b> & c.npy", logits)
    html = read(evaluation_page(*evaluated(tmp_path / "a <b> & c.npy", labels), **RUN))

    assert (html.only("h1").text, html.only("head").only("title").text) == (
        "a <b> & c.npy",
        "a <b> & c.npy: evaluation",
    )
    assert html.table("What was read")[0][1].text == str(tmp_path / "a <b> & c.npy")


def test_what_a_reader_must_know_is_said(html, evaluation):
    assert [item.text for item in html.only("ul").iter("li")] == remarks(evaluation)


# The plots


def test_the_line_over_position_is_that_of_the_parts(html, evaluation):
    line = staircase(svg_of(html, "Mean loss over"))
    segments = evaluation.positions

    assert len(line) == 2 * len(segments)
    assert is_affine(line[::2, 1], [segment.mean_loss for segment in segments])
    assert is_affine(line[::2, 0], [segment.first_row for segment in segments])
    assert is_affine(line[1::2, 0], [segment.stop_row for segment in segments])


def test_a_part_that_is_not_finite_is_a_gap():
    logits, labels = random_set()
    logits[100, labels[100]] = -np.inf
    html = read(evaluation_page(*evaluated(logits, labels), **RUN))
    line = staircase(svg_of(html, "Mean loss over"))

    assert len(line) == 2 * 99 + 1  # a line that ends has its last point twice
    assert "Gaps: a loss there is NaN or infinite." in html.text


def test_the_area_of_a_histogram_bar_is_its_rows(html, evaluation):
    (outline,) = painted(svg_of(html, "Histogram"), "first")
    base = outline[:, 1].max()
    widths, heights = np.diff(outline[:, 0]), base - outline[:-1, 1]
    areas = (widths * heights)[(widths > 1e-6) & (heights > 1e-6)]

    counts = np.asarray([each.counted for each in evaluation.histogram], float)
    assert np.allclose(areas / areas.sum(), counts / counts.sum(), rtol=1e-3)


def test_the_open_ends_of_the_histogram_are_said():
    logits = np.asarray([[0.0, 1e4], [1e4, 0.0]])
    html = read(evaluation_page(*evaluated(logits, np.zeros(2, int)), **RUN))

    assert "The first bar holds all losses under 3.7e-08 nats." in html.text
    assert "The last bar holds all losses from 3584 nats." in html.text


def test_the_reliability_line_is_that_of_the_bins(html, evaluation):
    svg = svg_of(html, "Reliability")
    line = next(path for path in painted(svg, "first", "stroke") if len(path) == len(evaluation.reliability))

    assert is_affine(line[:, 0], [each.confidence for each in evaluation.reliability])
    assert is_affine(line[:, 1], [each.accuracy for each in evaluation.reliability])
    assert any(len(path) == 2 and path[0, 1] != path[1, 1] for path in painted(svg, "soft", "stroke"))  # the diagonal


def bar_lengths(svg, paint="first"):
    return [np.ptp(bar[:, 0]) for bar in painted(svg, paint)]


def test_bars_are_as_long_as_the_losses(html, evaluation):
    lengths = bar_lengths(svg_of(html, "Mean loss of slices"))

    losses = [group.mean_loss for group in evaluation.slices.values()]
    assert np.allclose(np.divide(lengths, max(lengths)), np.divide(losses, max(losses)), rtol=1e-3)


def test_error_bars_are_those_of_95_percent(html, evaluation):
    svg = svg_of(html, "Mean loss of classes")
    whiskers = [np.ptp(path[:, 0]) for path in painted(svg, "ink", "stroke") if len(path) == 2 and np.ptp(path[:, 0])]
    (scale,) = {round(a / b.mean_loss, 2) for a, b in zip(bar_lengths(svg), evaluation.classes.values(), strict=True)}

    margins = [margin(group.standard_error, group.degrees_of_freedom) for group in evaluation.classes.values()]
    assert np.allclose(np.divide(whiskers, scale), np.multiply(margins, 2), rtol=1e-2)


def spans(svg):
    """The texts of a plot by the line that they are on: where each begins and ends, and the text."""
    lines = {}
    for text in svg.iter("text"):
        style, x = text.attributes.get("style", ""), float(text.attributes["x"])
        if not text.attributes.get("transform", "rotate(-0").startswith("rotate(-0"):
            continue
        width = TextPath((0, 0), text.text, size=11).get_extents().width
        start = x - {"middle": width / 2, "end": width}.get(re.search("text-anchor: (\\w+)|$", style)[1], 0.0)
        lines.setdefault(round(float(text.attributes["y"])), []).append((start, start + width, text.text))
    return [sorted(line) for line in lines.values()]


def is_crowded(svg):
    return any(after[0] < before[1] + 3 for line in spans(svg) for before, after in pairwise(line))


def test_no_two_texts_of_a_plot_overlap(html, pair_html):
    plots = [*html.iter("svg"), *pair_html.iter("svg")]

    assert len(plots) == 9 and not any(map(is_crowded, plots))


@pytest.mark.parametrize("scale", [1.3e-9, 1.4e-3, 1.2e-2, 0.024, 0.3, 7.0, 1.7e3, 9e4, 1e7])
def test_the_ticks_of_bars_have_room_whatever_their_size(scale):
    name = "a slice with a name that is as long as any"
    bars = [Bar(name, scale, scale / 3), Bar(name, -0.4 * scale, scale / 5)]

    for shown in (bars, [bar._replace(name="b") for bar in bars]):
        chart = bar_chart("x", "x", "loss", shown, line=0.0, signed=True)
        svg = read(f"<html>{tostring(chart, 'unicode')}</html>").only("svg")
        numbers = [text for _, _, text in max(spans(svg), key=len)]
        assert 2 <= len(numbers) <= 5 and not is_crowded(svg)


def test_names_stand_in_the_plot_from_the_top_in_their_order(html, evaluation):
    texts = {text.text: float(text.attributes["y"]) for text in svg_of(html, "Mean loss of slices").iter("text")}
    names = [text for text in texts if text in map(shorten, HOSTILE)]

    assert names == [*map(shorten, evaluation.slices)] == sorted(names, key=texts.get)


def test_a_bar_that_is_not_finite_is_said_in_words():
    data = [Bar("a", math.nan, math.nan), Bar("b", math.inf, math.nan), Bar("c", 2.0, math.inf)]
    svg = bar_chart("some", "Some bars", "nats", data, line=math.nan)
    read_back = read(f"<html>{tostring(svg, encoding='unicode', method='html')}</html>")

    assert [text.text for text in read_back.iter("text")][-5:] == ["a", "b", "c", "nan", "inf"]
    assert [length > 100 for length in bar_lengths(read_back)] == [False, False, True]


@pytest.mark.slow
def test_of_many_classes_the_worst_have_a_bar_and_all_a_row():
    logits, labels = np.zeros((2000, 1000)), np.arange(2000) % 1000
    logits[np.arange(2000), labels] = -labels / 100  # class 999 is the worst
    html = read(evaluation_page(*evaluated(logits, labels, by_class=True), **RUN))
    names = [text.text for text in svg_of(html, "Mean loss of classes").iter("text")][-30:]

    assert names == [f"{label}" for label in range(999, 969, -1)]
    assert "The mean loss of the 30 classes of the highest loss, of 1,000" in html.text
    assert len(html.table("The loss of all 1,000 classes")) == 1000


@pytest.mark.slow
def test_of_very_many_classes_the_worst_have_a_row():
    labels = np.arange(1001)
    html = read(evaluation_page(*evaluated(np.zeros((1001, 1001), np.float32), labels, by_class=True), **RUN))

    assert len(html.table("The loss of the 1,000 classes of the highest loss, of 1,001")) == 1000


def test_of_many_groups_those_without_a_finite_loss_come_first():
    logits, labels = random_set(rows=400)
    logits[399] = np.nan
    logits[155, labels[155]] = -np.inf
    html = read(evaluation_page(*evaluated(logits, labels, slices=np.arange(400) // 10), **RUN))
    texts = [text.text for text in svg_of(html, "Mean loss of slices").iter("text")]
    first = texts.index("mean loss (nats)") + 1

    assert texts[first : first + 2] == ["15", "39"]
    assert texts.count("nan") == 2


# Safety


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_and_nothing_else(html, name):
    assert name in [row[0].text for row in html.table("The loss of all 12 slices")]


@pytest.mark.parametrize("name", ["\x00\x1b[31m", "a\nb", "\u202eevil", "\ud800", "\ufffe"])
def test_what_cannot_be_seen_is_written_as_an_escape(name):
    logits, labels = random_set(rows=4)
    slices = np.asarray([f"({name})"] * 4)
    text = evaluation_page(*evaluated(logits, labels, slices=slices), **RUN)

    assert name not in text
    assert f"({name.encode('unicode_escape', 'surrogatepass').decode()})" in read(text).text
    text.encode()


def test_nothing_on_the_page_runs_or_is_fetched(text, html):
    names = {element.name for element in html.iter()}
    attributes = [(name, value) for element in html.iter() for name, value in element.attributes.items()]
    addresses = [value for name, value in attributes if name in ("href", "src")]

    assert not names & {"script", "iframe", "img", "object", "embed", "form", "image", "foreignobject", "base"}
    assert not [name for name, _ in attributes if name.startswith("on")]
    assert all(address.startswith(("#", "data:,")) for address in addresses)
    assert not re.findall(r"https?:|//|@import|@font-face|url\((?!#)", text)


def test_the_policy_comes_before_all_that_it_governs(html):
    charset, policy, *_ = html.only("head").children

    assert charset.attributes == {"charset": "utf-8"}
    assert policy.attributes == {"http-equiv": "Content-Security-Policy", "content": POLICY}
    assert POLICY == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_every_id_is_there_once_and_every_reference_leads_somewhere(html):
    ids = [element.attributes["id"] for element in html.iter() if "id" in element.attributes]
    text = " ".join(f"{name}={value}" for element in html.iter() for name, value in element.attributes.items())
    references = re.findall(r"(?:href=#|url\(#|aria-labelledby=)([\w-]+)", text)

    assert len(ids) == len(set(ids)) and len(references) > 10
    assert set(references) <= set(ids)


def test_the_page_can_be_read_without_seeing_it(html):
    assert html.attributes["lang"] == "en"
    assert len([*html.iter("h1")]) == 1
    for svg in html.iter("svg"):
        label = svg.children[0]
        assert (svg.attributes["role"], svg.attributes["aria-labelledby"]) == ("img", label.attributes["id"])
        assert (label.name, bool(label.text)) == ("title", True)
    for table in html.iter("table"):
        assert next(table.iter("caption")).text
        assert {cell.attributes.get("scope") for cell in table.iter("th")} <= {"col", "row"}
    for figure in html.iter("figure"):
        assert figure.only("figcaption").text and figure.only("details").only("summary").text


def test_the_same_evaluation_has_the_same_page(single, text):
    assert evaluation_page(*single, **RUN) == text


def test_a_users_own_settings_of_matplotlib_change_nothing_and_stay(single, text):
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40, "axes.facecolor": "red", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)

        assert evaluation_page(*single, **RUN) == text
        assert dict(matplotlib.rcParams) == before


# Edge cases


def edge_cases():
    logits, labels = random_set(rows=20)
    not_a_number, infinite = logits.copy(), logits.copy()
    not_a_number[3] = np.nan
    infinite[3, labels[3]] = -np.inf
    return {
        "no rows": (np.zeros((0, 4)), np.zeros(0, int), {}),
        "no counted row": (logits, np.full(20, -1), {"ignore_index": (-1,)}),
        "one row": (logits[:1], labels[:1], {}),
        "one class": (np.zeros((5, 1)), np.zeros(5, int), {}),
        "NaN": (not_a_number, labels, {}),
        "infinite": (infinite, labels, {}),
        "all NaN": (np.full((5, 3), np.nan), np.zeros(5, int), {}),
        "all infinite": (np.asarray([[-np.inf, 0.0]] * 5), np.zeros(5, int), {}),
        "huge": (np.asarray([[0.0, 1e307], [0.0, 5e306]] * 5), np.zeros(10, int), {}),
        "tiny": (np.asarray([[0.0, -40.0]] * 5), np.zeros(5, int), {}),
        "zero": (np.asarray([[0.0, -1e9]] * 5), np.zeros(5, int), {}),
        "uniform": (np.zeros((5, 4)), np.arange(5) % 4, {}),
        "bad labels": (logits, labels - 1, {"on_bad_label": "skip"}),
        "no distribution": (np.full((5, 3), 0.5), np.zeros(5, int), {"kind": "probabilities"}),
        "temperature": (logits, labels, {"fit_temperature": True, "classwise": True, "predicted_bytes": 10}),
        "confusion": (not_a_number, labels, {"confusion": True, "auc": True}),
        "ranking": (logits, labels, {"auc": True}),
        "boolean slices": (logits, labels, {"slices": labels > 3}),
        "slices of bytes": (logits, labels, {"slices": np.asarray([b"a", b"\xff"])[labels % 2]}),
        "negative slices": (logits, labels, {"slices": labels - 3}),
        "many bins": (logits, labels, {"bins": 1000}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", edge_cases())
def test_an_edge_case_has_a_page(name):
    logits, labels, options = edge_cases()[name]
    evaluation, run = evaluated(logits, labels, by_class=True, **options)
    html = read(evaluation_page(evaluation, run, **RUN))

    drawn = [value for svg in html.iter("svg") for element in svg.iter() for value in element.attributes.values()]
    assert repr(value_of(html.table("Metrics")[0][1])) == repr(evaluation.mean_loss)
    assert not re.search(r"\b(nan|inf)\b", " ".join(drawn))


@pytest.mark.slow
@pytest.mark.parametrize("name", edge_cases())
def test_an_edge_case_can_be_compared(name):
    logits, labels, options = edge_cases()[name]
    shared = {key: options[key] for key in ("slices", "kind", "ignore_index", "on_bad_label") if key in options}
    comparison, run = compared(logits, logits[::-1] / 2, labels, **shared)
    html = read(comparison_page(comparison, run, **RUN))

    assert html.only("p", class_="verdict").text == verdict(comparison)


def test_a_set_without_a_finite_loss_can_be_compared():
    logits, labels = np.random.default_rng(0).normal(size=(123, 7)), np.arange(123) % 7
    html = read(comparison_page(*compared(logits, np.full_like(logits, np.nan), labels), **RUN))

    assert svg_of(html, "Mean loss over the position of rows in the set")


def test_a_set_without_rows_says_that_there_is_nothing_to_plot():
    html = read(evaluation_page(*evaluated(np.zeros((0, 4)), np.zeros(0, int)), **RUN))

    assert not [*html.iter("svg")]
    assert html.text.count("Nothing to plot") == 3


def test_a_set_without_groups_has_no_plots_of_them():
    html = read(evaluation_page(*evaluated(*random_set()), **RUN))

    assert len([*html.iter("svg")]) == 3
    assert "Slices" not in html.text and "Classes" not in html.text


def test_a_number_that_is_not_finite_stands_out(html):
    nan_html = read(evaluation_page(*evaluated(np.full((5, 3), np.nan), np.zeros(5, int)), **RUN))

    assert nan_html.table("Metrics")[0][1].only("data").attributes["class"] == "odd"
    assert not [element for element in html.only("main").iter() if "odd" in element.attributes.get("class", "")]


# Comparisons


def test_the_difference_is_there_with_its_interval_and_its_error(pair_html, pair):
    comparison = pair[0]
    row = pair_html.table("All rows")[0]
    low, high = (format_short_estimate(end, comparison.standard_error)[0] for end in comparison.confidence_interval)

    assert [value_of(cell) for cell in row[1:]] == [
        comparison.mean_difference,
        comparison.standard_error,
        comparison.degrees_of_freedom,
        comparison.better / comparison.counted,
        *[comparison.p_value] * 2,
        comparison.counted,
    ]
    assert all(sentence in pair_html.text for sentence in format_tests(comparison))
    assert f"95 %: {low} to {high} (t of {comparison.counted - 1} degrees of freedom)" in pair_html.text
    assert f"{comparison.p_value:.3g}" in pair_html.only("dl").text


def test_the_difference_of_each_slice_is_there(pair_html, pair):
    slices = pair[0].slices
    rows = [[value_of(cell) for cell in row] for row in pair_html.table("The difference of all 12 slices")]

    fields = ("mean_difference", "standard_error", "degrees_of_freedom", "share_better")
    fields = (*fields, "p_value", "adjusted_p_value", "counted")
    expected = [[getattr(group, field) for field in fields] for group in slices.values()]
    assert [row[1:] for row in rows] == expected
    assert [row[0] for row in rows] == list(slices)


def test_a_bar_has_the_colour_of_the_set_that_is_better():
    _, labels = random_set(rows=30)
    right, wrong = np.eye(7)[labels], -np.eye(7)[labels]
    first = (np.arange(30) < 10)[:, None]  # of three slices A is better in one
    pair = compared(np.where(first, right, wrong), np.where(first, wrong, right), labels, slices=np.arange(30) // 10)
    svg = svg_of(read(comparison_page(*pair, **RUN)), "Mean difference")

    assert (len(bar_lengths(svg, "first")), len(bar_lengths(svg, "second"))) == (1, 3)  # and all rows


def test_the_metrics_of_both_sets_are_there(pair_html, pair):
    rows = {row[0].text: [value_of(cell) for cell in row[1:5]] for row in pair_html.table("Metrics of A and of B")}

    for name, metric in pair[0].a.metrics.items():
        other = pair[0].b.metrics[name]
        assert rows[name] == [metric.value, metric.stderr, other.value, other.stderr]
    assert rows["calibration error"][0::2] == [pair[0].a.calibration_error, pair[0].b.calibration_error]


def test_both_sets_are_in_each_plot(pair_html):
    for title in ("Mean loss over", "Histogram", "Reliability"):
        svg = svg_of(pair_html, title)
        assert painted(svg, "first", "stroke") and painted(svg, "second", "stroke")
        assert {"A", "B"} <= {text.text for text in svg.iter("text")}


def test_who_wins_in_how_many_rows_is_said(pair_html, pair):
    comparison = pair[0]
    items = [item.text for item in pair_html.only("ul", class_="keys").iter("li")]

    better, worse = comparison.better, comparison.worse
    assert items[0] == f"A is better in {better:,} rows, {better / comparison.counted:.2%}"
    assert items[1:] == ["equal in 0 rows, 0.00%", f"B is better in {worse:,} rows, {worse / ROWS:.2%}"]


@pytest.mark.slow
def test_a_comparison_is_as_safe_as_an_evaluation(pair):
    text = comparison_page(*pair, **RUN)
    html = read(text)
    ids = [element.attributes["id"] for element in html.iter() if "id" in element.attributes]

    assert not re.findall(r"https?:|//|<script", text)
    assert len(ids) == len(set(ids))


# Files


@pytest.mark.slow
def test_a_page_is_written_whole(tmp_path, single, pair):
    for name, result in (("e.html", single), ("c.html", pair)):
        report_of(*result).to_html(tmp_path / name)

    assert read((tmp_path / "e.html").read_text("utf-8")).only("h1").text == "array in hand"
    assert read((tmp_path / "c.html").read_text("utf-8")).only("h1").text == "array in hand and array in hand"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.html", "e.html"]


def test_a_page_that_fails_leaves_the_one_that_is_there(tmp_path, monkeypatch, single):
    target = tmp_path / "e.html"
    target.write_text("old")

    def fail(*_, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr(outputs, "move", fail)
    with pytest.raises(OSError, match="the disk is full"):
        report_of(*single).to_html(target, overwrite=True)

    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_path_that_cannot_be_is_refused_before_any_work(tmp_path):
    (tmp_path / "there.html").write_text("")
    (tmp_path / "folder.html").mkdir()

    with pytest.raises(ValueError, match=r"`html` must be the path of a \.html or \.htm file"):
        page_path(tmp_path / "e.txt")
    with pytest.raises(FileNotFoundError, match="lie in a folder that is there"):
        page_path(tmp_path / "none" / "e.html")
    with pytest.raises(FileExistsError, match="`--html` must be a new file"):
        page_path(tmp_path / "there.html", argument="--html")
    with pytest.raises(ValueError, match="be the path of a file, got the folder"):
        page_path(tmp_path / "folder.html", overwrite=True)
    assert page_path(tmp_path / "there.html", overwrite=True) == tmp_path / "there.html"


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch, single):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ModuleNotFoundError, match=r"an HTML page needs matplotlib.figure.*xent-array\[report\]"):
        page_path(tmp_path / "e.html")
    with pytest.raises(ModuleNotFoundError, match=r"xent-array\[report\]"):
        evaluation_page(*single, **RUN)
