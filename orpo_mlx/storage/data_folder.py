"""Where what the user made lies: runs, and what was said of answers."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(name: str) -> Path:
    """Return a folder of this program's data: `$ORPO_MLX_HOME/NAME`, or the user's.

    It may not exist yet.
    """
    if home := os.environ.get("ORPO_MLX_HOME"):
        return Path(home).expanduser() / name
    from platformdirs import user_data_path

    return user_data_path("orpo-mlx") / name
