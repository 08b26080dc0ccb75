"""Scored answers to pairs: each rule by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.data.layouts.scores import TIE
from orpo_mlx.data.types import Drop
from orpo_mlx.preferences.ranking import RULES, Rule, pairs_by_rule

SCORES = [3.0, 9.0, 1.0, 6.0]  # best to worst: 1, 3, 0, 2


@pytest.mark.parametrize(
    ("rule", "pairs"),
    [
        ("best-worst", [(1, 2)]),
        ("best-rest", [(1, 3), (1, 0), (1, 2)]),
        ("adjacent", [(1, 3), (3, 0), (0, 2)]),
        ("all", [(1, 3), (1, 0), (1, 2), (3, 0), (3, 2), (0, 2)]),
    ],
)
def test_each_rule_makes_the_pairs_it_says(rule: Rule, pairs: list[tuple[int, int]]) -> None:
    assert pairs_by_rule(SCORES, rule) == pairs


def test_a_gap_leaves_out_pairs_that_are_close() -> None:
    assert pairs_by_rule(SCORES, "all", 5) == [(1, 0), (1, 2), (3, 2)]
    assert pairs_by_rule(SCORES, "best-worst", 8.5) == Drop("scores closer than --min-gap")


def test_equal_scores_make_no_pair() -> None:
    assert pairs_by_rule([4, 4], "all") == Drop(TIE)
    assert pairs_by_rule([4, 4, 2], "all") == [(0, 2), (1, 2)]
    assert pairs_by_rule([4, 4, 2], "adjacent") == [(1, 2)]


def test_one_answer_makes_no_pair() -> None:
    assert pairs_by_rule([4], "all") == Drop("fewer than two answers with a score")


@given(st.lists(st.integers(0, 5), max_size=7), st.sampled_from(RULES), st.integers(0, 3))
def test_every_pair_of_every_rule_has_the_higher_score_first(
    scores: list[int], rule: Rule, gap: int
) -> None:
    found = pairs_by_rule(scores, rule, gap)
    if isinstance(found, Drop):
        assert rule != "all" or not [a for a in scores for b in scores if a - b >= max(gap, 1)]
    else:
        assert all(scores[a] - scores[b] >= max(gap, 1) for a, b in found)
        assert len(set(found)) == len(found)
