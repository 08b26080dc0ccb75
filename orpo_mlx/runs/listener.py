"""Who is told of a run's events while it trains: the terminal, a tracker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from orpo_mlx.runs.events import Event
from orpo_mlx.text.progress import Unit


class RunListener(Protocol):
    """Shows the events of a run as they come."""

    def handle(self, event: Event, line: str = "") -> None:
        """Show one event.

        Args:
            event: what happened.
            line: the event as it stands in the event file, if known.
        """
        ...

    def catch_up(self, events: Iterable[Event]) -> None:
        """Take in what happened before, without showing it (a resumed run)."""
        ...

    def progress(self, done: int, total: int, label: str, unit: Unit) -> None:
        """Show what is prepared, and how far a download or the tokenizing is."""
        ...

    def close(self) -> None:
        """Leave the terminal in order, however the run ended."""
        ...
