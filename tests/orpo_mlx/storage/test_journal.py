"""A journal survives kills, knows its own work, and belongs to one process at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orpo_mlx.errors import DataError
from orpo_mlx.storage.journal import Journal

HEADER = {"work": "answers", "seed": 3, "date": "today"}


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append({"n": 1})
        journal.append({"text": "ü\u2028"})
    with Journal(path, HEADER) as journal:
        assert journal.entries == [{"n": 1}, {"text": "ü\u2028"}]
        journal.append({"n": 3})
    assert [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]] == [
        HEADER, {"n": 1}, {"text": "ü\u2028"}, {"n": 3},
    ]  # fmt: skip


def test_at_whatever_byte_a_kill_cuts_it_whole_entries_remain(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        for n in range(3):
            journal.append({"n": n, "text": "é"})
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        with Journal(path, HEADER) as journal:
            whole = max(0, sum(end <= cut for end in ends) - 1)
            assert [entry["n"] for entry in journal.entries] == list(range(whole))
            journal.append({"n": "next"})
        assert path.read_bytes().endswith(b'{"n": "next"}\n')
        assert path.read_bytes().startswith(data[: ends[0]])


def test_other_work_is_refused_with_both_values(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, HEADER).__exit__()
    with pytest.raises(DataError, match="seed: was 3, is now 4"):
        Journal(path, {**HEADER, "seed": 4})


def test_what_is_free_may_differ_and_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, HEADER).__exit__()
    with Journal(path, {**HEADER, "date": "tomorrow"}, free=("date",)) as journal:
        assert journal.header["date"] == "today"


def test_nobody_else_may_have_it_open(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER), pytest.raises(DataError, match="another process works on it"):
        Journal(path, HEADER)
    Journal(path, HEADER).__exit__()


@pytest.mark.parametrize("line", ["[1]", "{", "nonsense"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, HEADER).__exit__()
    path.write_text(path.read_text() + line + "\n" + '{"n": 1}\n')
    with pytest.raises(DataError, match=r"j\.jsonl:2: damaged"):
        Journal(path, HEADER)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        Journal(tmp_path / "missing" / "j.jsonl", HEADER)
