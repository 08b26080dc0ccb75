"""Parts follow one another, each bounded; a part that goes wrong is a line, not the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.bench import suite
from orpo_mlx.bench.parts import NAMES, PARTS, BenchPart, chosen_parts
from orpo_mlx.bench.process import Row, WorkerFailed
from orpo_mlx.bench.suite import failures, run_bench, shareable
from orpo_mlx.bench.workplace import BenchRequest, Workplace


class Shown:
    """Notes what a listener is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.ends: list[tuple[str, str]] = []

    def doing(self, part: str, label: str, seconds: float) -> None:
        self.heard.append((part, label))

    def ended(self, part: Row) -> None:
        self.ends.append((part["name"], part["status"]))


def good(at: Workplace) -> Iterator[Row]:
    at.say("looking", 0.0)
    yield {"name": "all is well", "passed": True}


def broken(at: Workplace) -> Iterator[Row]:
    yield {"name": "half", "passed": False}
    raise WorkerFailed("its process was ended by SIGSEGV", -11, False)


def slow(at: Workplace) -> Iterator[Row]:
    yield {"name": "begun", "passed": True}
    raise WorkerFailed("ended after 5 s", -9, True)


def done_with(
    monkeypatch: pytest.MonkeyPatch, **runs: Any
) -> tuple[Row, Shown, list[dict[str, Any]]]:
    parts = [BenchPart(name, name.title(), 60, run) for name, run in runs.items()]
    monkeypatch.setattr(suite, "chosen_parts", lambda only: parts)
    shown, kept = Shown(), []
    request = BenchRequest(is_short=True)
    result = run_bench(request, "orpo-mlx bench --short", shown, kept.append)
    return result, shown, kept


def test_what_goes_wrong_in_a_part_is_told_and_the_rest_goes_on(monkeypatch):
    result, shown, kept = done_with(monkeypatch, first=broken, second=slow, third=good)
    assert shown.ends == [("first", "failed"), ("second", "late"), ("third", "done")]
    assert shown.heard == [("third", "looking")]
    assert [len(part["rows"]) for part in result["parts"]] == [1, 1, 1]
    assert failures(result) == ["First: its process was ended by SIGSEGV", "First: half"]
    # What was found is kept after each part: a machine may die.
    assert [(len(one["parts"]), one["is_complete"]) for one in kept] == [
        (1, False), (2, False), (3, True)
    ]  # fmt: skip
    assert [state["after"] for state in result["power"]] == [
        "the start", "first", "second", "third"
    ]  # fmt: skip


def test_a_mistake_of_ours_in_one_part_does_not_cost_the_others(monkeypatch):
    def mistaken(at: Workplace) -> Iterator[Row]:
        yield {"name": "one", "passed": True}
        raise KeyError("rows")

    result, shown, _ = done_with(monkeypatch, first=mistaken, second=good)
    assert shown.ends == [("first", "failed"), ("second", "done")]
    assert failures(result) == ["First: KeyError: 'rows'"]


def test_an_interrupt_keeps_what_was_found_and_ends_the_rest(monkeypatch):
    def interrupted(at: Workplace) -> Iterator[Row]:
        yield {"name": "one", "passed": True}
        raise KeyboardInterrupt

    kept: list[Row] = []
    parts = [BenchPart(name, name, 60, interrupted) for name in ("first", "second")]
    monkeypatch.setattr(suite, "chosen_parts", lambda only: parts)
    with pytest.raises(KeyboardInterrupt):
        run_bench(BenchRequest(), "orpo-mlx bench", Shown(), kept.append)
    (result,) = kept
    (part,) = result["parts"]
    assert (part["status"], len(part["rows"])) == ("interrupted", 1)
    assert result["is_complete"] is False


def test_a_part_for_which_no_time_is_left_is_skipped(monkeypatch):
    monkeypatch.setattr(suite, "_LEAST_SECONDS", 1e9)
    result, _, _ = done_with(monkeypatch, first=good)
    (part,) = result["parts"]
    assert (part["status"], part["reason"], part["rows"]) == (
        "skipped", "no time was left for it", []
    )  # fmt: skip
    assert failures(result) == []


def test_only_the_default_must_be_measured():
    place = {"model": "4-bit", "workload": "hh", "problem": "it does not fit"}
    rows = [{**place, "way": "plain"}, {**place, "way": "default"},
            {**place, "way": "default", "is_late": True}]  # fmt: skip
    part = {"name": "steps", "title": "Steps", "status": "done", "reason": "", "rows": rows}
    assert failures({"parts": [part]}) == ["Steps: 4-bit, hh, default: it does not fit"]


def test_what_is_kept_names_no_place_and_is_json(monkeypatch, tmp_path: Path):
    home = tmp_path / "Users" / "anna"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("platform.node", lambda: "annas-mac")

    def telling(at: Workplace) -> Iterator[Row]:
        yield {"path": str(home), "text": f"anna at annas-mac: {home}/x/y", "value": float("nan")}
        raise WorkerFailed(f"no such file: {home}/models/a", 1, False)

    result, _, kept = done_with(monkeypatch, first=telling)
    for one in (result, kept[-1]):
        text = json.dumps(one, allow_nan=False)
        assert "anna" not in text
        assert str(tmp_path) not in text
    (row,) = result["parts"][0]["rows"]
    assert row == {"text": "<user> at <host>: <path>", "value": "nan"}


def test_the_present_keys_and_numbers_stay():
    assert shareable({"a": [1, 2.5, True, None, "4-bit"]}) == {"a": [1, 2.5, True, None, "4-bit"]}


# Choosing parts


def test_all_parts_are_done_unless_some_are_named():
    assert [part.name for part in chosen_parts(())] == list(NAMES)


@pytest.mark.parametrize(
    ("only", "done"),
    [
        ("machine", ["machine"]),
        ("attention", ["machine", "attention"]),
        ("verify", ["machine", "models", "verify"]),
        ("steps", ["machine", "models", "products", "steps"]),
    ],
)
def test_a_part_brings_what_it_stands_on(only: str, done: list[str]):
    assert [part.name for part in chosen_parts((only,))] == done


def test_all_parts_but_the_last_leave_it_time():
    *others, last = PARTS
    assert last.name == "steps"
    assert sum(part.seconds for part in others) < 15 * 60 - 60
