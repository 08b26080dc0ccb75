"""Optimizer and learning-rate schedule from the settings."""

from __future__ import annotations

import math

import mlx.optimizers as optimizers

from orpo_mlx.config import TrainConfig


def build_optimizer(config: TrainConfig) -> optimizers.Optimizer:
    """Return the optimizer; its learning rate is set before each update, never by itself."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adamw":
        # MLX leaves bias correction off unless asked; the references have it on.
        return optimizers.AdamW(learning_rate=rate, weight_decay=decay, bias_correction=True)
    if config.optimizer == "lion":
        return optimizers.Lion(learning_rate=rate, weight_decay=decay)
    return optimizers.SGD(learning_rate=rate, weight_decay=decay)


def warmup_steps(config: TrainConfig, total_steps: int) -> int:
    """Return how many steps the linear warm-up takes."""
    share = config.warmup < 1
    return round(config.warmup * total_steps) if share else round(config.warmup)


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """Return the learning rate of one optimizer step.

    The warm-up rises linearly and reaches the full rate on its last step; no step has rate 0.
    From there, or from the first step on without a warm-up, cosine or a straight line falls to
    `final_lr_fraction` on the last step. A run of one step has the full rate.

    Args:
        step: 1-based.
        total_steps: of the whole run.

    Example:
        rate 1, 10 steps, warm-up 2, linear to 0.2: 0.5, 1, then 0.9, 0.8, ..., 0.2.
    """
    warm = warmup_steps(config, total_steps)
    if step <= warm:
        return config.learning_rate * step / warm
    if config.schedule == "constant":
        return config.learning_rate
    full = max(1, warm)
    done = (step - full) / max(1, total_steps - full)
    fall = done if config.schedule == "linear" else (1 - math.cos(math.pi * done)) / 2
    return config.learning_rate * (1 - (1 - config.final_lr_fraction) * fall)
