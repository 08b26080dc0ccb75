"""A file is never half-written, and the order of system calls is the one that survives power loss.

The order is recorded by replacing functions of the operating system only.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.storage.atomic import (
    fsync_tree,
    private_folder,
    put_in_place,
    remove_temporaries,
    sync_descriptor,
    write_atomically,
    write_unsynced,
)


class Recorder:
    """Records calls to os functions with the names of the files they concern."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, ...]] = []
        self._names: dict[int, str] = {}
        self._real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace")}
        for name in self._real:
            monkeypatch.setattr(os, name, getattr(self, name))
        # The plain fsync everywhere; F_FULLFSYNC has its own test.
        monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)

    def open(self, path: Any, *rest: Any, **named: Any) -> int:
        descriptor = self._real["open"](path, *rest, **named)
        name = Path(path).name
        self._names[descriptor] = "aside" if ".tmp-" in name else name
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        self.calls.append(("write", self._names[descriptor]))
        return self._real["write"](descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self.calls.append(("sync", self._names[descriptor]))

    def replace(self, old: Any, new: Any) -> None:
        self.calls.append(("rename", Path(new).name))
        self._real["replace"](old, new)


def test_a_file_is_written_aside_synced_renamed_and_its_folder_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    recorder = Recorder(monkeypatch)
    write_atomically(folder / "state.json", b"new")
    assert recorder.calls == [
        ("write", "aside"),
        ("sync", "aside"),
        ("rename", "state.json"),
        ("sync", "folder"),
    ]
    assert [path.name for path in folder.iterdir()] == ["state.json"]


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    path = tmp_path / "state.json"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    write_atomically(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_tree_is_synced_from_the_inside_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "b").write_bytes(b"b")
    (root / "a").write_bytes(b"a")
    (root / "link").symlink_to("nowhere")
    recorder = Recorder(monkeypatch)
    fsync_tree(root)
    assert recorder.calls == [("sync", name) for name in ("b", "inner", "a", "root")]


def test_macos_empties_the_drives_cache_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: asked.append(command))
    monkeypatch.setattr(os, "fsync", lambda _: asked.append(-1))
    sync_descriptor(0)
    assert asked == [51]


def test_a_drive_without_full_sync_gets_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def refuse(*_: Any) -> None:
        raise OSError(45, "Operation not supported")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "fsync", synced.append)
    sync_descriptor(7)
    assert synced == [7]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".state.json.tmp-12ab34cd", "state.json", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    removed = remove_temporaries(tmp_path)
    assert [path.name for path in removed] == [".state.json.tmp-12ab34cd"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "state.json"]


def test_an_unsynced_write_replaces_whole_and_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"old")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_unsynced(file, b"new")
    assert (file.read_bytes(), synced) == (b"new", [])

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_unsynced(file, b"newer")
    assert file.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


# Folders


def test_a_private_folder_is_new_entered_by_nobody_else_and_gone_afterwards(tmp_path: Path):
    with private_folder(tmp_path / "deep") as one, private_folder(tmp_path / "deep") as other:
        assert one != other
        assert one.stat().st_mode & 0o777 == 0o700
        assert str(os.getpid()) not in one.name
        (one / "file").write_text("x")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_put_in_place_takes_that_of_anything_and_follows_no_link(tmp_path: Path, kind: str):
    outside, path, new = tmp_path / "outside", tmp_path / "path", tmp_path / "new"
    outside.mkdir()
    (outside / "thesis").write_text("years")
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "folder":
        path.mkdir()
        (path / "old").write_text("old")
    else:
        path.write_text("old")
    new.write_text("new")
    put_in_place(new, path)
    assert path.read_text() == "new"
    assert (outside / "thesis").read_text() == "years"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside", "path"]


def test_an_interrupt_after_it_was_put_in_place_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, new, rename = tmp_path / "path", tmp_path / "new", os.rename
    for folder in (path, new):
        folder.mkdir()
        (folder / "name").write_text(folder.name)

    def rename_and_interrupt(one: Path, other: Path):
        rename(one, other)
        if one == new:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", rename_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        put_in_place(new, path)
    assert (path / "name").read_text() == "new"


def test_what_cannot_be_put_in_place_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "path").write_text("old")
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "missing", tmp_path / "path")
    assert (tmp_path / "path").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["path"]
