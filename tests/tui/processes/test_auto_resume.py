"""Going on by itself: only after a crash, three times at most, and never against a user's word."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from orpo_mlx.runs.directory import RunDirectory, TrainerState
from orpo_mlx.runs.events import EventWriter, Resumed, RunFinished
from tui.processes import auto_resume, launcher
from tui.processes.trainer_log import read_tail
from tui.shell.settings import Settings, config_folder, save_settings

ON = Settings(auto_resume=True)

CRASHES_AGAIN = """
import os, signal, sys, time
from orpo_mlx.runs.directory import RunDirectory  # noqa: E402
from orpo_mlx.runs.events import EventWriter, Resumed
run = RunDirectory(__import__("pathlib").Path(sys.argv[1]))
with run.lock():
    EventWriter(run.events_file).write(Resumed(20, new_process=True))
    time.sleep(LIFE)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def crashed(make_run) -> RunDirectory:
    """A run whose trainer vanished."""
    run = make_run("poems")
    write(run, Resumed(20, new_process=True))
    assert run.read_status() == "crashed"
    return run


@pytest.fixture
def spawned(monkeypatch) -> list[list[str]]:
    """Commands that would have been started."""
    found: list[list[str]] = []
    monkeypatch.setattr(
        launcher, "start_in_background", lambda argv, log, environment: found.append(argv)
    )
    return found


def write(run: RunDirectory, event) -> None:
    writer = EventWriter(run.events_file)
    writer.write(event)
    writer.close()


def pass_time(run: RunDirectory) -> None:
    """Let the last event be newer than any try."""
    for path in run.path.glob("auto-resume-*.json"):
        os.utime(path, (1, 1))


def test_as_many_processes_go_on_and_none_of_other_machines(crashed, spawned, share):
    share(crashed, "mac", "mac")
    assert auto_resume.go_on(crashed, 20, "killed", ON).start is not None
    assert spawned[0][-2:] == ["--processes", "2"]
    pass_time(crashed)
    share(crashed, "mac", "other")
    attempt = auto_resume.go_on(crashed, 20, "killed", ON)
    assert attempt.start is None
    assert f"orpo-mlx resume {crashed.argument} --hosts HOSTFILE" in attempt.text
    assert auto_resume.tries(crashed) == len(spawned) == 1


def test_it_is_off_unless_chosen(crashed, spawned):
    assert auto_resume.go_on(crashed, 20, "killed", Settings()) is None
    assert spawned == []


def test_a_crash_is_gone_on_with_three_times_and_each_try_leaves_a_trace(crashed, spawned):
    for number in (1, 2, 3):
        attempt = auto_resume.go_on(crashed, 20, "killed", ON)
        assert attempt.start is not None
        assert f"try {number} of 3" in attempt.text
        assert auto_resume.tries(crashed) == number
        # The same crash is not tried again: nothing was written since.
        assert auto_resume.go_on(crashed, 20, "killed", ON) is None
        pass_time(crashed)
    last = auto_resume.go_on(crashed, 21, "killed", ON)
    assert last.start is None
    assert "after 3 tries" in last.text
    assert len(spawned) == 3
    noted = json.loads((crashed.path / "auto-resume-1.json").read_text())
    assert (noted["try"], noted["step"], noted["cause"]) == (1, 20, "killed")
    assert "resumed by itself, try 3 of 3, as killed" in read_tail(crashed.log_file)


def test_a_trainer_that_ended_before_its_first_event_is_not_followed_by_another(crashed, spawned):
    """As when the user cancels a resume, or it is refused for its data."""
    with crashed.lock():
        pass
    later = time.time() + 5
    os.utime(crashed.lock_file, (later, later))
    assert auto_resume.go_on(crashed, 20, "ended by signal 15 (SIGTERM)", ON) is None
    crashed.events_file.unlink()
    assert auto_resume.go_on(crashed, 0, "killed", ON) is None
    assert spawned == []


def test_a_window_that_is_late_by_a_moment_takes_no_further_try(crashed, spawned, monkeypatch):
    tries = auto_resume.tries

    def tries_then_other_window(run):
        found = tries(run)
        monkeypatch.setattr(auto_resume, "tries", tries)
        auto_resume.go_on(run, 20, "killed", ON)
        return found

    monkeypatch.setattr(auto_resume, "tries", tries_then_other_window)
    assert auto_resume.go_on(crashed, 20, "killed", ON) is None
    assert len(spawned) == tries(crashed) == 1


def test_a_run_that_ended_or_failed_is_left_alone(make_run, crashed, spawned):
    write(crashed, RunFinished("stopped", 20, 1.0, None))
    failed = make_run("nan", nan_at=10)
    for run in (crashed, failed):
        assert auto_resume.go_on(run, 20, "x", ON) is None
    assert spawned == []


@pytest.mark.parametrize("request_name", ["stop", "abort"])
@pytest.mark.parametrize("suffix", [".json", ".ack"])
def test_a_run_somebody_asked_to_end_is_left_alone(crashed, spawned, request_name, suffix):
    (crashed.control_folder / f"{time.time_ns():020d}-{request_name}-ab{suffix}").write_text("")
    assert auto_resume.go_on(crashed, 20, "killed", ON) is None
    assert spawned == []


def test_a_stop_of_an_earlier_process_forbids_nothing(crashed, spawned):
    early = time.time_ns() - 10**12
    (crashed.control_folder / f"{early:020d}-stop-ab.ack").write_text("")
    auto_resume.go_on(crashed, 20, "killed", ON)
    assert len(spawned) == 1


def test_beside_another_training_it_waits_for_the_user(crashed, make_run, spawned):
    with make_run("other").lock():
        attempt = auto_resume.go_on(crashed, 20, "killed", ON)
    assert attempt.start is None
    assert "other is trained now" in attempt.text


@pytest.mark.parametrize(("life", "refresh"), [(0.7, 0.1), (0.0, 0.5)], ids=["seen", "unseen"])
async def test_the_app_goes_on_three_times_and_says_so(
    life, refresh, crashed, open_app, wait_for, monkeypatch, runs_dir: Path
):
    """Also with trainers that are over before a listing has shown them alive."""
    monkeypatch.setattr("tui.home.screen.REFRESH_SECONDS", refresh)
    script = runs_dir.parent / "trainer.py"
    script.write_text(CRASHES_AGAIN.replace("LIFE", str(life)))
    monkeypatch.setattr(
        launcher, "trainer_argv", lambda *words: [sys.executable, str(script), words[-1]]
    )
    save_settings(ON, config_folder())
    async with open_app() as pilot:
        said = []
        pilot.app.notify = lambda text, **how: said.append(text)
        with crashed.lock():  # alive, as far as the app can see
            write(crashed, Resumed(20, new_process=True))
            crashed.write_state(TrainerState("running", 20, 40, os.getpid(), time.time()))
            runs = pilot.app.screen
            await wait_for(pilot, lambda: runs.runs and runs.runs[0].status == "running")
        await wait_for(pilot, lambda: any("after 3 tries" in text for text in said))
    tries = [text for text in said if "goes on by itself" in text]
    assert [text[-10:] for text in tries] == ["try 1 of 3", "try 2 of 3", "try 3 of 3"]
    log = read_tail(crashed.log_file)
    assert log.count("the trainer ended with code -9") == 3
    assert "try 2 of 3, as ended by signal 9 (SIGKILL)" in log
