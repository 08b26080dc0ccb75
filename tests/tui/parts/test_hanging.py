"""Rows of a table in text go on below their words."""

from __future__ import annotations

from tui.parts.hanging import hung


def test_rows_go_on_below_their_words_and_prose_at_the_border():
    text = "Name  some words\n      more of them here\n\nprose that is long"
    assert hung(text, 14, 6).split("\n") == [
        "Name  some",
        "      words",
        "      more of",
        "      them",
        "      here",
        "",
        "prose that is",
        "long",
    ]


def test_a_command_keeps_its_indentation_and_a_path_without_room_is_broken_not_lost():
    shown = hung("  train --model-type /a/long/path/of/a/model", 20, 10)
    assert all(line.startswith("  ") and len(line) <= 20 for line in shown.split("\n"))
    assert "".join(shown.split()) == "train--model-type/a/long/path/of/a/model"
