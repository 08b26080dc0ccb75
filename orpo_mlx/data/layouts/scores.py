"""What a row says about its own order: scores, ratings, strengths of preference and verdicts.

A row whose scores are equal teaches noise, one whose rejected side has the higher score teaches the
opposite; both are dropped and counted unless they are kept on purpose.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from orpo_mlx.data.layouts.fields import number_of
from orpo_mlx.data.types import Drop

TIE = "tie in the scores"
INVERTED = "chosen scored below rejected"
NO_NUMBER = "score is not a number"
MARGIN = "margin"
SCORE_WORDS = ("score", "rating", "reward")
VERDICT_COLUMNS = ("label", "labels", "kto_tag", "liked", "desirable", "thumbs_up", "thumbs")
"""Columns that call one answer good or bad."""
_GOOD = {
    "true", "yes", "good", "desirable", "chosen", "positive", "like", "liked", "preferred", "up",
    "thumbs up", "thumbs_up", "\N{THUMBS UP SIGN}",
}  # fmt: skip
_BAD = {
    "false", "no", "bad", "undesirable", "rejected", "negative", "dislike", "disliked", "down",
    "thumbs down", "thumbs_down", "\N{THUMBS DOWN SIGN}",
}  # fmt: skip


def score_columns(columns: Collection[str]) -> list[tuple[str, str]]:
    """Return the pairs of columns that score chosen and rejected, such as score_chosen and
    score_rejected, or chosen-rating and rejected-rating."""
    found = []
    for name in sorted(columns):
        other = name.replace("chosen", "rejected")
        if other != name and other in columns and any(word in name for word in SCORE_WORDS):
            found.append((name, other))
    return found


def judge_scores(
    values: dict[str, Any], columns: list[tuple[str, str]], keeps: Collection[str] = ()
) -> Drop | str | None:
    """Return what a row's scores say against it.

    With several pairs of score columns the majority decides. A row without scores is not judged.

    Args:
        values: of the row.
        columns: from `score_columns`.
        keeps: of `TIE` and `INVERTED`, what is kept on purpose.

    Returns:
        The reason to drop it; or the reason to note for a row that is kept on purpose; or None.
    """
    balance, judged = 0, 0
    for name, other in columns:
        if values.get(name) is None or values.get(other) is None:
            continue
        chosen, rejected = number_of(values[name]), number_of(values[other])
        if chosen is None or rejected is None:
            return Drop(NO_NUMBER)
        judged += 1
        balance += (chosen > rejected) - (chosen < rejected)
    if values.get("status") == "tie":
        judged, balance = 1, 0
    if not judged or balance > 0:
        return None
    reason = TIE if balance == 0 else INVERTED
    return reason if reason in keeps else Drop(reason)


def margin_of(values: dict[str, Any], columns: list[tuple[str, str]]) -> float | None:
    """Return by how much a row says chosen is better; None if it does not, or not as a number.

    Args:
        values: of the row; its column `margin` comes first.
        columns: from `score_columns`; the mean of their differences.
    """
    if values.get(MARGIN) is not None:
        return number_of(values[MARGIN])
    apart = []
    for name, other in columns:
        chosen, rejected = number_of(values.get(name)), number_of(values.get(other))
        if chosen is not None and rejected is not None:
            apart.append(chosen - rejected)
    return sum(apart) / len(apart) if apart else None


def order_by_strength(value: Any) -> int | Drop:
    """Return 1 if the first response is preferred, 2 if the second.

    Args:
        value: a strength as NVIDIA's HelpSteer data have it, -3 to 3: below 0 the first response is
            better, above 0 the second, 0 is a tie.
    """
    strength = number_of(value)
    if strength is None:
        return Drop("preference is not a number")
    return Drop(TIE) if strength == 0 else 1 if strength < 0 else 2


def verdict_of(value: Any) -> float | None:
    """Return a score, or 1 for a word such as "true" or "desirable" and 0 for its opposite."""
    number = number_of(value)
    if number is not None or not isinstance(value, str):
        return number
    word = value.strip().lower()
    return 1.0 if word in _GOOD else 0.0 if word in _BAD else None


def order_by_label(value: Any) -> int | Drop:
    """Return 1 if the first response is preferred (label 1), 2 if the second (label 0)."""
    label = verdict_of(value)
    if label not in (0, 1):
        return Drop("label is neither 0 nor 1")
    return 1 if label == 1 else 2


def order_by_winner(values: dict[str, Any]) -> int | Drop:
    """Return 1 if model A won, 2 if model B did.

    Args:
        values: of a row with `winner` (model_a, model_b or some tie), or with winner_model_a,
            winner_model_b and winner_tie as 0 and 1.
    """
    if "winner_model_a" in values:
        flags = [number_of(values.get(f"winner_model_{side}")) for side in "ab"]
        if flags == [0, 0]:
            return Drop(TIE)
        winner = 1 if flags == [1, 0] else 2 if flags == [0, 1] else None
    else:
        text = str(values.get("winner")).lower()
        if text.startswith("tie") or "both" in text:
            return Drop(TIE)
        winner = {"model_a": 1, "a": 1, "model_b": 2, "b": 2}.get(text)
    return winner or Drop("no winner")
