"""What a run says at its end of whether it helped: the same as `orpo-mlx evaluate`, or why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.evaluation import at_end
from orpo_mlx.evaluation.at_end import Speed, Trained, plan_evaluation
from orpo_mlx.evaluation.report.page import MARK
from orpo_mlx.export import card
from orpo_mlx.runs import events
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.evaluation import read_evaluation
from orpo_mlx.scoring.base import iter_scores
from orpo_mlx.training.train import resume, train

WEIGHTS = "adapters.safetensors"


def told(run: RunDirectory) -> list[events.Event]:
    return [r.event for r in events.read_events(run.events_file) if r.event is not None]


def notes(run: RunDirectory) -> list[str]:
    return [event.text for event in told(run) if isinstance(event, events.NoteLogged)]


@pytest.fixture(scope="module")
def again(trained, tmp_path_factory) -> Callable[..., RunDirectory]:
    """Return `again(**changes) -> run`: the ORPO run of `trained` once more, evaluated at its end,
    on so few neutral prompts that it is quick."""
    folder = tmp_path_factory.mktemp("at-end")

    def train_again(report: Any = None, **changes: Any) -> RunDirectory:
        config = trained.orpo.read_config().model_copy(
            update={"evaluate": True, "run_dir": str(folder / f"run{len(told_of)}"), **changes}
        )
        told_of.append(config)
        return RunDirectory(train(config, report=report).run_dir)

    told_of: list[Any] = []
    return train_again


@pytest.fixture(scope="module")
def judged(again) -> RunDirectory:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at_end, "DRIFT_TOKENS", 4)
        patch.setattr(at_end, "LEAST_SECONDS", 60.0)  # also on a busy machine
        return again()


def test_it_says_what_evaluate_says_and_changes_no_trained_byte(judged, trained, capfd):
    assert program(["evaluate", str(judged.path), "--json", "--no-drift"]) == 0
    said = json.loads(capfd.readouterr().out)
    kept = json.loads(judged.evaluation_file.read_text())
    assert kept["drift"]["kl_per_token"]["adapter"]["value"] > 0
    assert {**kept, "drift": None, "notes": []} == {**said, "notes": []}
    assert kept["counts"]["pairs"] == 24
    assert kept["score_gaps"]
    adapters = [(run.adapter_folder / WEIGHTS).read_bytes() for run in (judged, trained.orpo)]
    assert adapters[0] == adapters[1]
    assert MARK in judged.report_file.read_text()[:200]


def test_the_last_event_has_the_verdict_and_the_run_is_completed(judged, capsys):
    last = told(judged)[-1]
    assert isinstance(last, events.RunEvaluated)
    kept = read_evaluation(judged.evaluation_file)
    assert kept is not None
    assert last.verdict == kept.verdict
    assert (last.pairs, last.available, last.step) == (24, 24, 6)
    assert (Path(last.path), Path(last.report)) == (judged.evaluation_file, judged.report_file)
    assert judged.read_status() == "completed"
    capsys.readouterr()
    assert program(["watch", str(judged.path), "--plain"]) == 0
    assert last.verdict in capsys.readouterr().out.splitlines()


def test_the_card_of_an_export_has_verdict_and_table(judged):
    parts = card._from_run(judged, None)
    kept = read_evaluation(judged.evaluation_file)
    assert kept is not None
    text = "\n".join(parts)
    accuracy = kept.metrics["preference_accuracy"]
    assert f"\n{kept.verdict}.\n" in text
    assert f"| preference accuracy | {100 * accuracy['base'].value:.1f} % (" in text
    assert "KL per token from the base" in text
    assert "held-out pairs, 95 %" not in "\n".join(card._from_run(judged, 3))


class _Asks:
    """A listener that does something once the comparing begins."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def handle(self, event: events.Event, line: str = "") -> None:
        if isinstance(event, events.NoteLogged) and event.text.startswith("comparing"):
            self.act()

    def catch_up(self, events: Any) -> None: ...
    def progress(self, *words: Any) -> None: ...
    def close(self) -> None: ...


def test_a_request_to_stop_ends_it_and_leaves_the_run_completed(again, tmp_path):
    run = RunDirectory(tmp_path / "run")
    again(_Asks(lambda: send_request(run, "stop")), run_dir=str(run.path))
    assert run.read_status() == "completed"
    assert notes(run)[-1].startswith("base and adapter were not compared: ended as asked")
    assert f"`orpo-mlx evaluate {run.path} --save`" in notes(run)[-1]
    assert not run.evaluation_file.exists()
    assert not run.report_file.exists()


def test_a_request_to_stop_ends_it_also_while_the_page_is_made(again, tmp_path, monkeypatch):
    run, write = RunDirectory(tmp_path / "run"), at_end.report_page

    def page_of(*arguments: Any) -> str:
        send_request(run, "stop")
        return write(*arguments)

    monkeypatch.setattr(at_end, "report_page", page_of)
    again(run_dir=str(run.path))
    assert notes(run)[-1].startswith("base and adapter were not compared: ended as asked")
    assert not run.report_file.exists()


def test_its_failure_is_told_and_fails_no_run(again, monkeypatch):
    def fails(*_: object) -> None:
        raise RuntimeError("[metal] no memory")

    monkeypatch.setattr(at_end, "judge_subject", fails)
    run = again()
    assert run.read_status() == "completed"
    assert (run.adapter_folder / WEIGHTS).exists()
    last = told(run)[-1]
    assert isinstance(last, events.NoteLogged)
    assert last.level == "warning"
    assert "could not be compared: [metal] no memory; the run itself is whole" in last.text


def test_too_few_pairs_are_said_to_be_too_few(again, trained, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(trained.valid.read_text().splitlines(keepends=True)[:9]))
    run = again(valid_data=str(few), steps=2)
    assert "9 held-out pairs: at least 10 are needed" in notes(run)[-1]
    assert not run.evaluation_file.exists()


def test_a_run_taken_up_again_forgets_what_was_said_of_its_earlier_adapter(again, tmp_path):
    run = RunDirectory(tmp_path / "run")

    class StopsAtThree(_Asks):
        def handle(self, event: events.Event, line: str = "") -> None:
            if isinstance(event, events.StepCompleted) and event.step == 3:
                send_request(run, "stop")

    again(StopsAtThree(lambda: None), run_dir=str(run.path), evaluate=False)
    run.evaluation_file.write_text("{}")
    run.report_file.write_text(MARK)
    resume(run)
    assert not run.evaluation_file.exists()
    assert not run.report_file.exists()


@pytest.mark.parametrize(
    ("speed", "seconds", "pairs", "prompts", "examples"),
    [
        (Speed(1e-6, 1e-6, 1e-4), 240.0, 24, 30, 8),
        # 24 s for 30 answers of 32 tokens, 12 s for examples, which are read four times; 24 s left.
        (Speed(0.0, 0.025, 1.0), 240.0, 12, 20, 3),
        # The fewest pairs take 50 s of 60: 10 are enough for one example, and one shows too little.
        (Speed(0.0, 0.025, 2.5), 240.0, 12, 0, 0),
        (Speed(0.01, 0.5, 8.0), 1e5, 10, 0, 0),
        (Speed(0.0, 1.0, 0.25), 8.0, 16, 0, 2),
        (Speed(0.01, 0.0, 1.0), 240.0, 24, 0, 0),
    ],
    ids=["quick", "middle", "slow", "very slow", "a short run", "a reward model"],
)
def test_as_much_is_done_as_fits(speed, seconds, pairs, prompts, examples):
    budget = Trained(None, None, None, None, None, None, seconds).budget  # type: ignore[arg-type]
    plan = at_end._fitting(speed, 24, budget)
    assert (plan.pairs, plan.prompts, plan.examples) == (pairs, prompts, examples)
    assert plan.seconds <= budget + 1e-9 or plan == at_end.EndPlan(10, 0, 0, 20 * speed.pair)


def test_what_it_does_is_said_before_it_takes_any_time(again, tmp_path, monkeypatch):
    run, plan, said = RunDirectory(tmp_path / "run"), at_end.plan_evaluation, []

    def planned(*arguments: Any) -> at_end.EndPlan:
        said.extend(told(run))
        return plan(*arguments)

    monkeypatch.setattr(at_end, "plan_evaluation", planned)
    monkeypatch.setattr(at_end, "DRIFT_TOKENS", 4)
    again(run_dir=str(run.path), steps=2)
    assert isinstance(said[-2], events.RunFinished)
    assert isinstance(said[-1], events.NoteLogged)
    assert said[-1].text.startswith("timing held-out pairs")


def test_the_time_of_the_trial_counts(monkeypatch):
    now = [0.0]

    def measured(*_: object) -> Speed:
        now[0] += 10.0
        return Speed(0.0, 0.0, 1.0)

    monkeypatch.setattr(at_end, "_measured", measured)
    monkeypatch.setattr("orpo_mlx.evaluation.at_end.time.perf_counter", lambda: now[0])

    class Data:
        valid = range(100)

    trained: Any = Trained(None, None, None, None, Data(), None, 240.0)  # type: ignore[arg-type]
    plan = plan_evaluation(trained, lambda *_: None)
    assert (plan.pairs, plan.seconds) == (25, 50.0)


def timed_trial(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> tuple[list[Any], list[Speed], list[Any]]:
    """Have each batch of the trial take so many seconds, whatever is in it; returns the lists into
    which its batches, the speed it finds and the held-out pairs will come."""
    now, batches, speeds, held_out = [0.0], [], [], []
    measured = at_end._measured

    def slowly(model: Any, given: Any, scoring: Any) -> Iterator[Any]:
        for batch, scores in iter_scores(model, given, scoring):
            batches.append(batch)
            now[0] += seconds
            yield batch, scores

    def noted(trained: Trained, between: Any) -> Speed:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(at_end, "iter_scores", slowly)
            patch.setattr(at_end, "time", SimpleNamespace(perf_counter=lambda: now[0]))
            speeds.append(measured(trained, between))
        held_out.extend(trained.data.valid)
        return speeds[0]

    monkeypatch.setattr(at_end, "_measured", noted)
    return batches, speeds, held_out


def test_a_quick_machine_is_measured_by_pairs_that_are_scored_together(again, monkeypatch):
    """Alone a pair may take as long as ten together: few of those that fit would be compared."""
    batches, speeds, _ = timed_trial(monkeypatch, 0.25)
    again(steps=2)
    tried = [len(batch.indices) for batch in batches]
    assert tried[0] == 1
    assert sum(tried[1:]) == 10
    assert speeds[0].pair == pytest.approx(0.25 * len(tried[1:]) / 10, rel=0.3)
    assert len(tried) < 10


def test_a_slow_machine_is_measured_by_a_single_pair_of_usual_length(again, monkeypatch):
    batches, speeds, held_out = timed_trial(monkeypatch, 2.5)
    run = again(steps=2)
    tried = [batch.members[0].size for batch in batches]
    assert tried == [pytest.approx(np.median([pair.size for pair in held_out]), abs=2)]
    assert speeds[0].pair == pytest.approx(2.5, rel=0.3)
    # 10 s for a short run: the fewest pairs take longer, and nothing is done besides.
    kept = json.loads(run.evaluation_file.read_text())
    assert (kept["counts"]["pairs"], kept["drift"]) == (10, None)
    assert any(note.startswith("left out") for note in kept["notes"])
