"""Sets of settings to begin with, and which settings a form shows first; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orpo_mlx import demo


@dataclass(frozen=True)
class Preset:
    """Settings under those the user chose.

    Attributes:
        title: its name on the screen.
        why: what it is good for and why its values are as they are.
        values: settings that differ from the defaults.
    """

    title: str
    why: str
    values: dict[str, Any]


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        "Quick",
        "See in minutes whether model and data work together: 100 steps, short pairs, adapters in "
        "the last 8 blocks only. The result is a first look, not an end.",
        {"steps": 100, "max_seq_length": 512, "num_layers": 8, "learning_rate": 1e-4,
         "eval_pairs": 50},
    ),
    "balanced": Preset(
        "Balanced",
        "The defaults: one pass over the pairs, adapters in the last 16 blocks, a careful learning "
        "rate. It evaluates about ten times, so that a wrong turn is seen early.",
        {},
    ),
    "thorough": Preset(
        "Thorough",
        "Learns more and takes several times as long: two passes, all blocks, rank 16, longer "
        "pairs. It keeps the best evaluation, because a second pass can learn by heart.",
        {"epochs": 2.0, "rank": 16, "num_layers": -1, "max_seq_length": 2048,
         "grad_accumulation_steps": 2, "keep_best": True},
    ),
    "demo": Preset(
        "Demo",
        "For the built-in tiny model: large steps that would ruin a real one. About a minute.",
        dict(demo.SETTINGS),
    ),
}  # fmt: skip

BASIC_GROUPS = {
    "What is learned": ("objective", "epochs", "learning_rate", "lam", "beta"),
    "How large": ("max_seq_length", "rank", "num_layers", "micro_batch_size", "grad_checkpoint"),
    "How it is watched": ("valid_fraction", "eval_every", "save_every", "seed"),
}
"""Settings most runs choose, by what they decide; the others stand behind Advanced."""

BASIC = tuple(name for names in BASIC_GROUPS.values() for name in names)

ELSEWHERE = ("model", "data", "map", "run_dir", "runs_dir")
"""Settings that other steps ask for, or the app decides."""
