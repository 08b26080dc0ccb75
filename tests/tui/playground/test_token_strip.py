"""Tokens and their blocks, line by line."""

from __future__ import annotations

import pytest

from tui.playground.token_strip import shade, wrap_tokens


@pytest.mark.parametrize(
    ("logp", "block"), [(0.0, "█"), (-0.7, "█"), (-3.0, "▅"), (-5.99, "▁"), (-6.0, "▁"), (-50, "▁")]
)
def test_the_likelier_the_higher(logp: float, block: str):
    assert shade(logp) == block


def test_ascii_needs_no_blocks():
    assert shade(0.0, "ascii") == "@"
    assert shade(-9.0, "ascii") == "_"


def test_lines_are_broken_between_tokens():
    lines = wrap_tokens(["abc", "de", "f"], [0.0, -6.0, 0.0], width=5)
    assert [[piece.text for piece in line] for line in lines] == [["abc", "de"], ["f"]]
    assert [piece.block for piece in lines[0]] == ["███", "▁▁"]
    assert [piece.index for line in lines for piece in line] == [0, 1, 2]


def test_wide_characters_take_two_columns():
    (first, second) = wrap_tokens(["日本", "語"], [0.0, 0.0], width=5)
    assert first[0].block == "█" * 4
    assert second[0].text == "語"


def test_control_characters_are_written_out():
    (line,) = wrap_tokens(["a\x1b[31m", "\n", ""], [0.0] * 3, width=40)
    assert [piece.text for piece in line] == ["a\\x1b[31m", "⏎", "·"]


def test_a_token_wider_than_the_line_is_cut():
    (line,) = wrap_tokens(["x" * 50], [0.0], width=10)
    assert len(line[0].text) == len(line[0].block) == 10
