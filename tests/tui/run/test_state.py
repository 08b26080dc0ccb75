"""Events become a view of a run, whatever their order of resuming and pausing."""

from __future__ import annotations

import pytest

from orpo_mlx.runs.events import (
    CheckpointSaved,
    NoteLogged,
    Paused,
    Record,
    Resumed,
    RunFailed,
    RunFinished,
    SampleGenerated,
    decode,
    encode,
)
from tui.live.pending import Asking
from tui.run.state import Mark, RunState


def test_steps_become_columns(make_state):
    state = make_state({"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, lam=0.5)
    assert state.steps.column("loss").tolist() == [2.0, 1.5]
    assert state.steps.column("step").tolist() == [1, 2]
    assert state.step == 2
    assert state.steps.last("odds_ratio_loss") == 0.5
    assert "nothing" not in state.steps
    assert len(state.steps.column("nothing")) == 0


def test_a_resumed_process_voids_later_steps_evaluations_and_samples(make_state, make_eval):
    state = make_state(
        {"step": 1}, {"step": 2}, make_eval(2, is_best=True), SampleGenerated(2, "p", "r", 0),
        {"step": 3}, make_eval(3, is_best=True, loss=0.1), SampleGenerated(3, "p", "r", 0),
        Resumed(2, new_process=True), {"step": 3, "loss": 9.0},
    )  # fmt: skip
    assert state.steps.column("step").tolist() == [1, 2, 3]
    assert state.steps.last("loss") == 9.0
    assert state.evals.column("step").tolist() == [2]
    assert [sample.step for sample in state.samples] == [2]
    # The best of step 3 is void, and nothing says which came before it.
    assert state.best is None


def test_many_events_at_once_make_the_same_as_one_by_one(make_state, make_eval):
    given = [
        *({"step": step, "loss": 1 / step} for step in range(1, 40)), make_eval(39), Paused(39),
        {"step": 40}, Resumed(40), {"step": 41}, Resumed(20, new_process=True),
        *({"step": step, "epoch": step / 50} for step in range(21, 50)),
    ]  # fmt: skip
    one = make_state(*given, lam=0.3)
    many = RunState().apply_all(make_state.records(*given, lam=0.3))
    for table in ("steps", "evals"):
        a, b = getattr(one, table), getattr(many, table)
        assert a.names == b.names
        assert all((a.column(name) == b.column(name)).all() for name in a.names)
    assert len(one.steps) == 49
    assert one.training_seconds == many.training_seconds == 72  # a second each, none while paused
    for name in ("step", "epoch", "lines", "marks", "version", "paused"):
        assert getattr(one, name) == getattr(many, name)


def test_going_on_after_a_pause_voids_nothing(make_state):
    state = make_state({"step": 1}, {"step": 2}, Paused(2), Resumed(2))
    assert not state.paused
    assert len(state.steps) == 2
    assert state.marks == [Mark(2, "pause"), Mark(2, "resume")]


def test_time_paused_does_not_count(make_state):
    # Events come a second apart: start, step, pause | resume, step. One second is paused.
    state = make_state({"step": 1}, Paused(1), Resumed(1), {"step": 2})
    assert state.training_seconds == 3.0


def test_the_time_trained_is_the_trainers_own_once_it_has_told_it(make_state):
    # Two seconds by the clock of events; the trainer counts no samples.
    ended = make_state(
        {"step": 1}, RunFinished("stopped", 1, 1.5, None), note := NoteLogged("info", "x")
    )
    assert ended.training_seconds == 1.5
    # The comparison after the end is none of it, also when the run goes on.
    again = make_state(
        {"step": 1},
        RunFinished("stopped", 1, 1.5, None),
        note,
        note,
        Resumed(1, new_process=True),
        {"step": 2},
    )
    assert again.training_seconds == 3.0


def test_a_failure_by_a_number_that_is_none_is_marked_at_the_step_it_happened(make_state):
    failed = RunFailed("NotFiniteError", "any words", "x", 3, None, "not_finite")
    state = make_state({"step": 3}, failed)
    assert state.marks == [Mark(4, "nan")]
    assert state.ended is failed


def test_a_run_taken_up_again_has_not_ended(make_state):
    state = make_state({"step": 3}, RunFinished("stopped", 3, 1.0, None), Resumed(3, True))
    assert state.ended is None


def test_unknown_events_change_nothing_but_the_version(make_state):
    state = make_state({"step": 1})
    lines, version = len(state.lines), state.version
    state.apply(Record(None, "SomethingNew", 0.0, {}))
    assert (len(state.lines), state.step, state.version) == (lines, 1, version + 1)


@pytest.mark.parametrize("value", ["much", [], {}])
def test_events_with_words_for_numbers_are_named_and_passed_over(make_state, make_eval, value):
    records = make_state.records(
        {"step": 1, "loss": 2.0}, {"step": 2, "loss": value}, {"step": 3, "loss": 1.0},
        make_eval(3, loss=value), make_eval(3, loss=0.5),
    )  # fmt: skip
    state = RunState().apply_all(decode(encode(record.event, record.time)) for record in records)
    assert state.steps.column("loss").tolist() == [2.0, 1.0]
    assert state.evals.column("loss").tolist() == [0.5]
    named = [line.text.split(":")[0] for line in state.lines if line.kind == "error"]
    assert named == ["StepCompleted", "EvalCompleted"]


def test_the_events_tab_says_what_happened_with_its_step_first(make_state, make_eval):
    state = make_state(
        make_eval(10, loss=1.25, is_best=True),
        CheckpointSaved(10, "/x", 0.6, 38_000_000),
        NoteLogged("warning", "19 pairs were cut"),
    )
    assert [(line.kind, line.text) for line in state.lines[1:]] == [
        ("valid", "step 10  loss 1.2500 (best)  log-odds +0.20  acc 50%"),
        ("saved", "step 10  38 MB in 0.6 s"),
        ("warning", "19 pairs were cut"),
    ]


@pytest.mark.parametrize(
    ("step", "is_best", "is_said"), [(10, True, True), (10, False, False), (0, True, False)]
)
def test_only_an_evaluation_after_the_start_is_called_the_best(
    make_state, make_eval, step, is_best, is_said
):
    line = make_state(make_eval(step, is_best=is_best)).lines[-1]
    assert ("(best)" in line.text) == is_said


def test_an_evaluation_before_the_first_step_has_seen_no_tokens(make_state, make_eval):
    state = make_state(make_eval(0, odds_ratio_loss=0.5), {"step": 1, "tokens": 64}, make_eval(1))
    assert state.evals.column("tokens").tolist() == [0, 64]
    assert state.evals.column("odds_ratio_loss").tolist() == [0.5, 0.5]


def test_the_table_grows_past_its_first_size(make_state):
    state = make_state(*({"step": step, "loss": float(step)} for step in range(1, 1001)))
    assert state.steps.column("loss").tolist() == [float(step) for step in range(1, 1001)]


def test_a_request_is_answered_by_its_event_and_a_stop_by_the_end_only(make_state):
    state = make_state({"step": 1})
    pause, stop = Asking.begin("pause", state, 0.0), Asking.begin("stop", state, 0.0)
    assert (pause.text(1.0, "K"), stop.text(1.0, "K")) == ("pausing ...", "stopping ...")
    assert stop.text(100.0, "^k") == "no answer to the stop; ^k ends the process"
    state.apply(Record(Paused(1), "Paused", 0.0, {}))
    assert (pause.is_answered(state), stop.is_answered(state)) == (True, False)
    assert not stop.is_overdue(59.0)
    assert stop.is_overdue(61.0)
    assert not pause.is_overdue(1e6)
    state.apply(Record(RunFinished("stopped", 1, 1.0, None), "RunFinished", 0.0, {}))
    assert stop.is_answered(state)


def test_nothing_known_is_nothing_shown():
    state = RunState()
    assert (state.total_steps, state.lam, state.training_seconds) == (0, 0.1, 0.0)
