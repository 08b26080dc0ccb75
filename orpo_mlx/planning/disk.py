"""Is there room on the disk for what a run will write? Asked before its first step."""

from __future__ import annotations

from pathlib import Path

from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import RunError
from orpo_mlx.planning.memory import F32, MOMENTS
from orpo_mlx.storage.disk import LITTLE, free_bytes
from orpo_mlx.text.formatting import counted, format_bytes

SMALL_FILES = 1 << 18
"""Bytes for the manifest, the progress and the settings of a checkpoint, and room for growth."""
EVENTS = 16 << 20
"""Bytes for the events and the log of a run."""


def checkpoint_bytes(config: TrainConfig, trainable: int) -> int:
    """Return the size of a checkpoint: the adapter and the optimizer's moments, float32.

    Args:
        config: names the optimizer.
        trainable: numbers in the adapter.
    """
    return trainable * F32 * (1 + MOMENTS[config.optimizer]) + SMALL_FILES


def count_checkpoints(config: TrainConfig, saves: int) -> int:
    """Return how many checkpoints may lie on the disk at a time.

    Those kept, the best one, and one that is being written before an old one is deleted; no more
    than the run ever saves.
    """
    return min(saves, config.keep_checkpoints + 2)


def require_room(
    folder: Path, config: TrainConfig, trainable: int, saves: int, present: int = 0
) -> str:
    """Return what to tell the user if the disk is nearly full, else "".

    Args:
        folder: of the run; it need not exist.
        config: says how much is kept.
        trainable: numbers in the adapter.
        saves: checkpoints that the run ever makes, at most.
        present: bytes of checkpoints that are there already.

    Raises:
        RunError: the run would fill the disk; nothing was written.
    """
    each, count = checkpoint_bytes(config, trainable), count_checkpoints(config, saves)
    # The result is written aside before an older one goes.
    needed = max(0, count * each - present) + 2 * (trainable * F32 + SMALL_FILES) + EVENTS
    free = free_bytes(folder)
    what = f"{counted(count, 'checkpoint')} of {format_bytes(each)} and the adapter"
    if free < needed:
        raise RunError(
            f"{folder}: the run may write {format_bytes(needed)} ({what}), and "
            f"{format_bytes(free)} are free on that disk.",
            "Free some space, keep fewer with --keep-checkpoints, or choose another disk with "
            "--run-dir.",
        )
    if free - needed < LITTLE:
        return (
            f"the disk of {folder} is nearly full: {format_bytes(free)} are free, and the run may "
            f"write {format_bytes(needed)} ({what})"
        )
    return ""
