"""A model judges: both orders are asked, and each reply is kept before the next question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from orpo_mlx.errors import ModelError
from orpo_mlx.judging.contest import Contest, Duel
from orpo_mlx.judging.instruction import question
from orpo_mlx.judging.ledger import Ask, Says
from orpo_mlx.text.formatting import visible
from orpo_mlx.text.progress import OnProgress

_HOPELESS = 6
"""Replies without one verdict after which it is not asked on."""
_KEPT = 200


class ModelJudge(Protocol):
    """Who can be asked.

    Attributes:
        name: in the journal; another model, or another way to ask it, has another.
        label: what messages call it.
    """

    name: str
    label: str

    def require_ready(self) -> None:
        """Find what is wrong before anything long is done for its verdicts.

        Raises:
            OrpoError: it cannot be asked.
        """
        ...

    def verdicts(self, asked: Sequence[str]) -> Iterator[tuple[Says, str]]:
        """Yield the verdict on each question and the reply it was read from, as they come.

        Raises:
            OrpoError: it cannot be asked.
        """
        ...


def judge_all(contest: Contest, judge: ModelJudge, on_progress: OnProgress | None = None) -> None:
    """Ask for all verdicts that are not kept yet.

    Raises:
        OrpoError: it cannot be asked, or gives no verdict; what was judged is kept.
    """
    missing = [
        (duel, ask)
        for duel in contest.duels
        if not duel.is_same
        for ask in duel.ask_model(judge.name)
        if ask not in contest.ledger.verdicts
    ]
    verdicts, last = 0, ""
    if missing and on_progress is not None:
        on_progress(0, len(missing), "judging", "rows")
    found = judge.verdicts([_question(duel, ask) for duel, ask in missing])
    for number, ((_, ask), (says, reply)) in enumerate(zip(missing, found, strict=True), start=1):
        last = visible(reply)[:_KEPT]
        verdicts += says != "none"
        contest.ledger.keep_verdict(ask, says, "" if says != "none" else last)
        if not verdicts and number >= _HOPELESS:
            break
        if on_progress is not None:
            on_progress(number, len(missing), "judging", "rows")
    if missing and not verdicts:
        raise ModelError(
            f"{judge.label}: none of its last replies is a verdict (A, B or C); it said {last!r}.",
            "Give a more able judge; one that thinks before it answers needs more --judge-tokens.",
        )


def _question(duel: Duel, ask: Ask) -> str:
    return question(duel.prompt, *duel.shown(ask.after_first))
