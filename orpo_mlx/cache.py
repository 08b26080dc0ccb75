"""Where things lie that can be made again: nothing is lost when this folder is deleted."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return a folder of this program's cache: `$ORPO_MLX_HOME/cache/NAME`, or the user's.

    It may not exist yet.
    """
    if home := os.environ.get("ORPO_MLX_HOME"):
        return Path(home).expanduser() / "cache" / name
    from platformdirs import user_cache_path

    return user_cache_path("orpo-mlx") / name
