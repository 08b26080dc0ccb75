"""Steps of this trainer, measured from its own events until their time is over."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from orpo_mlx.bench.process import Row
from orpo_mlx.config import build_config
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import Event, RunStarted, StepCompleted
from orpo_mlx.text.progress import Unit

MOST_STEPS = 12

# What makes the loss that of mlx-lm-lora: a mean per pair, prompts not scored, a constant rate.
_OBJECTIVE = {
    "nll_scope": "response", "nll_reduction": "pair", "schedule": "constant", "warmup": 0,
    "max_grad_norm": 0, "learning_rate": 5e-5, "lam": 0.1,
}  # fmt: skip


def iter_steps(task: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Train on one batch again and again, and yield what a step took.

    Args:
        task: "model", "data", "folder"; "pairs" in the data, all of them in each step; "longest",
            tokens of a row; "rank" and "scale" of the adapter; "options", more settings;
            "seconds" that steps may take, though one is measured in any case.
        tell: told of each step.
    """
    from orpo_mlx.training.train import train

    run = Path(task["folder"]) / f"run-{time.monotonic_ns()}"
    meter = _Meter(RunDirectory(run), task["seconds"], tell)
    train(build_config(_settings(task, run)), report=meter)
    yield meter.result(task["pairs"])


def _settings(task: Row, run: Path) -> Row:
    return {
        "model": task["model"], "data": task["data"], "run_dir": str(run), "order": "file",
        "valid_fraction": 0, "sample_prompts": 0, "evaluate": False, "report_every": 1,
        "save_every": 0, "eval_every": 0, "steps": MOST_STEPS + 1, "num_layers": -1,
        "target_modules": "all", "rank": task["rank"], "scale": task["scale"],
        "max_seq_length": task["longest"] + 8, "micro_batch_size": task["pairs"],
        **_OBJECTIVE, **task["options"],
    }  # fmt: skip


class _Meter:
    """Listens to a run; the first step, which compiles and fills caches, is not measured."""

    def __init__(self, run: RunDirectory, seconds: float, tell: Callable[[str], None]) -> None:
        self.run, self.seconds, self.tell = run, seconds, tell
        self.started: RunStarted | None = None
        self.steps: list[StepCompleted] = []
        self.cpu: list[float] = []
        self._cpu_mark, self._began, self._asked = 0.0, 0.0, False

    def handle(self, event: Event, line: str = "") -> None:
        """Take in one event of the run, and ask for its end when enough was measured."""
        import mlx.core as mx

        now = _cpu_seconds()
        if isinstance(event, RunStarted):
            self.started, self._began = event, time.monotonic()
            mx.reset_peak_memory()  # loading the model is not a step
        elif isinstance(event, StepCompleted):
            self.tell(f"step {event.step}")
            self.steps.append(event)
            self.cpu.append(now - self._cpu_mark)
            is_enough = len(self.steps) > 1 and time.monotonic() - self._began > self.seconds
            if is_enough and not self._asked:
                self._asked = True
                send_request(self.run, "stop")
        self._cpu_mark = now  # what is between steps, such as a checkpoint, is none

    def result(self, pairs: int) -> Row:
        """Return what the steps took."""
        assert self.started is not None
        return {
            "step_seconds": [event.step_seconds for event in self.steps[1:]],
            "cpu_seconds": self.cpu[1:],
            "losses": [event.value("loss") for event in self.steps],
            "peak_memory_bytes": max(event.peak_memory_bytes for event in self.steps),
            "process_bytes": _peak_rss_bytes(),
            "estimated_bytes": self.started.estimated_peak_bytes,
            "scoring": self.started.scoring,
            "is_compiled": self.started.is_compiled,
            "grad_checkpoint_every": self.started.grad_checkpoint_every,
            "pairs": pairs,
        }

    def catch_up(self, events: Iterable[Event]) -> None:
        """Nothing to take in."""

    def progress(self, done: int, total: int, label: str, unit: Unit) -> None:
        """Pass on what is prepared."""
        self.tell(label)

    def close(self) -> None:
        """Nothing to close."""


def _cpu_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def _peak_rss_bytes() -> int:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size  # kilobytes on Linux
