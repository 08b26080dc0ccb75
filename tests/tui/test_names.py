"""Names as they are shown, and paths as terminals write them."""

from __future__ import annotations

import pytest

from tui.names import cut_start, plain_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a/b.csv", "/a/b.csv"),
        ("  /a/b.csv ", "/a/b.csv"),
        ("'/a b/c.csv'", "/a b/c.csv"),
        ('"/a b/c.csv" ', "/a b/c.csv"),
        ("file:///a%20b.csv", "/a b.csv"),
        ("file://localhost/a.csv", "/a.csv"),
        (r"/a\ b\(1\).csv", "/a b(1).csv"),
        # What is no single word of a shell stays as it is.
        ("'/a", "'/a"),
        ("'/a' '/b'", "'/a' '/b'"),
        ("don't.csv", "don't.csv"),
        ("org/name", "org/name"),
        ("", ""),
    ],
)
def test_a_path_is_freed_of_what_a_terminal_writes_around_it(text, path):
    assert plain_path(text) == path


def test_a_file_whose_name_has_a_backslash_keeps_it(tmp_path):
    file = tmp_path / r"a\b.csv"
    file.touch()
    assert plain_path(str(file)) == str(file)


def test_a_long_name_keeps_its_end():
    assert cut_start("org/a-long-name-4bit", 12) == "...name-4bit"
    assert cut_start("short", 12) == "short"
    assert cut_start("org/模型模型模型", 9) == "...型模型"
    assert cut_start("模型", 4) == "模型"
