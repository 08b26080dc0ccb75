"""`orpo-mlx` as a person runs it, with a real process behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.runs.directory import RunDirectory, create_run

TRAINER = """
import sys, time
from pathlib import Path
from orpo_mlx.runs.control import Inbox
from orpo_mlx.runs.directory import Heartbeat, RunDirectory
from orpo_mlx.runs.events import EventWriter, RunFinished, StepCompleted
run = RunDirectory(Path(sys.argv[1]))
with run.lock():
    inbox, writer = Inbox(run.control_folder), EventWriter(run.events_file)
    Heartbeat(run, 9).beat("running", 1)
    writer.write(StepCompleted({"loss": 0.5}, step=1))
    print("started", flush=True)
    while not any(request.name in ("stop", "abort") for request in inbox.poll()):
        time.sleep(0.01)
    writer.write(RunFinished("stopped", 1, 2.0, None))
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    """A run in the hands of another process that only obeys."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    run = create_run(TrainConfig(model="m", data="d"))
    child = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        try:
            assert child.stdout.readline() == "started\n"
            yield run
        finally:
            child.kill()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "orpo_mlx", *words)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_a_running_run_is_listed_asked_watched_and_stopped(trained: RunDirectory) -> None:
    listed = json.loads(command("runs", "--json").stdout)
    assert [(row["id"], row["status"], row["step"]) for row in listed] == [
        (trained.id, "running", 1)
    ]
    asked = command("checkpoint", trained.id[:6])
    assert (asked.returncode, asked.stdout) == (0, f"{trained.id}: saves a checkpoint\n")
    stopped = command("stop", trained.id, "--wait")
    assert (stopped.returncode, stopped.stdout) == (0, f"{trained.id}: stopped\n")
    watched = command("watch", trained.id, "--plain")
    assert watched.returncode == 0
    assert watched.stdout.splitlines()[-1] == "stopped as asked after step 1 in 2.0 s"
    raw = command("watch", trained.id, "--json").stdout
    assert raw == trained.events_file.read_text(encoding="utf-8")
    again = command("stop", trained.id)
    assert again.returncode == 2
    assert "is not running (it is stopped)" in again.stderr


def test_interrupting_a_watch_leaves_the_run_alone(trained: RunDirectory) -> None:
    watch = subprocess.Popen(
        [sys.executable, "-m", "orpo_mlx", "watch", trained.id, "--plain"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline().startswith("step 1")
        watch.send_signal(2)
        assert watch.wait(timeout=30) == 130
        assert watch.stderr.read() == f"stopped watching; run {trained.id} goes on\n"
    assert trained.read_status() == "running"


def test_watching_a_crashed_run_says_so(tmp_path: Path) -> None:
    run = create_run(TrainConfig(run_dir=str(tmp_path / "run")))
    watched = command("watch", str(run.path))
    assert watched.returncode == 1
    assert "its process ended without a word" in watched.stderr


def test_a_closed_pipe_is_silent(tmp_path: Path) -> None:
    for number in range(3):
        create_run(TrainConfig(run_dir=str(tmp_path / f"run-{number}")))
    for words in ("runs --json", "--help", "train --help"):
        line = f"{sys.executable} -m orpo_mlx {words} | true; exit ${{PIPESTATUS[0]}}"
        env = {**os.environ, "ORPO_MLX_HOME": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, env=env, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
