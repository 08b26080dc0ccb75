"""What is foretold of a run is what the run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx import demo
from orpo_mlx.__main__ import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.planning.course import plan_course
from orpo_mlx.planning.fit import answer
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    EvalCompleted,
    StepCompleted,
    read_events,
)


@pytest.mark.parametrize(
    ("given", "steps", "evaluations", "checkpoints"),
    [
        ({"steps": 7, "eval_every": 2, "save_every": 3}, 7, 5, 4),  # 0 2 4 6 7, and 0 3 6 7
        ({"epochs": 2.0, "eval_every": 0, "save_every": 0}, 48, 2, 2),
        ({"steps": 5, "valid_fraction": 0.0}, 5, 0, 6),
    ],
)
def test_a_course_counted_by_hand(given, steps, evaluations, checkpoints):
    """100 pairs, 5 of them held out where nothing else is said; 4 a step."""
    config = TrainConfig(model="m", data="d", micro_batch_size=4, **given)
    found = plan_course(config, 100, 0, 5000)
    assert (found.steps, found.evaluations, found.checkpoints) == (steps, evaluations, checkpoints)
    assert found.checkpoint_bytes == 3000  # values and two moments of five parts


def test_the_demo_does_what_is_foretold(tmp_path: Path):
    words = ["--steps", "4", "--eval-every", "2", "--save-every", "2"]
    run = RunDirectory(tmp_path / "run")
    assert main(["train", "--demo", *words, "--no-evaluate", "--run-dir", str(run.path)]) == 0
    happened = [record.event for record in read_events(run.events_file)]
    course = answer(run.read_config(), 1 << 34).course
    assert course is not None
    counts = [
        sum(isinstance(event, kind) for event in happened)
        for kind in (StepCompleted, EvalCompleted, CheckpointSaved)
    ]
    assert [course.steps, course.evaluations, course.checkpoints] == counts
    saved = max(run.checkpoints_folder.iterdir())
    size = sum(file.stat().st_size for file in saved.iterdir())
    assert course.checkpoint_bytes == pytest.approx(size, rel=0.05)
    assert course.pairs == 200


def test_pairs_that_will_be_dropped_as_too_long_make_no_steps(tmp_path: Path):
    short, long = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}, "word " * 100
    rows = [{**short, "prompt": f"{n}?"} for n in range(7)]
    rows += [{**short, "prompt": f"{n}!", "chosen": f"{n} {long}"} for n in range(3)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TrainConfig(
        model=str(demo.model_path()), data=str(data), valid_fraction=0.0, max_seq_length=64,
        micro_batch_size=1,
    )  # fmt: skip
    found = answer(config, 1 << 34)
    assert found.course is not None
    assert (found.course.pairs, found.course.steps, found.pairs) == (7, 7, 7)


def test_every_row_is_accounted_for_as_a_training_does(tmp_path: Path, capsys: Any):
    one = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
    rows = [{**one, "prompt": f"{n}?"} for n in range(7)]
    rows += [rows[0], {**one, "chosen": "No."}, {**one, "chosen": "word " * 100}]
    rows += [{**one, "prompt": "word " * 100}]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", str(demo.model_path()), "--data", str(data), "--max-seq-length", "64"]
    for _ in range(2):  # the second time it is known without the rows
        assert main(["fit", *words]) == 0
        said = capsys.readouterr().out
        assert "rows    11 read, 8 kept, 3 dropped\n" in said
        assert "dropped 1: duplicate row (pairs.jsonl:8)\n" in said
        assert "dropped 1: response longer than max_seq_length 64\n" in said
        assert "kept, but 1: prompt cut at max_seq_length 64\n" in said
    assert main(["fit", *words, "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)["rows"]["data"]
    run = ["--steps", "1", "--valid-fraction", "0", "--micro-batch-size", "1", "--run-dir"]
    assert main(["train", *words, *run, str(tmp_path / "run"), "--no-evaluate"]) == 0
    events = [r.event for r in read_events(RunDirectory(tmp_path / "run").events_file)]
    (trained,) = [event for event in events if isinstance(event, DataPrepared)]
    assert (counted["read"], counted["kept"]) == (trained.read, trained.kept)
    assert (counted["dropped"], counted["noted"]) == (trained.dropped, trained.noted)
