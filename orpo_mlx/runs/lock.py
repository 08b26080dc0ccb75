"""The lock of a run: held by its trainer, released by the kernel however the trainer ends.

A pid in a file can belong to another process by now; a lock cannot. The file is never deleted: a
second trainer could then lock a new file of the same name while the first still holds the old.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from orpo_mlx.errors import RunError
from orpo_mlx.storage.regular import open_regular, read_regular

_held: set[str] = set()
"""Locks of this process. Asking the kernel about one's own lock could release it where flock is
emulated by POSIX locks (network file systems)."""

_MOST_PIDS = 1 << 31
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)


class RunLock:
    """Exclusive ownership of a run directory; the holder's pid stands in the file.

    A context manager; `acquire` and `release` may also be called directly.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, patience_seconds: float = 0.5) -> None:
        """Take the lock.

        Readers hold it for microseconds while they look, hence the patience.

        Raises:
            RunError: another trainer holds it (with its pid), the folder cannot be written, or the
                disk has no locks.
        """
        try:
            if self.path.exists():
                open_regular(self.path).close()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror})",
                "Make folder and file writable, or copy the run to a place that is.",
            ) from None
        try:
            _lock_exclusively(descriptor, self.path, patience_seconds)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(os.path.realpath(self.path))

    def release(self) -> None:
        """Give the lock back; harmless if it is not held."""
        if self._descriptor is not None:
            _held.discard(os.path.realpath(self.path))
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _lock_exclusively(descriptor: int, path: Path, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                raise RunError(
                    f"{path.parent}: this disk cannot lock files ({error.strerror})",
                    "Put the runs on a local disk with --runs-dir FOLDER or ORPO_MLX_HOME.",
                ) from None
        if time.monotonic() > deadline:
            raise _taken(path)
        time.sleep(0.02)


def _taken(path: Path) -> RunError:
    pid = read_pid(path)
    who = "another process" if pid is None else f"process {pid}"
    return RunError(
        f"{path.parent}: {who} is training this run",
        f"Watch it with `orpo-mlx watch {path.parent}`, end it with `orpo-mlx stop "
        f"{path.parent}`, or choose another --run-dir.",
    )


def is_locked(path: Path) -> bool:
    """Tell whether a living trainer holds the lock, without getting in its way."""
    if os.path.realpath(path) in _held:
        return True
    try:
        with open_regular(path) as file:
            return not _is_free(file.fileno())
    except OSError:
        return False


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _BUSY
    return True


def read_pid(path: Path) -> int | None:
    """Return the pid in a lock file: that of the present or the last holder."""
    try:
        pid = int(read_regular(path).decode("ascii"))
    except (OSError, ValueError):
        return None
    return pid if 0 < pid < _MOST_PIDS else None
