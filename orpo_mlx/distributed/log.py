"""What a peer prints: to a file, since only process 0 speaks."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

PLACE = "ORPO_MLX_PEER_LOG"
"""Environment variable: the file that a started peer prints to already."""

_SHOWN = 12
"""Lines of the end."""


class PeerLog:
    """The log of this process: a temporary file, then one in the run's folder if it can be.

    Attributes:
        path: where it is now.
    """

    def __init__(self) -> None:
        given = os.environ.get(PLACE)
        if given:
            self.path = Path(given)
            return
        descriptor, name = tempfile.mkstemp(prefix="orpo-mlx-peer-", suffix=".log")
        self.path = Path(name)
        _print_to(descriptor)

    def place(self, run: Path, host: str, rank: int) -> None:
        """Go on with it in the run's folder, if that is on this machine.

        Args:
            run: the folder, on the machine of process 0.
            host: name of that machine.
            rank: of this process.
        """
        if host != socket.gethostname() or not run.is_dir():
            return
        path = log_in(run, rank)
        path.parent.mkdir(exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        sys.stdout.flush()
        sys.stderr.flush()
        with self.path.open("rb") as before, open(descriptor, "ab", closefd=False) as file:
            shutil.copyfileobj(before, file)
        _print_to(descriptor)
        self.path.unlink(missing_ok=True)
        self.path = path


def log_in(run: Path, rank: int) -> Path:
    """Return the log of a peer in a run's folder."""
    return run / "peers" / f"process-{rank}.log"


def last_lines(path: Path) -> str:
    """Return the end of a log, "" if there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"  {line}" for line in lines[-_SHOWN:])


def _print_to(descriptor: int) -> None:
    """Send this process's stdout and stderr, MLX's own lines too, to an open file."""
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
