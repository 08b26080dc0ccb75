"""What an export writes: aside first, checked there, then renamed into place.

At every moment the target is what was there before, or the whole and checked result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ExportCheckError, ExportError, OrpoError, TargetExistsError, reason_of
from orpo_mlx.export.checks import ExportCheck
from orpo_mlx.export.ownership import (
    CHECKSUMS,
    FOLDER_MARK,
    foreign_file,
    foreign_folder,
    is_within,
    list_files,
)
from orpo_mlx.runs.faults import kind_of
from orpo_mlx.storage.atomic import fsync_tree, private_folder, put_in_place, sync_directory
from orpo_mlx.storage.disk import existing_parent, free_bytes
from orpo_mlx.text.formatting import format_bytes

SPARE_BYTES = 64 << 20
"""Room that must be left on the disk beyond what is written."""


@dataclass(frozen=True)
class Target:
    """Where an export goes and how it is wanted.

    Attributes:
        path: the folder or file to be written.
        is_file: whether it is one file.
        force: whether an existing one may be replaced.
        options: values of the format's own options by name; absent if not given.
        is_for_hub: whether it will be uploaded.
        sources: folders and files the export reads; never replaced, whoever wrote them.
    """

    path: Path
    is_file: bool = False
    force: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()
    is_for_hub: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether others are to use it: then no file names a path of this machine."""
        return self.is_for_hub or "base_id" in self.options


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        path: the folder or file.
        files: name and bytes of each file.
        command: the exact command that uses it.
        serve: commands that serve it to other programs.
        notes: what the user should know, one sentence each.
    """

    path: Path
    files: list[tuple[str, int]]
    command: str
    serve: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Write = Callable[[Path], None]
"""Writes into the folder, or to the file, whose path it is given."""
Inspect = Callable[[Path], list[ExportCheck]]
"""Opens again what was written and says what it found."""


def require_target(target: Target) -> None:
    """Refuse a target that exists or cannot be written; changes nothing.

    Raises:
        ExportError: naming the path and what to do.
    """
    path = target.path
    if path.is_symlink() or (path.exists() and not _is_empty_folder(path)):
        if not target.force:
            raise TargetExistsError(
                f"{path}: is there already; nothing was changed.",
                "Choose another --out, or replace it with --force.",
            )
        _require_ours(target)
    place = existing_parent(path.absolute().parent)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ExportError(f"{path}: {place} cannot be written to.", "Choose another --out.")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _require_ours(target: Target) -> None:
    """Let --force replace what an export wrote, never a home or a project folder by mistake."""
    path = target.path
    if path.is_symlink() or path.is_dir() == target.is_file:
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        raise ExportError(
            f"{path}: is a {kind}; --force replaces only what an export of the same format wrote.",
            "Choose another --out, or remove it yourself.",
        )
    for source in target.sources:
        if is_within(path, source) or is_within(source, path):
            raise ExportError(
                f"{path}: is, holds or lies in {source}, which this export reads; nothing was "
                "changed.",
                "Choose another --out.",
            )
    reason = foreign_folder(path) if path.is_dir() else foreign_file(path)
    if reason:
        raise ExportError(
            f"{path}: was not written by an export of orpo-mlx ({reason}), so --force does not "
            "replace it; nothing was changed.",
            "Choose another --out, or remove it yourself.",
        )


def require_space(path: Path, needed_bytes: int) -> None:
    """Refuse what will not fit on the disk, before anything is written.

    Raises:
        ExportError: with the bytes needed and the bytes free.
    """
    place = existing_parent(path.absolute().parent)
    free = free_bytes(place)
    if needed_bytes + SPARE_BYTES > free:
        raise ExportError(
            f"{path}: needs {format_bytes(needed_bytes)} ({needed_bytes} bytes); {place} has "
            f"{format_bytes(free)} ({free} bytes) free.",
            "Free some space, or choose an --out on another disk.",
        )


def write_folder(
    target: Target, write: Write, inspect: Inspect, say: Callable[[list[ExportCheck]], None]
) -> list[tuple[str, int]]:
    """Write a folder aside, check it there, and put it in place by one rename.

    Args:
        target: where it goes.
        write: writes the files; a list of checksums is added.
        inspect: opens them again and returns the checks.
        say: told of the checks, passed or not.

    Returns:
        Name and size of each file.

    Raises:
        ExportError: the target is taken, or the disk refuses.
        ExportCheckError: a check failed; nothing is left in place.
    """
    require_target(target)

    def write_all(aside: Path) -> None:
        aside.mkdir()
        write(aside)
        write_checksums(aside)

    return _replace(target, write_all, inspect, say)


def write_file(
    target: Target, write: Write, inspect: Inspect, say: Callable[[list[ExportCheck]], None]
) -> list[tuple[str, int]]:
    """Write one file aside, check it there, and rename it; as `write_folder`."""
    require_target(target)
    return _replace(target, write, inspect, say)


def _replace(
    target: Target, write: Write, inspect: Inspect, say: Callable[[list[ExportCheck]], None]
) -> list[tuple[str, int]]:
    path = target.path.absolute()
    try:
        with private_folder(path.parent) as private:
            aside = private / path.name
            write(aside)
            checks = inspect(aside)
            say(checks)
            _require_passed(checks, path)
            fsync_tree(private)
            require_target(target)  # something may have come there meanwhile
            put_in_place(aside, path)
    except (OSError, RuntimeError) as error:
        if not isinstance(error, OSError) and (
            isinstance(error, OrpoError) or kind_of(error) != "disk"
        ):
            raise
        raise ExportError(
            f"{target.path}: cannot be written ({_reason(error)}); nothing is left there.",
            "Free some space or choose another --out.",
        ) from error
    _sync_parent(path)
    return list_files(path)


def _sync_parent(path: Path) -> None:
    try:
        sync_directory(path.parent)
    except OSError as error:
        raise ExportError(
            f"{path}: is there, whole and checked, but the disk does not confirm its name "
            f"({reason_of(error)}): a power cut might take it.",
            "See what is wrong with the disk, then export again with --force.",
        ) from error


def _reason(error: Exception) -> str:
    """Return why writing failed; MLX and numpy say how many bytes, not why."""
    if isinstance(error, OSError) and error.errno is not None:
        return reason_of(error)
    return f"the disk may be full: {reason_of(error)}"


def _require_passed(checks: Iterable[ExportCheck], path: Path) -> None:
    failed = [check for check in checks if not check.passed]
    if failed:
        raise ExportCheckError(
            f"{path}: what was written is not what the adapter is, and was removed: "
            f"{failed[0].name}: {failed[0].text}",
            failed[0].advice or "Please report it, with this line and the versions in use.",
        )


# Checksums


def write_checksums(folder: Path) -> None:
    """Write the sha256 of every file, as `shasum -a 256 -c SHA256SUMS` reads them."""
    lines = [
        f"{sha256(folder / name)}  {name}\n" for name, _ in list_files(folder) if name != CHECKSUMS
    ]
    text = "".join([f"{FOLDER_MARK}\n", *lines])
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")


def check_checksums(folder: Path) -> ExportCheck:
    """Read every file again and compare it with its sha256."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()[1:]
    wrong = [line[66:] for line in lines if sha256(folder / line[66:]) != line[:64]]
    text = f"sha256 of {len(lines)} files" + (f"; differs: {', '.join(wrong)}" if wrong else "")
    return ExportCheck("checksums", not wrong, float(len(wrong)), 0.0, text)


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
