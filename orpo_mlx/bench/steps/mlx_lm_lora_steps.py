"""Steps of mlx-lm-lora's own ORPO trainer, for the Python it is installed in.

A program, not a module: it may run where this package's needs are not met. It reads a task as
`measured.iter_steps` does, and writes lines as a worker does.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load
from mlx_lm_lora.trainer import orpo_trainer

MOST_STEPS = 12
LINEAR = ("Linear", "QuantizedLinear")


class EnoughSteps(Exception):
    """As many steps were taken as there was time for."""


class PeerMeter:
    """Hears of every step; the first is not measured."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.losses: list[float] = []
        self.step_seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.began = time.monotonic()
        self.marks = (self.began, cpu_seconds())

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        """A step has ended."""
        now = (time.monotonic(), cpu_seconds())
        self.losses.append(info["train_loss"])
        if len(self.losses) == 1:
            mx.reset_peak_memory()
        else:
            self.step_seconds.append(now[0] - self.marks[0])
            self.cpu_seconds.append(now[1] - self.marks[1])
            if now[0] - self.began > self.seconds or len(self.losses) > MOST_STEPS:
                raise EnoughSteps
        write({"say": f"step {len(self.losses)}"})
        self.marks = (time.monotonic(), cpu_seconds())


def main() -> None:
    """Train as the task says and report."""
    task = json.load(sys.stdin)
    # It asks for a number first that only a Mac's GPU has.
    about = {"max_recommended_working_set_size": 0, **mx.device_info()}
    mx.device_info = lambda: about
    model: Any = load(task["model"])[0]
    model.freeze()
    named = model.layers[0].named_modules()
    keys = {name for name, module in named if type(module).__name__ in LINEAR}
    lora = {"rank": task["rank"], "scale": task["scale"], "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(model, len(model.layers), lora)
    rows = [as_row(json.loads(line)) for line in Path(task["data"]).read_text().splitlines()]
    args = orpo_trainer.ORPOTrainingArgs(
        batch_size=task["pairs"],
        iters=MOST_STEPS + 1,
        steps_per_report=1,
        steps_per_save=10 * MOST_STEPS,
        max_seq_length=task["longest"] + 8,
        adapter_file=str(Path(task["folder"]) / "peer.safetensors"),
        beta=0.1,
    )
    meter = PeerMeter(task["seconds"])
    with contextlib.suppress(EnoughSteps):
        orpo_trainer.train_orpo(
            model,
            optimizers.AdamW(learning_rate=5e-5),
            rows,
            args=args,
            training_callback=meter,
        )
    report(meter, task)


def report(meter: PeerMeter, task: dict[str, Any]) -> None:
    """Write what the steps took."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {
        "step_seconds": meter.step_seconds,
        "cpu_seconds": meter.cpu_seconds,
        "losses": meter.losses,
        "peak_memory_bytes": mx.get_peak_memory(),
        "process_bytes": size if sys.platform == "darwin" else 1024 * size,
        "pairs": task["pairs"],
        "versions": {
            name: importlib.metadata.version(name) for name in ("mlx-lm-lora", "mlx-lm", "mlx")
        },
    }
    write({"row": row})


def as_row(pair: dict[str, list[int]]) -> dict[str, Any]:
    """Return a pair as its dataset would hand it out."""
    prompt = pair["prompt_ids"]
    return {
        "chosen": prompt + pair["chosen_ids"],
        "rejected": prompt + pair["rejected_ids"],
        "chosen_prompt_length": len(prompt),
        "rejected_prompt_length": len(prompt),
    }


def cpu_seconds() -> float:
    """Return the user CPU time of this process, all threads."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def write(line: dict[str, Any]) -> None:
    """Write a line for the parent."""
    OUT.write(json.dumps(line) + "\n")
    OUT.flush()


if __name__ == "__main__":
    OUT = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what it prints itself goes elsewhere
    main()
