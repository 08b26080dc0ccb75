"""Space on a disk."""

from __future__ import annotations

import shutil
from pathlib import Path

LITTLE = 1 << 30
"""Bytes that should be left on a disk, for whatever else writes to it."""


def existing_parent(path: Path) -> Path:
    """Return what exists of a path: itself, or the nearest folder above it."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def free_bytes(path: Path) -> int:
    """Return the room on the disk where a path is, or will be."""
    return shutil.disk_usage(existing_parent(path)).free
