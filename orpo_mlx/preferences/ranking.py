"""Several scored answers to one prompt become pairs by a rule the user names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any, Literal, get_args

from orpo_mlx.data.layouts.conversation import unusable
from orpo_mlx.data.layouts.scores import TIE
from orpo_mlx.data.layouts.turns import answer
from orpo_mlx.data.types import Drop, PreferencePair
from orpo_mlx.preferences.questions import PromptAnswers

Rule = Literal["best-worst", "best-rest", "all", "adjacent"]
RULES: tuple[Rule, ...] = get_args(Rule)
TOO_FEW_ANSWERS = "fewer than two answers with a score"
RULE_WORDS = {
    "best-worst": "the best answer against the worst",
    "best-rest": "the best answer against each other one",
    "all": "every answer against every worse one",
    "adjacent": "every answer against the next worse one",
}


def pairs_by_rule(
    scores: Sequence[float], rule: Rule, min_gap: float = 0
) -> list[tuple[int, int]] | Drop:
    """Return (chosen, rejected) positions of the pairs a rule makes.

    Answers with the same score are in the order they came in. A pair needs a higher score on its
    chosen side, by at least `min_gap`.

    Args:
        scores: of the answers; higher is better.
        rule: which answers meet; see `RULE_WORDS`.
        min_gap: smallest difference of scores.
    """
    if len(scores) < 2:
        return Drop(TOO_FEW_ANSWERS)
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    meetings = {
        "best-worst": [(order[0], order[-1])],
        "best-rest": [(order[0], other) for other in order[1:]],
        "all": list(combinations(order, 2)),
        "adjacent": list(pairwise(order)),
    }[rule]
    apart = [(a, b) for a, b in meetings if scores[a] > scores[b]]
    if not apart:
        return Drop(TIE)
    wide = [(a, b) for a, b in apart if scores[a] - scores[b] >= min_gap]
    return wide or Drop("scores closer than --min-gap")


def make_pair(
    question: PromptAnswers, chosen: str, rejected: str, notes: tuple[str, ...] = ()
) -> PreferencePair | Drop:
    """Return a pair in the form of its prompt, text or turns, or why there is none."""
    if dropped := unusable(chosen, rejected):
        return dropped
    if isinstance(question.prompt, str):
        sides: tuple[Any, Any] = (chosen, rejected)
    else:
        sides = (answer(chosen), answer(rejected))
    return PreferencePair(question.prompt, *sides, question.source, notes, question.tools)
