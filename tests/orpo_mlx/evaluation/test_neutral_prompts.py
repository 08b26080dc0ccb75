"""The shipped prompts and a user's own."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from orpo_mlx.cli.evaluate_request import parse_evaluate
from orpo_mlx.errors import DataError
from orpo_mlx.evaluation import at_end, drift_course
from orpo_mlx.evaluation.neutral_prompts import (
    draw_prompts,
    plain_paragraphs,
    read_prompts,
    shipped_prompts,
)


def test_sixty_prompts_of_ten_kinds_and_twelve_paragraphs_are_shipped():
    prompts = shipped_prompts()
    assert set(Counter(prompt.kind for prompt in prompts).values()) == {6}
    assert len({prompt.text for prompt in prompts}) == 60
    paragraphs = plain_paragraphs()
    assert len(paragraphs) == 12
    assert all(40 < len(text.split()) < 90 for text in paragraphs)


def test_some_are_drawn_by_the_seed_in_their_order():
    prompts = shipped_prompts()
    drawn = draw_prompts(prompts, 10, seed=1)
    places = [prompts.index(prompt) for prompt in drawn]
    assert places == sorted(set(places))
    assert len(drawn) == 10
    assert draw_prompts(prompts, 10, seed=1) == drawn != draw_prompts(prompts, 10, seed=2)
    assert draw_prompts(prompts, 60, seed=1) == prompts


def test_prompts_are_lines_of_text_or_rows(tmp_path):
    lines = tmp_path / "own.txt"
    lines.write_text("One?\n\n  Two?\nThree\nFour\nFive\n", encoding="utf-8")
    assert [p.text for p in read_prompts(str(lines))] == ["One?", "Two?", "Three", "Four", "Five"]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    rows = [{"prompt": turns}, *({"prompt": f"Say {i}.", "kind": "talk"} for i in range(4))]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_prompts(str(file))
    assert (found[0].turns, found[0].text) == (turns, "Why?")
    assert [p.kind for p in found] == ["", "talk", "talk", "talk", "talk"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "hm"}] * 5, r"own.jsonl:1: prompt is null.*5 such rows"),
        ([{"prompt": " "}] * 5, "prompt is no text"),
        ([{"prompt": [{"role": "assistant", "content": "I"}]}] * 5, "prompt is a list"),
        ([{"prompt": [{"role": "user"}]}] * 5, "prompt is a list"),
        ([{"prompt": "One?"}] * 4, "4 prompts; at least 5"),
    ],
)
def test_what_is_no_prompt_is_refused(tmp_path, rows, said):
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        read_prompts(str(file))
    refused.match(f"(?s){said}")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "own.txt"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_prompts(str(file))


def test_drift_is_of_equally_long_answers_wherever_it_is_measured():
    asked = parse_evaluate(["RUN"]).drift_tokens
    assert drift_course.TOKENS == at_end.DRIFT_TOKENS == asked == 32
