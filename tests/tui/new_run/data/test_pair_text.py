"""Pairs as lines, by value."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from tui.new_run.data.pair_text import length_lines, pair_lines, token_lines


def token(text: str) -> dict[str, object]:
    return {"id": 1, "text": text, "special": False}


PAIR = {
    "where": "x:1", "prompt": "Why?\n\x1b[31m", "chosen": "[b]So[/b]", "rejected": "No " * 60,
    "raw": {"question": "Why?"},
    "tokens": {
        "prompt": [token("Why"), token("?\n"), token("\x1b[3m")],
        "chosen": [token("So")], "rejected": [token("No")],
    },
}  # fmt: skip


def text_of(lines) -> list[str]:
    return ["".join(text for _, text in line) for line in lines]


def test_texts_stand_under_their_names_harmless_and_unchanged():
    lines = text_of(pair_lines(PAIR, "text", 40))
    assert lines[:5] == ["PROMPT", "  Why?", "  \\x1b[31m", "CHOSEN", "  [b]So[/b]"]


@pytest.mark.parametrize("view", ["text", "tokens", "raw"])
@pytest.mark.parametrize("width", [20, 41])
def test_no_line_is_wider_than_there_is_room(view, width):
    long = {**PAIR, "tokens": {s: [token("ab" * 30)] * 9 for s in ("prompt", "chosen", "rejected")}}
    if view == "tokens":  # headings are cut by the view; tokens have to be broken
        lines = [line for line in pair_lines(long, view, width) if line[0][0] != "kind"]
    else:
        lines = pair_lines(long, view, width)
    assert max(cell_len(text) for text in text_of(lines)) <= width


def test_masked_tokens_are_told_apart_without_colour():
    lines = text_of(pair_lines(PAIR, "tokens", 80))
    assert lines[0] == "PROMPT  3 tokens: masked in the preference term, in the NLL of chosen"
    assert lines[1] == "▒ Why│?⏎│\\x1b[3m│"
    assert lines[3] == "  So│"
    response = text_of(pair_lines(PAIR, "tokens", 80, "ascii", "response"))
    assert response[:2] == [
        "PROMPT  3 tokens: masked in the preference term and in the NLL",
        ": Why|?\\n|\\x1b[3m|",
    ]


def test_tokens_fill_a_line_to_its_last_column():
    assert text_of(token_lines([token("abc")] * 4, 10, True, "ascii")) == ["  abc|abc|"] * 2


def test_a_row_without_tokens_says_why():
    without = {**PAIR, "tokens": None}
    assert "once a model is chosen" in text_of(pair_lines(without, "tokens", 80))[0]
    dropped = {**without, "dropped": "empty rejected"}
    assert "is dropped: empty rejected" in text_of(pair_lines(dropped, "tokens", 80))[0]


def test_the_longest_bar_fills_the_room_and_others_are_in_proportion():
    spread = dict.fromkeys(("p5", "p50", "p90", "p95", "p99", "max"), 3)
    total = {**spread, "histogram": {"edges": [0, 5, 10], "counts": [40, 20]}}
    answer = {"lengths": {"total": total}, "limits": [
        {"max_seq_length": 8, "cut": 1, "dropped": 2}]}  # fmt: skip
    lines = text_of(length_lines(answer, 64, "ascii"))
    assert [line.count("#") for line in lines if "#" in line] == [40, 20]
    assert "1 prompts cut, 2 pairs dropped" in lines[-1]
    assert "need a model" in text_of(length_lines({"lengths": None}, 64))[0]


def test_a_row_that_became_no_pair_says_why_and_is_shown_as_it_is():
    raw = {"prompt": "q", "chosen": "same", "rejected": "same"}
    row = {"prompt": "", "chosen": "", "rejected": "", "raw": raw, "dropped": "identical text"}
    lines = ["".join(text for _, text in line) for line in pair_lines(row, "text", 60)]
    assert lines[0] == "This row is dropped: identical text."
    assert '"chosen": "same",' in lines[3]
    assert "PROMPT" not in lines
