"""A request to a trainer between the key and its answer; pure."""

from __future__ import annotations

from dataclasses import dataclass

from orpo_mlx.runs.control import RequestName
from tui.run.state import RunState

PATIENCE_SECONDS = 60.0
"""A stop without an answer for that long is offered a kill."""

_DOING: dict[RequestName, str] = {
    "pause": "pausing ...",
    "resume": "going on ...",
    "checkpoint": "saving ...",
    "sample": "sampling ...",
    "stop": "stopping ...",
    "abort": "stopping now ...",
}


@dataclass(frozen=True)
class Asking:
    """What was asked, when, and how far the run was: an answer is a change of that."""

    request: RequestName
    at: float
    seen: tuple[int, int, bool]
    frees: bool = False
    """A stop that is meant as a pause without the memory."""

    @classmethod
    def begin(
        cls, request: RequestName, state: RunState, now: float, *, frees: bool = False
    ) -> Asking:
        """Note a request that has just been sent."""
        return cls(request, now, _seen(state), frees)

    @property
    def is_stop(self) -> bool:
        """Whether only the end of the run answers it."""
        return self.request in ("stop", "abort")

    def is_answered(self, state: RunState) -> bool:
        """Tell whether the event that answers it has come."""
        if self.is_stop:
            return state.ended is not None
        return _seen(state) != self.seen

    def is_overdue(self, now: float) -> bool:
        """Tell whether a stop has waited for too long."""
        return self.is_stop and now - self.at > PATIENCE_SECONDS

    def text(self, now: float, kill_key: str) -> str:
        """Return what is shown in place of the status."""
        if self.is_overdue(now):
            return f"no answer to the stop; {kill_key} ends the process"
        return "saving, then freeing memory ..." if self.frees else _DOING[self.request]


def _seen(state: RunState) -> tuple[int, int, bool]:
    return len(state.checkpoints), len(state.samples), state.paused
