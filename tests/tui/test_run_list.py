"""The list of runs is read cheaply; deleting moves, and never under a trainer."""

from __future__ import annotations

import pytest

from orpo_mlx.errors import RunError
from tui import run_list
from tui.run_list import RunList, move_to_trash, when_text


def test_a_run_nobody_works_at_is_read_once(make_run, runs_dir, monkeypatch):
    make_run("a")
    make_run("b")
    listing, read = RunList(runs_dir), []
    original = run_list.summarise
    monkeypatch.setattr(run_list, "summarise", lambda run: read.append(run.id) or original(run))
    assert {run.id for run in listing.read()} == {"a", "b"}
    assert {run.status for run in listing.read()} == {"completed"}
    assert sorted(read) == ["a", "b"]


def test_a_run_that_is_being_trained_is_read_each_time(make_run, runs_dir, monkeypatch):
    run = make_run("a")
    listing, read = RunList(runs_dir), []
    original = run_list.summarise
    monkeypatch.setattr(run_list, "summarise", lambda run: read.append(run.id) or original(run))
    with run.lock():
        listing.read()
        listing.read()
    listing.read()
    listing.read()
    # Twice under the lock, once more because the lock is gone.
    assert len(read) == 3


def test_the_trash_takes_two_runs_of_one_name(make_run, runs_dir):
    assert move_to_trash(make_run("a")) == runs_dir / ".trash" / "a"
    assert move_to_trash(make_run("a")) == runs_dir / ".trash" / "a-2"
    assert RunList(runs_dir).read() == []


def test_a_run_under_training_is_not_moved(make_run, runs_dir):
    run = make_run("a")
    with run.lock(), pytest.raises(RunError, match="nothing was moved"):
        move_to_trash(run)
    assert run.config_file.exists()


NOW = 1_700_000_000  # Tue 14 Nov 2023, 22:13 UTC


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (NOW - 3600, "21:13"),
        (NOW - 86400, "Mon 22:13"),
        (NOW - 20 * 86400, "25 Oct"),
        (NOW - 400 * 86400, "Oct 2022"),
        (NOW + 3600, "23:13"),
    ],
)
def test_times_as_people_say_them(then, text):
    assert when_text(then, NOW) == text
