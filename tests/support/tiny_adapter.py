"""A tiny model, its logits, and adapters that change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
import numpy as np
from mlx.utils import tree_map

TOKENS = mx.array([[5, 9, 200, 31, 7, 42], [8, 8, 120, 3, 250, 1]])


def load(folder: Path) -> Any:
    """Return the model of a folder."""
    return mlx_lm.utils.load_model(folder)[0]


def logits(model: Any) -> np.ndarray:
    """Return what the model says to `TOKENS`, (2, 6, V) float32."""
    return np.array(model(TOKENS).astype(mx.float32))


def shake(model: Any, seed: int = 7) -> None:
    """Give the adapter values as after training, so that it changes answers."""
    mx.random.seed(seed)
    trained = tree_map(lambda a: a + 0.1 * mx.random.normal(a.shape), model.trainable_parameters())
    model.update(trained)
