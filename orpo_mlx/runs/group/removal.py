"""Runs removed: into a trash beside them, or for good; never one that is being trained."""

from __future__ import annotations

import os
from pathlib import Path

from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group.queue import Queue
from orpo_mlx.storage.atomic import remove_at_once

TRASH = ".trash"


def require_removable(run: RunDirectory) -> None:
    """Refuse what is no run's own folder, or a run somebody trains.

    Raises:
        RunError: saying which.
    """
    if run.path.is_symlink():
        raise RunError(f"{run.path}: is a link, not a run's folder", "Remove the link by itself.")
    if run.is_locked():
        raise RunError(f"{run.id} is being trained; nothing was moved", "Stop it first.")


def throw_away(run: RunDirectory) -> Path:
    """Move a run that nobody wants any more into the trash; the queue does not train it again.

    Raises:
        RunError: as `move_to_trash`.
    """
    target = move_to_trash(run)
    Queue(run.path.parent).forget(run)
    return target


def move_to_trash(run: RunDirectory) -> Path:
    """Move a run into the trash beside the runs; return its new place.

    Raises:
        RunError: a trainer is at it, or it cannot be moved; it is where it was.
    """
    require_removable(run)
    trash = run.path.parent / TRASH
    target = trash / run.id
    number = 1
    while target.exists():
        number += 1
        target = trash / f"{run.id}-{number}"
    try:
        trash.mkdir(exist_ok=True)
        os.rename(run.path, target)
    except OSError as error:
        raise _unmovable(run, error) from None
    return target


def remove_for_good(run: RunDirectory) -> None:
    """Delete a run with all it holds.

    Raises:
        RunError: a trainer is at it, or it cannot be removed; it is where it was.
    """
    require_removable(run)
    try:
        remove_at_once(run.path)
    except OSError as error:
        raise _unmovable(run, error) from None
    Queue(run.path.parent).forget(run)


def _unmovable(run: RunDirectory, error: OSError) -> RunError:
    return RunError(
        f"{run.path}: cannot be moved ({error.strerror}); nothing was changed",
        "See who owns the folder, and whether the disk can be written.",
    )
