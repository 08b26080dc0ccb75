"""Runs side by side: what differs, a result with its interval, the best first; damage costs one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_mlx.cli.main import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.directory import RunDirectory, create_run
from orpo_mlx.runs.events import EvalCompleted, EventWriter, RunFinished
from orpo_mlx.runs.group.comparison import (
    by_result,
    differing,
    read_row,
    require_metric,
    result_text,
    results_differ_in_kind,
    usual_metric,
)
from orpo_mlx.runs.label import RunLabel, write_label

Make = Callable[..., RunDirectory]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return `make(name, accuracy, interval=None, **settings)`: a finished run with a result."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))

    def make(
        name: str, accuracy: float, interval: tuple[float, float] | None = None, **settings: object
    ) -> RunDirectory:
        place = tmp_path / "runs" / name
        values = {"model": "m", "data": "d", **settings}
        run = create_run(TrainConfig(**values, run_dir=str(place)))  # type: ignore[arg-type]
        writer = EventWriter(run.events_file)
        writer.write(EvalCompleted({"loss": 9.0, "preference_accuracy": 0.1}, step=1, is_best=True))
        measured = {"loss": 1 - accuracy, "preference_accuracy": accuracy, "response_nll": 2.0}
        if values.get("objective") in ("dpo", "simpo"):
            measured |= {"chosen_rewards": 0.2, "rejected_rewards": 0.1}
        writer.write(EvalCompleted(measured, step=5, is_best=True))
        writer.write(EvalCompleted({"loss": 5.0, "preference_accuracy": 0.2}, step=9))
        writer.write(RunFinished("completed", 9, 2.0, None))
        writer.close()
        if interval:
            side = {"value": accuracy, "low": interval[0], "high": interval[1]}
            content = {
                "verdict": {"text": f"{name} is fine"},
                "counts": {"pairs": 4, "available": 4},
                "metrics": {
                    "preference_accuracy": {"adapter": side},
                    "log_odds_ratio": {"adapter": side},
                    "chosen_nll": {},
                },
            }
            run.evaluation_file.write_text(json.dumps(content))
        return run

    return make


def test_the_best_stands_first_with_its_interval_or_its_best_evaluation(make: Make) -> None:
    rows = [
        read_row(make("a", 0.5)),
        read_row(make("b", 0.75, (0.6, 0.9))),
        read_row(make("c", 0.6)),
    ]
    assert usual_metric(rows) == "preference_accuracy"
    best = by_result(rows, "preference_accuracy")
    assert [row.id for row in best] == ["b", "c", "a"]
    texts = [result_text(row, "preference_accuracy") for row in best]
    assert texts == ["75.0 % (60.0 to 90.0)", "60.0 %", "50.0 %"]
    assert [row.id for row in by_result(rows, "loss")] == ["b", "c", "a"], "0.25, 0.4, 0.5"


def test_only_settings_that_differ_are_named_and_never_places(make: Make) -> None:
    rows = [read_row(make("a", 0.5, lam=0.1)), read_row(make("b", 0.5, lam=0.4, rank=8))]
    assert differing(rows) == ["lam"]
    assert results_differ_in_kind(rows, "loss"), "lam weighs a part of it"
    assert not results_differ_in_kind(rows, "preference_accuracy")
    same = [rows[0], read_row(make("c", 0.5, lam=0.1, seed=3))]
    assert not results_differ_in_kind(same, "loss")


@pytest.mark.parametrize(
    ("objectives", "evaluated", "metric", "differ"),
    [
        (("orpo", "sft"), (), "preference_accuracy", False),
        (("orpo", "dpo"), (), "preference_accuracy", True),
        (("dpo", "simpo"), (), "preference_accuracy", True),
        (("dpo", "dpo"), (), "preference_accuracy", False),
        (("orpo", "dpo"), (), "response_nll", False),
        (("orpo", "dpo"), (1,), "preference_accuracy", False),
        (("dpo", "dpo"), (1,), "preference_accuracy", True),
        (("dpo", "simpo"), (0, 1), "preference_accuracy", False),
    ],
)
def test_by_rewards_and_by_log_probs_are_not_one_accuracy(
    make: Make, objectives, evaluated, metric: str, differ: bool, capsys
) -> None:
    """While it trains DPO counts a pair as right by its reward, which an evaluation never does."""
    for index, objective in enumerate(objectives):
        run = make(f"run-{index}", 0.5, (0.4, 0.6), objective=objective)
        if index not in evaluated:
            run.evaluation_file.unlink()
    assert main(["compare", "run-0", "run-1", "--sort", metric]) == 0
    said = capsys.readouterr().out
    note = "note: these runs do not count preference accuracy alike: by rewards"
    assert (note in said) == differ, said


def test_a_metric_that_is_not_there_is_refused_with_those_that_are(make: Make) -> None:
    rows = [read_row(make("a", 0.5))]
    with pytest.raises(ConfigError, match=r"did you mean loss\?\nThere are: loss, preference"):
        require_metric(rows, "los")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"verdict": 1}', "\x1b[31m", '{"metrics": []}']
)
def test_a_hostile_evaluation_costs_itself_only(make: Make, content: str, capsys) -> None:
    make("a", 0.5).evaluation_file.write_text(content)
    make("b", 0.7)
    assert main(["compare", "a", "b"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1:3]] == ["b", "a"]
    assert "a: damaged: " in said
    assert "\x1b" not in said


def test_the_command_prints_a_table_or_a_list(make: Make, capsys) -> None:
    make("a", 0.5, lam=0.1)
    make("b", 0.75, (0.6, 0.9), lam=0.4)
    assert main(["compare", "a", "b"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["RUN", "STATUS", "STEP", "LAM", "PREFERENCE_ACCURACY"]
    assert " ".join(table[1].split()) == "b completed 9/0 0.4 75.0 % (60.0 to 90.0)"
    assert table[3] == "b: b is fine"
    assert main(["compare", "a", "b", "--json", "--sort", "loss"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["id"], first["settings"], first["metric"]) == (
        "b", {"lam": 0.4}, {"name": "loss", "value": 0.25, "low": None, "high": None},
    )  # fmt: skip
    assert (second["best"]["step"], second["verdict"]) == (5, None)


def test_runs_of_a_sweep_are_compared_by_its_name(make: Make, capsys) -> None:
    for name, tags in (("a", ("swept",)), ("b", ("swept", "x")), ("c", ())):
        write_label(make(name, 0.5).path, RunLabel(tags=tags))
    assert main(["compare", "--tag", "swept"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1:3]] == ["a", "b"]
    assert main(["compare", "--tag", "x", "c", "--json"]) == 0
    assert {row["id"] for row in json.loads(capsys.readouterr().out)} == {"b", "c"}
    assert main(["compare", "--tag", "nope"]) == 2
    assert main(["compare", "--tag", "x"]) == 2


def test_one_run_is_no_comparison(make: Make, capsys) -> None:
    make("a", 0.5)
    assert main(["compare", "a"]) == 2
    assert main(["compare", "a", "nope"]) == 2
    assert "there is no run 'nope'" in capsys.readouterr().err
