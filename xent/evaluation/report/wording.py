"""What the terminal, the page and the tables say in the same words: units, errors and remarks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xent.evaluation.statistics.metrics import Evaluation, Temperature


UNITS = {"loss": "nats", "bits": "bits", "entropy": "nats"}


def with_error(value: float, error: float) -> tuple[str, str]:
    """A number and its error; two significant digits of the error say how far the number can be trusted."""
    digits = 6 if not error > 0 or math.isinf(error) else max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f}", f"± {error:.{digits}f}"


def remarks(evaluation: Evaluation) -> list[str]:
    """What a reader must know beside the numbers, one sentence each."""
    counted = f"{evaluation.counted:,} of {evaluation.rows:,} rows counted"
    left_out = f"{evaluation.ignored:,} ignored, {evaluation.bad_labels:,} of a bad label"
    if evaluation.beyond_rows:
        left_out += f", {evaluation.beyond_rows:,} of a label beyond the ids"
    if evaluation.unread_rows:
        left_out += f", {evaluation.unread_rows:,} not read"
    independent = "standard errors take them as independent"
    if evaluation.clusters is not None:
        independent = f"the error of the loss takes {evaluation.clusters:,} clusters as independent, the others rows"
    told = [f"{counted} ({left_out}); {independent}."]
    if evaluation.bits_per_byte is not None:
        told.append(f"{evaluation.bits_per_byte:.6g} bits per byte.")
    bins = len(evaluation.reliability)
    told.append(f"Calibration error {evaluation.calibration_error:.4f}, over {bins} bins of the highest probability.")
    if evaluation.classwise_calibration_error is not None:
        told.append(f"Classwise calibration error {evaluation.classwise_calibration_error:.3g}.")
    if (best := evaluation.temperature) is not None:
        told.append(told_temperature(best))
    prior = f"{evaluation.prior_loss:.4f} nats"
    told.append(f"Always predicting the share of each label costs {prior}; skill over that {evaluation.skill:.4f}.")
    if evaluation.first_bad_label is not None:
        told.append(f"The first bad label is in row {evaluation.first_bad_label}.")
    if evaluation.first_unread is not None:
        told.append(f"{evaluation.unread_rows:,} rows could not be read, the first is row {evaluation.first_unread}.")
    if evaluation.nan_rows:
        told.append(f"{evaluation.nan_rows:,} rows are NaN, the first is row {evaluation.first_nan}; so is the mean.")
    if evaluation.infinite_rows:
        count, first = evaluation.infinite_rows, evaluation.first_infinite
        mean = "" if evaluation.nan_rows else "; the mean is infinite"  # with a NaN row it is NaN
        told.append(f"{count:,} rows give their label probability 0, the first is row {first}{mean}.")
    if evaluation.unnormalised_rows:
        count, first = evaluation.unnormalised_rows, evaluation.first_unnormalised
        told.append(f"{count:,} rows do not sum to 1, the first is row {first}; they are taken as they are.")
    return told


def told_temperature(best: Temperature) -> str:
    """The best temperature, in a sentence."""
    if not math.isfinite(best.mean_loss):
        return "No temperature is best: the mean loss is not finite."
    numbers = f"{best.mean_loss:.6g} nats, calibration error {best.calibration_error:.4f}"
    if not best.is_bounded:
        return f"No temperature is best: the loss still falls at {best.value:.4g} ({numbers})."
    return f"Temperature {best.value:.4f} is best: {numbers}, in {best.passes} passes."
