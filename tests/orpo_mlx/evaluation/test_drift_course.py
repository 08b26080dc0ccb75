"""Drift along a training: as a measurement of its own finds it, and the same after a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.config import build_config
from orpo_mlx.errors import ConfigError
from orpo_mlx.evaluation import drift_course
from orpo_mlx.evaluation.drift import DriftMeter, DriftPlan
from orpo_mlx.evaluation.drift_course import DriftCourse
from orpo_mlx.evaluation.judgement import judge_subject
from orpo_mlx.evaluation.neutral_prompts import draw_prompts, shipped_prompts
from orpo_mlx.evaluation.subject import Asked, adapter_of, open_subject
from orpo_mlx.runs import events
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.training.train import TrainResult, resume, train


def drifts(run: Path) -> list[tuple[int, float]]:
    """Steps and values that count, the newest process's where two measured the same step."""
    found = [record.event for record in events.read_events(run / "events.jsonl")]
    measured = [event for event in found if isinstance(event, events.DriftMeasured)]
    return list({event.step: event.kl_per_token for event in measured}.items())


class StopsAt:
    """A listener that asks the run to stop after a step."""

    def __init__(self, run: Path, step: int) -> None:
        self.run, self.step = run, step

    def handle(self, event: events.Event, line: str = "") -> None:
        if isinstance(event, events.StepCompleted) and event.step == self.step:
            send_request(RunDirectory(self.run), "stop")

    def catch_up(self, events: Any) -> None: ...
    def progress(self, *words: Any) -> None: ...
    def close(self) -> None: ...


@pytest.fixture(scope="module")
def again(trained) -> Callable[..., TrainResult]:
    """Return `again(folder, stop=0, **changes)`: the ORPO run of `trained` with short answers."""

    def train_again(folder: Path, stop: int = 0, **changes: Any) -> TrainResult:
        given = {"run_dir": str(folder), "drift_every": 2, "report_every": 1, **changes}
        config = trained.orpo.read_config().model_copy(update=given)
        return train(config, report=StopsAt(folder, stop) if stop else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift_course, "PROMPTS", 6)
        patch.setattr(drift_course, "TOKENS", 4)
        yield train_again


@pytest.fixture(scope="module")
def whole(again, tmp_path_factory) -> Path:
    return again(tmp_path_factory.mktemp("drift") / "run").run_dir


def test_it_is_what_evaluate_finds_and_no_trained_byte_changes(whole, trained):
    run = RunDirectory(whole)
    assert [step for step, _ in drifts(whole)] == [2, 4, 6]
    asked = Asked(run.read_config(), adapter_of(run))
    subject = open_subject(asked)
    plan = DriftPlan(draw_prompts(shipped_prompts(), 6, asked.config.seed), 4, 0, "here")
    meter = DriftMeter(subject.loaded, asked.config, plan)
    judge_subject(subject, None, meter)
    assert asked.config.seed == 0
    assert json.loads(run.drift_file.read_text())["answers"] == meter.answers
    assert drifts(whole)[-1][1] == pytest.approx(meter.divergence_of("adapter").value, rel=1e-4)
    name = "adapters.safetensors"
    own, plain = (one.adapter_folder / name for one in (run, trained.orpo))
    assert own.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("damage", [None, '{"answers": [[1e9]]}'])
def test_a_resumed_run_measures_the_same(again, whole, tmp_path, damage):
    folder = tmp_path / "run"
    again(folder, stop=3)
    assert [step for step, _ in drifts(folder)] == [2]
    if damage is not None:
        (folder / "drift.json").write_text(damage)
    assert resume(RunDirectory(folder)).reason == "completed"
    assert drifts(folder) == drifts(whole)
    assert (folder / "drift.json").read_bytes() == (whole / "drift.json").read_bytes()


def test_a_run_above_the_limit_ends_as_complete(again, tmp_path):
    result = again(tmp_path / "run", stop_drift=1e-9)
    assert (result.reason, result.step, result.exit_code) == ("drift", 2, 0)
    assert RunDirectory(result.run_dir).read_status() == "completed"


def test_a_limit_without_drift_is_refused():
    with pytest.raises(ConfigError, match="--stop-drift 1: needs drift"):
        build_config({"stop_drift": 1, "drift_every": 0})


def test_a_short_run_pays_nothing_and_a_long_one_is_told_what_it_would(monkeypatch):
    course = DriftCourse(None, None, Path(), lambda: None)  # type: ignore[arg-type]
    assert course.cost(100.0, 10) == 1.0

    class Meter:
        def try_one(self) -> tuple[float, float]:
            return 0.5, 0.125

    class Loaded:
        class model:
            eval = train = staticmethod(lambda: None)

    course.loaded, course._meter = Loaded(), Meter()  # type: ignore[assignment]
    # Twelve answers of half a second, and ten times an eighth of one for each: 21 of 1,000 s.
    monkeypatch.setattr(drift_course, "PROMPTS", 12)
    assert course.cost(1000.0, 10) == pytest.approx(0.021)
