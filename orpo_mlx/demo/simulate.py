"""A made-up training, played by `replay`: a real run directory, events, control, lock; no model.

It drives demonstrations, screenshots and the tests of the app where no GPU is. Its numbers are
drawn from a seed and follow the course of an ORPO run; nothing is trained, and the run says so.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from orpo_mlx.config import TrainConfig
from orpo_mlx.demo.replay import Player, TimedEvent
from orpo_mlx.runs import events
from orpo_mlx.runs.checkpoints import checkpoint_path
from orpo_mlx.runs.directory import RunDirectory, create_run

STEP_SECONDS = 0.5
"""Length of a step at speed 1."""


@dataclass(frozen=True)
class Script:
    """What the simulated run is to do.

    Attributes:
        speed: how many times faster than two steps a second; 0: without any pause.
        crash_at: the process kills itself at this step; 0: never.
        nan_at: the loss is no number at this step, which ends the run; 0: never.
    """

    steps: int = 400
    seed: int = 0
    speed: float = 1.0
    crash_at: int = 0
    nan_at: int = 0

    @property
    def eval_every(self) -> int:
        """Steps between evaluations and checkpoints."""
        return max(1, self.steps // 8)


def metrics_at(step: int, total: int, dice: random.Random, pairs: int = 8) -> dict[str, Any]:
    """Return plausible means over some pairs; lambda is 0.1: loss = nll + 0.1 * odds-ratio loss."""
    done = step / max(1, total)
    chosen = -1.25 + 0.75 * (1 - math.exp(-4 * done)) + dice.gauss(0, 0.05)
    rejected = -1.35 - 0.25 * (1 - math.exp(-3 * done)) + dice.gauss(0, 0.06)
    ratio = _log_odds(chosen) - _log_odds(rejected)
    nll = -chosen * 1.02 + abs(dice.gauss(0, 0.03)) + 1.1 * math.exp(-25 * done)
    likely = 0.6 + 0.3 * (1 - math.exp(-3 * done))
    odds_loss = math.log1p(math.exp(-ratio))
    return {
        "loss": nll + 0.1 * odds_loss,
        "nll_loss": nll,
        "odds_ratio_loss": odds_loss,
        "log_odds_ratio": ratio,
        "chosen_logps": chosen,
        "rejected_logps": rejected,
        "preference_accuracy": sum(dice.random() < likely for _ in range(pairs)) / pairs,
        "logps_margin": chosen - rejected,
    }


def _log_odds(logp: float) -> float:
    return logp - math.log(-math.expm1(min(logp, -1e-6)))


class Simulation:
    """Makes up the events of one run."""

    def __init__(self, run: RunDirectory, script: Script, config: TrainConfig) -> None:
        self.run = run
        self.script = script
        self.config = config
        self.best: tuple[float, int] = (math.inf, 0)
        self._dice = random.Random(script.seed)
        self._seconds = 0.0

    def timed_events(self) -> Iterator[TimedEvent]:
        """Yield the events up to the end or the scripted fault."""
        script, checkpoint = self.script, None
        for event in self._start():
            yield TimedEvent(0.0, event)
        for step in range(1, script.steps + 1):
            if step == script.nan_at:
                yield TimedEvent(0.0, _failed(step, checkpoint))
                return
            if step == script.crash_at:
                _die()
            yield self._step(step)
            is_due = step % script.eval_every == 0
            if is_due:
                yield TimedEvent(0.0, self._evaluation(step))
                yield TimedEvent(0.0, self.sample(step))
            if is_due or step == script.steps:
                yield TimedEvent(0.0, saved := self.checkpoint(step))
                checkpoint = saved.path
        best, seconds = self.best[1], self._seconds
        end = events.RunFinished("completed", script.steps, seconds, None, best_step=best)
        yield TimedEvent(0.0, end)

    def _start(self) -> Iterator[events.Event]:
        script, often = self.script, self.script.eval_every
        yield events.RunStarted(
            run_id=self.run.id,
            model="simulated-1.5B-4bit",
            data="simulated pairs",
            total_steps=script.steps,
            pairs_train=script.steps * 8,
            pairs_valid=40,
            trainable_parameters=18_500_000,
            total_parameters=1_540_000_000,
            config=self.config.model_dump(),
            versions={events.SIMULATION: "1"},
            objective=self.config.objective,
            metrics=list(metrics_at(0, 1, random.Random(0))),
            run_path=str(self.run.path),
            scoring="packed",
            estimated_peak_bytes=5_600_000_000,
            cadence={
                "report": 1,
                "evaluate": often,
                "sample": often,
                "save": often,
                "reports_slow": False,
                "saves_by_time": False,
            },
        )
        yield events.DataPrepared(
            read=script.steps * 8 + 52,
            kept=script.steps * 8 + 40,
            dropped={"chosen and rejected are the same": 12},
            noted={"prompt cut": 19},
            layout="simulated",
            token_percentiles={"total_p50": 212, "total_p95": 803, "total_max": 1024},
            first_pair={"prompt": "What is 2 + 2?", "chosen": "4.", "rejected": "Five."},
        )
        text = f"Simulated run: nothing is trained; its numbers are drawn from seed {script.seed}."
        yield events.NoteLogged("info", text)
        yield self._evaluation(0)
        yield self.sample(0)

    def _step(self, step: int) -> TimedEvent:
        speed, total = self.script.speed, self.script.steps
        seconds = STEP_SECONDS * self._dice.uniform(0.92, 1.1) / (speed or 1)
        self._seconds += seconds
        done = step / total
        tokens = int(3600 * self._dice.uniform(0.8, 1.2))
        event = events.StepCompleted(
            metrics_at(step, total, self._dice),
            step=step,
            epoch=done,
            learning_rate=5e-5 * min(1.0, done / 0.05) * (0.1 + 0.9 * _cosine(done)),
            grad_norm=0.5 + abs(self._dice.gauss(0.3, 0.15)),
            pairs=step * 8,
            tokens=step * 3600,
            pairs_per_second=8 / seconds,
            tokens_per_second=tokens / seconds,
            step_seconds=seconds,
            active_memory_bytes=int(4.1e9 + 3e8 * self._dice.random()),
            peak_memory_bytes=int(5.0e9 + 2e8 * min(1.0, done * 9)),
        )
        return TimedEvent(seconds if speed else 0.0, event)

    def _evaluation(self, step: int) -> events.EvalCompleted:
        values = metrics_at(step, self.script.steps, random.Random(step), 40)
        is_best = values["loss"] < self.best[0]
        if is_best:
            self.best = values["loss"], step
        return events.EvalCompleted(values, step=step, pairs=40, seconds=1.5, is_best=is_best)

    def sample(self, step: int) -> events.SampleGenerated:
        """Return an answer that gets better in the course of the run."""
        share = step / self.script.steps
        answer = "Paris is the capital of France. " if share > 0.3 else "I am not sure, but "
        answer += "Would you like to hear about its river?" if share > 0.6 else "it may be Paris."
        return events.SampleGenerated(step, "What is the capital of France?", answer, 0)

    def checkpoint(self, step: int) -> events.CheckpointSaved:
        """Return what is said of a checkpoint; none is written."""
        path = str(checkpoint_path(self.run.checkpoints_folder, step))
        return events.CheckpointSaved(step, path, 0.6, 38_400_000)


def _failed(step: int, checkpoint: str | None) -> events.RunFailed:
    return events.RunFailed(
        "NotFiniteError",
        f"the loss is not a finite number at step {step}",
        "Lower --learning-rate or --lam, and resume from the last checkpoint.",
        step - 1,
        checkpoint,
        "not_finite",
    )


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _die() -> NoReturn:
    """End without a word, as a process that Metal aborts does."""
    sys.stderr.write("simulated crash: [METAL] Command buffer execution failed: OutOfMemory\n")
    sys.stderr.flush()
    os._exit(134)


def simulated_config(script: Script, run_dir: str | None, runs_dir: str | None) -> TrainConfig:
    """Return the settings a simulated run claims to have."""
    return TrainConfig(
        model="simulated-1.5B-4bit",
        data="simulated",
        steps=script.steps,
        eval_every=script.eval_every,
        save_every=script.eval_every,
        report_every=1,
        seed=script.seed,
        run_dir=run_dir,
        runs_dir=runs_dir,
    )


def simulate(
    script: Script, run_dir: str | None = None, runs_dir: str | None = None
) -> tuple[RunDirectory, int]:
    """Play a whole simulated run in this process; return its directory and exit code.

    Raises:
        RunError: the place is taken or cannot be written.
    """
    config = simulated_config(script, run_dir, runs_dir)
    run = create_run(config, name="simulated")
    simulation = Simulation(run, script, config)
    with _log(run):
        Player(run, simulation.checkpoint, simulation.sample).play(simulation.timed_events())
    return run, int(run.read_status() == "failed")


@contextlib.contextmanager
def _log(run: RunDirectory) -> Iterator[None]:
    """Send stderr to the run's log while it lasts: a crash leaves its last words there."""
    kept = os.dup(2)
    with run.log_file.open("ab") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
