"""Who is told how an export goes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from orpo_mlx.export.checks import ExportCheck
from orpo_mlx.export.written import Exported


class ExportListener(Protocol):
    """Told how an export goes; the only way an export speaks."""

    def started(self, format: str, out: Path) -> None:
        """Learn what is written to where, before any work."""
        ...

    def step(self, done: int, total: int, what: str) -> None:
        """Learn how far a piece of work is; `what` names it and stays the same while it lasts."""
        ...

    def verified(self, checks: list[ExportCheck]) -> None:
        """Learn what was checked in the files as they were written."""
        ...

    def finished(self, format: str, done: Exported, seconds: float) -> None:
        """Learn where the result is, how large, and how to use it."""
        ...
