"""How the processes of a run share its steps, gathered from events."""

from __future__ import annotations

from orpo_mlx.runs.events import StepCompleted
from orpo_mlx.text.formatting import format_moment


class PeerLoad:
    """What each process computed since a run was started, or taken up.

    Args:
        step: after which one.

    Attributes:
        tokens: of each process; empty for a run of one.
    """

    def __init__(self, step: int = 0) -> None:
        self.tokens: list[int] = []
        self._step, self._steps = step, 0
        self._waited = self._exchanged = self._seconds = 0.0

    def add(self, event: StepCompleted) -> None:
        """Take in the steps since the last such event."""
        if not event.peer_tokens:
            return
        before = self.tokens or [0] * len(event.peer_tokens)
        self.tokens = [a + b for a, b in zip(before, event.peer_tokens, strict=False)]
        steps, self._step = max(1, event.step - self._step), event.step
        self._steps += steps
        self._waited += steps * event.wait_seconds
        self._exchanged += steps * event.exchange_seconds
        self._seconds += steps * event.step_seconds

    @property
    def shares(self) -> list[float]:
        """The part of all tokens that each process computed; they sum to 1."""
        total = sum(self.tokens)
        return [tokens / total for tokens in self.tokens] if total else []

    @property
    def imbalance(self) -> float:
        """How much more than an equal part the busiest process computed; 0 is even."""
        return max(self.shares) * len(self.tokens) - 1 if self.shares else 0.0

    @property
    def wait_seconds(self) -> float:
        """Mean of a step: how long the first process to be ready waited for the last."""
        return self._waited / self._steps if self._steps else 0.0

    @property
    def exchange_seconds(self) -> float:
        """Mean of a step: how long gradients travelled."""
        return self._exchanged / self._steps if self._steps else 0.0

    @property
    def step_seconds(self) -> float:
        """Mean of a step."""
        return self._seconds / self._steps if self._steps else 0.0


def of_a_step(seconds: float, step_seconds: float) -> str:
    """Return a time within a step, and which part of it that is: "12 ms (3 %)"."""
    part = f" ({seconds / step_seconds:.0%})".replace("%", " %") if step_seconds else ""
    return format_moment(seconds) + part


_NAMED = 8
"""Processes up to which each one's part is said."""


def shares_text(load: PeerLoad) -> str:
    """Return the tokens of each process as parts of all: "52 % and 48 %"."""
    each = [f"{share * 100:.0f} %" for share in load.shares]
    if len(each) > _NAMED:
        least, most = (f"{share * 100:.1f} %" for share in (min(load.shares), max(load.shares)))
        return f"{least} to {most} each"
    return " and ".join(filter(None, [", ".join(each[:-1]), *each[-1:]]))
