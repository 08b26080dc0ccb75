"""Steps of TRL's `ORPOTrainer` or `DPOTrainer` with PEFT on torch's CPU backend, in file order.

`options`: `objective`, "dpo" for the latter, and `beta`; `adapter`, a PEFT folder to begin with;
`learning_rate_schedule` of transformers.
"""

# pyright: reportMissingImports=false
# What it imports stands in an environment of its own.
from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from meter import Meter, Task, read_task
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer


class Listener(TrainerCallback):
    """Hears of every step; the trainer writes the loss of a step after it."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.metrics: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """A step has ended."""
        if logs and "loss" in logs:
            self.meter.step(float(logs["loss"]))
            self.metrics.append(logs)


class DpoRows(DPOTrainer):
    """Takes rows of token ids as they are, which its collator reads."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class Rows(ORPOTrainer):
    """Takes rows of token ids as they are; its own way starts from text."""

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        """Return a row's columns, the prompt's labels masked."""
        prompt = feature["prompt_ids"]
        columns = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            ids = prompt + feature[f"{side}_ids"]
            columns[f"{side}_input_ids"] = ids
            columns[f"{side}_attention_mask"] = [1] * len(ids)
            columns[f"{side}_labels"] = [-100] * len(prompt) + feature[f"{side}_ids"]
        return columns


def main() -> None:
    """Train as the task says and report."""
    task = read_task()
    torch.set_num_threads(1)
    listener = Listener(Meter(task.unmeasured))
    model, adapter = AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.float32), None
    if "adapter" in task.options:
        model = PeftModel.from_pretrained(model, task.options["adapter"], is_trainable=True)
    else:
        adapter = LoraConfig(
            r=task.rank,
            lora_alpha=round(task.scale * task.rank),
            target_modules=task.targets,
            task_type="CAUSAL_LM",
        )
    is_dpo = task.options.get("objective") == "dpo"
    trainer = (DpoRows if is_dpo else Rows)(
        model=model,
        args=settings(task, is_dpo),
        processing_class=AutoTokenizer.from_pretrained(task.model),
        train_dataset=Dataset.from_list(task.pairs),
        peft_config=adapter,
        callbacks=[listener],
    )
    listener.meter.start()
    trainer.train()
    packages = ["trl", "torch", "transformers", "peft"]
    listener.meter.report(packages, metrics=listener.metrics)


def settings(task: Task, is_dpo: bool) -> ORPOConfig | DPOConfig:
    """Return its settings."""
    return (DPOConfig if is_dpo else ORPOConfig)(
        output_dir=task.out,
        per_device_train_batch_size=task.pairs_per_step,
        max_steps=task.steps,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        learning_rate=task.learning_rate,
        beta=task.options["beta"] if is_dpo else task.lam,
        max_length=task.longest,
        train_sampling_strategy="sequential",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        lr_scheduler_type=task.options.get("learning_rate_schedule", "linear"),
        dataloader_pin_memory=False,
    )


if __name__ == "__main__":
    main()
