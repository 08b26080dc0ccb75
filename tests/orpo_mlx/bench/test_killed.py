"""A killed training is believed only if it was killed, and went on from a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.bench import killed
from orpo_mlx.bench.killed import iter_killed
from orpo_mlx.bench.process import Row, WorkerFailed

WHOLE = {"adapter": "a" * 64, "bytes": 10, "from_step": 0}


def trainers(monkeypatch: pytest.MonkeyPatch, of_kill: Any, resumed: Row) -> list[Row]:
    """Stand in for the trainers' processes; returns the tasks they get."""
    tasks: list[Row] = []

    def run_job(job: str, task: Row, seconds: float, say: Any, environment: Any) -> Iterator[Row]:
        tasks.append(task)
        if task.get("kill") and of_kill is not None:
            raise of_kill
        yield resumed if task.get("resume") else WHOLE

    monkeypatch.setattr(killed, "run_job", run_job)
    return tasks


def found(tmp_path: Path) -> Row:
    task = {"folder": str(tmp_path), "model": "m", "data": "d"}
    (row,) = iter_killed(task, lambda: 60.0, lambda label, seconds: None, {})
    return row


KILLED = WorkerFailed("its process was ended by SIGKILL", -signal.SIGKILL, False)


@pytest.mark.parametrize(
    ("resumed", "passed"),
    [
        ({**WHOLE, "from_step": 4}, True),
        ({**WHOLE, "from_step": 4, "adapter": "b" * 64}, False),
        (WHOLE, False),  # it began anew: the same bytes prove nothing of a resume
    ],
)
def test_the_same_bytes_from_a_checkpoint_pass(
    resumed: Row, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tasks = trainers(monkeypatch, KILLED, resumed)
    assert found(tmp_path)["passed"] is passed
    # The same run is killed and resumed; the whole one is another.
    assert [Path(task["run"]).name for task in tasks] == ["uninterrupted", "killed", "killed"]


@pytest.mark.parametrize(
    ("of_kill", "reason"),
    [
        (None, "ended before it was killed"),
        (WorkerFailed("out of memory", 1, False), "out of memory"),
        (WorkerFailed("no time", -signal.SIGKILL, True), "no time"),
    ],
)
def test_a_trainer_that_ends_otherwise_is_no_proof(
    of_kill: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trainers(monkeypatch, of_kill, WHOLE)
    with pytest.raises(WorkerFailed, match=reason):
        found(tmp_path)
