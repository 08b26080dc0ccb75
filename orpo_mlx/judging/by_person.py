"""A person judges: one pair of answers after the other, in an order that tells nothing."""

from __future__ import annotations

from orpo_mlx.judging.contest import Contest, Duel
from orpo_mlx.judging.ledger import PERSON, Says
from orpo_mlx.judging.tally import Standing, outcome, tally_of


class Sitting:
    """What waits for a verdict, and how it stands; equal answers and judged ones are passed over.

    Args:
        contest: what is judged.
    """

    def __init__(self, contest: Contest) -> None:
        self.contest = contest
        self._judged: list[Duel] = []
        self._again: Duel | None = None

    @property
    def current(self) -> Duel | None:
        """The duel that waits, None if nothing is left."""
        if self._again is not None:
            return self._again
        verdicts = self.contest.ledger.verdicts
        waiting = (d for d in self.contest.duels if outcome(d, verdicts, PERSON) == "left")
        return next(waiting, None)

    @property
    def tally(self) -> Standing:
        """How it stands."""
        return tally_of(self.contest, PERSON)

    @property
    def total(self) -> int:
        """Duels that a person is asked about."""
        return sum(not duel.is_same for duel in self.contest.duels)

    @property
    def number(self) -> int:
        """Which of them waits, from 1; all of them if none does."""
        return self.total - self.tally.left + (self.current is not None and self._again is None)

    def take(self, duel: Duel, says: Says) -> None:
        """Keep a verdict.

        Raises:
            DataError: it cannot be written.
        """
        self.contest.ledger.keep_verdict(duel.ask_person(PERSON), says)
        self._judged.append(duel)
        self._again = None

    def go_back(self) -> None:
        """Ask once more what was judged last since it was opened; the newest verdict counts."""
        if self._judged:
            self._again = self._judged.pop()
