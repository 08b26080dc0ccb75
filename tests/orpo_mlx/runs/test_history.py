"""The time left, slow steps, and what a resumed run forgets."""

from __future__ import annotations

from dataclasses import replace

from support.measured import NAMES, measured

from orpo_mlx.runs.events import EvalCompleted, Resumed, RunStarted, StepCompleted
from orpo_mlx.runs.history import RunHistory, valid_events

STARTED = RunStarted("r", "m", "d", 240, 95, 5, 1, 2, {}, {}, "orpo", [*NAMES])


def step(number: int, seconds: float = 2.0) -> StepCompleted:
    return StepCompleted(measured(0.5), step=number, step_seconds=seconds)


def validation(number: int) -> EvalCompleted:
    return EvalCompleted(measured(1.0), step=number, pairs=5, seconds=500.0)


def test_the_time_left_is_the_median_of_recent_steps_whatever_happened_between() -> None:
    history = RunHistory()
    history.apply(STARTED)
    assert history.seconds_left() == 0
    for number, seconds in ((1, 2.0), (2, 2.0), (3, 100.0), (4, 4.0), (5, 2.0)):
        history.apply(step(number, seconds))
    history.apply(validation(5))
    assert history.seconds_left() == (240 - 5) * 2.0


def test_a_slow_step_is_judged_by_those_before_it() -> None:
    history = RunHistory()
    for number in range(1, 5):
        history.apply(step(number))
    assert history.slowness(step(5, 100.0)) == 0, "too few to judge"
    history.apply(step(5))
    assert history.slowness(step(6, 6.0)) == 3.0


def test_a_resumed_run_forgets_what_is_computed_again() -> None:
    history = RunHistory()
    for event in (validation(0), validation(100), Resumed(50, True)):
        history.apply(event)
    assert list(history.evals) == [0]


def test_what_two_processes_measured_counts_once() -> None:
    events = [
        step(1),
        step(2),
        step(3),
        validation(3),
        Resumed(1, True),
        step(2),
        Resumed(2, False),
    ]
    again = [*events, None, replace(STARTED, resumed_from_step=2), step(3)]
    assert [event.step for event in valid_events(events)] == [1, 1, 2, 2]  # type: ignore[union-attr]
    assert [e.step for e in valid_events(again) if isinstance(e, StepCompleted)] == [1, 2, 3]
