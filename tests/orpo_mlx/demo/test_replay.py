"""A replay writes the same events again; the original is left alone."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace

import pytest

from orpo_mlx.cli.commands.play import replay_command
from orpo_mlx.demo.replay import LONGEST_GAP_SECONDS, replay, timed_events
from orpo_mlx.demo.simulate import Script, simulate
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import (
    EventWriter,
    RunFinished,
    RunStarted,
    StepCompleted,
    read_events,
)
from orpo_mlx.runs.listing import memory_shares


@pytest.fixture
def source(tmp_path) -> RunDirectory:
    return simulate(Script(steps=12, speed=0.0), run_dir=str(tmp_path / "runs" / "old"))[0]


def test_all_events_are_there_again_under_another_name(source, tmp_path):
    before = source.events_file.read_bytes()
    target = RunDirectory(tmp_path / "again")
    assert replay(source, target, 0.0) == "played"
    old, new = ([r.event for r in read_events(run.events_file)] for run in (source, target))
    assert isinstance(new[0], RunStarted)
    assert (new[0].run_id, new[0].run_path) == ("again", str(target.path))
    assert new[1:] == old[1:]
    assert target.read_status() == "completed"
    assert source.events_file.read_bytes() == before


def test_what_only_plays_says_nothing_of_the_memory_of_trainings_here(tmp_path):
    """A run whose peak was half of its estimate, once trained and once played again."""
    trained, played = (RunDirectory(tmp_path / "runs" / name) for name in ("trained", "played"))
    simulate(Script(steps=3, speed=0.0), run_dir=str(tmp_path / "made-up"))
    made_up = RunDirectory(tmp_path / "made-up")
    trained.path.mkdir(parents=True)
    shutil.copyfile(made_up.config_file, trained.config_file)
    with contextlib.closing(EventWriter(trained.events_file)) as writer:
        for event in (record.event for record in read_events(made_up.events_file)):
            if isinstance(event, RunStarted):
                event = replace(event, versions={"mlx": "1"}, estimated_peak_bytes=2_000_000_000)
            if isinstance(event, RunFinished):
                event = replace(event, peak_memory_bytes=1_000_000_000)
            writer.write(event)
    simulate(Script(steps=3, speed=0.0), run_dir=str(tmp_path / "runs" / "simulated"))
    assert memory_shares(tmp_path / "runs") == [0.5]
    assert replay_command(["trained", "--speed", "0", "--runs-dir", str(tmp_path / "runs"),
                           "--run-dir", str(played.path)]) == 0  # fmt: skip
    assert read_last_peak(played) == 1_000_000_000
    assert memory_shares(tmp_path / "runs") == [0.5]


def read_last_peak(run):
    return [record.event for record in read_events(run.events_file)][-1].peak_memory_bytes


def test_a_run_without_an_end_is_played_as_far_as_it_goes(source, tmp_path):
    lines = source.events_file.read_bytes().splitlines(keepends=True)
    torn = b"".join(lines[:9]) + b'{"event": "SomethingNew", "time": 1}\n{"event": "Ste'
    source.events_file.write_bytes(torn)
    target = RunDirectory(tmp_path / "again")
    replay(source, target, 0.0)
    assert len(list(read_events(target.events_file))) == 9
    assert target.read_status() == "crashed"  # it ended without saying so, as the original


def test_pauses_are_shortened_and_the_speed_divides(source, tmp_path):
    records = list(read_events(source.events_file))[:3]
    records[1] = records[1]._replace(time=records[0].time + 2)
    records[2] = records[2]._replace(time=records[0].time + 5000)
    timed = list(timed_events(records, RunDirectory(tmp_path / "again"), 4.0))
    pauses = [one.pause for one in timed]
    assert pauses == pytest.approx([0.0, 0.5, LONGEST_GAP_SECONDS / 4])
    assert [one.event for one in timed[1:]] == [record.event for record in records[1:]]


def asking(target: RunDirectory, monkeypatch: pytest.MonkeyPatch, **requests: int) -> None:
    """Let requests come before the given step is played."""

    def with_requests(*given):
        for one in timed_events(*given):
            for name, step in requests.items():
                if isinstance(one.event, StepCompleted) and one.event.step == step:
                    send_request(target, name)
            yield one

    monkeypatch.setattr("orpo_mlx.demo.replay.timed_events", with_requests)


@pytest.mark.parametrize(("name", "reason"), [("stop", "stopped"), ("abort", "aborted")])
def test_a_stop_is_answered_before_the_next_step(source, tmp_path, monkeypatch, name, reason):
    target = RunDirectory(tmp_path / "again")
    asking(target, monkeypatch, **{name: 4})
    assert replay(source, target, 0.0) == reason
    last = [record.event for record in read_events(target.events_file)][-1]
    assert isinstance(last, RunFinished)
    assert (last.reason, last.step) == (reason, 3)


def test_a_checkpoint_that_a_replay_cannot_make_is_not_made(source, tmp_path, monkeypatch):
    target = RunDirectory(tmp_path / "again")
    asking(target, monkeypatch, checkpoint=4, sample=5)
    assert replay(source, target, 0.0) == "played"
    old, new = ([r.event for r in read_events(run.events_file)] for run in (source, target))
    assert new[1:] == old[1:]
    assert len(list(target.control_folder.glob("*.ack"))) == 2


def test_wrong_input_is_named(source, tmp_path):
    with pytest.raises(ConfigError, match="which run"):
        replay_command([])
    with pytest.raises(ConfigError, match="--speed"):
        replay_command(["old", "--runs-dir", str(source.path.parent), "--speed", "fast"])
    with pytest.raises(RunError, match="nothing to replay"):
        replay(RunDirectory(tmp_path), RunDirectory(tmp_path / "x"), 0.0)
    with pytest.raises(RunError):
        replay(source, source, 0.0)
