"""Single lines: whole or not there, whoever was killed; one can be taken back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orpo_mlx.storage.append import append_line, remove_line


def test_lines_of_several_writers_are_all_there_and_whole(tmp_path: Path):
    path = tmp_path / "new" / "rows.jsonl"
    lines = [f'{{"n": {i}, "text": "{"x" * 5000}"}}\n' for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda line: append_line(path, line), lines))
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)


WRITER = """
import itertools, json, sys
from pathlib import Path
from orpo_mlx.storage.append import append_line
for n in itertools.count():
    append_line(Path(sys.argv[1]), json.dumps({"writer": int(sys.argv[2]), "n": n}) + "\\n")
    print(n, flush=True)
"""


def test_a_killed_writer_loses_no_line_that_was_written(tmp_path: Path):
    path, kept = tmp_path / "rows.jsonl", {}
    for writer in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(writer)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(20 + writer)]
            process.kill()
            kept[writer] = int(said[-1])
    append_line(path, '{"writer": 3, "n": 0}\n')
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for writer, last in kept.items():
        numbers = [row["n"] for row in rows if row["writer"] == writer]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > last


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"n": 1}\n{"n": 2, "te', '{"n": 1}\n'),  # torn by a kill
        ('{"n": 1, "te', ""),
        ('{"n": 1}\n' + '{"n": "' + "x" * 200_000, '{"n": 1}\n'),
        ('{"n": 1}\n{"n": 2}', '{"n": 1}\n{"n": 2}\n'),  # of an editor that leaves none
        ('{"n": 1}\n', '{"n": 1}\n'),
    ],
    ids=["torn", "torn-first", "torn-long", "no-newline", "whole"],
)
def test_a_torn_last_line_is_mended_by_the_next_one(tmp_path: Path, before: str, after: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(before)
    append_line(path, '{"n": 3}\n')
    assert path.read_text() == after + '{"n": 3}\n'


def test_a_line_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n')
    write = os.write

    def full(file: int, data: memoryview) -> int:
        if len(data) > 3:
            return write(file, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        append_line(path, '{"n": 22}\n')
    assert path.read_text() == '{"n": 1}\n'


def test_the_newest_of_equal_lines_is_taken_back(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("a\nb\na\nc\n")
    assert remove_line(path, "a\n")
    assert path.read_text() == "a\nb\nc\n"
    assert not remove_line(path, "d\n")
    assert path.read_text() == "a\nb\nc\n"


def test_a_pipe_or_a_link_is_not_written_into(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=name):
            append_line(tmp_path / name, "{}\n")
    assert not (tmp_path / "elsewhere").exists()
