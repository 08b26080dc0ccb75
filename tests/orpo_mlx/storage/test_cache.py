"""What may be deleted from a cache, and in which order."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orpo_mlx.storage.cache import cache_folder, forget_old

DAY = 86_400.0


def make(folder: Path, name: str, size: int, days_old: float) -> Path:
    path = folder / name
    path.write_bytes(b"x" * size)
    then = time.time() - days_old * DAY
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize(
    ("max_bytes", "left"),
    [
        (60, {"a.x", "b.x", "c.x"}),
        (59, {"b.x", "c.x"}),
        (50, {"b.x", "c.x"}),
        (49, {"c.x"}),
        (0, {"c.x"}),  # kept, however large
    ],
)
def test_what_was_used_longest_ago_goes_until_the_rest_fits(tmp_path, max_bytes, left):
    make(tmp_path, "a.x", 10, 3)
    make(tmp_path, "b.x", 20, 2)
    # The entry just made is not deleted, even where its clock is behind.
    keep = make(tmp_path, "c.x", 30, 9)
    forget_old(tmp_path, ".x", max_bytes, keep)
    assert {path.name for path in tmp_path.iterdir()} == left


def test_what_a_killed_writer_left_goes_after_a_day_and_never_an_entry_for_its_age(tmp_path):
    keep = make(tmp_path, "old.x", 10, 400)
    make(tmp_path, "writing.tmp", 10, 0.9)
    make(tmp_path, "left.tmp", 10, 1.1)
    forget_old(tmp_path, ".x", 10, keep)
    assert {path.name for path in tmp_path.iterdir()} == {"old.x", "writing.tmp"}


def test_the_cache_lies_in_the_programs_home_if_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ORPO_MLX_HOME", "~/own")
    assert cache_folder("tokens") == tmp_path / "own" / "cache" / "tokens"
    monkeypatch.delenv("ORPO_MLX_HOME")
    assert cache_folder("tokens").parts[-2:] == ("orpo-mlx", "tokens")
