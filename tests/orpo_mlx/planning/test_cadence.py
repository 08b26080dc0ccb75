"""How often a run is reported, evaluated and saved; the right numbers by hand."""

from __future__ import annotations

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.planning.cadence import Cadence, plan_cadence
from orpo_mlx.runs.event_text import cadence_line


@pytest.mark.parametrize(
    ("steps", "trained", "evaluated", "expected"),
    [
        # 30 steps: each is told; a quarter of 120 passes pays for 90 forward passes, 7 evaluations.
        (30, 120, 12, (1, 4, 4, 3)),
        # 1,000 steps of 4 pairs and 200 held out: a quarter of 4,000 steps' time would be paid
        # by 3,000 forward passes, 15 evaluations; ten are enough.
        (1000, 4000, 200, (10, 100, 100, 100)),
        # 240 pairs and 60 held out: 60 backward passes' time is 180 forward passes, 3 evaluations.
        (60, 240, 60, (1, 20, 20, 6)),
        # An evaluation that takes longer than all of it is made at start and end only.
        (4, 8, 200, (1, 0, 0, 1)),
        (7, 28, 0, (1, 0, 0, 1)),
    ],
)
def test_it_follows_the_run(steps, trained, evaluated, expected):
    found = plan_cadence(TrainConfig(), steps, trained, evaluated)
    assert (found.report, found.evaluate, found.sample, found.save) == expected
    assert (found.reports_slow, found.saves_by_time) == (True, True)


def test_what_the_user_set_wins():
    config = TrainConfig(report_every=7, eval_every=0, save_every=50, sample_every=9)
    found = plan_cadence(config, 1000, 4000, 100)
    assert found == Cadence(7, 0, 9, 50, reports_slow=False, saves_by_time=False)
    assert plan_cadence(TrainConfig(eval_every=40), 1000, 4000, 100).sample == 40


def test_the_first_the_last_and_each_slow_step_are_reported():
    found = plan_cadence(TrainConfig(), 1000, 4000, 100)
    due = [step for step in range(1, 31) if found.is_report_due(step, 0.2, step == 25)]
    assert due == [1, 10, 20, 25, 30]
    assert found.is_report_due(7, 1.2, False)
    assert not plan_cadence(TrainConfig(report_every=10), 99, 9, 9).is_report_due(7, 1.2, False)


def test_ten_minutes_of_work_are_saved():
    found = plan_cadence(TrainConfig(), 1000, 4000, 100)
    assert [found.is_save_due(7, seconds, False) for seconds in (599, 600)] == [False, True]
    fixed = plan_cadence(TrainConfig(save_every=0), 1000, 4000, 100)
    assert not fixed.is_save_due(7, 6000, False)


def test_checkpoints_that_a_run_makes():
    # Start, end, at 50 and 100, and at each of four evaluations, if each is the best.
    assert plan_cadence(TrainConfig(save_every=50, eval_every=25), 100, 400, 10).saves(100) == 8
    assert plan_cadence(TrainConfig(), 100, 400, 10).saves(100) == 101


def test_it_is_told_in_a_line():
    cadence = {"report": 10, "evaluate": 100, "save": 0, "reports_slow": True}
    assert cadence_line({**cadence, "saves_by_time": True}, 950, 661_000) == (
        "often   evaluated each 100 steps (11 times); saved at start and end and each 10 min, "
        "661 kB each; every 10 steps shown, and each slow one"
    )


def test_drift_goes_with_evaluations_unless_set():
    found = plan_cadence(TrainConfig(eval_every=20), 100, 400, 10)
    assert (found.drift, found.drift_if_cheap) == (20, True)
    found = plan_cadence(TrainConfig(eval_every=0), 100, 400, 10)
    assert found.drift == 0
    found = plan_cadence(TrainConfig(eval_every=0, stop_drift=0.5), 100, 400, 10)
    assert (found.drift, found.drift_if_cheap) == (10, False)
    found = plan_cadence(TrainConfig(drift_every=7), 100, 400, 10)
    assert (found.drift, found.drift_if_cheap) == (7, False)
    assert plan_cadence(TrainConfig(drift_every=0), 100, 400, 10).drift == 0
    said = cadence_line(
        {"report": 1, "evaluate": 0, "save": 0, "reports_slow": 0, "saves_by_time": 0, "drift": 7},
        100, 0,
    )  # fmt: skip
    assert said.endswith("; drift each 7 steps (15 times)")
