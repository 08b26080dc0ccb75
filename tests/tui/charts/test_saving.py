"""Charts as files: all numbers, and a picture of what the screen shows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tui.charts.kinds import chart_kinds
from tui.charts.saving import charts_svg, save_charts

CHARTS = {kind.id: kind for kind in chart_kinds()}


@pytest.fixture
def state(make_state, make_eval):
    return make_state(*({"step": step} for step in range(1, 31)), make_eval(20), make_eval(30))


@pytest.mark.parametrize(
    ("kind", "smoothing", "curves", "points"),
    [
        ("loss", 0.9, 2, 2),  # smoothed over raw; evaluations as they are
        ("loss", 0.0, 1, 2),
        ("rate", 0.9, 1, 0),
        ("logps", 0.9, 4, 4),
    ],
)
def test_raw_values_stay_behind_a_smoothed_line_and_points_stay_points(
    state, kind, smoothing, curves, points
):
    root = ElementTree.fromstring(charts_svg([CHARTS[kind]], state, smoothing))
    assert len(root.findall(".//{*}polyline")) == curves
    in_legend = points // 2  # two evaluations of each line
    assert len(root.findall(".//{*}circle")) == points + in_legend


def test_the_numbers_are_kept_in_full_one_row_a_step(state, tmp_path):
    files = save_charts(tmp_path / "new", [CHARTS["loss"]], state)
    assert [file.name for file in files] == ["steps.csv", "validation.csv", "charts.svg"]
    steps, validation = (file.read_text().splitlines() for file in files[:2])
    assert (len(steps), len(validation)) == (31, 3)
    assert steps[0].startswith("step,seconds,loss")
    assert validation[1].startswith("20.0,")
