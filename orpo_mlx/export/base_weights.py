"""Weights of the base model in float32, one layer at a time."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.export.base import BaseModel
from orpo_mlx.models.load import load_model


class BaseWeights:
    """The layers of a base model; what is not asked for is never read from the disk.

    Raises:
        ModelError: the model is not on this machine or cannot be loaded.
    """

    def __init__(self, base: BaseModel) -> None:
        self._modules = dict(load_model(base.folder, lazy=True).model.named_modules())

    def weight(self, path: str) -> np.ndarray:
        """Return the weight of a layer by its MLX path: [O, I], experts [E, O, I]; float32."""
        return np.array(plain_weight(self._modules[path]))


def plain_weight(module: Any) -> mx.array:
    """Return a module's weight in float32, de-quantized if it is packed."""
    if "scales" not in module:
        return module.weight.astype(mx.float32)
    return mx.dequantize(
        module.weight,
        module.scales,
        module.get("biases"),
        module.group_size,
        module.bits,
        mode=getattr(module, "mode", "affine"),
        dtype=mx.float32,
    )
