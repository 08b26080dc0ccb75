"""Steps of mlx-lm-lora: its `train_orpo` or `train_dpo` with its own batches, rows in the order of
the file. `options`: `objective`, "dpo" for the latter, and `beta`."""

# pyright: reportMissingImports=false
# What it imports stands in an environment of its own.
from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
from meter import Meter, Task, read_task
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load
from mlx_lm_lora.trainer import dpo_trainer, orpo_trainer


class Listener:
    """Hears of every step."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        """A step has ended."""
        self.meter.step(info["train_loss"])


def main() -> None:
    """Train as the task says and report."""
    task = read_task()
    allow_other_devices()
    model: Any = load(task.model)[0]
    model.freeze()
    keys = {name for name, _ in model.layers[0].named_modules() if leaf(name) in task.targets}
    lora = {"rank": task.rank, "scale": task.scale, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(model, len(model.layers), lora)
    optimizer = optimizers.AdamW(learning_rate=task.learning_rate)
    meter = Meter(task.unmeasured, mx.get_peak_memory, mx.reset_peak_memory)
    train = train_dpo if task.options.get("objective") == "dpo" else train_orpo
    train(task, model, optimizer, meter)
    meter.report(["mlx-lm-lora", "mlx", "mlx-lm"])


def train_orpo(task: Task, model: Any, optimizer: Any, meter: Meter) -> None:
    """Train with its ORPO."""
    orpo_trainer.iterate_orpo_batches = in_file_order(orpo_trainer.iterate_orpo_batches, task)
    args = orpo_trainer.ORPOTrainingArgs(**settings(task), beta=task.lam)
    meter.start()
    orpo_trainer.train_orpo(
        model, optimizer, task.pairs, args=args, training_callback=Listener(meter)
    )


def train_dpo(task: Task, model: Any, optimizer: Any, meter: Meter) -> None:
    """Train with its DPO, beside the second model that it compares with."""
    dpo_trainer.iterate_dpo_batches = in_file_order(dpo_trainer.iterate_dpo_batches, task)
    args = dpo_trainer.DPOTrainingArgs(**settings(task), beta=task.options["beta"])
    reference: Any = load(task.model)[0]
    reference.freeze()
    meter.start()
    dpo_trainer.train_dpo(
        model, reference, optimizer, task.pairs, args=args, training_callback=Listener(meter)
    )


def settings(task: Task) -> dict[str, Any]:
    """Return the settings that its trainers share."""
    return {
        "batch_size": task.pairs_per_step,
        "iters": task.steps,
        "steps_per_report": 1,
        "steps_per_save": task.steps + 1,
        "max_seq_length": task.longest,
        "adapter_file": str(Path(task.out) / "adapters.safetensors"),
    }


def allow_other_devices() -> None:
    """Give it the number it asks for first, which a device other than a Mac's GPU does not have."""
    info = mx.device_info()
    mx.device_info = lambda: {"max_recommended_working_set_size": 0} | info


def leaf(name: str) -> str:
    """Return the last part of a layer's path."""
    return name.rpartition(".")[2]


def in_file_order(original: Callable[..., Iterator[Any]], task: Task) -> Callable[..., Any]:
    """Let its own iterator make the batch of each step, of that step's rows.

    Left alone, it draws a batch at random with replacement, so that two runs would not do the same
    work.
    """
    steps = count()

    def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:
        # What it asks for is the whole dataset, by place or by name; it gets the rows of one step.
        rows = [as_row(pair) for pair in task.rows(next(steps))]
        if "dataset" in kwargs:
            return original(*args, **kwargs | {"dataset": rows})
        return original(rows, *args[1:], **kwargs)

    return iterate


def as_row(pair: dict[str, list[int]]) -> dict[str, Any]:
    """Return a pair as its dataset class would hand it out."""
    prompt = pair["prompt_ids"]
    return {
        "chosen": prompt + pair["chosen_ids"],
        "rejected": prompt + pair["rejected_ids"],
        "chosen_prompt_length": len(prompt),
        "rejected_prompt_length": len(prompt),
    }


if __name__ == "__main__":
    main()
