"""What starts leave behind is cleared, and nothing that nobody has seen is lost."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tui.processes import trainer_log
from tui.processes.trainer_log import (
    add_line,
    ended_line,
    newest_process,
    read_tail,
    resumed_line,
    sweep,
)

DAY = 86400.0


@pytest.fixture
def starting(runs_dir: Path) -> Path:
    folder = runs_dir / ".starting"
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_without_a_folder_there_is_nothing_to_sweep(runs_dir):
    assert sweep(runs_dir, 0.0) == []


def test_a_failed_start_is_kept_until_it_was_seen_and_a_week_has_gone_by(runs_dir, starting):
    log = starting / "poems-1.log"
    log.write_text("error: no such model")
    (starting / "poems-1.toml").write_text("")
    late = log.stat().st_mtime + 100 * DAY
    assert sweep(runs_dir, late) == [log]
    assert names(starting) == ["poems-1.log", "poems-1.toml"]
    trainer_log.mark_seen(log)
    assert sweep(runs_dir, late - 95 * DAY) == []
    assert names(starting) == ["poems-1.seen", "poems-1.toml"]
    assert sweep(runs_dir, late) == []
    assert names(starting) == []


def test_a_log_whose_trainer_lives_is_left_alone(runs_dir, starting):
    log = starting / "poems-1.log"
    with log.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert sweep(runs_dir, os.path.getmtime(log) + 100 * DAY) == []
    assert sweep(runs_dir, 0.0) == [log]


def test_what_may_not_be_deleted_stays(make_run, runs_dir, starting, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    (starting / f"{make_run('poems-1').id}.log").write_text("after\n")
    (starting / "other.seen").write_text("")
    monkeypatch.setattr(Path, "unlink", refuse)
    assert sweep(runs_dir, (starting / "other.seen").stat().st_mtime + 100 * DAY) == []


@pytest.mark.parametrize("has_settings", [True, False])  # a resume writes none
@pytest.mark.parametrize("earlier", ["", "before\n"])
def test_a_log_whose_run_has_come_is_handed_to_it(
    make_run, runs_dir, starting, earlier, has_settings
):
    run = make_run("poems-1")
    run.log_file.unlink(missing_ok=True)
    if earlier:
        run.log_file.write_text(earlier)
    (starting / "poems-1.log").write_text("after\n")
    if has_settings:
        (starting / "poems-1.toml").write_text("")
    assert sweep(runs_dir, 0.0) == []
    assert names(starting) == []
    assert run.log_file.read_text() == earlier + "after\n"


@pytest.mark.parametrize(
    ("aside", "own", "found"),
    [
        (None, 5, "own"),
        (None, None, "own"),
        (5, None, "aside"),
        (5, 4, "aside"),
        (5, 5, "aside"),
        (4, 5, "own"),
    ],
)
def test_the_newer_of_two_logs_is_the_runs(make_run, starting, aside, own, found):
    """Given by their times; None where there is no such log."""
    run = make_run("poems-1")
    run.log_file.unlink(missing_ok=True)
    files = {"aside": starting / "poems-1.log", "own": run.log_file}
    for name, then in (("aside", aside), ("own", own)):
        if then is not None:
            files[name].touch()
            os.utime(files[name], (then, then))
    assert trainer_log.log_of(run) == files[found]


def test_the_newest_process_of_a_log_is_told_from_earlier_ones(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("OutOfMemory\n")
    add_line(log, ended_line(-6))
    assert newest_process(log.read_text()) == ("OutOfMemory", -6)
    add_line(log, resumed_line("resumed by itself, try 1 of 3"))
    assert newest_process(log.read_text()) == ("", None)
    with log.open("a") as file:
        file.write("step 1\n")
    assert newest_process(log.read_text()) == ("step 1", None)


def test_the_end_of_a_log_begins_where_the_process_began(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("old words, new words")
    assert read_tail(log) == "old words, new words"
    assert read_tail(log, begin=11) == "new words"
    assert read_tail(log, 5, begin=11) == "words"
    assert read_tail(tmp_path / "none") == ""


def test_a_log_that_cannot_be_written_goes_without_our_line(tmp_path):
    add_line(tmp_path / "gone" / "train.log", "anything")
    assert not (tmp_path / "gone").exists()
