"""Values on one line: heights follow them, bars fill in proportion."""

from __future__ import annotations

import numpy as np
import pytest

from tui.charts.sparkline import gauge, trend


@pytest.mark.parametrize(
    ("values", "width", "text"),
    [
        ([0.30, 0.31, 0.32, 0.33, 0.34, 0.35, 0.36, 0.37], 8, "▁▂▃▄▅▆▇█"),
        ([0, 0, 7, 7], 2, "▁█"),  # means of halves
        ([2.0, np.nan, 1.0], 8, "█▁"),
        ([5.0, 5.0, 5.0], 8, "▅▅▅"),
        ([np.nan], 8, ""),
        ([], 8, ""),
        ([1.0, 2.0], 0, ""),
    ],
)
def test_heights_follow_the_values(values, width, text):
    assert trend(np.array(values, dtype=float), width) == text


def test_without_braille_or_blocks_it_is_ascii():
    assert trend(np.array([0.0, 1.0]), 2, "ascii") == "_#"
    assert gauge(0.5, 4, "ascii") == "##.."


@pytest.mark.parametrize(("share", "text"), [(-1, "▱▱▱▱"), (0.25, "▰▱▱▱"), (7, "▰▰▰▰")])
def test_a_gauge_keeps_its_width(share, text):
    assert gauge(share, 4) == text
