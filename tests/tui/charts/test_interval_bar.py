"""Bars are drawn where the numbers are."""

from __future__ import annotations

import pytest

from orpo_mlx.runs.evaluation import Measured
from tui.charts.interval_bar import interval_bar


@pytest.mark.parametrize(
    ("found", "bar"),
    [
        (Measured(0.5, 0.25, 0.75), "..|-o-|.."),
        (Measured(0.0, 0.0, 0.25), "o-|......"),
        (Measured(1.0, 1.0, 1.0), "........o"),
        (Measured(2.0, -1.0, 3.0), "|-------o"),
    ],
)
def test_a_bar_reaches_from_low_to_high_with_its_value(found, bar):
    assert interval_bar(found, 0.0, 1.0, 9, "ascii") == bar
    assert interval_bar(found, 0.0, 1.0, 4, "ascii") == ""
