"""Names as they are shown, and paths as terminals write them."""

from __future__ import annotations

import pytest

from tui.shell.names import cut_start, place_text, plain_path, short_name, shortened


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
    assert cut_start("twelve-chars", 12) == "twelve-chars"


def test_wide_characters_take_two_columns_each():
    assert cut_start("模型模型-4bit", 12) == "...模型-4bit"
    assert cut_start("模型模型-4bit", 11) == "...型-4bit"
    assert shortened("模型模型", 6) == "模型…"


@pytest.mark.parametrize(
    ("name", "cells", "charset", "text"),
    [
        ("a-long-name", 11, "braille", "a-long-name"),
        ("a-long-name", 10, "braille", "a-long-na…"),
        ("a-long-name", 10, "ascii", "a-long-..."),
        ("a long name", 8, "braille", "a long…"),  # no blank before the sign
        ("a-long-name", 2, "ascii", "a..."),
    ],
)
def test_a_name_is_cut_at_its_end(name, cells, charset, text):
    assert shortened(name, cells, charset) == text


@pytest.mark.parametrize(
    ("place", "short", "whole"),
    [
        ("org/Qwen3-4bit", "Qwen3-4bit", "org/Qwen3-4bit"),
        ("/old/lib/orpo_mlx/demo/train.jsonl", "built-in demo", "built-in demo"),
        ("/x/demo/train.jsonl", "train.jsonl", "/x/demo/train.jsonl"),
        ("/x/orpo_mlx/demo/sub/a.jsonl", "a.jsonl", "/x/orpo_mlx/demo/sub/a.jsonl"),
        ("", "", ""),
    ],
)
def test_what_comes_with_the_program_goes_by_its_own_name(place, short, whole):
    assert (short_name(place), place_text(place)) == (short, whole)
