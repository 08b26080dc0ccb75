"""Which steps are measured, in how much time each, and what is concluded; no process is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.bench.process import Row, WorkerFailed
from orpo_mlx.bench.sizes import CPU, GPU, SHORT
from orpo_mlx.bench.steps import course
from orpo_mlx.bench.steps.course import iter_course
from orpo_mlx.bench.workplace import BenchRequest, Workplace

MEASURED = {
    "step_seconds": [4.0, 2.0, 3.0], "cpu_seconds": [8.0, 8.0, 8.0], "losses": [2.0, 1.0],
    "peak_memory_bytes": 100, "estimated_bytes": 200, "scoring": "packed", "pairs": 4,
}  # fmt: skip
"""Three steps of four pairs: by the clock 0.75 s a pair, by CPU time 2 s."""


@pytest.fixture
def at(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A place on a GPU with two models, whose time never ends."""
    monkeypatch.setattr(course, "find_peer", lambda: "")
    place = Workplace(tmp_path, BenchRequest(), lambda label, seconds: None, 1e12, GPU)
    lengths = {one.name: one.lengths(4) for one in GPU.workloads}
    files = {one.name: f"{one.name}.jsonl" for one in GPU.workloads}
    place.found = {
        "machine": [{"kind": "conditions", "device": "GPU"}],
        "products": [
            {"kind": "rate", "of": name, "flop_per_second": 1e6, "flop_per_cpu_second": 1e6}
            for name in ("float32", "bfloat16", "4-bit")
        ],
        "models": [
            {"kind": "model", "name": "4-bit", "path": str(model_folder)},
            {"kind": "model", "name": "bfloat16", "path": str(model_folder)},
            {"kind": "pairs", "counts": dict.fromkeys(files, 4), "files": files, "lengths": lengths,
             "ways": ["packed", "newer", "plain"]},
        ],
    }  # fmt: skip
    return place


def answers(monkeypatch: pytest.MonkeyPatch, answer: Any = lambda task: MEASURED) -> list[Row]:
    """Let every process answer so; returns the tasks they get, with their limits."""
    tasks: list[Row] = []

    def run_job(job: str, task: Row, seconds: float, say: Any, environment: Any) -> Iterator[Row]:
        tasks.append({**task, "limit": seconds})
        yield answer(task)

    monkeypatch.setattr(course, "run_job", run_job)
    monkeypatch.setattr(course, "run_command", lambda command, *rest: run_job(command[0], *rest))
    return tasks


def ways(rows: list[Row]) -> list[str]:
    return [row["way"] for row in rows if "way" in row]


def test_every_workload_is_measured_each_way_and_again_in_reverse(at, monkeypatch):
    answers(monkeypatch)
    rows = [row for row in iter_course(at) if "way" in row]
    # Ways that the program has beside the one it took are found without naming them.
    once = ["default", "plain"] * 6 + ["scoring newer", "short command buffers"]
    assert ways(rows) == once + once[::-1]
    assert [row["round"] for row in rows] == [1] * 14 + [2] * 14
    places = [(row["model"], row["workload"]) for row in rows]
    assert places == places[::-1]
    assert places[:12:2] == [
        (model, name) for model in ("4-bit", "bfloat16") for name in ("hh", "uf", "rag")
    ]


def test_what_would_not_end_in_time_is_not_measured_again(at, monkeypatch):
    """Five cases of rag take 60 s each, nine others 1 s; 78 s are left then, and 1.3 times 60 s are
    not fewer."""
    clock = [9 * 1.0 + 5 * 60.0 + 78.0]

    def slowly(job: str, task: Row, seconds: float, say: Any, environment: Any) -> Iterator[Row]:
        clock[0] -= 60.0 if "rag" in task["data"] else 1.0
        yield MEASURED

    monkeypatch.setattr(course, "run_job", slowly)
    monkeypatch.setattr(Workplace, "left", lambda self: clock[0])
    second = [row["workload"] for row in iter_course(at) if row.get("round") == 2]
    assert sorted(second) == ["hh"] * 5 + ["uf"] * 4


def test_one_that_failed_is_not_tried_again(at, monkeypatch):
    def answer(task: Row) -> Row:
        if task["options"].get("scoring") == "plain":
            raise WorkerFailed("this run needs about 21 GB", 2, False)
        return MEASURED

    answers(monkeypatch, answer)
    rows = list(iter_course(at))
    plain = [row for row in rows if row.get("way") == "plain"]
    assert {row["problem"] for row in plain} == {"this run needs about 21 GB"}
    assert {row["round"] for row in plain} == {1}
    assert len(ways(rows)) == 14 + 8


def test_the_short_form_measures_little_and_a_cpu_has_no_command_buffers(at, monkeypatch):
    answers(monkeypatch)
    at.sizes = SHORT
    assert ways(list(iter_course(at))) == ["default", "plain"] * 2
    at.sizes = CPU
    at.found["machine"][0]["device"] = "CPU"
    assert "short command buffers" not in ways(list(iter_course(at)))


def test_seconds_are_medians_a_pair_by_the_clock_on_a_gpu_and_by_cpu_time_elsewhere(
    at, monkeypatch
):
    answers(monkeypatch)
    row = next(iter_course(at))
    assert (row["seconds_per_pair"], row["low"], row["high"]) == (0.75, 0.5, 1.0)
    # The share: work at a million operations a second, over the median of 3 seconds.
    assert row["share_of_rate"] == pytest.approx(row["useful_flop"] / 1e6 / 3)
    at.found["machine"][0]["device"] = "CPU"
    assert next(iter_course(at))["seconds_per_pair"] == 2.0


def test_different_first_losses_are_found_out(at, monkeypatch):
    def answer(task: Row) -> Row:
        is_other = task["options"].get("scoring") == "plain" and "hh" in task["data"]
        return {**MEASURED, "losses": [2.1 if is_other else 2.0]}

    answers(monkeypatch, answer)
    checks = [row for row in iter_course(at) if row.get("kind") == "check"]
    assert [row["passed"] for row in checks] == [False, True, True, False, True, True]
    assert checks[0]["value"] == pytest.approx(0.05)


def test_no_process_may_take_all_the_time_that_is_left(at, monkeypatch):
    tasks = answers(monkeypatch)
    monkeypatch.setattr(Workplace, "left", lambda self: 130.0)
    list(iter_course(at))
    # Twelve are to be done: each a share, three times as much and loading before it is ended.
    assert tasks[0]["seconds"] == pytest.approx(0.5 * 130 / 12)
    assert tasks[0]["limit"] == pytest.approx(3 * 130 / 12 + 20)
    assert all(task["limit"] <= 130 for task in tasks)


def test_without_time_nothing_is_started(at, monkeypatch):
    tasks = answers(monkeypatch)
    monkeypatch.setattr(Workplace, "left", lambda self: 1.0)
    assert {row["problem"] for row in iter_course(at)} == {"no time was left for it"}
    assert tasks == []


def test_without_a_model_the_part_fails_in_words(at):
    at.found["models"] = []
    with pytest.raises(WorkerFailed, match="there is no model"):
        next(iter_course(at))


def test_the_other_trainer_is_measured_by_its_own_python(at, monkeypatch):
    monkeypatch.setattr(course, "find_peer", lambda: "/peers/bin/python")
    answers(monkeypatch)
    rows = list(iter_course(at))
    assert ways(rows)[:3] == ["default", "plain", "mlx-lm-lora"]
