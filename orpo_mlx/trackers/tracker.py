"""What a tracker is told of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is opened for.

    Attributes:
        run_id: of the run.
        name: what it is called there: the run's id, with a number if it is logged anew.
        folder: RUN/trackers, for files of the tracker.
        settings: of the run, as `Tracker.settings` is told them.
        rewound_to: the last step that stays of what was logged under this name; None: all does.
    """

    run_id: str
    name: str
    folder: Path
    settings: dict[str, Any]
    rewound_to: int | None = None


class Tracker(Protocol):
    """Writes a run for another program, by step."""

    can_rewind: ClassVar[bool]
    """Whether what was logged can be made void; else a resumed run is logged anew beside it."""

    def __init__(self, run: TrackedRun) -> None: ...

    def settings(self, settings: dict[str, Any]) -> None:
        """Take the run's settings and what else is known at its start."""
        ...

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Take numbers of a step.

        Args:
            step: from 0 on, never falling but after `rewind`.
            seconds: Unix time.
            values: by names such as "train/loss", all finite.
        """
        ...

    def sample(self, step: int, seconds: float, index: int, prompt: str, response: str) -> None:
        """Take the answer to a held-out prompt."""
        ...

    def rewind(self, step: int) -> None:
        """Make void what was logged of steps beyond this one."""
        ...

    def flush(self) -> None:
        """Hand on what was taken so far."""
        ...

    def close(self, failed: bool) -> None:
        """End the run, or this part of it."""
        ...
