"""What scores, strengths, labels and winners say about the order of two answers."""

from __future__ import annotations

from typing import Any

import pytest

from orpo_mlx.data.layouts.scores import (
    INVERTED,
    TIE,
    judge_scores,
    margin_of,
    order_by_label,
    order_by_strength,
    order_by_winner,
    score_columns,
)
from orpo_mlx.data.types import Drop


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("score_chosen", "score_rejected"),
        ("chosen_score", "rejected_score"),
        ("chosen-rating", "rejected-rating"),
        ("rating_chosen", "rating_rejected"),
        ("chosen_avg_rating", "rejected_avg_rating"),
        ("reward_chosen", "reward_rejected"),
    ],
)
def test_score_columns_are_found_by_their_names(chosen: str, rejected: str) -> None:
    columns = {"prompt", "chosen", "rejected", "chosen_model", "rejected_model", chosen, rejected}
    assert score_columns(columns) == [(chosen, rejected)]
    assert score_columns(columns - {rejected}) == []


def said(chosen: Any, rejected: Any, *keeps: str) -> Drop | str | None:
    values = {"score_chosen": chosen, "score_rejected": rejected}
    return judge_scores(values, score_columns(values), keeps)


@pytest.mark.parametrize(
    ("chosen", "rejected", "verdict"),
    [
        (5, 4.5, None),
        ("5", "4.5", None),
        (4, 4.0, Drop(TIE)),
        (3, 4, Drop(INVERTED)),
        (None, 4, None),
        ("n/a", 4, Drop("score is not a number")),
        (float("nan"), 4, Drop("score is not a number")),
        (float("inf"), 4, Drop("score is not a number")),
        ([5], 4, Drop("score is not a number")),
    ],
)
def test_a_row_is_judged_by_its_scores(chosen: Any, rejected: Any, verdict: Drop | None) -> None:
    assert said(chosen, rejected) == verdict


def test_what_is_kept_on_purpose_is_said() -> None:
    assert said(4, 4, TIE) == TIE
    assert said(3, 4, TIE) == Drop(INVERTED)
    assert said(3, 4, INVERTED) == INVERTED


def test_of_several_scores_the_majority_decides() -> None:
    names = ("a", "b", "c")
    row = {f"{n}_score_chosen": s for n, s in zip(names, (2, 2, 1), strict=True)}
    row |= {f"{n}_score_rejected": s for n, s in zip(names, (1, 1, 9), strict=True)}
    assert judge_scores(row, score_columns(row)) is None
    row["b_score_chosen"] = 1
    assert judge_scores(row, score_columns(row)) == Drop(TIE)
    row["a_score_chosen"] = 1
    assert judge_scores(row, score_columns(row)) == Drop(INVERTED)


def test_a_status_of_tie_is_a_tie() -> None:
    assert judge_scores({"status": "tie"}, []) == Drop(TIE)
    assert judge_scores({"status": "unchanged"}, []) is None


@pytest.mark.parametrize(
    ("strength", "order"),
    [(-3, 1), (-1, 1), (2, 2), ("3", 2), (0, Drop(TIE)), ("", Drop("preference is not a number"))],
)
def test_a_strength_below_zero_prefers_the_first(strength: Any, order: int | Drop) -> None:
    assert order_by_strength(strength) == order


@pytest.mark.parametrize(
    ("label", "order"),
    [(1, 1), (0, 2), ("1", 1), ("true", 1), ("False", 2), (2, Drop("label is neither 0 nor 1"))],
)
def test_a_label_of_one_prefers_the_first(label: Any, order: int | Drop) -> None:
    assert order_by_label(label) == order


@pytest.mark.parametrize(
    ("values", "order"),
    [
        ({"winner": "model_a"}, 1),
        ({"winner": "model_b"}, 2),
        ({"winner": "tie"}, Drop(TIE)),
        ({"winner": "tie (bothbad)"}, Drop(TIE)),
        ({"winner": "nobody knows"}, Drop("no winner")),
        ({"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}, 1),
        ({"winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"}, 2),
        ({"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}, Drop(TIE)),
        ({"winner_model_a": 1, "winner_model_b": 1}, Drop("no winner")),
    ],
)
def test_the_winner_of_an_arena_is_chosen(values: dict[str, Any], order: int | Drop) -> None:
    assert order_by_winner(values) == order


@pytest.mark.parametrize(
    ("values", "margin"),
    [
        ({"margin": 1.5, "score_chosen": 9, "score_rejected": 2}, 1.5),
        ({"margin": "0.25"}, 0.25),
        ({"margin": None, "score_chosen": 9, "score_rejected": 2}, 7.0),
        ({"score_chosen": 9, "score_rejected": 2, "rating_chosen": 4, "rating_rejected": 3}, 4.0),
        ({"score_chosen": 9, "score_rejected": None}, None),
        ({"margin": "much", "score_chosen": 9, "score_rejected": 2}, None),
        ({"margin": float("nan")}, None),
        ({}, None),
    ],
)
def test_a_margin_is_the_column_or_the_mean_difference_of_scores(values, margin) -> None:
    assert margin_of(values, score_columns(values)) == margin
