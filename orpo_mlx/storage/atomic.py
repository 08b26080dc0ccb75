"""Writing that survives a kill and a power cut.

A file is written aside, synced, renamed over the old one, and the folder is synced: at every moment
the name holds the old content or the new one, never a part. On macOS `fsync` leaves data in the
drive's own cache; `F_FULLFSYNC` empties that too and is used where it exists.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

WRITING, DELETING = ".writing-", ".deleting-"
"""How the names of folders begin that killed processes leave."""
_TEMPORARY = ".tmp-"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of a file: after return it is on the disk, before that the old one is.

    Raises:
        OSError: it could not be written; the old content is untouched.
    """
    replace_file(path, lambda aside: _write(aside, data))


def write_unsynced(path: Path, data: bytes) -> None:
    """Replace a file in one rename without waiting for the disk: for what a power cut may take.

    Raises:
        OSError: it could not be written; the old content is untouched.
    """
    replace_file(path, lambda aside: _write(aside, data), is_synced=False)


def replace_file(path: Path, write: Callable[[Path], None], is_synced: bool = True) -> None:
    """Replace a file by what `write` puts into the new file whose path it is given.

    Args:
        path: the file.
        write: writes the new content.
        is_synced: whether to wait until it is on the disk.

    Raises:
        OSError, or what `write` raises: the old content is untouched.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY}{secrets.token_hex(4)}")
    try:
        write(temporary)
        if is_synced:
            _sync_path(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if is_synced:
        sync_directory(path.parent)


@contextlib.contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """Make a folder that only this process's user may enter, and remove it with all it holds.

    Its name is random and it is made new, so that no link and no foreign folder can lie there.

    Args:
        parent: where, on the disk of what is to be replaced; made if need be.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=WRITING, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(new: Path, path: Path) -> None:
    """Rename a file or folder to `path`; what was there is deleted afterwards.

    Raises:
        OSError: it was refused; what was there is there again.
    """
    if not os.path.lexists(path):
        os.rename(new, path)
        return
    doomed = _set_aside(path)
    try:
        os.rename(new, path)
    except BaseException:
        if not os.path.lexists(path):  # else an interrupt came when all was done
            os.rename(doomed, path)
        raise
    _delete(doomed)


def remove_at_once(path: Path) -> None:
    """Delete a file or folder so that a kill half-way leaves nothing of its name.

    Raises:
        OSError: it cannot be renamed.
    """
    _delete(_set_aside(path))


def _set_aside(path: Path) -> Path:
    doomed = path.with_name(f"{DELETING}{secrets.token_hex(8)}-{path.name}")
    os.rename(path, doomed)
    return doomed


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    # Plain mode bits, not tempfile's 0600: other users' tools read run folders too.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """Wait until an open file or folder is on the disk itself."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        try:
            fcntl.fcntl(descriptor, full_sync)
            return
        except OSError:
            pass  # network and some external drives refuse it
    os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Make renames and new names inside a folder durable."""
    _sync_path(path)


def fsync_tree(path: Path) -> None:
    """Sync every file below a folder, then every folder from the inside out, itself last."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in sorted(names):
            file = Path(folder, name)
            if not file.is_symlink():
                _sync_path(file)
        _sync_path(Path(folder))


def remove_temporaries(folder: Path) -> list[Path]:
    """Delete what killed writers left aside in a folder; return what was deleted.

    Only the owner of the folder may call it: another writer's file would be deleted too.
    """
    stale = [path for path in folder.glob(f".*{_TEMPORARY}*") if path.is_file()]
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)
