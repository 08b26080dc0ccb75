"""What an export writes: aside first, checked there, then renamed into place.

At every moment the target is what was there before, or the whole and checked result.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo_mlx.durable import fsync_tree, sync_directory
from orpo_mlx.errors import ExportCheckError, ExportError, reason_of
from orpo_mlx.export.checks import Check
from orpo_mlx.formatting import format_bytes

CHECKSUMS = "SHA256SUMS"
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
    """

    path: Path
    is_file: bool = False
    force: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        path: the folder or file.
        files: name and bytes of each file.
        command: the exact command that uses it.
        notes: what the user should know, one sentence each.
    """

    path: Path
    files: list[tuple[str, int]]
    command: str
    notes: list[str] = field(default_factory=list)


Write = Callable[[Path], None]
"""Writes into the folder, or to the file, whose path it is given."""
Inspect = Callable[[Path], list[Check]]
"""Opens again what was written and says what it found."""


def require_target(target: Target) -> None:
    """Refuse a target that exists or cannot be written; changes nothing.

    Raises:
        ExportError: naming the path and what to do.
    """
    path = target.path
    if path.is_symlink() or (path.exists() and not _is_empty_folder(path)):
        if not target.force:
            raise ExportError(
                f"{path}: is there already; nothing was changed.",
                "Choose another --out, or replace it with --force.",
            )
        _require_ours(target)
    place = next(parent for parent in path.absolute().parents if parent.exists())
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
    if path.is_dir() and not (path / CHECKSUMS).is_file():
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:3])
        raise ExportError(
            f"{path}: was not written by an export (no {CHECKSUMS}; found {found}), so --force "
            "does not replace it.",
            "Choose another --out, or remove the folder yourself.",
        )


def require_space(path: Path, needed_bytes: int) -> None:
    """Refuse what will not fit on the disk, before anything is written.

    Raises:
        ExportError: with the bytes needed and the bytes free.
    """
    place = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if needed_bytes + SPARE_BYTES > free:
        raise ExportError(
            f"{path}: needs {format_bytes(needed_bytes)} ({needed_bytes} bytes); {place} has "
            f"{format_bytes(free)} ({free} bytes) free.",
            "Free some space, or choose an --out on another disk.",
        )


def write_folder(
    target: Target, write: Write, inspect: Inspect, say: Callable[[list[Check]], None]
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
    target: Target, write: Write, inspect: Inspect, say: Callable[[list[Check]], None]
) -> list[tuple[str, int]]:
    """Write one file aside, check it there, and rename it; as `write_folder`."""
    require_target(target)
    return _replace(target, write, inspect, say)


def _replace(
    target: Target, write: Write, inspect: Inspect, say: Callable[[list[Check]], None]
) -> list[tuple[str, int]]:
    path = target.path.absolute()
    # Readers go by the suffix, so it stays at the end.
    aside = path.with_name(f".writing-{os.getpid()}-{path.name}")
    doomed = path.with_name(f".deleting-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        checks = inspect(aside)
        say(checks)
        _require_passed(checks, path)
        fsync_tree(aside) if aside.is_dir() else sync_directory(aside)
        if path.exists():
            os.rename(path, doomed)
        os.rename(aside, path)
        sync_directory(path.parent)
    except OSError as error:
        raise ExportError(
            f"{target.path}: cannot be written ({reason_of(error)}); nothing is left there.",
            "Free some space or choose another --out.",
        ) from error
    finally:
        _remove(aside)
        if doomed.exists() and not path.exists():
            os.rename(doomed, path)
        _remove(doomed)
    return list_files(path)


def _require_passed(checks: Iterable[Check], path: Path) -> None:
    failed = [check for check in checks if not check.passed]
    if failed:
        raise ExportCheckError(
            f"{path}: what was written is not what the adapter is, and was removed: "
            f"{failed[0].name}: {failed[0].text}",
            failed[0].advice or "Please report it, with this line and the versions in use.",
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def list_files(path: Path) -> list[tuple[str, int]]:
    """Return name and bytes of each file of a folder, or of a file."""
    if path.is_file():
        return [(path.name, path.stat().st_size)]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [(file.relative_to(path).as_posix(), file.stat().st_size) for file in files]


# Checksums


def write_checksums(folder: Path) -> None:
    """Write the sha256 of every file, as `shasum -a 256 -c SHA256SUMS` reads them."""
    lines = [
        f"{sha256(folder / name)}  {name}\n" for name, _ in list_files(folder) if name != CHECKSUMS
    ]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def check_checksums(folder: Path) -> Check:
    """Read every file again and compare it with its sha256."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    wrong = [line[66:] for line in lines if sha256(folder / line[66:]) != line[:64]]
    text = f"sha256 of {len(lines)} files" + (f"; differs: {', '.join(wrong)}" if wrong else "")
    return Check("checksums", not wrong, float(len(wrong)), 0.0, text)


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
