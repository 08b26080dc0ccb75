"""What can be asked of a run's trainer, and how often it is."""

from __future__ import annotations

import os
import signal

import pytest

from orpo_mlx.errors import RunError
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.events import Paused, Record, RunFinished
from tui.live.trainer import Trainer
from tui.processes import requests

ALIVE = {"preparing", "running", "paused", "stopping", "stalled"}
ENDED = {"completed", "stopped", "failed", "crashed"}


@pytest.fixture
def sent(monkeypatch) -> list[str]:
    """Requests that reached the folder."""
    names: list[str] = []
    monkeypatch.setattr(requests, "send_request", lambda run, name: names.append(name))
    return names


@pytest.mark.parametrize(
    ("action", "statuses"),
    [
        ("pause", ALIVE), ("free", ALIVE), ("stop", ALIVE), ("stop_now", ALIVE),
        ("checkpoint", ALIVE), ("sample", ALIVE),
        ("resume", {"stopped", "failed", "crashed"}),  # what is completed has nowhere to go on
        ("kill", {"stalled"}),
        ("export", ENDED), ("test", ENDED),
        ("help", ALIVE | ENDED),
    ],
)  # fmt: skip
def test_a_command_is_allowed_where_it_makes_sense(make_run, action, statuses):
    trainer = Trainer(make_run(steps=1))
    assert {s for s in ALIVE | ENDED if trainer.allows(action, s, 0.0)} == statuses


def test_one_request_is_sent_once_until_it_is_answered(make_run, make_state, sent):
    trainer, state = Trainer(make_run(steps=1)), make_state({"step": 1})
    trainer.ask("pause", state, 0.0)
    trainer.ask("pause", state, 1.0)
    assert sent == ["pause"]
    assert trainer.waiting_text(state, 1.0, "x") == "pausing ..."
    trainer.ask("checkpoint", state, 2.0)
    assert trainer.waiting_text(state, 2.0, "x") == "saving ..."
    state.apply(Record(Paused(1), "Paused", 3.0, {}))
    assert trainer.waiting_text(state, 3.0, "x") == ""
    trainer.ask("checkpoint", state, 4.0)
    assert sent == ["pause", "checkpoint", "checkpoint"]


def test_an_answered_request_may_be_sent_again_though_nobody_looked(make_run, make_state, sent):
    trainer, state = Trainer(make_run(steps=1)), make_state({"step": 1})
    trainer.ask("pause", state, 0.0)
    state.apply(Record(Paused(1), "Paused", 1.0, {}))
    trainer.ask("pause", state, 2.0)
    assert sent == ["pause", "pause"]


def test_a_stop_without_an_answer_may_be_followed_by_a_kill(make_run, make_state, sent):
    trainer, state = Trainer(make_run(steps=1)), make_state({"step": 1})
    assert not trainer.is_overdue(1e9)
    assert not trainer.is_freeing
    trainer.ask("stop", state, 0.0, frees=True)
    assert trainer.is_freeing
    assert not trainer.allows("kill", "stopping", 59.0)
    assert trainer.allows("kill", "stopping", 61.0)
    state.apply(Record(RunFinished("stopped", 1, 1.0, None), "RunFinished", 0.0, {}))
    trainer.has_ended()
    assert (trainer.waiting_text(state, 61.0, "x"), trainer.is_overdue(61.0)) == ("", False)


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_waited_for(
    make_run, make_state, monkeypatch
):
    def full(run, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(requests, "send_request", full)
    trainer = Trainer(make_run(steps=1))
    with pytest.raises(RunError, match=r"cannot be written \(No space left"):
        trainer.ask("stop", make_state(), 0.0)
    assert trainer.asking is None


def test_only_a_living_trainer_is_ended_and_its_end_is_noted_as_wanted(make_run, monkeypatch):
    run, ended = make_run(steps=1), []
    monkeypatch.setattr(os, "kill", lambda *given: ended.append(given))
    with pytest.raises(RunError, match="has ended meanwhile"):
        Trainer(run).kill()
    assert ended == []
    with run.lock():
        send_request(run, "pause")
        Trainer(run).kill()
    assert ended == [(os.getpid(), signal.SIGKILL)]
    assert any("-abort-" in path.name for path in run.control_folder.iterdir())
