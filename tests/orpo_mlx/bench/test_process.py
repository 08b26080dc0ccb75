"""A worker's rows come as it finds them, and whatever happens to it is a reason in words."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from orpo_mlx.bench import process
from orpo_mlx.bench.process import WorkerFailed, run_command, run_job

TASK = "import json, os, sys, time; task = json.load(sys.stdin); "
ROW = "print(json.dumps({'row': {'n': task['n']}}), flush=True); "


def silent(label: str, seconds: float) -> None:
    """Shows nothing."""


def rows_of(code: str, folder: Path, seconds: float = 60.0, say=silent):
    command = [sys.executable, "-c", TASK + code]
    return run_command(command, {"folder": str(folder), "n": 7}, seconds, say, {"MARK": "set"})


def test_rows_come_with_what_is_said_and_with_the_environment(tmp_path: Path):
    heard: list[str] = []
    code = (
        "print(json.dumps({'say': 'first'}), flush=True); print('noise', [1]); "
        "print(json.dumps({'row': {'mark': os.environ['MARK'], 'at': os.getcwd()}}))"
    )
    (row,) = rows_of(code, tmp_path, say=lambda label, seconds: heard.append(label))
    assert row == {"mark": "set", "at": str(tmp_path.resolve())}
    assert "first" in heard


def test_a_worker_that_fails_says_why_and_its_rows_stand(tmp_path: Path):
    found = []
    rows = rows_of(ROW + "sys.exit('the disk is full')", tmp_path)
    with pytest.raises(WorkerFailed) as failed:
        found.extend(rows)  # keeps what came before
    assert found == [{"n": 7}]
    assert failed.value.reason == "its process failed: the disk is full"
    assert (failed.value.code, failed.value.is_late) == (1, False)


def test_a_worker_that_crashes_is_told_by_its_signal(tmp_path: Path):
    with pytest.raises(WorkerFailed, match="ended by SIGKILL") as failed:
        list(rows_of("os.kill(os.getpid(), 9)", tmp_path))
    assert failed.value.code == -signal.SIGKILL
    assert not failed.value.is_late


def test_a_worker_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code = (
        "import subprocess; child = subprocess.Popen(['sleep', '600']); "
        "print(json.dumps({'row': {'pid': child.pid}}), flush=True); time.sleep(600)"
    )
    rows = rows_of(code, tmp_path, seconds=300.0)
    pid, later = next(rows)["pid"], time.monotonic() + 301
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: later))
    with pytest.raises(WorkerFailed, match="ended after 5 min, the time there was") as failed:
        next(rows)
    assert failed.value.is_late
    wait_until_gone(pid)


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process; one that nobody has waited for counts as ended."""
    while True:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.01)


def test_a_reader_who_goes_away_leaves_no_worker(tmp_path: Path):
    code = "print(json.dumps({'row': {'pid': os.getpid()}}), flush=True); time.sleep(600)"
    rows = rows_of(code, tmp_path)
    pid = next(rows)["pid"]
    rows.close()
    wait_until_gone(pid)


def test_a_real_worker_refuses_a_job_in_one_line(tmp_path: Path):
    """A model that is not there is bad input: its message comes whole, without a traceback."""
    task = {"model": "/no/such/model", "must": True, "shape": {}, "workloads": []}
    with pytest.raises(WorkerFailed, match="there is no such folder") as failed:
        list(run_job("models", {"folder": str(tmp_path), **task}, 120.0, silent, {}))
    assert failed.value.code == 2
