"""Prompt and answer together have no more tokens than the model has positions."""

from __future__ import annotations

import pytest

from orpo_mlx.generation.context import ContextFull, longest_answer


@pytest.mark.parametrize(
    ("prompt", "asked", "context", "wanted"),
    [(500, 12, 512, 12), (500, 13, 512, 12), (511, 9, 512, 1), (9000, 13, None, 13)],
)
def test_an_answer_has_at_most_the_room_that_is_left(prompt, asked, context, wanted):
    assert longest_answer(prompt, asked, context) == wanted


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers():
    with pytest.raises(ContextFull, match=r"513 tokens.* 512 tokens"):
        longest_answer(513, 1, 512)
    with pytest.raises(ContextFull):
        longest_answer(512, 1, 512)
