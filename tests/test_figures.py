"""The ticks and the names of plots; ``test_page.py`` reads the plots themselves."""

import pytest

from xent.evaluation.report.figures import format_tick, log_ticks, shorten


@pytest.mark.parametrize("low, high", [(1e-8, 4096), (0.7, 2.8), (1.1, 2.8), (3e-8, 8e-8), (1e-3, 1e3), (2.1, 5.3)])
def test_a_logarithmic_axis_has_some_ticks_and_not_many(low, high):
    ticks = log_ticks(low, high)

    assert 1 <= len(ticks) <= 7 and low <= min(ticks) and max(ticks) <= high


@pytest.mark.parametrize(
    "number, expected", [(0.001, "0.001"), (1e-7, "10⁻⁷"), (2e-8, "2·10⁻⁸"), (500.0, "500"), (1e5, "10⁵")]
)
def test_a_power_of_ten_is_written_as_one(number, expected):
    assert format_tick(number) == expected


@pytest.mark.parametrize(
    "name, expected",
    [
        ("a" * 24, "a" * 24),
        ("a" * 20 + "b" * 20, "a" * 16 + "…" + "b" * 7),
        ("日" * 30, "日" * 8 + "…" + "日" * 3),
        ("a\nb", "a\\nb"),
    ],
)
def test_a_long_name_keeps_its_ends(name, expected):
    assert shorten(name) == expected
