"""The app as its parts see it: what screens, and what tells of runs, use of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.worker import Worker

from orpo_mlx.errors import OrpoError
from tui.shell.charset import CharsetName
from tui.shell.settings import Settings


class Starting(Protocol):
    """A trainer that this app has started."""

    def cancel(self) -> None:
        """Ask it to end; it saves nothing before the first step."""
        ...


class Host(Protocol):
    """The app. Screens are opened by messages to it, see `tui.shell.messages`."""

    @property
    def runs_dir(self) -> Path | None:
        """Folder of all runs; None: the default one."""
        ...

    @property
    def clock(self) -> Callable[[], float]:
        """Unix seconds."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        ...

    @property
    def keymap(self) -> Mapping[str, str]:
        """The user's own keys by command."""
        ...

    @property
    def charset(self) -> CharsetName:
        """The characters charts are drawn with."""
        ...

    @property
    def redraw_seconds(self) -> float:
        """Time between two drawings of growing data."""
        ...

    @property
    def screen(self) -> Screen[Any]:
        """The screen on top."""
        ...

    @property
    def screen_stack(self) -> Sequence[Screen[Any]]:
        """All open screens, the one on top last."""
        ...

    @property
    def starts(self) -> Mapping[Path, Starting]:
        """Trainers started by this app, by run."""
        ...

    def change_settings(self, settings: Settings) -> None:
        """Use and keep other settings."""
        ...

    def copy(self, text: str) -> None:
        """Copy a text."""
        ...

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a toast."""
        ...

    def show_error(self, error: OrpoError) -> None:
        """Show an error with what to do about it."""
        ...

    def ring(self, text: str) -> None:
        """Ring the bell, and leave a note on the desktop."""
        ...

    def exit_code(self, run: Path) -> int | None:
        """Return how a run's trainer ended, None if it lives or another app started it."""
        ...

    async def push_screen_wait(self, screen: Screen[str]) -> str:
        """Ask a question and return the answer; from a worker only."""
        ...

    def run_worker(
        self, work: Callable[[], Coroutine[Any, Any, None]], *, group: str, exclusive: bool
    ) -> Worker[None]:
        """Do something beside the screens, which goes on when they are left."""
        ...
