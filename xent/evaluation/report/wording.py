"""Numbers and sentences as a reader sees them: units, values with their errors, remarks on a result.

Leaves out where they stand: on a terminal (``terminal.py``), on a page (``sections.py``), in tables (``tables.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import Comparison
    from xent.evaluation.statistics.cluster_losses import ClusterLosses
    from xent.evaluation.statistics.confusion import Confusion
    from xent.evaluation.statistics.evaluation import Evaluation, Temperature
    from xent.evaluation.statistics.ranking import Ranking

UNITS = {"loss": "nats", "bits": "bits", "entropy": "nats", "target entropy": "nats"}
"""The unit of a metric; the others have none."""
NO_VALUE = "–"
SHOWN_ERRORS = 5
"""How many pairs of a label and another predicted class are named."""
LONGEST = 9
"""The digits before or after the point beyond which a page writes a number with an exponent."""


def format_value(value: Any) -> str:
    """A value of any type, by itself."""
    if value is None or value == ():
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def format_estimate(value: float, error: float) -> tuple[str, str]:
    """A number and its standard error, both to the second significant digit of the error."""
    digits = 6 if not error > 0 or math.isinf(error) else max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f}", f"± {error:.{digits}f}"


def format_short_estimate(value: float, error: float) -> tuple[str, str]:
    """A number and its standard error, with an exponent if they would be long without one."""
    is_long = abs(value) >= 10**LONGEST or 0 < error < 10**-LONGEST
    if math.isfinite(value) and is_long:
        return f"{value:.6g}", f"± {error:.2g}"
    return format_estimate(value, error)


def format_interval(low: float, high: float, error: float) -> str:
    """A 95 % interval, to as many digits as the standard error allows."""
    return f"95 %: {format_short_estimate(low, error)[0]} to {format_short_estimate(high, error)[0]}"


def format_degrees(degrees: int) -> str:
    """By which distribution an interval was made."""
    return f"t of {degrees:,} {'degree' if degrees == 1 else 'degrees'} of freedom"


def format_p_value(p: float) -> str:
    """A p-value with its sign of equality, or that it is smaller than is worth a number."""
    return "p under 1e-300" if p < 1e-300 else f"p = {p:.3g}"


def remarks(evaluation: Evaluation) -> list[str]:
    """The sentences that a reader needs beside the numbers of an evaluation."""
    counted = f"{evaluation.counted:,} of {evaluation.rows:,} rows counted"
    left_out = f"{evaluation.ignored:,} ignored, {evaluation.bad_labels:,} of a bad label"
    if evaluation.beyond_rows:
        left_out += f", {evaluation.beyond_rows:,} of a label beyond the ids"
    if evaluation.bad_weights:
        left_out += f", {evaluation.bad_weights:,} of a bad weight"
    if evaluation.unread_rows:
        left_out += f", {evaluation.unread_rows:,} not read"
    unit = "them" if evaluation.clusters is None else f"{evaluation.clusters:,} clusters"
    independent = f"standard errors take {unit} as independent"
    kind = evaluation.kind.replace("_", "-")
    notes = [f"The predictions are taken for {kind}.", f"{counted} ({left_out}); {independent}."]
    if evaluation.looks_like_probabilities:
        looks = "Every row lies in [0, 1] and sums to 1: these look like probabilities"
        notes[0] = f"{looks}, and were taken for logits."
    notes += format_weights(evaluation)
    if evaluation.bits_per_byte is not None:
        notes.append(f"{evaluation.bits_per_byte:.6g} bits per byte.")
    if evaluation.cluster_losses is not None:
        notes.append(format_clusters(evaluation.cluster_losses))
    notes += format_calibration(evaluation)
    if evaluation.temperature is not None:
        notes.append(format_temperature(evaluation.temperature))
    if "target entropy" in evaluation.metrics:
        notes.append("The labels are distributions: accuracy, calibration and classes take the class of the largest.")
        return [*notes, *flaw_remarks(evaluation)]
    prior = f"Always predicting the share of each label costs {evaluation.prior_loss:.4f} nats"
    notes.append(f"{prior}; skill over that {evaluation.skill:.4f}.")
    return [*notes, *flaw_remarks(evaluation)]


def format_calibration(evaluation: Evaluation) -> list[str]:
    """The calibration error and what of it is chance, and what was asked for beside."""
    found, bins = evaluation.calibration, len(evaluation.reliability)
    chance = f"calibrated predictions show {found.noise_floor:.4f} ± {found.noise_deviation:.4f}"
    of_bins = f"{found.error:.4f}, over {bins} bins of the highest probability"
    notes = [f"Calibration error {of_bins} ({found.debiased_error:.4f} without bias; {chance})."]
    if found.equal_mass is not None and found.smooth is not None:
        equal, smooth, score = found.equal_mass, found.smooth, found.decomposition
        of_equal = f"{equal.error:.4f}{format_bound(equal.bound)}, over {len(equal.bins)} bins of as many rows each"
        smoothed = f"smoothed, without bins, {smooth.error:.4f}{format_bound(smooth.bound)}"
        within = score.within_variance - score.within_covariance
        terms = format_terms(score.reliability, score.resolution, score.uncertainty, within)
        notes.append(f"Calibration error {of_equal}; {smoothed}.")
        notes.append(f"Brier score of the highest probability {score.brier:.4f}: {terms}.")
    if found.classwise is not None:
        every = found.classwise
        terms = format_terms(every.reliability, every.resolution, every.uncertainty, every.within_bins)
        chance = f"calibrated predictions show {every.noise_floor:.3g}"
        notes.append(f"Classwise calibration error {every.error:.3g} ({chance}). Brier score: {terms}.")
    return notes


def format_terms(reliability: float, resolution: float, uncertainty: float, within_bins: float) -> str:
    """The parts of a Brier score."""
    parts = f"reliability {reliability:.4f} − resolution {resolution:.4f} + uncertainty {uncertainty:.4f}"
    return f"{parts} {'−' if within_bins < 0 else '+'} {abs(within_bins):.4f} within bins"


def format_bound(bound: float) -> str:
    """How far a number may be off; nothing where that is under what is shown."""
    return f" (off by at most {bound:.1g})" if bound >= 5e-5 else ""


def flaw_remarks(evaluation: Evaluation) -> list[str]:
    """The sentences on rows that are left out, or counted though something is wrong with them."""
    notes = []
    if evaluation.first_bad_label is not None:
        notes.append(f"The first bad label is in row {evaluation.first_bad_label}.")
    if evaluation.first_unread is not None:
        notes.append(f"{evaluation.unread_rows:,} rows could not be read, the first is row {evaluation.first_unread}.")
    notes += format_unstored(evaluation.unstored_chunks)
    if evaluation.nan_rows:
        notes.append(f"{evaluation.nan_rows:,} rows are NaN, the first is row {evaluation.first_nan}; so is the mean.")
    if evaluation.infinite_rows:
        count, first = evaluation.infinite_rows, evaluation.first_infinite
        mean = "" if evaluation.nan_rows else "; the mean is infinite"  # with a NaN row it is NaN
        notes.append(f"{count:,} rows give their label probability 0, the first is row {first}{mean}.")
    if evaluation.unnormalised_rows:
        count, first = evaluation.unnormalised_rows, evaluation.first_unnormalised
        notes.append(f"{count:,} rows do not sum to 1, the first is row {first}; they are taken as they are.")
    return notes


def format_confusion(confusion: Confusion) -> str:
    """The scores of a confusion as a whole, and its most frequent errors, in sentences."""
    whole = f"Balanced accuracy {confusion.balanced_accuracy:.4f}, Cohen's kappa {confusion.kappa:.4f}"
    sentence = f"{whole}, Matthews correlation {confusion.mcc:.4f}."
    errors = sorted((cell for cell in confusion.cells if cell.predicted != cell.label), key=lambda cell: -cell.rows)
    if not errors:
        return sentence
    named = [
        f"{cell.label} as {NO_VALUE if cell.predicted is None else cell.predicted} ({cell.rows:,})"
        for cell in errors[:SHOWN_ERRORS]
    ]
    return f"{sentence} Most often mistaken: {', '.join(named)}."


def format_ranking(ranking: Ranking) -> str:
    """The means of a ranking, or the first of its gains, and how exact its numbers are, in sentences."""
    sentence, scores = "", list(ranking.classes.values())
    ranked = [each for each in scores if not math.isnan(each.auc)]
    if not ranked:
        return "There is no ranking: a row has no score, or all rows are of one class."
    if len(scores) > 1:
        areas = f"ROC AUC {ranking.macro_auc:.4f} macro, {ranking.weighted_auc:.4f} weighted"
        means = f"{ranking.macro_average_precision:.4f} macro, {ranking.weighted_average_precision:.4f} weighted"
        sentence = f"Each class against the rest: {areas}; average precision {means}. "
    else:
        first = scores[0].gains[0]
        held = f"hold {first.captured * 100:.1f} % of class {next(iter(ranking.classes))}"
        rows = f"The {first.share * 100:.0f} % of the rows of the highest scores"
        sentence = f"{rows} {held}, {first.lift:.2f} times their share. "
    bounds = ("auc_bound", "average_precision_bound", "ks_bound")
    auc, precision, ks = (max(getattr(one, name) for one in ranked) for name in bounds)
    if not any((auc, precision, ks)):
        return f"{sentence}Every score was kept: the ranking is exact."
    errors = f"ROC AUC is off by at most {auc:.1g}, average precision by {precision:.1g}, KS by {ks:.1g}"
    return f"{sentence}Scores share bins: {errors}."


def format_clusters(losses: ClusterLosses) -> str:
    """The mean loss of clusters, in a sentence."""
    mean = " ".join(format_estimate(losses.mean_loss, losses.standard_error))
    return f"Each cluster counting as one, the mean loss is {mean} nats, a perplexity of {losses.perplexity:.6g}."


def format_weights(evaluation: Evaluation) -> list[str]:
    """What the rows weigh, in a sentence; none where they have no weights."""
    if evaluation.effective_rows is None:
        return []
    weight, rows = f"{evaluation.total_weight:.6g}", f"{evaluation.effective_rows:,.1f}"
    return [f"Means are weighted: the rows weigh {weight}, and tell as much as {rows} of one weight."]


def format_unstored(chunks: Mapping[str, int]) -> list[str]:
    """A sentence for each input that lacks chunks."""
    return [f"{n:,} chunks of {name} are not stored; the fill value is taken for them." for name, n in chunks.items()]


def format_temperature(best: Temperature) -> str:
    """The best temperature, in a sentence."""
    if not math.isfinite(best.mean_loss):
        return "No temperature is best: the mean loss is not finite."
    numbers = f"{best.mean_loss:.6g} nats, calibration error {best.calibration_error:.4f}"
    if not best.is_bounded:
        return f"No temperature is best: the loss still falls at {best.value:.4g} ({numbers})."
    return f"Temperature {best.value:.4f} is best: {numbers}, in {best.passes} passes."


def format_tests(comparison: Comparison) -> list[str]:
    """What McNemar's test says of the rows that one set alone has right, and how many rows the difference takes."""
    right_in_a, right_in_b, p, is_exact = comparison.mcnemar
    test = "McNemar's exact test" if is_exact else "McNemar's test"
    remarks = [f"A alone is right in {right_in_a:,}, B alone in {right_in_b:,}: {test} has {format_p_value(p)}."]
    if comparison.rows_needed is not None:
        needed = f"{comparison.rows_needed:,} rows like these"
        remarks.append(f"A difference like this is told from 0 by {needed}, with 80 % power.")
    return remarks


def verdict(comparison: Comparison) -> str:
    """The set with the lower loss, in a sentence, or why none is known to have it."""
    low, high = comparison.confidence_interval
    if not comparison.counted:
        return "No row counts, so there is nothing to compare."
    if math.isnan(comparison.mean_difference):
        return "The mean difference is NaN: that of some row is."
    if math.isnan(low):
        return "Too few rows to tell how far the difference can be trusted."
    if low <= 0 <= high:
        return "Neither set is shown to be better: the 95 % interval of the difference holds 0."
    better, worse = "AB" if high < 0 else "BA"
    return f"{better} is better than {worse}: its loss is lower by {abs(comparison.mean_difference):.4g} nats."
