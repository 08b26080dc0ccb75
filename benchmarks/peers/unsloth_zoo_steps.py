"""Steps of unsloth-zoo's MLX trainer for ORPO, rows in the order of the file.

It asks for a Mac before it imports anything of MLX, although what follows runs on MLX's CPU backend
too. Elsewhere it is told that this is one.
"""

# pyright: reportMissingImports=false
# What it imports stands in an environment of its own.
from __future__ import annotations

import platform
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import torch  # noqa: F401  (before the claim below, which would send it looking for a Mac's library)
import transformers  # noqa: F401
from meter import Meter, Task, as_text, read_task

with ExitStack() as claims:
    if platform.system() != "Darwin":
        claims.enter_context(patch.object(platform, "system", lambda: "Darwin"))
        claims.enter_context(patch.object(platform, "machine", lambda: "arm64"))
    from unsloth_zoo.mlx.loader import FastMLXModel
    from unsloth_zoo.mlx.trainer import MLXORPOConfig, MLXORPOTrainer


def main() -> None:
    """Train as the task says and report."""
    task = read_task()
    model, tokenizer = FastMLXModel.from_pretrained(
        task.model, max_seq_length=task.longest, load_in_4bit=False, dtype="float32"
    )
    model = FastMLXModel.get_peft_model(
        model,
        r=task.rank,
        target_modules=task.targets,
        lora_alpha=round(task.scale * task.rank),
        use_gradient_checkpointing=False,
        max_seq_length=task.longest,
    )
    meter = Meter(task.unmeasured, mx.get_peak_memory, mx.reset_peak_memory)
    trainer = MLXORPOTrainer(
        model=model,
        tokenizer=tokenizer,
        train_dataset=[as_text(pair) for pair in task.pairs],
        args=settings(task),
    )
    trainer.add_step_callback(lambda step, total, loss, *_: meter.step(float(loss)))
    meter.start()
    trainer.train()
    meter.report(["unsloth-zoo", "mlx", "mlx-lm"])


def settings(task: Task) -> Any:
    """Return its settings."""
    return MLXORPOConfig(
        per_device_train_batch_size=task.pairs_per_step,
        gradient_accumulation_steps=1,
        max_steps=task.steps,
        warmup_steps=0,
        learning_rate=task.learning_rate,
        logging_steps=1,
        output_dir=task.out,
        max_seq_length=task.longest,
        max_length=task.longest,
        max_prompt_length=task.longest - 1,
        beta=task.lam,
        gradient_checkpointing=False,
        preserve_dataset_order=True,
    )


if __name__ == "__main__":
    main()
