"""What a judge reads holds no thought."""

from __future__ import annotations

import pytest

from orpo_mlx.judging.thought import opens_thought, without_thought


@pytest.mark.parametrize(
    ("text", "begins_inside", "wanted"),
    [
        ("It is.", False, "It is."), ("<think>\nso\n</think>\n\nIt is.\n", False, "It is."),
        ("so, and so</think> It is.", True, "It is."), ("so, and so", True, ""),
        (" <think>so, and", False, ""), ("I think <b> so", False, "I think <b> so"),
    ],
)  # fmt: skip
def test_only_the_answer_is_left(text, begins_inside, wanted):
    assert without_thought(text, begins_inside) == wanted


def test_a_prompt_that_opens_a_thought_is_told():
    assert opens_thought("<|assistant|>\n<think>\n")
    assert not opens_thought("<|assistant|>\n<think>\n\n</think>\n\n")
