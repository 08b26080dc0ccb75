"""The rest of a run is what its steps, evaluations and checkpoints will take."""

from __future__ import annotations

import pytest

from orpo_mlx.runs.events import CheckpointSaved, RunFinished
from tui.run.time_left import TimeLeft, time_left


def test_steps_at_their_median_plus_what_is_scheduled(make_state, make_eval):
    steps = [{"step": step, "step_seconds": 2.0} for step in range(1, 41)]
    state = make_state(
        *steps, make_eval(40, seconds=5.0), CheckpointSaved(40, "x", 1.0, 1),
        cadence={"evaluate": 20, "save": 50},
    )  # fmt: skip
    # 60 steps of 2 s; evaluations at 60, 80, 100; checkpoints at 50 and 100.
    assert time_left(state).seconds == pytest.approx(60 * 2 + 3 * 5 + 2 * 1)


def test_only_the_last_fifty_steps_count_and_one_slow_one_does_not(make_state):
    slow = [{"step": step, "step_seconds": 60.0} for step in range(1, 11)]
    fast = [{"step": step, "step_seconds": 1.0} for step in range(11, 60)]
    state = make_state(*slow, *fast, {"step": 60, "step_seconds": 500.0})
    assert time_left(state).seconds == pytest.approx(40)


def test_the_uncertainty_is_half_the_distance_of_the_quartiles(make_state):
    # 1, 2, 3, 4, 5: quartiles 2 and 4.
    steps = [{"step": step, "step_seconds": float(step)} for step in range(1, 6)]
    left = time_left(make_state(*steps, total=15))
    assert (left.seconds, left.uncertainty) == (30.0, 10.0)


def test_before_the_first_step_and_after_the_end_nothing_is_said(make_state):
    assert time_left(make_state()) is None
    finished = RunFinished("stopped", 1, 1.0, None)
    assert time_left(make_state({"step": 1}, finished)) is None
    assert time_left(make_state({"step": 100})) is None


def test_what_is_switched_off_takes_no_time(make_state, make_eval):
    state = make_state(
        {"step": 50}, make_eval(50), CheckpointSaved(50, "x", 1.0, 1), eval_every=0, save_every=0
    )
    assert time_left(state).seconds == 50 * 2


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (TimeLeft(5460, 360), "1 h 31 min (±6 min)"),
        (TimeLeft(5460, 30), "1 h 31 min"),
        (TimeLeft(20, 0.5), "20 s"),
    ],
)
def test_as_people_say_it(left, text):
    assert str(left) == text
