"""What a mistyped name was meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SYNONYMS = {
    "adapter_path": "run_dir",
    "batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "grad_accumulation_steps",
    "gradient_checkpointing": "grad_checkpoint",
    "iters": "steps",
    "lambda": "lam",
    "lora_alpha": "alpha",
    "lora_layers": "num_layers",
    "lora_rank": "rank",
    "lr": "learning_rate",
    "max_length": "max_seq_length",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "output_dir": "run_dir",
    "per_device_train_batch_size": "micro_batch_size",
    "r": "rank",
    "resume_adapter_file": "init_adapter",
    "steps_per_eval": "eval_every",
    "steps_per_report": "report_every",
}
"""What other trainers call our settings; used for hints only."""


def nearest_name(name: str, known: list[str]) -> str:
    """Return the known name a mistyped one most likely means, or "" if none is near.

    Other trainers' names count too, so that `lora_rnak` finds `rank`.
    """
    foreign = [other for other, ours in SYNONYMS.items() if ours in known]
    near = get_close_matches(name, [*known, *foreign], n=1, cutoff=0.55)
    if not near:
        return ""
    return near[0] if near[0] in known else SYNONYMS[near[0]]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ". Did you mean X?" for the nearest known name, or ""."""
    near = nearest_name(name, list(known))
    return f". Did you mean {near}?" if near else ""


def near_hint(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the nearest known name, or ""."""
    near = nearest_name(name, list(known))
    return f"; did you mean {near}?" if near else ""
