"""What a run has shown so far: for the time left while it runs, and for its closing text."""

from __future__ import annotations

import shlex
import shutil
import statistics
import sys
from collections import deque
from pathlib import Path

from orpo_mlx.formatting import counted, excerpt, visible
from orpo_mlx.report_text import end_line, eval_line
from orpo_mlx.runs.directory import default_runs_dir, runs_folder
from orpo_mlx.runs.events import (
    EvalCompleted,
    Event,
    Resumed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
)


class RunHistory:
    """What the closing table and the remaining time need, gathered from events."""

    def __init__(self) -> None:
        self.started: RunStarted | None = None
        self.step = 0
        self.evals: dict[int, EvalCompleted] = {}
        self.samples: dict[tuple[int, int], SampleGenerated] = {}
        self._step_seconds: deque[float] = deque(maxlen=50)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, 0 while unknown."""
        return self.started.total_steps if self.started else 0

    @property
    def run_path(self) -> Path | None:
        """The run's folder, None while unknown."""
        if self.started is None:
            return None
        if self.started.run_path:
            return Path(self.started.run_path)
        config = self.started.config
        if config.get("run_dir"):
            return Path(config["run_dir"]).expanduser().absolute()
        return runs_folder(config.get("runs_dir")).absolute() / self.started.run_id

    @property
    def resume_command(self) -> str:
        """What takes the run up again, "" while unknown."""
        path = self.run_path
        if path is None:
            return ""
        is_listed = path.parent == default_runs_dir().absolute()
        return f"orpo-mlx resume {path.name if is_listed else shlex.quote(str(path))}"

    def apply(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case RunStarted():
                self.started = event
                self.step = event.resumed_from_step
                self._step_seconds.clear()
            case StepCompleted():
                self.step = event.step
                self._step_seconds.append(event.step_seconds)
            case EvalCompleted():
                self.evals[event.step] = event
            case SampleGenerated():
                self.samples[event.step, event.index] = event
            case Resumed() if event.new_process:
                self.step = event.step
                self.evals = {s: e for s, e in self.evals.items() if s <= event.step}
                self.samples = {k: e for k, e in self.samples.items() if k[0] <= event.step}
            case _:
                pass

    def seconds_left(self) -> float:
        """Return the time for the remaining steps at the recent median; evaluation comes on top."""
        if not self._step_seconds:
            return 0.0
        return max(0, self.total_steps - self.step) * statistics.median(self._step_seconds)

    def slowness(self, event: StepCompleted) -> float:
        """Return by what factor a step is slower than the median of those before it; 0 unknown."""
        if len(self._step_seconds) < 5 or not (usual := statistics.median(self._step_seconds)):
            return 0.0
        return event.step_seconds / usual


def summary_lines(history: RunHistory, end: RunFinished, width: int) -> list[str]:
    """Return the closing text of a run: numbers and answers before and after, paths, commands."""
    return [
        end_line(end),
        *_eval_table(history, end),
        *_sample_table(history, width),
        *_next_lines(history, end),
    ]


_TABLE = (
    ("loss", "loss", "{:.4f}"),
    ("nll", "nll_loss", "{:.4f}"),
    ("odds-ratio loss", "odds_ratio_loss", "{:.4f}"),
    ("log-odds ratio", "log_odds_ratio", "{:+.4f}"),
    ("chosen log-prob", "chosen_logps", "{:.4f}"),
    ("rejected log-prob", "rejected_logps", "{:.4f}"),
    ("accuracy", "preference_accuracy", "{:.4f}"),
    ("margin", "logps_margin", "{:+.4f}"),
)


def _eval_table(history: RunHistory, end: RunFinished) -> list[str]:
    if not history.evals:
        return []
    before, after = history.evals[min(history.evals)], history.evals[max(history.evals)]
    config = history.started.config if history.started else {}
    if config.get("keep_best") and end.best_step in history.evals:
        after = history.evals[end.best_step]
    if before.step == after.step:
        return [eval_line(after)]
    title = f"validation, {counted(after.pairs, 'pair')}"
    lines = ["", f"{title:<30}{f'step {before.step}':>12}{f'step {after.step}':>12}"]
    for label, name, form in _TABLE:
        values = (form.format(getattr(row, name)) for row in (before, after))
        lines.append(f"  {label:<28}" + "".join(f"{value:>12}" for value in values))
    return lines


def _sample_table(history: RunHistory, width: int) -> list[str]:
    lines: list[str] = []
    for index in sorted({index for _, index in history.samples}):
        steps = [step for step, i in history.samples if i == index]
        before, after = (history.samples[step, index] for step in (min(steps), max(steps)))
        lines += ["", f"sample {index + 1}"]
        lines += excerpt("prompt", after.prompt, width, 3, keep_end=True)
        if before.step != after.step:
            lines += excerpt("before", before.response, width, 4, keep_end=False)
        lines += excerpt("after", after.response, width, 4, keep_end=False)
    return lines


def _next_lines(history: RunHistory, end: RunFinished) -> list[str]:
    lines = [""]
    if end.adapter_path:
        lines.append(f"adapter  {end.adapter_path}")
    if history.run_path:
        lines.append(f"run      {history.run_path}")
    if end.reason in ("stopped", "aborted") and history.resume_command:
        lines.append(f"go on    {history.resume_command}")
    if end.adapter_path and history.started:
        model = history.started.config.get("model") or history.started.model
        prompts = [event.prompt for event in history.samples.values() if len(event.prompt) < 60]
        words = [tool("mlx_lm.generate"), "--model", model, "--adapter-path", end.adapter_path]
        words += ["--prompt", visible([*prompts, "Hello"][0])]
        lines.append(f"try it   {shlex.join(words)}")
        lines.append(f"all runs {tool('orpo-mlx')} runs")
        if "/orpo_mlx/demo/" in f"{model}/":
            lines.append(f"yours    {tool('orpo-mlx')} train --model HUB_ID_OR_FOLDER --data FILE")
    return lines if len(lines) > 1 else []


def tool(name: str) -> str:
    """Return a command as the user can type it: by its path where PATH does not lead to it."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not beside.exists() else str(beside)
