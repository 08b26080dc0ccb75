"""Steps of TRL's `ORPOTrainer` with PEFT on torch's CPU backend, rows in the order of the file."""

# pyright: reportMissingImports=false
# What it imports stands in an environment of its own.
from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from meter import Meter, Task, as_text, read_task
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.experimental.orpo import ORPOConfig, ORPOTrainer


class Listener(TrainerCallback):
    """Hears of every step; the trainer writes the loss of a step after it."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """A step has ended."""
        if logs and "loss" in logs:
            self.meter.step(float(logs["loss"]))


def main() -> None:
    """Train as the task says and report."""
    task = read_task()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(task.model)
    meter = Meter(task.unmeasured)
    trainer = ORPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.float32),
        args=settings(task),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([as_text(pair) for pair in task.pairs]),
        peft_config=LoraConfig(
            r=task.rank,
            lora_alpha=round(task.scale * task.rank),
            target_modules=task.targets,
            task_type="CAUSAL_LM",
        ),
        callbacks=[Listener(meter)],
    )
    rows = [len(row["chosen_input_ids"]) for row in trainer.train_dataset]
    expected = [len(p["prompt_ids"]) + len(p["chosen_ids"]) for p in task.pairs]
    if rows != expected:
        raise SystemExit(f"its rows have {rows} tokens, not {expected}")
    meter.start()
    trainer.train()
    meter.report(["trl", "torch", "transformers", "peft"])


def settings(task: Task) -> ORPOConfig:
    """Return its settings."""
    return ORPOConfig(
        output_dir=task.out,
        per_device_train_batch_size=task.pairs_per_step,
        max_steps=task.steps,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        learning_rate=task.learning_rate,
        beta=task.lam,
        max_length=task.longest,
        train_sampling_strategy="sequential",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


if __name__ == "__main__":
    main()
