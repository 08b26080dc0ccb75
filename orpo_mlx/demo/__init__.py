"""The embedded demo: a tiny pre-trained model and pairs that teach it one visible habit.

`python -m orpo_mlx.train --demo` runs on this folder alone, without network or download.

* **The model** is a Llama of 0.6 million parameters, pre-trained by `make_demo.py` on synthetic
  text about some 500 small facts and quantized to 4 bits, so the run is QLoRA as on a Mac. It
  answers questions such as "What is the capital of Ireland?" in one of four manners: as a host,
  a doubter, a boaster or a grump.
* **The pairs** prefer the host: state the fact first, then hand a new question to the reader. In
  the rejected response the same fact is wrapped in doubt, boasting or grumbling. Both responses
  are right and of about the same length, so the manner is all there is to learn. The held-out
  pairs ask for facts that no training pair mentions in its prompt.

`corpus.py` is the toy world, `make_demo.py` makes everything in this folder from a seed. This
file imports no MLX; it says where things are.
"""

import json
from pathlib import Path

__all__ = ["SETTINGS", "model_path", "sample_prompts", "train_path", "valid_path"]

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


def sample_prompts(count: int = 3) -> list[list[dict[str, str]]]:
    """The first held-out prompts, as messages, to be answered before and after training."""
    with valid_path().open(encoding="utf-8") as lines:
        return [json.loads(line)["prompt"] for line, _ in zip(lines, range(count), strict=False)]
