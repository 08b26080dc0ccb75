"""Between the start of a trainer and its run: what it says, and how it went if there was none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from textual import work
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from orpo_mlx.text.formatting import visible
from tui.parts.base_screen import AppScreen, pane
from tui.processes.launcher import Start
from tui.shell.commands import SCREEN

_LINES = 40


class StartingScreen(AppScreen):
    """A trainer that prepares: it may be downloading a model.

    Args:
        start: the trainer.
        live: makes the screen that takes the place of this one once there is a run.
    """

    AREA = "screen"
    HELP = (
        "The trainer checks model and data before it makes a run. Esc ends it; nothing is left "
        "behind. If it refuses, what it says stands here."
    )
    TITLE = "orpo-mlx · Starting"
    # Here it ends something, so it stands in the footer.
    BINDINGS = [replace(SCREEN[0], footer="End it, back").binding()]  # noqa: RUF012

    def __init__(self, start: Start, live: Callable[[Path], Screen[None]]) -> None:
        super().__init__()
        self.start = start
        self._live = live
        self.failed = False
        self._has_run = False

    def compose_body(self) -> Iterable[Widget]:
        with pane(VerticalScroll(id="output"), "What it does"):
            yield Static("", id="log", markup=False)
        yield pane(Static(self.start.command, id="command", markup=False), "Command")

    def on_mount(self) -> None:
        self.query_one("#output").focus()
        self.set_interval(0.25, self._show_log)
        self._wait()

    @work(exclusive=True)
    async def _wait(self) -> None:
        if await self.start.wait():
            self._has_run = True
            self._give_way()
            return
        self.failed = True
        if not self.is_open:
            return
        self.query_one("#title").left = "orpo-mlx · Not started"  # type: ignore[attr-defined]
        self._show_log()
        self.start.has_been_seen()
        self.on_resize()

    def on_screen_resume(self) -> None:
        """Give way now, if a question lay over this screen when the run came."""
        self._give_way()

    def _give_way(self) -> None:
        # Only the screen on top can be switched; a question there must not be taken away.
        if self._has_run and self.is_active:
            self._has_run = False
            self.app.switch_screen(self._live(self.start.run.path))

    def _show_log(self) -> None:
        text = visible(self.start.read_log())
        lines = [line for line in text.split("\n") if line.strip()][-_LINES:]
        if self.failed:
            lines += ["", "Nothing was started. Esc goes back."]
        elif not lines:
            lines = ["Loading ..."]
        self.query_one("#log", Static).update("\n".join(lines))

    def action_back(self) -> None:
        """End the trainer, if it still lives, and go back."""
        if not self.failed:
            self.start.cancel()
        super().action_back()

    def sentence(self) -> str:
        if self.failed:
            return f"The training did not start. {visible(self.start.read_log(600)).strip()}"
        return "A training is being prepared."
