"""No prompt on two sides: what counts as the same prompt, and how sides are drawn."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.data.split import (
    draw_sides,
    group_prompts,
    hold_out,
    prompt_text,
    token_prompt_texts,
)
from orpo_mlx.data.types import PreferencePair, TokenPair

LONG = [f"word{i}" for i in range(42)]  # 40 sequences of three words


@pytest.mark.parametrize(
    "other",
    [
        "how do I knit a scarf",
        "How do I knit a scarf??",
        "  how do I\nKNIT a  scarf!",
        "How do I knit a ＳＣＡＲＦ?",
    ],
)
def test_prompts_with_the_same_words_are_one(other: str) -> None:
    assert group_prompts(["How do I knit a scarf?", "Else?", other]) == [0, 1, 0]


def test_other_words_are_other_prompts() -> None:
    assert group_prompts(["What is 2 plus 3?", "What is 2 plus 4?", "What?"]) == [0, 1, 2]


def test_punctuation_alone_is_compared_as_it_stands() -> None:
    assert group_prompts(["???", "!!!", "??? "]) == [0, 1, 0]


def test_four_fifths_of_the_sequences_of_three_words_are_the_limit() -> None:
    """A word changed in the middle of 42 breaks 3 of 40 sequences, so 37 of 43 are shared: 0.86.
    Two words changed far apart leave 34 of 46: 0.74."""
    one = [*LONG[:20], "other", *LONG[21:]]
    two = [*LONG[:10], "other", *LONG[11:30], "another", *LONG[31:]]
    texts = [" ".join(words) for words in (LONG, one, two)]
    assert group_prompts(texts[:2]) == [0, 0]
    assert group_prompts([texts[0], texts[2]]) == [0, 1]
    assert group_prompts(texts[:2], share=0.87) == [0, 1]
    assert group_prompts(texts[:2], share=1) == [0, 1]


def test_what_hangs_together_by_links_stays_together() -> None:
    """The first and the last share too little; the one between is near to both."""
    a = " ".join(LONG)
    b = " ".join([*LONG[:10], "other", *LONG[11:]])
    c = " ".join([*LONG[:10], "other", *LONG[11:30], "another", *LONG[31:]])
    assert group_prompts([a, c]) == [0, 1]
    assert group_prompts([a, c, b]) == [0, 0, 0]


def test_the_system_turn_is_no_part_of_the_prompt() -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}]
    assert prompt_text(PreferencePair(turns, [], [])) == "Hi."  # type: ignore[arg-type]


def test_the_template_that_all_prompts_share_is_left_out() -> None:
    tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))
    pairs = [TokenPair([1, 2, 3, middle, 8, 9], [4], [5]) for middle in (50, 51, 52)]
    assert token_prompt_texts(pairs, tokenizer) == ["50", "51", "52"]


groups = st.lists(st.integers(0, 9), min_size=1, max_size=60)


@given(groups, st.sampled_from([0.05, 0.2, 0.5]), st.integers(0, 99))
def test_a_group_is_never_divided_and_training_gets_something(
    groups: list[int], fraction: float, seed: int
) -> None:
    sides = draw_sides(groups, {"test": fraction, "valid": fraction}, seed)
    assert len(sides) == len(groups)
    for group in set(groups):
        assert len({side for side, own in zip(sides, groups, strict=True) if own == group}) == 1
    assert "train" in sides
    if len(set(groups)) >= 3:
        assert set(sides) == {"train", "valid", "test"}
    assert sides == draw_sides(groups, {"test": fraction, "valid": fraction}, seed)


def test_single_prompts_are_divided_exactly_by_the_shares() -> None:
    counts = Counter(draw_sides(range(1000), {"test": 0.1, "valid": 0.05}, 7))
    assert counts == {"train": 850, "valid": 50, "test": 100}


def test_another_seed_draws_others() -> None:
    assert draw_sides(range(50), {"valid": 0.2}, 1) != draw_sides(range(50), {"valid": 0.2}, 2)


def words_of(numbers: list[int]) -> str:
    return " ".join(f"w{n}" for n in numbers)


def test_training_holds_out_no_near_duplicate_of_what_it_learns() -> None:
    tokenizer = SimpleNamespace(decode=words_of)
    base = [list(range(100 * i, 100 * i + 40)) for i in range(20)]
    twins = [[*ids[:20], 7777, *ids[21:]] for ids in base]
    pairs = [TokenPair(ids, [1], [2], str(i)) for i, ids in enumerate(base + twins)]
    train, valid = hold_out(pairs, 0.2, 3, tokenizer)
    assert len(valid) == 8
    assert {int(p.source) % 20 for p in train}.isdisjoint({int(p.source) % 20 for p in valid})


def test_single_prompts_are_held_out_as_drawn() -> None:
    """The numbers are kept, so that a resumed run meets the pairs it began with."""
    tokenizer = SimpleNamespace(decode=words_of)
    pairs = [TokenPair([i, i + 1], [1], [2], str(i)) for i in range(0, 90, 3)]
    _, valid = hold_out(pairs, 0.1, 4, tokenizer)
    assert [int(p.source) for p in valid] == [0, 33, 84]


def test_nothing_is_held_out_of_one_prompt() -> None:
    pairs = [TokenPair([1], [i], [9]) for i in range(5)]
    assert len(hold_out(pairs, 0.5, 0, SimpleNamespace(decode=words_of))[1]) == 0


def like_prompts(kinds: int, each: int, tail: int = 2) -> list[TokenPair]:
    """`kinds` groups of prompts that are nearly alike: forty words, the last of them their own."""
    prompts = [
        [*range(1000 * kind, 1000 * kind + 40), *range(10**6 + 9 * i, 10**6 + 9 * i + tail)]
        for kind in range(kinds)
        for i in range(each)
    ]
    return [TokenPair(ids, [1], [2], str(i)) for i, ids in enumerate(prompts)]


@pytest.mark.parametrize(("kinds", "each"), [(2, 100), (4, 50), (8, 25)])
def test_few_groups_of_like_prompts_keep_the_share_that_was_asked(kinds: int, each: int) -> None:
    notes: list[str] = []
    tokenizer = SimpleNamespace(decode=words_of)
    pairs = like_prompts(kinds, each)
    train, valid = hold_out(pairs, 0.05, 0, tokenizer, notes)
    assert 5 <= len(valid) <= 20
    assert len(train) + len(valid) == 200
    assert len(notes) == 1
    assert "some stand on both sides" in notes[0]


def test_the_same_prompts_are_never_on_two_sides_and_too_few_hold_out_nothing() -> None:
    notes: list[str] = []
    pairs = [TokenPair([7 * (i % 2), 1], [i], [9]) for i in range(100)]
    train, valid = hold_out(pairs, 0.05, 0, SimpleNamespace(decode=words_of), notes)
    assert (len(train), len(valid)) == (100, 0)
    assert "no pair is held out for validation" in notes[0]
    assert "5 cannot be held out; give --valid-data" in notes[0]


def test_a_share_near_what_was_asked_is_kept_without_a_word() -> None:
    notes: list[str] = []
    tokenizer = SimpleNamespace(decode=words_of)
    pairs = like_prompts(25, 8)
    _, valid = hold_out(pairs, 0.05, 0, tokenizer, notes)
    assert len(valid) == 8  # one group of like prompts, for 10 that were asked
    assert notes == []
