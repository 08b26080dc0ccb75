"""What the verdicts so far say: wins, ties and losses, and the win rate with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orpo_mlx.data.accounting import account_json
from orpo_mlx.evaluation.interval import LEVEL, Interval, wilson
from orpo_mlx.evaluation.verdict import percent
from orpo_mlx.judging.ledger import PERSON, Ask, Says
from orpo_mlx.text.formatting import counted

if TYPE_CHECKING:
    from orpo_mlx.judging.contest import Contest, Duel

Outcome = Literal["win", "tie", "loss", "skipped", "dropped", "left"]
"""For the later side; "left": not judged yet."""
METHOD = {
    "win_rate": "wins plus half the ties, over wins, ties and losses; Wilson's interval, of each "
    "group of like prompts one; with many ties it is wider than it need be",
    "level": LEVEL,
    "order": "a person sees each prompt in one order, drawn by seed; a model is asked in both, and "
    "orders that disagree are a tie",
    "ties": "equal answers are ties that nobody is asked about",
    "answers": "greedy",
    "lengths": "mean tokens of an answer, end of turn not counted",
}
"""How it is computed, in words, as part of the result."""


@dataclass(frozen=True)
class Standing:
    """Counts of outcomes.

    Attributes:
        wins, ties, losses: of the later side.
        identical: of the ties, those of equal answers.
        skipped: by the person.
        dropped: what a model replied was no verdict.
        left: not judged yet.
        longer_won: of wins and losses, those whose winner is the longer answer in tokens.
    """

    wins: int
    ties: int
    losses: int
    identical: int
    skipped: int
    dropped: int
    left: int
    longer_won: int

    @property
    def judged(self) -> int:
        """Duels with an outcome."""
        return self.wins + self.ties + self.losses

    @property
    def win_rate(self) -> Interval | None:
        """Share of wins and half the ties, None while there is no verdict."""
        if not self.judged:
            return None
        return wilson((self.wins + self.ties / 2) / self.judged, self.judged)


def outcome(duel: Duel, verdicts: Mapping[Ask, Says], judge: str) -> Outcome:
    """Return what came of a duel under one judge.

    Args:
        duel: two answers.
        verdicts: all there are.
        judge: `PERSON`, who is asked once, or a model, which is asked in both orders.
    """
    if duel.is_same:
        return "tie"
    asks = (duel.ask_person(judge),) if judge == PERSON else duel.ask_model(judge)
    found: list[Outcome] = [_for_after(ask, verdicts[ask]) for ask in asks if ask in verdicts]
    if "dropped" in found:
        return "dropped"
    if len(found) < len(asks):
        return "left"
    return found[0] if len(set(found)) == 1 else "tie"


def _for_after(ask: Ask, says: Says) -> Outcome:
    if says == "none":
        return "dropped"
    if says == "skip":
        return "skipped"
    if says == "tie":
        return "tie"
    return "win" if (says == "first") == ask.after_first else "loss"


def tally_of(contest: Contest, judge: str) -> Standing:
    """Count what one judge has said so far."""
    found = [(duel, outcome(duel, contest.ledger.verdicts, judge)) for duel in contest.duels]
    count = Counter(one for _, one in found)
    longer = sum(
        one in ("win", "loss") and (duel.after.tokens - duel.before.tokens) * (
            1 if one == "win" else -1
        ) > 0
        for duel, one in found
    )  # fmt: skip
    return Standing(
        count["win"], count["tie"], count["loss"], sum(duel.is_same for duel in contest.duels),
        count["skipped"], count["dropped"], count["left"], longer,
    )  # fmt: skip


# In words


def tally_text(tally: Standing) -> str:
    """Return one line: the win rate so far and what is left."""
    parts = [f"{counted(tally.left, 'prompt')} left"] if tally.left else []
    if (rate := tally.win_rate) is not None:
        parts.append(
            f"{_percent(rate, tally)} won, interval {100 * rate.low:.0f} to {100 * rate.high:.0f}"
        )
    return " · ".join(parts)


def _percent(rate: Interval, tally: Standing) -> str:
    return percent(rate.value, tally.judged)


def verdict_of(contest: Contest, tally: Standing) -> str:
    """Return what a tally shows, as a sentence."""
    after = contest.names[contest.after]
    before = "the base model" if contest.before == "base" else contest.names[contest.before]
    rate = tally.win_rate
    if rate is None:
        return "nothing is judged yet"
    said = (
        f"answers of {after} won {_percent(rate, tally)} of "
        f"{counted(tally.judged, 'comparison')} with {before}, ties counted half: interval "
        f"{100 * rate.low:.0f} to {100 * rate.high:.0f} %"
    )
    if rate.low > 0.5:
        return f"better: {said}"
    return f"worse: {said}" if rate.high < 0.5 else f"no difference could be shown: {said}"


def as_json(contest: Contest, judge: str, label: str) -> dict[str, Any]:
    """Return the whole result as plain values, in the order it is printed.

    Args:
        contest: what was judged.
        judge: whose verdicts count.
        label: what the judge is called.
    """
    tally = tally_of(contest, judge)
    sides = {contest.before: [d.before for d in contest.duels],
             contest.after: [d.after for d in contest.duels]}  # fmt: skip
    return {
        "sides": contest.names,
        "compared": [contest.before, contest.after],
        "judge": label,
        **tally_json(tally),
        "lengths": {
            side: {
                "tokens": sum(one.tokens for one in answers) / len(answers),
                "cut": sum(one.is_cut for one in answers),
            }
            for side, answers in sides.items()
        },
        "verdict": verdict_of(contest, tally),
        "prompts": {
            "compared": len(contest.duels),
            "available": contest.available,
            "held_out": contest.is_held_out,
            "rows": account_json(contest.account),
            "max_seq_length": contest.max_seq_length,
        },
        "max_tokens": contest.plan.max_tokens,
        "seed": contest.plan.seed,
        "method": METHOD,
        "journal": str(contest.ledger.path),
        "notes": list(contest.notes),
    }


def tally_json(tally: Standing) -> dict[str, Any]:
    """Return win rate and counts as plain values."""
    rate = tally.win_rate
    return {
        "win_rate": rate.as_dict() if rate else None,
        "counts": {
            "judged": tally.judged, "wins": tally.wins, "ties": tally.ties,
            "losses": tally.losses, "identical": tally.identical, "skipped": tally.skipped,
            "dropped": tally.dropped, "left": tally.left, "longer_won": tally.longer_won,
        },
    }  # fmt: skip
