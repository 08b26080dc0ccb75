"""One data file as rows, whatever it is: JSON, CSV or Parquet, each also packed with gzip.

Only regular files are opened, and what unpacks to far more than it is gets refused. Columns are not
looked at here; `data/layouts/detect.py` does that.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from orpo_mlx.data.sources.json_files import read_json
from orpo_mlx.data.sources.rows import Row
from orpo_mlx.data.sources.tables import PARQUET_MAGIC, read_csv, read_parquet
from orpo_mlx.data.sources.unpacking import MAX_UNPACKED_RATIO, unpacked_limit
from orpo_mlx.errors import DataError, reason_of

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""What is read; each also with .gz behind it."""
KINDS = "a .jsonl, .json, .csv or .parquet file, also .gz"
CONVERT = "Convert it to JSONL: one object per line with prompt, chosen and rejected."
UNREAD_SUFFIXES = {".arrow", ".zst", ".bz2", ".xz", ".zip", ".xlsx", ".xls", ".ods", ".7z", ".tar"}
MAGIC = {
    b"PK\x03\x04": "a zip file or a spreadsheet",
    b"ARROW1": "an Arrow file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"version https://git-lfs": "a Git-LFS pointer, not the file it points to",
    b"<!DOCTYPE html": "an HTML page",
    b"<html": "an HTML page",
}
GZIP_MAGIC = b"\x1f\x8b"


def is_data_file(name: str) -> bool:
    """Whether a file's name is one of those that are read."""
    return suffix_of(name) in SUFFIXES


def suffix_of(name: str) -> str:
    """Return the last suffix in small letters, before `.gz` if there is that."""
    return Path(name.lower().removesuffix(".gz")).suffix


def read_file(path: str | Path, name: str = "") -> list[Row]:
    """Read all rows of one file.

    Args:
        path: of a regular file.
        name: of the file in the rows' sources; the file's own if not given.

    Raises:
        DataError: the file is missing, not a regular file, of a kind that is not read, empty, or
            has bad lines; the first three are named and all are counted.
    """
    file = require_file(path)
    name = name or file.name
    suffix = suffix_of(file.name)
    try:
        start = _start(file)
        if suffix == ".parquet" or start.startswith(PARQUET_MAGIC):
            return read_parquet(lambda: _open(file, is_seekable=True), str(file), name)
        _refuse_other_kinds(start, file)
        if suffix in (".csv", ".tsv"):
            return read_csv(lambda: _open(file), str(file), name)
        return read_json(lambda: _open(file), str(file), name, suffix == ".json")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {reason_of(error)}.", "Check the file.") from None


def content_hash(path: str | Path) -> str:
    """Return the sha256 of a data file as 64 hex digits.

    Raises:
        DataError: as `read_file` for a path that cannot be read.
    """
    file = require_file(path)
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {reason_of(error)}.", "Check the file.") from None


def require_file(path: str | Path) -> Path:
    """Return the path of a regular file; nothing else is opened (a FIFO would block for ever).

    Raises:
        DataError: it is missing, no regular file, of a kind that is not read, or not readable.
    """
    file = Path(path).expanduser()
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no such file.", f"Check the path; give {KINDS}.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}.", "Check path and rights.") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{file}: not a regular file.", f"Give {KINDS}.")
    if file.suffix.lower() in UNREAD_SUFFIXES:
        raise DataError(f"{file}: {file.suffix} files are not read.", CONVERT)
    if not os.access(file, os.R_OK):
        raise DataError(f"{file}: permission denied.", "Make the file readable.")
    return file


def _start(file: Path) -> bytes:
    with _open(file) as stream:
        return stream.read(64)


def _refuse_other_kinds(start: bytes, file: Path) -> None:
    for magic, kind in {GZIP_MAGIC: "a gzip file inside another", **MAGIC}.items():
        if start.startswith(magic):
            raise DataError(f"{file}: this is {kind}; needed: {KINDS}.", CONVERT)


def _open(file: Path, is_seekable: bool = False) -> BinaryIO:
    """Open a file's bytes, unpacked if it is packed.

    Args:
        is_seekable: whether the reader jumps about; a packed file is then unpacked into memory.
    """
    stream = file.open("rb")
    magic = stream.read(2)
    stream.seek(0)
    if magic != GZIP_MAGIC:
        return stream
    unpacked = io.BufferedReader(_Unpacked(stream, file))
    if not is_seekable:
        return unpacked
    with unpacked:
        return io.BytesIO(unpacked.read())


class _Unpacked(io.RawIOBase):
    """The content of a gzip file, up to a multiple of its size that no text reaches."""

    def __init__(self, packed: BinaryIO, file: Path) -> None:
        self._packed, self._file = packed, file
        self._gzip = gzip.GzipFile(fileobj=packed)
        self._left = unpacked_limit(file.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        try:
            data = self._gzip.read(len(view))
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{self._file}: not a complete gzip file: {reason_of(error)}.",
                "Download or pack it again.",
            ) from None
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"{self._file}: unpacks to more than {MAX_UNPACKED_RATIO} times its size, as no "
                "text does.",
                "If you trust it, unpack it yourself (gunzip) and give the unpacked file.",
            )
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._gzip.close()
        self._packed.close()
        super().close()
