"""Every two of several sets, compared: as text, as tables and as a page.

Leaves out the JSON document (``json_document.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree.ElementTree import Element

from xent.evaluation.report import figures
from xent.evaluation.report.figures import Bar
from xent.evaluation.report.html import html_document, html_fragment, table_element, tag
from xent.evaluation.report.sections import SHOWN_BARS, environment_section, figure, header, sentence_list, title_of
from xent.evaluation.report.tables import Row, Table, evaluation_tables, key_text, metric_table
from xent.evaluation.report.terminal import (
    SHOWN_GROUPS,
    cells_text,
    format_ranges,
    format_speed,
    path_of,
)
from xent.evaluation.report.wording import (
    format_estimate,
    format_unstored,
    format_weights,
    remarks,
)
from xent.evaluation.statistics.student import margin

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import SliceDifference
    from xent.evaluation.engine.pairwise_pass import PairDifference, PairwiseComparison
    from xent.evaluation.report.run import Run

LEVEL = 0.05
"""The adjusted p-value under which a pair is said to differ."""


class PairOfSlice(NamedTuple):
    """The difference of two sets in one slice; the pair is written "A − B"."""

    key: Any
    pair: str
    difference: SliceDifference


def pair_text(pair: tuple[str, str]) -> str:
    """Two sets as their difference is written."""
    return " − ".join(pair).upper()


def slices_of(comparison: PairwiseComparison) -> list[PairOfSlice]:
    """The differences of all pairs in all slices: those of the least p-value first, and of equal ones the largest."""
    found = [
        PairOfSlice(key, pair_text(pair), group)
        for pair, each in comparison.pairs.items()
        for key, group in each.slices.items()
    ]

    def order(each: PairOfSlice) -> tuple[bool, float, float]:
        group = each.difference
        return math.isnan(group.p_value), group.adjusted_p_value, -abs(group.mean_difference)

    return sorted(found, key=order)


def verdicts(comparison: PairwiseComparison) -> list[str]:
    """Which sets are better than which, in sentences."""
    if not comparison.counted:
        return ["No row counts, so there is nothing to compare."]
    better: dict[str, list[str]] = {}
    for pair, each in comparison.pairs.items():
        if each.adjusted_p_value < LEVEL:
            first, second = pair if each.mean_difference < 0 else pair[::-1]
            better.setdefault(first.upper(), []).append(second.upper())
    chance = f"at {LEVEL * 100:.0f} % for all pairs together"
    if not better:
        return [f"No set is shown to be better than another, {chance}."]
    by_name = {name.upper(): None for name in comparison.sets}
    shown = "; ".join(f"{name} than {' and '.join(better[name])}" for name in by_name if name in better)
    return [f"Shown to be better, {chance}: {shown}."]


def footer(comparison: PairwiseComparison) -> list[str]:
    """What the numbers are of, in sentences."""
    unit = f"{comparison.clusters:,} clusters" if comparison.clusters is not None else "rows"
    first = next(iter(comparison.sets.values()))
    count = len(comparison.pairs)
    slices = sum(len(each.slices) for each in comparison.pairs.values())
    tests = f"{count:,} pairs" + (f", those of slices for {slices:,} tests," if slices else "")
    kinds = {each.kind.replace("_", "-") for each in comparison.sets.values()}
    return [
        f"p-values are corrected for {tests} by Holm's steps; {unit} taken as independent.",
        f"{comparison.counted:,} of {comparison.rows:,} rows count in all sets.",
        f"All are taken for {' and '.join(sorted(kinds))}.",
        *format_weights(first),
        *format_unstored(comparison.unstored_chunks),
    ]


def pairwise_text(comparison: PairwiseComparison, run: Run) -> str:
    """The comparison for a reader."""
    sets = [
        (
            f"{name.upper()}  {path_of(run.inputs[name])}",
            *format_estimate(each.mean_loss, each.standard_error),
            f"{each.accuracy:.4f}",
        )
        for name, each in comparison.sets.items()
    ]
    pairs = [
        (
            pair_text(pair),
            *format_estimate(each.mean_difference, each.standard_error),
            f"{each.adjusted_p_value:.3g}",
            f"{each.mcnemar.right_in_a:,} : {each.mcnemar.right_in_b:,}",
            f"{each.adjusted_mcnemar_p_value:.3g}",
            "" if each.rows_needed is None else f"{each.rows_needed:,}",
        )
        for pair, each in comparison.pairs.items()
    ]
    heads = ("", "loss", "std. error", "Holm p", "alone right", "McNemar p", "rows needed")
    parts = [*format_ranges(run), cells_text(("", "loss", "std. error", "accuracy"), sets), cells_text(heads, pairs)]
    all_slices = slices_of(comparison)
    slices = [
        (
            str(key),
            pair,
            *format_estimate(group.mean_difference, group.standard_error),
            f"{group.adjusted_p_value:.3g}",
            f"{group.counted:,}",
        )
        for key, pair, group in islice(all_slices, SHOWN_GROUPS)
    ]
    if slices:
        parts.append(cells_text(("slice", "", "loss", "std. error", "Holm p", "rows"), slices))
    if len(all_slices) > SHOWN_GROUPS:
        shown = f"The {SHOWN_GROUPS} of {len(all_slices):,} that stand out most"
        parts.append(f"{shown}; the JSON document has them all.")
    return "\n".join([*parts, *verdicts(comparison), *footer(comparison), format_speed(run)])


def pairwise_tables(comparison: PairwiseComparison) -> dict[str, Table]:
    """The tables of the comparison by their names, and those of each of its sets, as "counts_a"; slices if any."""
    letters = {"first": str, "second": str}
    estimates = {"mean_difference_nats": float, "standard_error_nats": float}
    chances = {"p_value": float, "adjusted_p_value": float}
    columns = {**letters, **estimates, "low_nats": float, "high_nats": float, "degrees_of_freedom": int, **chances}
    counts = {"rows": int, "first_better": int, "second_better": int, "ties": int, "rows_needed": int}
    right = {"right_in_first_alone": int, "right_in_second_alone": int, "mcnemar_p_value": float}
    columns |= counts | right | {"adjusted_mcnemar_p_value": float}
    tables = {
        "pairs": Table(columns, [pair_row(pair, each) for pair, each in comparison.pairs.items()]),
        "metrics": metrics_of_sets(comparison),
    }
    if any(each.slices for each in comparison.pairs.values()):
        shared = {**estimates, "degrees_of_freedom": int, "share_first_better": float, **chances, "rows": int}
        tables["slices"] = Table({"slice": str, **letters, **shared}, [*slice_rows(comparison)])
    for name, each in comparison.sets.items():
        tables |= {f"{table}_{name}": content for table, content in evaluation_tables(each).items()}
    return tables


def pair_row(pair: tuple[str, str], each: PairDifference) -> Row:
    """The row of a pair."""
    means = (each.mean_difference, each.standard_error, *each.confidence_interval, each.degrees_of_freedom)
    counts = (each.counted, each.better, each.worse, each.ties, each.rows_needed)
    tests = (*each.mcnemar[:3], each.adjusted_mcnemar_p_value)
    return (*pair, *means, each.p_value, each.adjusted_p_value, *counts, *tests)


def slice_rows(comparison: PairwiseComparison) -> Iterator[Row]:
    """The rows of the slices of each pair."""
    for pair, each in comparison.pairs.items():
        for key, group in each.slices.items():
            means = (group.mean_difference, group.standard_error, group.degrees_of_freedom, group.share_better)
            yield (key_text(key), *pair, *means, group.p_value, group.adjusted_p_value, group.counted)


def metrics_of_sets(comparison: PairwiseComparison) -> Table:
    """The metrics of each set, one below the other."""
    tables = {name: metric_table(each) for name, each in comparison.sets.items()}
    columns = next(iter(tables.values())).columns
    rows = [(name.upper(), *row) for name, table in tables.items() for row in table.rows]
    return Table({"set": str, **columns}, rows)


def pairwise_page(comparison: PairwiseComparison, run: Run, *, written: datetime | None = None) -> str:
    """The page of the comparison, as HTML text; ModuleNotFoundError if matplotlib is not installed."""
    title = title_of(run)
    return html_document(
        f"{title}: comparison",
        header("Comparison", title, run, written),
        *content(comparison),
        environment_section(run),
    )


def pairwise_fragment(comparison: PairwiseComparison, run: Run) -> str:
    """The numbers of that page for a notebook, as HTML text."""
    return html_fragment(tag("p", f"Comparison · {title_of(run)}", class_="kicker"), *content(comparison))


def content(comparison: PairwiseComparison) -> list[Element]:
    """The numbers, and their plot where it can be drawn."""
    tables = pairwise_tables(comparison)
    pairs = table_element("Every two sets", tables["pairs"])
    listed = [table_element("Slices", tables["slices"])] if "slices" in tables else []
    drawn = (
        difference_bars(comparison, [pairs, *listed]) if figures.has_matplotlib() else tag("section", pairs, *listed)
    )
    return [
        tag("p", " ".join(verdicts(comparison)), class_="verdict"),
        sentence_list(footer(comparison)),
        tag("section", drawn, class_="plots"),
        tag("section", table_element("Metrics of each set", tables["metrics"]), class_="tables"),
        tag(
            "section",
            *(
                tag("div", tag("h2", name.upper()), sentence_list(remarks(each)))
                for name, each in comparison.sets.items()
            ),
            class_="tables",
        ),
    ]


def difference_bars(comparison: PairwiseComparison, tables: list[Element]) -> Element:
    """The bars of the differences, the first pairs of them."""
    bars = [
        Bar(pair_text(pair), each.mean_difference, margin(each.standard_error, each.degrees_of_freedom))
        for pair, each in islice(comparison.pairs.items(), SHOWN_BARS)
    ]
    axis = "loss of the first − loss of the second (nats)"
    svg = figures.bar_chart("differences", "Mean difference of losses", axis, bars, line=0.0, signed=True)
    note = "The mean of the differences of each pair, with 95 % intervals; under 0 the first is better."
    return figure("Differences", svg, note, tables)
