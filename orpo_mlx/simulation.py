"""A simulated trainer: a real run directory, real events, control, lock and signals; no model.

It drives demonstrations, screenshots and the tests of the app where no GPU is. Its numbers are
drawn from a seed and follow the course of an ORPO run; nothing is trained, and the run says so.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from orpo_mlx import report
from orpo_mlx.command_line import Parser, add_help_option, run_command
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs import events
from orpo_mlx.runs.control import Inbox, SignalFlags
from orpo_mlx.runs.directory import Heartbeat, RunDirectory, create_run

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
    """One simulated run in its directory."""

    def __init__(self, run: RunDirectory, script: Script, config: TrainConfig) -> None:
        self.run = run
        self.script = script
        self.config = config
        self.step = 0
        self.best: tuple[float, int] = (math.inf, 0)
        self._dice = random.Random(script.seed)
        self._heartbeat = Heartbeat(run, script.steps)
        self._checkpoint = ""
        self._seconds = 0.0

    def play(self) -> int:
        """Run to the end, a request or a scripted fault; return the exit code."""
        with self.run.lock(), SignalFlags() as self._signals:
            self._inbox = Inbox(self.run.control_folder)
            self._writer = events.EventWriter(self.run.events_file)
            try:
                self._start()
                code = self._loop()
                self._heartbeat.beat("failed" if code else "completed", self.step)
                return code
            finally:
                self._writer.close()

    def _loop(self) -> int:
        while self.step < self.script.steps:
            reason = self._answer_requests()
            if reason:
                return self._finish(reason)
            if self.step + 1 == self.script.nan_at:
                return self._fail_with_nan()
            if self.step + 1 == self.script.crash_at:
                _die()
            self._take_step()
        return self._finish("completed")

    def _start(self) -> None:
        script, emit = self.script, self._emit
        self._heartbeat.beat("preparing", 0)
        emit(
            events.RunStarted(
                run_id=self.run.id,
                model="simulated-1.5B-4bit",
                data="simulated pairs",
                total_steps=script.steps,
                pairs_train=script.steps * 8,
                pairs_valid=40,
                trainable_parameters=18_500_000,
                total_parameters=1_540_000_000,
                config=self.config.model_dump(),
                versions={"simulation": "1"},
                run_path=str(self.run.path),
                scoring="packed",
                estimated_peak_bytes=5_600_000_000,
            )
        )
        emit(
            events.DataPrepared(
                read=script.steps * 8 + 52,
                kept=script.steps * 8 + 40,
                dropped={"chosen and rejected are the same": 12},
                noted={"prompt cut": 19},
                layout="simulated",
                token_percentiles={"total_p50": 212, "total_p95": 803, "total_max": 1024},
                first_pair={"prompt": "What is 2 + 2?", "chosen": "4.", "rejected": "Five."},
            )
        )
        text = f"Simulated run: nothing is trained; its numbers are drawn from seed {script.seed}."
        emit(events.NoteLogged("info", text))
        self._evaluate()
        self._sample()

    def _take_step(self) -> None:
        self.step += 1
        seconds = STEP_SECONDS * self._dice.uniform(0.92, 1.1)
        if self.script.speed:
            time.sleep(seconds / self.script.speed)
            seconds /= self.script.speed
        self._seconds += seconds
        total = self.script.steps
        done = self.step / total
        tokens = int(3600 * self._dice.uniform(0.8, 1.2))
        self._emit(
            events.StepCompleted(
                **metrics_at(self.step, total, self._dice),
                step=self.step,
                epoch=done,
                learning_rate=5e-5 * min(1.0, done / 0.05) * (0.1 + 0.9 * _cosine(done)),
                grad_norm=0.5 + abs(self._dice.gauss(0.3, 0.15)),
                pairs=self.step * 8,
                tokens=self.step * 3600,
                pairs_per_second=8 / seconds,
                tokens_per_second=tokens / seconds,
                step_seconds=seconds,
                active_memory_bytes=int(4.1e9 + 3e8 * self._dice.random()),
                peak_memory_bytes=int(5.0e9 + 2e8 * min(1.0, done * 9)),
            )
        )
        self._heartbeat.beat("running", self.step, seconds)
        if self.step % self.script.eval_every == 0:
            self._evaluate()
            self._sample()
            self._save()

    def _answer_requests(self) -> str:
        """Do what was asked between two steps; return the reason to end, "" to go on."""
        while True:
            for request in self._inbox.poll():
                if request.name in ("stop", "abort"):
                    return "stopped" if request.name == "stop" else "aborted"
                self._answer(request.name)
            for note in self._inbox.take_notes():
                self._emit(events.NoteLogged("warning", note))
            if self._signals.abort or self._signals.stop:
                return "aborted" if self._signals.abort else "stopped"
            if not self._paused:
                return ""
            self._heartbeat.beat("paused", self.step)
            time.sleep(0.02)

    _paused = False

    def _answer(self, name: str) -> None:
        if name == "pause" and not self._paused:
            self._paused = True
            self._emit(events.Paused(self.step))
        elif name == "resume" and self._paused:
            self._paused = False
            self._emit(events.Resumed(self.step))
        elif name == "checkpoint":
            self._save()
        elif name == "sample":
            self._sample()

    def _evaluate(self) -> None:
        values = metrics_at(self.step, self.script.steps, random.Random(self.step), 40)
        is_best = values["loss"] < self.best[0]
        if is_best:
            self.best = values["loss"], self.step
        self._emit(
            events.EvalCompleted(**values, step=self.step, pairs=40, seconds=1.5, is_best=is_best)
        )

    def _sample(self) -> None:
        share = self.step / self.script.steps
        answer = "Paris is the capital of France. " if share > 0.3 else "I am not sure, but "
        answer += "Would you like to hear about its river?" if share > 0.6 else "it may be Paris."
        self._emit(events.SampleGenerated(self.step, "What is the capital of France?", answer, 0))

    def _save(self) -> None:
        if self._checkpoint.endswith(f"{self.step:06d}"):
            return
        self._checkpoint = str(self.run.checkpoints_folder / f"{self.step:06d}")
        self._emit(events.CheckpointSaved(self.step, self._checkpoint, 0.6, 38_400_000))

    def _finish(self, reason: str) -> int:
        if reason != "aborted":
            self._save()
        self._emit(
            events.RunFinished(reason, self.step, self._seconds, None, best_step=self.best[1])
        )
        return 0

    def _fail_with_nan(self) -> int:
        self._emit(
            events.RunFailed(
                "TrainingError",
                f"the loss of step {self.step + 1} is not finite (nan)",
                "Lower --learning-rate or --lam, and resume from the last checkpoint.",
                self.step,
                self._checkpoint or None,
            )
        )
        return 1

    def _emit(self, event: events.Event) -> None:
        self._writer.write(event)


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
    with _log(run):
        return run, Simulation(run, script, config).play()


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


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx simulate`; return the exit code of the simulated trainer."""
    given = _parser().parse(argv)
    script = Script(
        steps=_count("--steps", given.get("steps", "400"), 1),
        seed=_count("--seed", given.get("seed", "0"), 0),
        speed=_speed(given.get("speed", "1")),
        crash_at=_count("--crash-at", given.get("crash_at", "0"), 0),
        nan_at=_count("--nan-at", given.get("nan_at", "0"), 0),
    )
    run, code = simulate(script, given.get("run_dir"), given.get("runs_dir"))
    report.print_text(f"{run.id}: {run.read_status()}; {run.path}\n")
    return code


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx simulate",
        "Play a training without a model into a real run directory, to try the app.",
        usage="orpo-mlx simulate [options]",
    )
    add_help_option(parser)
    parser.add_argument("--steps", metavar="N", help="Steps of the run. [default 400]")
    parser.add_argument("--seed", metavar="N", help="Seed of its numbers. [default 0]")
    parser.add_argument(
        "--speed", metavar="X", help="Times faster than two steps a second; 0: no waiting."
    )
    parser.add_argument("--crash-at", metavar="N", help="Die without a word at step N.")
    parser.add_argument("--nan-at", metavar="N", help="Meet a loss that is no number at step N.")
    parser.add_argument("--run-dir", metavar="FOLDER", help="The run's own folder.")
    parser.add_argument("--runs-dir", metavar="FOLDER", help="Folder of all runs.")
    parser.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")
    return parser


def _count(flag: str, text: str, least: int) -> int:
    if text.isascii() and text.isdigit() and int(text) >= least:
        return int(text)
    raise ConfigError(f"{flag}: {text} is not a whole number from {least} on", f"Write {flag} 50.")


def _speed(text: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(speed := float(text)) and speed >= 0:
            return speed
    raise ConfigError(f"--speed: {text} is not a number from 0 on", "Write --speed 10.")


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:]), debug="--debug" in sys.argv))
