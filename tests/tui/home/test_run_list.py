"""The list of runs is read cheaply; deleting moves, and never under a trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.measured import NAMES

from orpo_mlx.errors import RunError
from orpo_mlx.runs.group.removal import move_to_trash
from orpo_mlx.runs.listing import RunSummary
from tui.home import run_list
from tui.home.run_list import (
    Order,
    RunList,
    row_of,
    runs_to_compare,
    title_end,
    when_text,
)
from tui.shell.machine import Machine


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
        (NOW - 5.9 * 86400, "Thu 00:37"),
        (NOW - 6.1 * 86400, "8 Nov"),  # a week ago had the same name of a day
        (NOW - 20 * 86400, "25 Oct"),
        (NOW - 400 * 86400, "Oct 2022"),
        (NOW + 3600, "23:13"),
    ],
)
def test_times_as_people_say_them(then, text):
    assert when_text(then, NOW) == text


def summary(id: str, **values) -> RunSummary:
    given = {
        "status": "completed", "model": None, "data": None, "step": 1, "total_steps": 1,
        "started": None,
    }  # fmt: skip
    metrics = {name: values.pop(name) for name in NAMES if name in values}
    return RunSummary(id=id, path=Path(id), metrics=metrics, **{**given, **values})


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        (Order(), ["b", "a", "c"]),
        (Order.first_by("Loss"), ["a", "b", "c"]),
        (Order.first_by("Loss").turned(), ["b", "a", "c"]),
        (Order.first_by("Acc"), ["c", "a", "b"]),
        (Order.first_by("Log-odds"), ["b", "a", "c"]),
        (Order.first_by("Run"), ["a", "b", "c"]),
        (Order.first_by("Status"), ["c", "a", "b"]),
        (Order.first_by("Model"), ["b", "a", "c"]),
        (Order.first_by("Step"), ["c", "b", "a"]),
    ],
)
def test_runs_are_sorted_by_any_column_and_those_without_a_value_come_last(order, ids):
    runs = [
        summary("a", loss=1.0, log_odds_ratio=-0.5, started=10.0, model="/m/Zeta", step=1),
        summary("b", loss=2.0, log_odds_ratio=0.5, started=20.0, model="/n/alpha", step=2),
        summary("c", preference_accuracy=0.5, status="running", step=3),
    ]
    assert [run.id for run in order.apply(runs)] == ids


def test_the_selected_run_is_compared_with_the_newest_other():
    runs = [summary("a"), summary("b"), summary("c")]
    paths = lambda found: [path.name for path in found]  # noqa: E731
    assert paths(runs_to_compare(runs, set(), runs[2])) == ["c", "a"]
    assert paths(runs_to_compare(runs, {Path("b")}, runs[2])) == ["b", "c"]
    assert paths(runs_to_compare(runs, {Path("b"), Path("c")}, runs[0])) == ["b", "c"]
    assert paths(runs_to_compare(runs[:1], set(), runs[0])) == ["a"]


def test_the_newest_run_comes_first_and_one_that_never_began_last(make_run, runs_dir, monkeypatch):
    started = {"a": 30.0, "b": 10.0, "c": None, "d": 30.0}
    for name in started:
        make_run(name, steps=1)
    monkeypatch.setattr(run_list, "summarise", lambda run: summary(run.id, started=started[run.id]))
    assert [run.id for run in RunList(runs_dir).read()] == ["d", "a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ({}, ("", "", "1/1", "", "", "")),
        (
            {"model": "org/M", "data": "/x/p.jsonl", "step": 5, "total_steps": 0, "loss": 0.0,
             "preference_accuracy": 0.0, "started": NOW - 3600},
            ("M", "p.jsonl", "5", "0.000", "0%", "21:13"),
        ),
    ],
)  # fmt: skip
def test_a_line_leaves_empty_what_is_not_known_and_shows_what_is_zero(values, cells):
    row = row_of(summary("a", **values), NOW)
    assert (row.model, row.data, row.step, row.loss, row.accuracy, row.when) == cells


def test_a_run_is_found_by_parts_of_its_names_in_any_case():
    row = row_of(summary("poems-1", model="org/Qwen3", data="/x/Pairs.jsonl"), NOW)
    assert [row.matches(words) for words in ("QWEN poem", "pairs", "", "qwen other")] == [
        True, True, True, False,
    ]  # fmt: skip


def test_the_title_shows_as_much_of_the_machine_as_there_is_room_for():
    machine = Machine(18_000_000_000, 1, 0, 1.0, on_battery=True, pressure="warning")
    assert title_end(machine, "2 runs", 57) == (
        "on battery · memory 18 GB · pressure warning · 2 runs"
    )
    assert title_end(machine, "2 runs", 56) == "memory 18 GB · pressure warning · 2 runs"
    assert title_end(machine, "2 runs", 10) == "2 runs"
    assert title_end(machine, "", 80) == "on battery · memory 18 GB · pressure warning"
    assert title_end(None, "", 80) == ""
