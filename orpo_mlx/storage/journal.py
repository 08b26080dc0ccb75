"""A file of JSON lines that a long piece of work appends to, and takes up again after a kill.

Its first line says what the work is; the rest are results, each synced to the disk before the next
begins. A last line that was torn by a kill is cut off.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from orpo_mlx.errors import DataError, reason_of
from orpo_mlx.storage.atomic import sync_descriptor, sync_directory


class Journal:
    """An open journal; nobody else may have it open.

    Args:
        path: of the file; it is made if it is missing.
        header: what the work is. Of an existing file it must be the same, but for `free` keys.
        free: keys that may differ; the file's own values are kept in `header`.
        passes_damaged: pass over damaged lines after the first; else one is refused.

    Attributes:
        damaged: lines that were passed over.

    Raises:
        DataError: it belongs to other work, is damaged, cannot be written, or is in use.
    """

    def __init__(
        self,
        path: Path,
        header: dict[str, Any],
        free: Iterable[str] = (),
        *,
        passes_damaged: bool = False,
    ) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self.damaged = 0
        self._passes_damaged = passes_damaged
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):  # a pipe would wait for ever
                raise _unusable(path, OSError(errno.EINVAL, "not a regular file"))
            self._lock()
            lines = self._read()
            self.header = header
            self.entries = lines[1:]
            if lines:
                self.header = _require_same(path, lines[0], header, set(free))
            else:
                self._write(header)
                sync_directory(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, entry: dict[str, Any]) -> None:
        """Add a result; when this returns it is on the disk.

        Raises:
            DataError: it cannot be written.
        """
        self._write(entry)
        self.entries.append(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        line = memoryview((json.dumps(entry, ensure_ascii=False) + "\n").encode())
        try:
            while line:
                line = line[os.write(self._file, line) :]
            sync_descriptor(self._file)
        except OSError as error:
            raise _unusable(self.path, error) from None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"{self.path}: another process works on it.", "Wait for it, or end it."
            ) from None

    def _read(self) -> list[dict[str, Any]]:
        """Return the whole lines and cut off a torn one."""
        data = b""
        while part := os.read(self._file, 1 << 20):
            data += part
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.ftruncate(self._file, len(whole))
        lines = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict) and self._passes_damaged and number > 1:
                self.damaged += 1
                continue
            if not isinstance(value, dict):
                raise DataError(
                    f"{self.path}:{number}: damaged; it was written by orpo-mlx.",
                    "Remove the line, or begin anew with --force.",
                )
            lines.append(value)
        return lines


def _require_same(
    path: Path, recorded: dict[str, Any], header: dict[str, Any], free: set[str]
) -> dict[str, Any]:
    wanted = json.loads(json.dumps(header))
    differences = [
        f"  {key}: was {recorded.get(key)!r:.60}, is now {wanted.get(key)!r:.60}"
        for key in dict.fromkeys((*recorded, *wanted))
        if key not in free and recorded.get(key) != wanted.get(key)
    ]
    if differences:
        raise DataError(
            f"{path}: belongs to other work:\n" + "\n".join(differences[:4]),
            "Put the old values back to go on, name another OUT, or begin anew with --force.",
        )
    return recorded


def _unusable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({reason_of(error)}).", "Check folder and space.")
