"""A replay writes the same events again; the original is left alone."""

from __future__ import annotations

import pytest

from orpo_mlx import replay as replaying
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.replay import main, replay
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import RunFinished, RunStarted, read_events
from orpo_mlx.simulation import Script, simulate


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


def test_a_run_without_an_end_is_played_as_far_as_it_goes(source, tmp_path):
    lines = source.events_file.read_bytes().splitlines(keepends=True)
    torn = b"".join(lines[:9]) + b'{"event": "SomethingNew", "time": 1}\n{"event": "Ste'
    source.events_file.write_bytes(torn)
    target = RunDirectory(tmp_path / "again")
    replay(source, target, 0.0)
    assert len(list(read_events(target.events_file))) == 9
    assert target.read_status() == "crashed"  # it ended without saying so, as the original


def test_pauses_are_shortened_and_the_speed_divides(source, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(replaying.time, "sleep", slept.append)
    records = list(read_events(source.events_file))[:3]
    paced = [records[0], records[1]._replace(time=records[0].time + 2)]
    paced.append(records[2]._replace(time=records[0].time + 5000))
    assert list(replaying._paced(paced, 4.0)) == paced
    assert slept == pytest.approx([0.5, replaying.LONGEST_GAP_SECONDS / 4])


def test_a_stop_is_answered(source, tmp_path, monkeypatch):
    target = RunDirectory(tmp_path / "again")
    paced = replaying._paced

    def ask_after_five(records, speed):
        for count, record in enumerate(paced(records, speed)):
            if count == 5:
                send_request(target, "stop")
            yield record

    monkeypatch.setattr(replaying, "_paced", ask_after_five)
    assert replay(source, target, 0.0) == "stopped"
    *before, last = read_events(target.events_file)
    assert len(before) == 5
    assert isinstance(last.event, RunFinished)
    assert last.event.reason == "stopped"


def test_wrong_input_is_named(source, tmp_path):
    with pytest.raises(ConfigError, match="which run"):
        main([])
    with pytest.raises(ConfigError, match="--speed"):
        main(["old", "--runs-dir", str(source.path.parent), "--speed", "fast"])
    with pytest.raises(RunError, match="nothing to replay"):
        replay(RunDirectory(tmp_path), RunDirectory(tmp_path / "x"), 0.0)
    with pytest.raises(RunError):
        replay(source, source, 0.0)
