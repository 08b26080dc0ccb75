"""What a chart draws of a run, and which charts a setting names."""

from __future__ import annotations

import pytest

from orpo_mlx.runs.events import Paused
from tui.charts import CHARTS_BY_ID, chart_lines, chart_marks, chosen_charts

EVALUATED = ["loss", "log_odds", "accuracy", "margin"]


@pytest.mark.parametrize("kind", CHARTS_BY_ID)
def test_evaluations_are_points_beside_the_line_of_training(make_state, make_eval, kind):
    state = make_state(
        {"step": 1}, {"step": 2},
        make_eval(2, loss=7.0, log_odds_ratio=7.0, preference_accuracy=7.0, logps_margin=7.0),
    )  # fmt: skip
    points = [line for line in chart_lines(CHARTS_BY_ID[kind], state) if line.points]
    assert [(p.name, p.xs.tolist(), p.ys.tolist()) for p in points] == (
        [("valid", [2], [7])] if kind in EVALUATED else []
    )
    without = chart_lines(CHARTS_BY_ID[kind], make_state({"step": 1}))
    assert [line.name for line in without if line.points or not len(line.xs)] == []


def test_memory_is_told_in_gigabytes_as_it_is(make_state):
    state = make_state({"step": 1, "active_memory_bytes": 5e9, "peak_memory_bytes": 8.5e9})
    lines = chart_lines(CHARTS_BY_ID["memory"], state)
    assert [(line.name, line.ys.tolist()) for line in lines] == [("active", [5]), ("peak", [8.5])]


def test_what_goes_in_steps_is_never_smoothed(make_state):
    state = make_state({"step": 1})
    plain = [k for k, c in CHARTS_BY_ID.items() if not chart_lines(c, state)[0].may_smooth]
    assert plain == ["rate", "memory"]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ("speed, grad", ["speed", "grad"]),
        (["margin", "none"], ["margin"]),
        ("none", ["loss", "log_odds", "logps", "accuracy"]),
        ("", ["loss", "log_odds", "logps", "accuracy"]),
    ],
)
def test_a_setting_names_charts_and_what_it_misspells_is_left_out(names, ids):
    assert [chart.id for chart in chosen_charts(names)] == ids


def test_marks_have_a_place_on_the_axis_of_steps_only(make_state):
    state = make_state({"step": 3}, Paused(3))
    assert chart_marks(state) == [(3, "pause")]
    assert chart_marks(state, "time") == []
