"""How long a run will still take; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from orpo_mlx.text.formatting import format_duration
from tui.run.state import RunState

RECENT_STEPS = 50


@dataclass(frozen=True)
class TimeLeft:
    """Seconds left, and by how much that may be wrong (from the quartiles of recent steps)."""

    seconds: float
    uncertainty: float

    def __str__(self) -> str:
        """Return "1 h 31 min (±6 min)"; a spread below 2 % is left out."""
        text = format_duration(self.seconds)
        if self.uncertainty < 0.02 * self.seconds or self.uncertainty < 1:
            return text
        return f"{text} (±{format_duration(self.uncertainty)})"


def time_left(state: RunState) -> TimeLeft | None:
    """Estimate the rest of a run from its last steps, evaluations and checkpoints.

    Steps at the median of the last 50, plus what is scheduled besides; None before the first step
    and after the end. Time paused counts nowhere, since step times exclude it.
    """
    seconds = state.steps.column("step_seconds")[-RECENT_STEPS:]
    left = state.total_steps - state.step
    if not len(seconds) or left <= 0 or state.ended is not None:
        return None
    low, median, high = np.percentile(seconds, (25, 50, 75))
    beside = _scheduled(state, "evaluate", _median(state.eval_seconds))
    beside += _scheduled(state, "save", _median([c.seconds for c in state.checkpoints]))
    return TimeLeft(float(left * median + beside), float(left * (high - low) / 2))


def _scheduled(state: RunState, what: str, seconds: float) -> float:
    """Seconds for the remaining occasions of something done every so many steps."""
    every = int(state.started.cadence.get(what, 0)) if state.started else 0
    if every <= 0 or math.isnan(seconds):
        return 0.0
    return (state.total_steps // every - state.step // every) * seconds


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan
