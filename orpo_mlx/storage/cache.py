"""Where things lie that can be made again: nothing is lost when this folder is deleted."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_DAY_SECONDS = 86_400.0


def cache_folder(name: str) -> Path:
    """Return a folder of this program's cache: `$ORPO_MLX_HOME/cache/NAME`, or the user's.

    It may not exist yet.
    """
    if home := os.environ.get("ORPO_MLX_HOME"):
        return Path(home).expanduser() / "cache" / name
    from platformdirs import user_cache_path

    return user_cache_path("orpo-mlx") / name


def forget_old(folder: Path, suffix: str, max_bytes: int, keep: Path) -> None:
    """Delete the files used longest ago until the rest fits, and what killed writers left.

    Args:
        folder: of the entries.
        suffix: of an entry; other files go once they are a day old.
        max_bytes: that may stay.
        keep: an entry that stays in any case.
    """
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            if path.suffix == suffix:
                entries.append((path == keep, state.st_mtime, state.st_size, path))
            elif time.time() - state.st_mtime > _DAY_SECONDS:
                path.unlink()
    left = sum(size for _, _, size, _ in entries)
    for is_kept, _, size, path in sorted(entries):
        if left <= max_bytes or is_kept:
            break
        path.unlink(missing_ok=True)
        left -= size
