r"""What stands out among slices: the loss of each beside that of all other rows, with a p-value and its correction.

.. math:: t = \frac{m_s - m_r}{\sqrt{e_s^2 + e_r^2}}, \qquad
          \nu = \frac{(e_s^2 + e_r^2)^2}{e_s^4 / \nu_s + e_r^4 / \nu_r}

of the means and standard errors of the slice and of the rest, which is Welch's test [1]_. The sums of the rest are
those of all rows less those of the slice, exactly. Where rows are in clusters, which may lie in several slices, the
slice is held against all rows, :math:`t = (m_s - m) / (e_s + e)`: no dependence makes the error of that difference
larger than the sum of both, so the p-value is too large rather than too small.

.. [1] Welch, "The generalization of 'Student's' problem when several different population variances are involved",
   Biometrika 34(1-2), 1947.
"""

from __future__ import annotations

import math
from typing import Any

from xent.evaluation.statistics.calibration import calibration_error, gaps_of, sums_of
from xent.evaluation.statistics.evaluation import GroupMetrics
from xent.evaluation.statistics.exact_sums import Moments
from xent.evaluation.statistics.paired_tests import holm
from xent.evaluation.statistics.state import State
from xent.evaluation.statistics.student import p_value


def tested_slices(groups: dict[Any, GroupMetrics], state: State) -> dict[Any, GroupMetrics]:
    """The slices with their Brier scores, their calibration if it is kept, and p-values of their losses."""
    chances = [against_the_rest(state, key, groups[key]) for key in groups]
    found = {}
    for (key, each), chance, adjusted in zip(groups.items(), chances, holm(chances), strict=True):
        brier, bins = state.slice_brier[key], state.slice_bins.get(key)
        own: dict[str, Any] = {"p_value": chance, "adjusted_p_value": adjusted}
        own["brier"] = brier.mean if brier.n == each.counted else math.nan
        if bins is not None:
            sums = [sums_of(rows) for _, rows in sorted(bins.items())]
            is_whole = sum(rows.counted for rows in sums) == each.counted
            own["calibration_error"] = calibration_error(sums) if is_whole else math.nan
            own["noise_floor"] = float(gaps_of(sums).noise()[0]) if is_whole else math.nan
        found[key] = each._replace(**own)
    return found


def against_the_rest(state: State, key: Any, group: GroupMetrics) -> float:
    """The p-value of a slice's loss beside that of all other rows; NaN where it has none."""
    rest = Moments(*(whole - part for whole, part in zip(state.loss, state.slices[key].loss, strict=True)))
    if state.loss.n != state.counted or rest.n < 1:
        return math.nan
    error, degrees = group.standard_error, group.degrees_of_freedom
    if state.clusters is not None:
        both = error + state.clusters.standard_error("loss")
        return p_value(group.mean_loss - state.loss.mean, both, degrees)
    count = rest.weight**2 // rest.weight_squares if rest.weight else rest.n
    return welch(group.mean_loss - rest.mean, error, degrees, rest.standard_error, count - 1)


def welch(difference: float, first: float, first_degrees: int, second: float, second_degrees: int) -> float:
    """The p-value of a difference of two means, from their standard errors and degrees of freedom.

    Examples
    --------
    >>> round(welch(2.0, 0.6, 10, 0.8, 10), 4)  # t = 2 of 18 degrees
    0.0608
    """
    variance = first**2 + second**2
    if math.isnan(variance) or min(first_degrees, second_degrees) < 1:
        return math.nan
    degrees = variance**2 / (first**4 / first_degrees + second**4 / second_degrees) if variance else 1
    return p_value(difference, math.sqrt(variance), max(int(degrees), 1))
