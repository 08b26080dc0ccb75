"""Where the processes of a run are, and how it goes on with as many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.measured import NAMES, measured

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import RunStarted, StepCompleted, encode
from orpo_mlx.runs.peers.hosts import hosts_text, newest_hosts, resume_command

STARTED = RunStarted("r", "m", "d", 9, 9, 1, 1, 2, {}, {}, "orpo", [*NAMES])


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (["mac"] * 4, "4 processes on mac"),
        (["a", "b"], "2 processes: 1 on a, 1 on b"),
        (["a\x1b[2J", "b"], "2 processes: 1 on a\\x1b[2J, 1 on b"),
    ],
)
def test_hosts_in_words(hosts, text):
    assert hosts_text(hosts) == text


@pytest.mark.parametrize(
    ("hosts", "more"),
    [([], ""), (["mac"] * 3, " --processes 3"), (["a", "b"], " --hosts HOSTFILE")],
)
def test_the_command_that_goes_on_asks_for_as_many_processes(hosts, more):
    assert resume_command(RunDirectory(Path("/r/x y")), hosts) == f"orpo-mlx resume '/r/x y'{more}"


def test_the_newest_start_counts(tmp_path):
    run = RunDirectory(tmp_path)
    assert newest_hosts(run) == []
    events = [STARTED, replace(STARTED, hosts=["a", "a"]), StepCompleted(measured(0.5), step=1)]
    run.events_file.write_text("".join(map(encode, events)) + '{"event": "RunSta')
    assert newest_hosts(run) == ["a", "a"]
    run.events_file.write_text(run.events_file.read_text() + "\n" + encode(STARTED))
    assert newest_hosts(run) == []


@pytest.mark.parametrize("text", ['{"event": "RunStarted", "hosts"\n', '{"event": "RunStarted"}\n'])
def test_a_damaged_start_is_one_of_a_process_alone(tmp_path, text):
    run = RunDirectory(tmp_path)
    run.events_file.write_text(text)
    assert newest_hosts(run) == []
