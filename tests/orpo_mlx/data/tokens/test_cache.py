"""Tokens kept on disk: found again, never stale, never half, bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orpo_mlx.data.tokens import cache
from orpo_mlx.data.tokens.cache import Cached, Key
from orpo_mlx.data.tokens.store import gather
from orpo_mlx.data.types import Account, TokenPair

KEY = Key.of("d" * 64, {"max_seq_length": 8})


def content(count: int = 3, first: int = 7) -> Cached:
    """A dataset of so many pairs, large enough to be kept."""
    made = [
        TokenPair([first, i], [i], [2], f"a.jsonl:{i}", ("cut",) * (i % 2), margin=i / 2 or None)
        for i in range(count)
    ]
    account = Account(2000, count, {"empty prompt": 2000 - count}, {"cut": 1}, {"cut": ["a:1"]})
    return Cached(gather(made), account, "plain text", ["a note"])


def test_an_entry_comes_back_as_it_was() -> None:
    assert cache.load(KEY) is None
    assert cache.save(KEY, content()) == ""
    assert cache.load(KEY) == content()


def test_a_small_dataset_is_not_worth_a_file() -> None:
    small = content()
    small.account.read = cache.SMALLEST_ROWS - 1
    assert cache.save(KEY, small) == ""
    assert not cache.folder().exists()


@pytest.mark.parametrize(
    "other",
    [
        Key.of("e" * 64, {"max_seq_length": 8}),
        Key.of("d" * 64, {"max_seq_length": 9}),
        Key.of("d" * 64, {"max_seq_length": 8, "thinking": "on"}),
    ],
)
def test_other_data_or_settings_have_another_entry(other: Key) -> None:
    cache.save(KEY, content())
    assert cache.load(other) is None


def test_changed_code_has_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save(KEY, content())
    assert cache.holds_data(KEY.data)
    monkeypatch.setattr(cache, "code_hash", lambda: "changed")
    assert cache.load(Key.of("d" * 64, {"max_seq_length": 8})) is None
    assert not cache.holds_data(KEY.data)


def test_the_hash_of_a_tokenizer_sees_every_file_but_the_weights(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "generation_config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"1")
    first = cache.tokenizer_hash(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert cache.tokenizer_hash(tmp_path) == first
    (tmp_path / "generation_config.json").write_bytes(b"2")
    assert cache.tokenizer_hash(tmp_path) != first


@pytest.mark.parametrize("at", [0, 10, 30, 200, -40, -1])
def test_a_damaged_entry_is_not_used_and_goes(at: int) -> None:
    cache.save(KEY, content())
    damaged = bytearray(KEY.path.read_bytes())
    damaged[at] ^= 0xFF
    KEY.path.write_bytes(damaged)
    assert cache.load(KEY) is None
    assert not KEY.path.exists()


@pytest.mark.parametrize("length", [0, 5, 30, 300])
def test_a_cut_entry_is_not_used_and_goes(length: int) -> None:
    cache.save(KEY, content())
    KEY.path.write_bytes(KEY.path.read_bytes()[:length])
    assert cache.load(KEY) is None
    assert not KEY.path.exists()


def test_an_entry_under_a_wrong_name_is_not_used() -> None:
    cache.save(KEY, content())
    other = Key.of("d" * 64, {})
    KEY.path.rename(other.path)
    assert cache.load(other) is None


def test_beyond_the_limit_what_was_used_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [Key.of(letter * 64, {}) for letter in "abc"]
    for age, key in enumerate(keys[:2]):
        cache.save(key, content())
        os.utime(key.path, (1000 + age, 1000 + age))
    assert cache.load(keys[0])  # now used later than the second
    size = keys[0].path.stat().st_size
    monkeypatch.setattr(cache, "MAX_BYTES", 2 * size)
    cache.save(keys[2], content())
    assert [key.path.exists() for key in keys] == [True, False, True]
    monkeypatch.setattr(cache, "MAX_BYTES", 1)
    cache.save(keys[1], content())
    assert [key.path.exists() for key in keys] == [False, True, False]


def test_what_a_killed_writer_left_goes_after_a_day() -> None:
    cache.save(KEY, content())
    left, fresh = (cache.folder() / f".x{i}.tmp-1234" for i in range(2))
    left.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    cache.save(KEY, content())
    assert (left.exists(), fresh.exists()) == (False, True)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "file"))
    assert "could not be kept" in cache.save(KEY, content())
    assert cache.load(KEY) is None


def test_writers_at_the_same_time_leave_one_whole_entry(tmp_path: Path) -> None:
    home = str(tmp_path / "orpo_mlx_home")
    writers = [
        subprocess.Popen([sys.executable, "-c", _SCRIPT, home, str(first), KEY.data, KEY.rest])
        for first in (7, 8, 9)
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        found = cache.load(KEY)
        if found is not None:
            seen.add(int(found.pairs.ids[0]))
            assert len(found.pairs) == 200
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    last = cache.load(KEY)
    assert last is not None
    assert np.all(np.asarray(last.pairs.ids[::4])[:2] == last.pairs.ids[0])
    assert seen <= {7, 8, 9}


_SCRIPT = """
import os, sys
os.environ["ORPO_MLX_HOME"] = sys.argv[1]
from orpo_mlx.data.tokens.cache import Cached, Key, save
from orpo_mlx.data.types import Account, TokenPair
from orpo_mlx.data.tokens.store import gather
first = int(sys.argv[2])
pairs = gather(TokenPair([first, i], [i], [2], str(i)) for i in range(200))
content = Cached(pairs, Account(2000, 200), "x", [])
key = Key(sys.argv[3], sys.argv[4])
for _ in range(20):
    assert save(key, content) == ""
"""
