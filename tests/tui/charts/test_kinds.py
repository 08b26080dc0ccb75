"""What a chart draws of a run, and which charts a setting names."""

from __future__ import annotations

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.objectives import build_objective
from orpo_mlx.objectives.dpo import Dpo
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.runs.events import DriftMeasured, Paused, Resumed
from tui.charts.kinds import chart_kinds, chart_lines, chart_marks, chosen_charts

CHARTS = {kind.id: kind for kind in chart_kinds(Orpo().metrics)}

DRIFT = DriftMeasured(2, 0.75, 0.5, 1.0, prompts=12, seconds=1.0)
EVALUATED = ["loss", "log_odds", "accuracy", "margin"]


@pytest.mark.parametrize("kind", CHARTS)
def test_evaluations_are_points_beside_the_line_of_training(make_state, make_eval, kind):
    state = make_state(
        {"step": 1}, {"step": 2},
        make_eval(2, loss=7.0, log_odds_ratio=7.0, preference_accuracy=7.0, logps_margin=7.0,
                  chosen_logps=7.0, rejected_logps=7.0),
    )  # fmt: skip
    points = [line for line in chart_lines(CHARTS[kind], state) if line.points]
    names = {"logps": ["validation"] * 2, **{key: ["validation"] for key in EVALUATED}}
    assert [(p.name, p.xs.tolist(), p.ys.tolist()) for p in points] == [
        (name, [2], [7]) for name in names.get(kind, ())
    ]
    without = chart_lines(CHARTS[kind], make_state({"step": 1}))
    assert [line.name for line in without if line.points or not len(line.xs)] == []


def test_drift_is_points_over_steps_and_void_where_a_process_computes_again(make_state):
    later = DriftMeasured(4, 0.9, 0.5, 1.0, prompts=12, seconds=1.0)
    again = Resumed(2, new_process=True)
    state = make_state({"step": 2}, DRIFT, {"step": 4}, later, again)
    (line,) = chart_lines(CHARTS["drift"], state)
    assert (line.points, line.xs.tolist(), line.ys.tolist()) == (True, [2], [0.75])
    assert chart_lines(CHARTS["drift"], make_state({"step": 2})) == []


def test_memory_is_told_in_gigabytes_as_it_is(make_state):
    state = make_state({"step": 1, "active_memory_bytes": 5e9, "peak_memory_bytes": 8.5e9})
    lines = chart_lines(CHARTS["memory"], state)
    assert [(line.name, line.ys.tolist()) for line in lines] == [("active", [5]), ("peak", [8.5])]


def test_the_charts_of_orpo_come_in_their_usual_order():
    assert list(CHARTS) == [
        "loss", "log_odds", "logps", "accuracy", "parts", "margin", "drift", "rate",
        "grad", "speed", "memory",
    ]  # fmt: skip


def test_the_charts_of_an_objective_with_rewards():
    ids = [kind.id for kind in chart_kinds(Dpo().metrics)]
    assert ids[:5] == ["loss", "logps", "accuracy", "rewards", "reward_margin"]
    assert not {"log_odds", "parts", "margin"} & set(ids)


def test_the_charts_of_a_reward_model():
    ids = [kind.id for kind in chart_kinds(Reward().metrics)]
    assert ids[:5] == ["loss", "accuracy", "rewards", "reward_margin", "drift"]


def test_the_preference_term_is_lambda_times_the_odds_ratio_loss(make_state):
    state = make_state({"step": 1, "odds_ratio_loss": 0.5}, lam=0.5)
    lines = {line.name: line.ys.tolist() for line in chart_lines(CHARTS["parts"], state)}
    assert lines == {"NLL": [0.9], "λ·odds-ratio": [0.25]}


def test_what_goes_in_steps_is_never_smoothed(make_state):
    state = make_state({"step": 1}, DRIFT)
    plain = [k for k, c in CHARTS.items() if not chart_lines(c, state)[0].may_smooth]
    assert plain == ["drift", "rate", "memory"]


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


def test_waiting_is_drawn_of_several_processes(make_state):
    step = {"step": 1, "peer_tokens": [1, 1], "wait_seconds": 0.5, "exchange_seconds": 0.25}
    state = make_state(step, hosts=["a", "a"])
    (kind,) = chosen_charts("peers", is_shared=True)
    assert {line.name: line.ys.tolist() for line in chart_lines(kind, state)} == {
        "slowest": [0.5], "network": [0.25]
    }  # fmt: skip
    assert [chart.id for chart in chosen_charts("peers,loss")] == ["loss", "log_odds"]


def test_what_a_run_cannot_have_gives_way_to_its_own():
    rating = build_objective("reward", TrainConfig(objective="reward").model_dump()).metrics
    usual = chosen_charts("loss,log_odds,logps,accuracy", rating)
    assert [chart.id for chart in usual] == ["loss", "accuracy", "rewards", "reward_margin"]
    assert [chart.id for chart in chosen_charts("speed,log_odds", rating)] == ["speed", "loss"]


def test_marks_have_a_place_on_the_axis_of_steps_only(make_state):
    state = make_state({"step": 3}, Paused(3))
    assert chart_marks(state) == [(3, "pause")]
    assert chart_marks(state, "time") == []
