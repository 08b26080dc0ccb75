"""Nothing that was there is lost, nothing half done is left, and only checked results stay."""

import os
import shutil
import sys

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.errors import ExportCheckError, ExportError
from orpo_mlx.export import written
from orpo_mlx.export.checks import ExportCheck
from orpo_mlx.export.written import (
    Target,
    check_checksums,
    require_space,
    require_target,
    write_file,
    write_folder,
)

GOOD = ExportCheck("a", True, 0.0, 1.0, "fine")
BAD = ExportCheck("b", False, 2.0, 1.0, "two is too much")


def write_one(folder, text="new"):
    (folder / "one").write_text(text)
    (folder / "in").mkdir()
    (folder / "in" / "two").write_text("2")


def run(path, *, text="new", checks=(GOOD,), force=False):
    said = []
    files = write_folder(
        Target(path, force=force), lambda f: write_one(f, text), lambda f: list(checks), said.extend
    )
    return files, said


def test_a_folder_is_written_with_its_checksums(tmp_path):
    files, said = run(tmp_path / "deep" / "out")
    assert said == [GOOD]
    assert files[1:] == [("in/two", 1), ("one", 3)]
    # sha256 of "2" and of "new", from shasum, which passes over the first line.
    assert (tmp_path / "deep/out/SHA256SUMS").read_text().splitlines() == [
        "# Written by orpo-mlx export.",
        "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35  in/two",
        "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437  one",
    ]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_checksums_notice_a_changed_byte(tmp_path):
    run(tmp_path / "out")
    assert check_checksums(tmp_path / "out").passed
    (tmp_path / "out" / "one").write_text("nEw")
    assert "differs: one" in check_checksums(tmp_path / "out").text


def test_what_is_there_stays_without_force_and_goes_with_it(tmp_path):
    run(tmp_path / "out", text="old")
    with pytest.raises(ExportError, match="is there already") as error:
        run(tmp_path / "out")
    assert "--force" in error.value.what_to_do
    assert (tmp_path / "out" / "one").read_text() == "old"
    run(tmp_path / "out", force=True)
    assert (tmp_path / "out" / "one").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_no_obstacle(tmp_path):
    (tmp_path / "out").mkdir()
    assert run(tmp_path / "out")[0]


@pytest.mark.parametrize("is_file", [False, True])
def test_force_never_replaces_what_no_export_wrote(tmp_path, is_file):
    path = tmp_path / "home"
    path.mkdir()
    (path / "thesis.txt").write_text("years")
    with pytest.raises(ExportError) as error:
        require_target(Target(path, is_file, force=True))
    assert str(path) in error.value.message
    assert (path / "thesis.txt").exists()


def test_force_does_not_follow_a_link(tmp_path):
    run(tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(ExportError, match="is a link"):
        require_target(Target(tmp_path / "link", force=True))


@pytest.mark.parametrize("is_known", [True, False], ids=["it wrote the folder", "a download"])
def test_force_replaces_no_file_that_came_there_otherwise(tmp_path, is_known):
    run(tmp_path / "out")
    if is_known:
        (tmp_path / "out" / "notes.txt").write_text("mine")
    else:
        sums = tmp_path / "out" / "SHA256SUMS"
        sums.write_text("".join(sums.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ExportError, match="notes.txt" if is_known else "does not begin") as error:
        run(tmp_path / "out", force=True)
    assert "was not written by an export" in error.value.message
    assert (tmp_path / "out" / "one").read_text() == "new"


@pytest.mark.parametrize("content", [b"GGUF\3\0\0\0 a model", b"a diary about orpo_mlx.export"])
def test_force_replaces_no_foreign_file(tmp_path, content):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="was not written by an export"):
        require_target(Target(path, True, force=True))
    path.write_bytes(b"GGUF\3\0\0\0 orpo_mlx.export")
    require_target(Target(path, True, force=True))


@pytest.mark.parametrize("source", ["out", "link", ".", "out/in", "out/one"])
def test_force_never_replaces_what_is_read(tmp_path, source):
    """The same folder, a link to it, one around it, one in it, a file of it."""
    run(tmp_path / "out", text="old")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    target = Target(tmp_path / "out", force=True, sources=(tmp_path / source,))
    with pytest.raises(ExportError, match="which this export reads"):
        require_target(target)
    require_target(Target(tmp_path / "out", force=True, sources=(tmp_path / "other",)))


def test_nothing_is_written_where_another_could_wait_for_it(tmp_path):
    """The place is made new, entered by nobody else, and its name not to be guessed."""
    seen, modes = [], []

    def write(path):
        seen.append(path.parent.name)
        modes.append(path.parent.stat().st_mode & 0o777)
        write_one(path)

    for name in ("a", "b"):
        write_folder(Target(tmp_path / name), write, lambda f: [GOOD], lambda c: None)
    assert modes == [0o700, 0o700]
    assert len({name.removeprefix(".writing-") for name in seen}) == 2
    assert not any(str(os.getpid()) in name for name in seen)


def test_what_came_there_meanwhile_stays(tmp_path):
    def write(path):
        path.write_text("new")
        (tmp_path / "x.gguf").write_text("somebody else's")

    with pytest.raises(ExportError, match="is there already"):
        write_file(Target(tmp_path / "x.gguf", True), write, lambda p: [GOOD], lambda c: None)
    assert (tmp_path / "x.gguf").read_text() == "somebody else's"
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


def test_foreign_folders_of_the_old_names_are_left_alone(tmp_path):
    for kind in ("writing", "deleting"):
        (tmp_path / f".{kind}-{os.getpid()}-out").mkdir()
        (tmp_path / f".{kind}-{os.getpid()}-out" / "thesis").write_text("years")
    run(tmp_path / "out")
    run(tmp_path / "out", force=True)
    assert len(list(tmp_path.glob(".*/thesis"))) == 2


def test_a_failed_check_leaves_the_old_one_and_nothing_else(tmp_path):
    run(tmp_path / "out", text="old")
    with pytest.raises(ExportCheckError, match="two is too much") as error:
        run(tmp_path / "out", checks=[GOOD, BAD], force=True)
    assert error.value.exit_code == 1
    assert (tmp_path / "out" / "one").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError(28, "No space left")])
def test_a_writer_that_is_stopped_leaves_nothing(tmp_path, error):
    def write(path):
        path.write_text("half")
        raise error

    kinds = (KeyboardInterrupt, RuntimeError, ExportError)
    with pytest.raises(kinds):
        write_file(Target(tmp_path / "x.gguf", True), write, lambda p: [GOOD], lambda c: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
@pytest.mark.parametrize("kind", ["mlx", "numpy"])
def test_a_disk_that_fills_up_meanwhile_is_told_as_such(tmp_path, kind):
    """As it is where a quota ends: a real limit, met by those who write weights."""
    import resource

    def write(path):
        if kind == "mlx":
            mx.save_safetensors(str(path / "x.safetensors"), {"a": mx.zeros((1000, 1000))})
        else:
            with (path / "x.gguf").open("wb") as file:
                np.zeros(1_000_000).tofile(file)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ExportError, match="the disk may be full") as error:
            write_folder(Target(tmp_path / "out"), write, lambda p: [GOOD], lambda c: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Free some space" in error.value.what_to_do
    assert list(tmp_path.iterdir()) == []


def test_the_old_one_comes_back_if_the_new_cannot_take_its_place(tmp_path, monkeypatch):
    run(tmp_path / "out", text="old")
    real, calls = written.os.rename, []

    def rename(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(written.os, "rename", rename)
    with pytest.raises(ExportError, match="Permission denied"):
        run(tmp_path / "out", force=True)
    assert (tmp_path / "out" / "one").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_told_with_both_numbers(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    require_space(tmp_path / "new" / "out", 2_000_000_000)
    with pytest.raises(ExportError) as error:
        require_space(tmp_path / "new" / "out", 2_990_000_000)
    assert "2990000000 bytes" in error.value.message
    assert "3000000000 bytes" in error.value.message


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file cannot be written to"):
        require_target(Target(tmp_path / "file" / "out"))
