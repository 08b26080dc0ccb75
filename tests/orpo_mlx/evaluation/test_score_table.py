"""Measures by hand, and which pairs are looked at apart."""

from __future__ import annotations

import numpy as np
import pytest

from orpo_mlx.evaluation.score_table import ScoreTable, gap_ranges, measures, of_like_length


def table(**columns: list[float]) -> ScoreTable:
    made = {
        "chosen_sum": [-2.0, -6.0, -3.0],
        "rejected_sum": [-6.0, -2.0, -3.0],
        "chosen_tokens": [2, 3, 3],
        "rejected_tokens": [3, 2, 3],
        "log_odds_ratio": [1.0, -1.0, 0.0],
        **columns,
    }
    arrays = {name: np.array(values) for name, values in made.items()}
    return ScoreTable(**arrays, rewards={})


def test_the_measures_of_three_pairs_by_hand():
    found = {name: sums.value for name, sums in measures(table()).items()}
    assert found == pytest.approx({
        "preference_accuracy": 1 / 3,  # a tie is not right
        "log_odds_ratio": 0.0,
        "logps_margin": (1 - 1 + 0) / 3,
        "chosen_logps": -(1 + 2 + 1) / 3,
        "rejected_logps": -(2 + 1 + 1) / 3,
        "chosen_nll": 11 / 8,  # over tokens, not over pairs
    })  # fmt: skip
    assert table().ties == 1


def test_scores_that_are_no_numbers_are_found_by_their_place():
    assert list(table().not_finite()) == []
    assert list(table(chosen_sum=[-1, np.nan, -1]).not_finite()) == [1]
    assert list(table(log_odds_ratio=[0, 0, np.inf]).not_finite()) == [2]


def test_answers_are_of_like_length_within_a_tenth_or_a_token():
    lengths = table(chosen_tokens=[100, 100, 3], rejected_tokens=[90, 89, 4])
    assert list(of_like_length(lengths)) == [True, False, True]


def test_score_gaps_are_divided_into_ranges_of_like_size():
    gaps = np.array([1, 2, 3, 4, 5, 6, np.nan])
    assert gap_ranges(gaps) == [(1, 2), (3, 4), (5, 6)]
    assert gap_ranges(np.array([2.0, 2, 2, 2])) == [(2, 2)]
    assert gap_ranges(np.array([1.0, 1, 1, 1, 9])) == [(1, 1), (9, 9)]
    assert gap_ranges(np.array([np.nan])) == []
