"""mlx-lm-lora, if it is on this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from orpo_mlx.storage.cache import cache_folder

NAME = "mlx-lm-lora"
SCRIPT = Path(__file__).with_name("mlx_lm_lora_steps.py")


def find_peer() -> str:
    """Return the Python that has mlx-lm-lora: this one, or that of `make bench-peers`; "" for none.

    The latter makes an environment in the user's cache, or where ORPO_MLX_PEERS says.
    """
    if importlib.util.find_spec("mlx_lm_lora") is not None:
        return sys.executable
    peers = os.environ.get("ORPO_MLX_PEERS")
    folder = (Path(peers) if peers else cache_folder("peers")) / NAME
    python = folder / "bin" / "python"
    return str(python) if (folder / "ready").exists() and python.exists() else ""
