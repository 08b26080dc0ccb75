"""Single lines in files that people read and several processes add to.

A line is written at once and synced; a kill tears at most the last one, which the next writer
mends. Whoever writes holds the folder's lock: no line is taken back while another is added.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from orpo_mlx.storage.atomic import sync_descriptor, sync_directory, write_atomically
from orpo_mlx.storage.regular import read_regular


def append_line(path: Path, line: str) -> None:
    """Add a line of JSON; when this returns it is on the disk.

    Args:
        path: of the file; it and its folder are made if they are missing.
        line: its newline included.

    Raises:
        OSError: it could not be written; what stood there is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        is_new = not path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            mend_end(file)
            _write(file, line.encode())
            sync_descriptor(file)
        finally:
            os.close(file)
        if is_new:
            sync_directory(path.parent)


def remove_line(path: Path, line: str) -> bool:
    """Take back the newest line that is this one; False if none is.

    Raises:
        OSError: the file could not be read or written; it is untouched.
    """
    with _locked(path.parent):
        lines = read_regular(path).splitlines(keepends=True)
        wanted = line.encode()
        if wanted not in lines:
            return False
        del lines[len(lines) - 1 - lines[::-1].index(wanted)]
        write_atomically(path, b"".join(lines))
        return True


def mend_end(file: int) -> None:
    """Make an open file end with a whole line: a torn one is cut off, a whole one is ended."""
    size = os.fstat(file).st_size
    tail = b""
    while size - len(tail) > 0 and b"\n" not in tail:
        start = max(0, size - len(tail) - 65_536)
        tail = os.pread(file, size - len(tail) - start, start) + tail
    torn = tail[tail.rfind(b"\n") + 1 :]
    if not torn:
        return
    try:
        json.loads(torn)
    except (ValueError, RecursionError):
        os.ftruncate(file, size - len(torn))
    else:
        os.write(file, b"\n")


def _write(file: int, data: bytes) -> None:
    """Write all of a line, or nothing of it."""
    size = os.fstat(file).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(file, view) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, size)
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
