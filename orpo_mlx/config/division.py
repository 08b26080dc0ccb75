"""Into how many parts a forward pass is cut, where several processes share a step."""

from __future__ import annotations

import math

from orpo_mlx.config.train_config import TrainConfig


def divided(config: TrainConfig, size: int) -> TrainConfig:
    """Return settings with which `size` processes have equal parts of a step to do.

    Forward passes are cut only where there are fewer of them than processes: short ones are slower.
    With dropout nothing is divided by itself, for other micro-batches draw other masks.
    """
    if config.dropout:
        return config
    # By tokens, a whole step may be one forward pass.
    passes = config.grad_accumulation_steps if config.batching == "fixed" else 1
    parts = size // math.gcd(size, passes) if passes < size else 1
    return config.model_copy(update={"micro_batch_parts": parts})
