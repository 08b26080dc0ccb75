"""Steps of this trainer, through `orpo_mlx.train`; `options` are settings of it."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx
from meter import Meter, Task, read_task

import orpo_mlx
from orpo_mlx.config import build_config


class Listener:
    """A report of a run that only notes its steps."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.scoring = ""
        self.metrics: list[dict[str, float]] = []
        self.reference_cpu = 0.0
        self._before = 0.0

    def handle(self, event: Any, line: str = "") -> None:
        """Take in one event of the run."""
        kind = type(event).__name__
        if kind == "RunStarted":
            self.scoring = event.scoring
        elif kind == "StepCompleted":
            self.meter.step(event.value("loss"))
            self.metrics.append(dict(event.metrics))
            return
        # Loading, evaluating and saving are no steps: whatever comes next starts here.
        self.meter.start()

    def catch_up(self, events: Iterable[Any]) -> None:
        """Nothing happened before."""

    def progress(self, done: int, total: int, label: str, unit: str) -> None:
        """Note what scoring the reference takes: from the last word of what comes before it."""
        now = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        if "log-probs of the reference" in label:
            self.reference_cpu = now - self._before
        else:
            self._before = now

    def close(self) -> None:
        """Nothing to put in order."""


def main() -> None:
    """Train as the task says and report."""
    task = read_task()
    os.environ["ORPO_MLX_HOME"] = task.out  # what an earlier run has kept would be no measurement
    listener = Listener(Meter(task.unmeasured, mx.get_peak_memory, mx.reset_peak_memory))
    orpo_mlx.train(build_config(settings(task)), report=listener)
    listener.meter.report(
        ["mlx", "mlx-lm"],
        scoring=listener.scoring,
        metrics=listener.metrics,
        reference_cpu_seconds=listener.reference_cpu,
    )


def settings(task: Task) -> dict[str, Any]:
    """Return the settings of the run; whatever is not named has its default."""
    out = Path(task.out)
    data = out / "pairs.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in task.pairs), encoding="utf-8")
    return {
        "model": task.model,
        "data": str(data),
        "run_dir": str(out / "run"),
        "order": "file",
        "valid_fraction": 0,
        "max_seq_length": task.longest,
        "micro_batch_size": task.pairs_per_step,
        "rank": task.rank,
        "scale": task.scale,
        "lam": task.lam,
        "learning_rate": task.learning_rate,
        "target_modules": ",".join(task.targets),
        "num_layers": -1,
        "steps": task.steps,
        "report_every": 1,
        "save_every": 0,
        **task.options,
    }


if __name__ == "__main__":
    main()
