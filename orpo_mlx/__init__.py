"""ORPO preference tuning with LoRA on mlx-lm models.

    import orpo_mlx
    result = orpo_mlx.train(orpo_mlx.TrainConfig(model="...", data="pairs.jsonl"))

Importing the package loads nothing heavy: mlx arrives with the first training call.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.version_info < (3, 11):  # noqa: UP036 - a clone can be run without installing it
    raise SystemExit(
        f"error: orpo-mlx needs Python 3.11 or newer, this is {sys.version.split()[0]}"
    )

from orpo_mlx.version import __version__

if TYPE_CHECKING:
    from orpo_mlx.config import TrainConfig as TrainConfig
    from orpo_mlx.training.train import train as train

__all__ = ["TrainConfig", "__version__", "train"]


def __getattr__(name: str) -> object:
    if name == "TrainConfig":
        from orpo_mlx.config import TrainConfig

        return TrainConfig
    if name == "train":
        from orpo_mlx.training.train import train

        return train
    raise AttributeError(f"module 'orpo_mlx' has no attribute {name!r}")
