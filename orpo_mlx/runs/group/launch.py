"""A trainer as a process that outlives who started it.

It is a session leader without a terminal: closing a window ends nothing. Until its run has a folder
its output goes to a file beside the runs, which it holds locked for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from orpo_mlx.macos import keep_awake
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.lock import is_locked

STARTING = ".starting"
"""Beside the runs: output and settings of trainers whose run has no folder yet."""


def trainer_argv(*words: str) -> list[str]:
    """Return the words that start a trainer."""
    return [sys.executable, "-m", "orpo_mlx.train", *words]


def start_in_background(
    argv: Sequence[str], log: BinaryIO, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a session leader without a terminal that writes into a log.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=dict(environment),
    )
    keep_awake(process.pid)
    return process


def is_alive(run: RunDirectory) -> bool:
    """Tell whether a trainer of a run lives, be it one that still prepares it."""
    return run.is_locked() or is_locked(starting_log(run))


def starting_log(run: RunDirectory) -> Path:
    """Return where the output of a trainer goes that prepares a run."""
    return run.path.parent / STARTING / f"{run.id}.log"


def start_trainer(
    run: RunDirectory, argv: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a trainer of a run that has no folder yet.

    Raises:
        OSError: it cannot be started, or its log not be written.
    """
    log_file = starting_log(run)
    unlocked = log_file.with_suffix(".new")
    with unlocked.open("wb") as log:
        # Inherited with the file, and released when the last process with it has ended: so a
        # later app knows whether somebody still writes here. Another one looks only at .log.
        with contextlib.suppress(OSError):
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(unlocked, log_file)
        return start_in_background(argv, log, environment)
