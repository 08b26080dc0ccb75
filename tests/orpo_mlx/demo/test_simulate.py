"""The simulated trainer leaves a run as a real one would, whatever happens to it."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest

from orpo_mlx.cli.commands.play import simulate_command
from orpo_mlx.config.file import load_config
from orpo_mlx.demo.simulate import Script, metrics_at, simulate
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import (
    EvalCompleted,
    RunFailed,
    RunFinished,
    RunStarted,
    StepCompleted,
    read_events,
)


def play(tmp_path, **script):
    given = {"steps": 16, "speed": 0.0, **script}
    run, code = simulate(Script(**given), run_dir=str(tmp_path / "run"))
    return run, code, [record.event for record in read_events(run.events_file)]


def test_a_whole_run_is_played(tmp_path):
    run, code, events = play(tmp_path)
    assert (code, run.read_status()) == (0, "completed")
    assert isinstance(events[0], RunStarted)
    assert [e.step for e in events if isinstance(e, StepCompleted)] == list(range(1, 17))
    assert [e.step for e in events if isinstance(e, EvalCompleted)] == list(range(0, 17, 2))
    assert isinstance(events[-1], RunFinished)
    assert load_config(run.config_file).steps == 16
    assert not run.is_locked()


def test_its_numbers_hang_together_as_those_of_orpo():
    """loss = nll + 0.1 * odds-ratio loss, the odds ratio and the margin of the log-probs."""
    for step in range(0, 101, 10):
        m = metrics_at(step, 100, random.Random(step))
        assert m["loss"] == pytest.approx(m["nll_loss"] + 0.1 * m["odds_ratio_loss"])
        assert m["logps_margin"] == pytest.approx(m["chosen_logps"] - m["rejected_logps"])
        odds = [math.exp(p) / (1 - math.exp(p)) for p in (m["chosen_logps"], m["rejected_logps"])]
        assert m["log_odds_ratio"] == pytest.approx(math.log(odds[0] / odds[1]))
        likely = 1 / (1 + math.exp(-m["log_odds_ratio"]))
        assert m["odds_ratio_loss"] == pytest.approx(-math.log(likely))


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(tmp_path):
    losses = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        events = play(tmp_path / place, seed=seed)[2]
        losses.append([e.value("loss") for e in events if isinstance(e, StepCompleted)])
    assert losses[0] == losses[1] != losses[2]


def test_a_loss_that_is_no_number_ends_the_run_with_advice(tmp_path):
    run, code, events = play(tmp_path, nan_at=7)
    assert (code, run.read_status()) == (1, "failed")
    assert isinstance(events[-1], RunFailed)
    assert (events[-1].step, bool(events[-1].what_to_do)) == (6, True)
    assert events[-1].kind == "not_finite"
    assert "not a finite number at step 7" in events[-1].message


def test_a_crash_leaves_a_run_that_says_nothing_and_words_in_its_log(tmp_path):
    path = tmp_path / "run"
    words = ["simulate", "--steps", "9", "--speed", "0", "--crash-at", "5", "--run-dir", str(path)]
    done = subprocess.run([sys.executable, "-m", "orpo_mlx", *words], capture_output=True)
    run = RunDirectory(path)
    assert done.returncode == 134
    assert run.read_status() == "crashed"
    assert "OutOfMemory" in run.log_file.read_text()
    assert not any(isinstance(r.event, RunFinished) for r in read_events(run.events_file))


def test_a_taken_place_is_refused(tmp_path):
    play(tmp_path)
    with pytest.raises(RunError):
        play(tmp_path)


@pytest.mark.parametrize(
    "words", [["--steps", "0"], ["--steps", "x"], ["--speed", "-1"], ["--speed", "nan"]]
)
def test_a_wrong_number_is_named(words):
    with pytest.raises(ConfigError, match=words[0]):
        simulate_command(words)
