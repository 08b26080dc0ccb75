"""How screens are reached, each loaded when it is first needed: the first paint waits for none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.screen import Screen

if TYPE_CHECKING:
    from tui.runner import Start


def live(run: Path) -> Screen[None]:
    """A run as it trains, or as it ended."""
    from tui.screens.live import LiveScreen

    return LiveScreen(run)


def starting(start: Start) -> Screen[None]:
    """A trainer that has no run yet."""
    from tui.screens.starting import StartingScreen

    return StartingScreen(start)


def settings() -> Screen[None]:
    """The settings of the app."""
    from tui.screens.settings import SettingsScreen

    return SettingsScreen()


def new_run() -> Screen[None]:
    """The four steps to a run."""
    from tui.screens.new_run import NewRunScreen

    return NewRunScreen()


def compare(runs: Sequence[Path]) -> Screen[None]:
    """Several runs beside each other."""
    from tui.screens.compare import CompareScreen

    return CompareScreen(runs)


def playground(run: Path) -> Screen[None]:
    """Base and adapter answering the same."""
    from tui.screens.playground import PlaygroundScreen

    return PlaygroundScreen(run)


def export(run: Path) -> Screen[None]:
    """An adapter leaving for other programs."""
    from tui.screens.export import ExportScreen

    return ExportScreen(run)


def doctor() -> Screen[None]:
    """This machine."""
    from tui.screens.doctor import DoctorScreen

    return DoctorScreen()
