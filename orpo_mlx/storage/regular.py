"""The only opener of files that somebody else may have put there: regular files, and not too large.

A pipe in a folder would wait for ever, a device fill the memory; neither is a file of ours.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_TEXT_BYTES = 1 << 26
"""Of settings, manifests, templates and the like; a tokenizer file has less, too."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; a link to one is followed.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device, a socket or a folder.
    """
    _require_regular(os.stat(path), path)  # before it is opened: opening alone can have effects
    # Owned by the file at once: closed twice, an interrupt would become the OSError of that.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _require_regular(os.fstat(file.fileno()), path)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return what a regular file holds.

    Raises:
        OSError: as `open_regular`, or the file is larger than `max_bytes`.
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes >> 20} MiB", str(path))
    return data


def read_regular_text(path: str | Path, errors: str = "strict") -> str:
    """Return the text of a regular file in UTF-8.

    Raises:
        OSError: as `read_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_regular(path).decode("utf-8", errors)


def _require_regular(found: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
