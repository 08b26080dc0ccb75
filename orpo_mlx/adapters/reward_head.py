"""The head of a reward model: hidden state to one number, trained and saved beside the adapter.

The adapter itself stays loadable by mlx-lm, which does not know the head's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.errors import ConfigError
from orpo_mlx.models.patches import run_body
from orpo_mlx.models.weights import load_checked
from orpo_mlx.storage.atomic import replace_file

HEAD_FILE = "reward_head.safetensors"
HEAD = "score"
"""What the head is called in a model; transformers has it under this name."""
HEAD_WEIGHT = f"{HEAD}.weight"
"""[1, hidden], in a model as in the file."""


def attach_head(model: Any, seed: int) -> None:
    """Give a model a fresh head, to be trained.

    Its weights are normal with variance 1 / (hidden + 1), so that rewards begin around 1 in size.

    Args:
        model: mlx-lm's; its weights may not be read yet.
        seed: of the start.

    Source:
        Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, section 2.1 (a random linear
        function of the last embedding); its size is that of their code.
    """
    width = run_body(model, mx.zeros((1, 1), mx.int32)).shape[-1]  # never computed
    # Another stream than the adapter's, which has the same seed.
    key = mx.random.split(mx.random.key(seed))[1]
    head = nn.Linear(width, 1, bias=False)
    head.weight = mx.random.normal((1, width), key=key) * (width + 1) ** -0.5
    mx.eval(head.parameters())
    setattr(model, HEAD, head)


def detach_head(model: Any) -> None:
    """Take a model's head off for good, if it has one."""
    if has_head(model):
        del model[HEAD]


def has_head(model: Any) -> bool:
    """Tell whether a model rates answers."""
    return HEAD in model


def rewards(model: Any, hidden: mx.array) -> mx.array:
    """Return the reward [...] of hidden states [..., hidden], float32."""
    return hidden.astype(mx.float32) @ model[HEAD].weight[0]


def holds_head(folder: Path) -> bool:
    """Tell whether an adapter's folder is that of a reward model."""
    return (folder / HEAD_FILE).is_file()


def require_answers(folder: Path) -> None:
    """Refuse an adapter that is not to write answers.

    Raises:
        ConfigError: it is a reward model's.
    """
    if holds_head(folder):
        raise ConfigError(
            f"{folder}: is a reward model ({HEAD_FILE} is there), which rates answers and writes "
            "none; an adapter that answers is needed here.",
            "orpo-mlx score RUN FILE rates answers, orpo-mlx evaluate RUN tells how well.",
        )


def save_head(model: Any, folder: Path) -> None:
    """Write the head beside an adapter."""

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            arrays = {HEAD_WEIGHT: model[HEAD].weight}
            mx.save_safetensors(file, arrays, metadata={"format": "mlx"})

    replace_file(folder / HEAD_FILE, write)


def load_head_into(model: Any, folder: Path) -> None:
    """Set a model's head from a folder, after the import gate has passed it.

    Raises:
        AdapterError: it is of another model, or not finite.
    """
    shape = tuple(model[HEAD].weight.shape)
    arrays = load_checked(folder / HEAD_FILE, {HEAD_WEIGHT: shape}, within=folder)
    model[HEAD].weight = arrays[HEAD_WEIGHT].astype(mx.float32)
    mx.eval(model[HEAD].weight)
