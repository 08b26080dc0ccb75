"""A contest made by hand, without any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orpo_mlx.data.types import Account
from orpo_mlx.judging.contest import Contest, ContestPlan, Duel
from orpo_mlx.judging.ledger import GivenAnswer, Ledger


@pytest.fixture
def make_contest(tmp_path: Path) -> Iterator[Callable[..., Contest]]:
    """Return `make(count=4, same=()) -> Contest`: "plain N" and "tuned N", of 3 and 5 tokens.

    A person sees the later answer first at odd places; at those in `same` both are equal.
    """
    with ExitStack() as open_ledgers:

        def make(count: int = 4, same: tuple[int, ...] = ()) -> Contest:
            plan = ContestPlan(count, 8, 0, tmp_path / "judge")
            ledger = open_ledgers.enter_context(Ledger(plan.folder, {"work": "judge"}))
            duels = [
                Duel(
                    i,
                    f"Why {i}?",
                    GivenAnswer(f"plain {i}", 3, False),
                    GivenAnswer(f"{'plain' if i in same else 'tuned'} {i}", 5, True),
                    bool(i % 2),
                )
                for i in range(count)
            ]
            names = {"base": "tiny", "adapter": "run-a"}
            return Contest(
                plan, "base", "adapter", names, duels, 2 * count, True, ledger, (), Account(), 1024
            )

        yield make
