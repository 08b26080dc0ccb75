"""One sentence on whether preference accuracy has changed, and what it would have taken to see it.

A change is called shown if two rules agree: the bootstrap interval of the paired difference leaves
out 0, and a sign test over the groups whose accuracy has changed has p below 0.05. The second is
exact for few changes, where the bootstrap is too bold: four changed pairs of forty, all for the
better, would pass the first alone (p = 0.125).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from orpo_mlx.evaluation.interval import Interval
from orpo_mlx.text.formatting import counted

SMALLEST_P = 0.05
_SIX = 6
"""Changes of one direction that a sign test needs: 2 * 0.5^6 = 0.031, and of five 0.063."""
_FEW = 10
"""Changes that are called few."""
_REACH = 1.959963984540054 + 0.8416212335729143
"""Standard errors of a change that four of five evaluations would show."""


@dataclass(frozen=True)
class AccuracyVerdict:
    """What is said of a difference of shares.

    Attributes:
        text: the sentence.
        is_shown: whether there is a difference that chance does not explain.
        better: pairs that are right only with the adapter.
        worse: pairs that were right only before.
        sign_test_p: of the groups that changed, two-sided; 1 where none did.
        smallest_change: that four of five evaluations like this one would show, as a share.
    """

    text: str
    is_shown: bool
    better: int
    worse: int
    sign_test_p: float
    smallest_change: float


def judge(
    before: np.ndarray,
    after: np.ndarray,
    groups: np.ndarray,
    difference: Interval,
    error: float,
    noun: str = "held-out pairs",
    than: str = "before",
) -> AccuracyVerdict:
    """Compare two sides on the same pairs.

    Args:
        before, after: [N] whether each side prefers the chosen answer.
        groups: [N] which pairs have like prompts.
        difference: of the two shares, with its bootstrap interval.
        error: its standard error, from the same draws.
        noun: what the pairs are called.
        than: what `before` is called.
    """
    moved = after.astype(int) - before.astype(int)
    names, inverse = np.unique(groups, return_inverse=True)
    by_group = np.bincount(inverse, weights=moved)
    up, down = int((by_group > 0).sum()), int((by_group < 0).sum())
    p = sign_test(up, down)
    smallest = min(1.0, max(_REACH * error, _SIX / len(names)))
    leaves_out_0 = not difference.low <= 0 <= difference.high
    is_shown = p < SMALLEST_P and leaves_out_0
    shares = (float(before.mean()), float(after.mean()))
    why = ""
    if leaves_out_0 and not is_shown:
        why = _by_chance(up, down, p, "pair" if len(names) == len(moved) else "prompt")
    text = _sentence(shares, len(moved), difference, is_shown, smallest, noun, than, why)
    better, worse = int((moved > 0).sum()), int((moved < 0).sum())
    return AccuracyVerdict(text, is_shown, better, worse, p, smallest)


@dataclass(frozen=True)
class RatingVerdict:
    """What is said of a reward model's accuracy, beside guessing.

    Attributes:
        text: the sentence.
        is_shown: whether it is right more or less often than a guess would be.
        sign_test_p: of the groups rated rightly in more than half of their pairs, two-sided.
    """

    text: str
    is_shown: bool
    sign_test_p: float


def judge_rating(
    is_right: np.ndarray, groups: np.ndarray, share: Interval, noun: str
) -> RatingVerdict:
    """Compare a reward model with guessing, by the two rules of this module.

    Args:
        is_right: [N] whether the chosen answer is rated higher.
        groups: [N] which pairs have like prompts.
        share: of the pairs that are right, with its interval.
        noun: what the pairs are called.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    by_group = np.bincount(inverse, weights=2 * is_right.astype(int) - 1)
    p = sign_test(int((by_group > 0).sum()), int((by_group < 0).sum()))
    is_shown = p < SMALLEST_P and not share.low <= 0.5 <= share.high
    value, low, high = (percent(x, len(is_right)) for x in (share.value, share.low, share.high))
    if not is_shown:
        than = "no difference from guessing (50 %) could be shown"
        if not share.low <= 0.5 <= share.high:
            than += f", for a guess is as far from half {_how_often(p)}"
    else:
        than = f"{'better' if share.value > 0.5 else 'worse'} than guessing (50 %)"
    text = (
        f"rates the chosen answer higher in {value} of {len(is_right):,} {noun}, interval {low} to "
        f"{high}: {than}; the base has no head to be compared with"
    )
    return RatingVerdict(text, is_shown, p)


def _sentence(
    shares: tuple[float, float],
    count: int,
    difference: Interval,
    is_shown: bool,
    smallest: float,
    noun: str,
    than: str,
    why: str,
) -> str:
    was, now = (percent(share, count) for share in shares)
    change = f"{was} -> {now} of {count:,} {noun}"
    points = (
        f"{_with_unit(_points(difference.value))}, interval {_points(difference.low)} to "
        f"{_points(difference.high)}"
    )
    if is_shown:
        worse = f": worse than {than}" if difference.value < 0 else ""
        return f"prefers the chosen answer in {change}: {points}{worse}"
    return (
        f"no difference could be shown ({change}: {points}{why}); with {count:,} pairs only "
        f"changes above about {_with_unit(f'{100 * smallest:.0f}')} would be"
    )


def _by_chance(up: int, down: int, p: float, noun: str) -> str:
    """Say why a difference whose interval leaves out 0 is not shown: the sign test decides."""
    few, count = "only " * (up + down < _FEW), counted(up + down, noun)
    better = {0: "none", up + down: "all"}.get(up, str(up))
    return (
        f"; {few}{count} changed sides, {better} for the better: chance is as one-sided "
        f"{_how_often(p)}"
    )


def _how_often(p: float) -> str:
    if p > 0.5:
        return "more often than not"
    times = 1 / p
    about = "about " * (abs(times - round(times)) > 0.01)
    return f"in {about}1 of {round(times)} cases"


def percent(share: float, count: int) -> str:
    """Return a share of `count` pairs in per cent, with as many digits as they can tell."""
    return f"{100 * share:.{1 if count >= 1000 else 0}f} %"


def _points(share: float) -> str:
    size = abs(100 * share)
    return "0" if size < 0.05 else f"{100 * share:+.{0 if size >= 1 else 1}f}"


def _with_unit(points: str) -> str:
    return f"{points} {'point' if points.lstrip('+-') == '1' else 'points'}"


def sign_test(up: int, down: int) -> float:
    """Return the two-sided p of a fair coin that gave `up` heads and `down` tails.

    Example:
        Six of six: 2 / 64 = 0.031.

    Source:
        McNemar's test in its exact form.
    """
    count, least = up + down, min(up, down)
    tail = sum(math.comb(count, k) for k in range(least + 1))
    return min(1.0, 2 * tail / 2**count)


def pairs_needed(change: float, changed: float) -> int:
    """Return how many independent pairs show a change in four of five evaluations.

    Args:
        change: true difference of the two shares, as a share: 0.1 is ten points.
        changed: share of pairs on which the two sides differ, at least `change`.

    Source:
        Connor 1987, Sample size for testing differences in proportions for the paired-sample
        design; and at least as many as bring six changes.
    """
    spread = math.sqrt(max(0.0, changed - change * change))
    root = 1.959963984540054 * math.sqrt(changed) + 0.8416212335729143 * spread
    return max(math.ceil((root / change) ** 2), math.ceil(_SIX / changed))
