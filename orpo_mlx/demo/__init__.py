"""The embedded demo: a tiny pre-trained model and pairs that teach it one visible habit.

`python -m orpo_mlx.train --demo` runs on this folder alone, without network or download. The model
is a 4-bit Llama of 0.6 million parameters that answers small questions as a host, a doubter, a
boaster or a grump; the pairs prefer the host, in answers that are right and of like length either
way; `tools/demo/make_demo.py` of the source tree made both. `simulate` and `replay` play runs
without a model. Nothing here imports MLX.
"""

import json
from pathlib import Path

__all__ = [
    "SETTINGS", "labelled_train_path", "labelled_valid_path", "model_path", "sample_prompts",
    "train_path", "valid_path",
]  # fmt: skip

_FOLDER = Path(__file__).parent

SETTINGS: dict[str, int | float] = {
    "lam": 0.5,
    "learning_rate": 2e-3,
    "epochs": 1,
    "micro_batch_size": 8,
    "grad_accumulation_steps": 1,
    "rank": 8,
    "scale": 2.0,
    "num_layers": -1,
    "max_seq_length": 128,
    "seed": 0,
    "eval_every": 0,
    "report_every": 1,
    "sample_every": 0,
}
"""The run's settings where they differ from the project's defaults, or matter for the demo."""


def model_path() -> Path:
    """The folder with the 4-bit model and its tokenizer, in mlx-lm's format."""
    return _FOLDER / "model"


def train_path() -> Path:
    """The 200 training pairs: JSON lines with prompt, chosen and rejected as messages."""
    return _FOLDER / "train.jsonl"


def valid_path() -> Path:
    """The 40 held-out pairs, in the same form, about other facts."""
    return _FOLDER / "valid.jsonl"


def labelled_train_path() -> Path:
    """One answer to each training prompt with its label, by turns good and bad."""
    return _FOLDER / "labelled_train.jsonl"


def labelled_valid_path() -> Path:
    """The same of the held-out prompts."""
    return _FOLDER / "labelled_valid.jsonl"


def sample_prompts(count: int = 3) -> list[list[dict[str, str]]]:
    """The first held-out prompts, as messages, to be answered before and after training."""
    with valid_path().open(encoding="utf-8") as lines:
        return [json.loads(line)["prompt"] for line, _ in zip(lines, range(count), strict=False)]
