"""The verdict: what is shown, what is not, and how many pairs it takes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from orpo_mlx.evaluation.interval import Interval, Resampling, mean_of
from orpo_mlx.evaluation.verdict import (
    AccuracyVerdict,
    judge,
    judge_rating,
    pairs_needed,
    sign_test,
)


def verdict(
    before: np.ndarray, after: np.ndarray, groups: np.ndarray | None = None
) -> AccuracyVerdict:
    groups = np.arange(len(before)) if groups is None else groups
    difference, error = Resampling(groups).difference(
        mean_of(before), mean_of(after), is_share=True
    )
    return judge(before, after, groups, difference, error)


def sides(
    count: int, both: int, better: int, worse: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Pairs right on both sides, only after, only before, and never."""
    before, after = np.zeros(count, bool), np.zeros(count, bool)
    before[:both] = after[:both] = True
    after[both : both + better] = True
    before[both + better : both + better + worse] = True
    return before, after


def test_a_sign_test_counts_coins():
    assert sign_test(6, 0) == pytest.approx(2 / 64)
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert sign_test(5, 5) == sign_test(0, 0) == 1.0
    assert sign_test(2, 9) == sign_test(9, 2)


def test_a_clear_gain_is_one_sentence_with_its_interval():
    found = verdict(*sides(200, both=136, better=30, worse=6))
    assert found.is_shown
    assert (found.better, found.worse) == (30, 6)
    assert found.text.startswith(
        "prefers the chosen answer in 71 % -> 83 % of 200 held-out pairs: +12 points, interval +6 "
    )


def test_a_loss_is_called_worse():
    found = verdict(*sides(200, both=100, better=4, worse=40))
    assert found.is_shown
    assert found.text.endswith(": worse than before")
    before, after = sides(200, both=100, better=4, worse=40)
    difference, error = Resampling(np.arange(200)).difference(mean_of(before), mean_of(after))
    named = judge(before, after, np.arange(200), difference, error, "pairs", than="run 7")
    assert named.text.endswith(": worse than run 7")
    assert "-18 points" in found.text


def test_what_chance_may_have_done_is_not_shown_and_it_is_said_what_would_be():
    found = verdict(*sides(40, both=20, better=4, worse=3))
    assert not found.is_shown
    assert found.text.startswith(
        "no difference could be shown (57 % -> 60 % of 40 held-out pairs: +3 points, interval "
    )
    # The standard error of a paired difference: sqrt(changed - difference^2) / sqrt(n).
    error = np.sqrt(7 / 40 - (1 / 40) ** 2) / np.sqrt(40)
    assert found.smallest_change == pytest.approx(2.80 * error, rel=0.05)
    assert found.text.endswith(
        f"with 40 pairs only changes above about {100 * found.smallest_change:.0f} points would be"
    )


def test_one_point_is_no_points():
    assert ": +1 point, interval " in verdict(*sides(200, both=100, better=4, worse=2)).text
    assert ": -1 point, interval " in verdict(*sides(200, both=100, better=2, worse=4)).text


def test_four_changes_of_forty_are_too_few_whatever_the_bootstrap_says():
    before, after = sides(40, both=20, better=4, worse=0)
    difference, _ = Resampling(np.arange(40)).difference(mean_of(before), mean_of(after))
    assert difference.low > 0
    found = verdict(before, after)
    assert not found.is_shown
    assert (
        "; only 4 pairs changed sides, all for the better: chance is as one-sided in 1 of 8 "
        "cases); with 40 pairs only changes above about " in found.text
    )
    assert (
        "; only 4 pairs changed sides, none for the better: chance" in verdict(after, before).text
    )
    assert verdict(*sides(40, both=20, better=6, worse=0)).is_shown


def test_the_reason_is_said_only_where_the_interval_alone_would_show_it():
    shown = verdict(*sides(200, both=100, better=30, worse=6)).text
    inside = verdict(*sides(40, both=20, better=4, worse=3)).text
    assert "chance" not in shown + inside
    before, after = sides(200, both=100, better=27, worse=14)
    many = judge(before, after, np.arange(200), Interval(0.065, 0.005, 0.125), 0.03).text
    assert "; 41 pairs changed sides, 27 for the better: chance is as one-sided in about 1 " in many


def test_changes_are_counted_in_prompts_where_pairs_share_them():
    before, after = sides(40, both=16, better=10, worse=0)
    found = verdict(before, after, np.arange(40) // 2 * 2)
    assert (
        "; only 5 prompts changed sides, all for the better: chance is as one-sided" in found.text
    )
    assert " in 1 of 16 cases)" in found.text


def test_a_reward_model_that_guessing_could_equal_says_how_often_it_would():
    right = np.array([True] * 10)
    share = Resampling(np.arange(10) // 2).interval(mean_of(right), is_share=True)
    found = judge_rating(right, np.arange(10) // 2, share, "pairs")
    assert share.low > 0.5
    assert not found.is_shown
    assert (
        "could be shown, for a guess is as far from half in 1 of 16 cases; the base" in found.text
    )


def test_nothing_changed_is_no_proof_that_nothing_would():
    found = verdict(*sides(40, both=20, better=0, worse=0))
    assert not found.is_shown
    assert found.sign_test_p == 1
    assert found.smallest_change == 6 / 40
    assert ": 0 points, interval -9 to +9)" in found.text


def test_many_pairs_of_one_prompt_are_one_change():
    before, after = sides(60, both=20, better=12, worse=0)
    assert verdict(before, after).is_shown
    assert not verdict(before, after, np.arange(60) // 12 * 12).is_shown


@pytest.mark.parametrize(("change", "changed"), [(0.05, 0.2), (0.1, 0.3), (0.2, 0.4)])
def test_the_pairs_needed_show_the_change_in_about_four_of_five(change: float, changed: float):
    random = np.random.Generator(np.random.PCG64(9))
    count = pairs_needed(change, changed)
    chances = [(changed + change) / 2, (changed - change) / 2, 1 - changed]
    drawn = random.multinomial(count, chances, size=1500)
    shown = np.mean([sign_test(int(up), int(down)) < 0.05 for up, down, _ in drawn])
    assert 0.74 < shown < 0.88


def test_at_least_six_pairs_must_change():
    assert pairs_needed(0.5, 0.5) == 12 or pairs_needed(0.5, 0.5) > 12
    assert pairs_needed(0.05, 0.05) >= 120


def test_the_table_of_the_page_is_computed():
    page = (Path(__file__).parents[3] / "docs" / "did-it-help.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) points \|(.*)\|$", page, re.M)
    assert len(rows) == 6
    for points, cells in rows:
        said = [cell.strip().replace(",", "") for cell in cells.split("|")]
        change = int(points) / 100
        wanted = [
            str(pairs_needed(change, changed)) if change <= changed else ""
            for changed in (0.1, 0.2, 0.3)
        ]
        assert said == wanted
