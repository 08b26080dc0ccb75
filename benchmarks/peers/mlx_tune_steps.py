"""Steps of mlx-tune: its `ORPOTrainer`, rows in the order of the file.

Its objective is another one: sums over prompt and response instead of means over the response, and
a difference of log-probs instead of log-odds. It is timed all the same.
"""

# pyright: reportMissingImports=false
# What it imports stands in an environment of its own.
from __future__ import annotations

import re
import sys
from typing import Any

import mlx.core as mx
from meter import Meter, Task, read_task
from mlx_tune import FastLanguageModel, ORPOConfig, ORPOTrainer

REMARK = (
    "another objective: log-probs summed over prompt and response, no log-odds, "
    "so its loss is not ours"
)


class Ids:
    """A tokenizer for rows that are token ids already."""

    pad_token_id = 0

    def encode(self, ids: list[int]) -> list[int]:
        """Return them as they are."""
        return ids


class Listener:
    """Stands in for the terminal, because a printed line is all that tells of a step."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def write(self, text: str) -> int:
        """Look for the line of a step."""
        found = re.match(r"\s*Step \d+/\d+ \| Loss: (\S+)", text)
        if found:
            self.meter.step(float(found[1]))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def main() -> None:
    """Train as the task says and report."""
    task = read_task()
    meter = Meter(task.unmeasured, mx.get_peak_memory, mx.reset_peak_memory)
    sys.stdout = Listener(meter)  # type: ignore[assignment]
    trainer = ORPOTrainer(
        model=load_adapted(task),
        train_dataset=[as_row(pair) for pair in task.pairs],
        tokenizer=Ids(),
        args=ORPOConfig(
            beta=task.lam,
            output_dir=task.out,
            learning_rate=task.learning_rate,
            per_device_train_batch_size=task.pairs_per_step,
            max_steps=task.steps,
            logging_steps=1,
            max_seq_length=task.longest,
        ),
    )
    meter.start()
    trainer.train()
    meter.report(["mlx-tune", "mlx", "mlx-lm"], remark=REMARK)


def load_adapted(task: Task) -> Any:
    """Return its wrapper of the model, with LoRA to be applied by the trainer."""
    model, _ = FastLanguageModel.from_pretrained(task.model, max_seq_length=task.longest)
    return FastLanguageModel.get_peft_model(
        model,
        r=task.rank,
        target_modules=task.targets,
        lora_alpha=round(task.scale * task.rank),
    )


def as_row(pair: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return a pair under its names; it joins prompt and response itself."""
    return {name: pair[f"{name}_ids"] for name in ("prompt", "chosen", "rejected")}


if __name__ == "__main__":
    main()
