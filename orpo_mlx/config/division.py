"""Into how many parts a forward pass is cut, where several processes share a step."""

from __future__ import annotations

from orpo_mlx.config.train_config import TrainConfig


def divided(config: TrainConfig, size: int) -> TrainConfig:
    """Return settings with which each of `size` processes has something to do in a step.

    With dropout nothing is divided by itself, for other micro-batches draw other masks.
    """
    if config.dropout:
        return config
    # By tokens, a whole step may be one forward pass.
    passes = config.grad_accumulation_steps if config.batching == "fixed" else 1
    return config.model_copy(update={"micro_batch_parts": -(-size // passes)})
