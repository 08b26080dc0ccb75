"""A server: its address, its models, a line to ask it, and what it was asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from orpo_mlx.text.formatting import visible
from tui.parts.base_screen import AppScreen, pane
from tui.parts.line_view import LineView
from tui.parts.title_bar import TitleBar
from tui.serve.session import ServeSession
from tui.shell.commands import bindings, key_of


class ServeScreen(AppScreen):
    """The server of this session; opened while none runs, it starts one.

    Args:
        runs: folders of the runs to serve.
        server: of the app.
    """

    AREA = "serve"
    HELP = (
        "Base and adapters answer other programs on this machine, as OpenAI's API: give them the "
        "address and one of the names. The server goes on when you leave this screen and ends "
        "with the app; `orpo-mlx serve` serves without it."
    )
    TITLE = "orpo-mlx · Serve"
    CSS_PATH = "screen.tcss"
    BINDINGS = bindings("serve", "screen")

    def __init__(self, runs: Sequence[Path], server: ServeSession) -> None:
        super().__init__()
        self.runs = tuple(runs)
        self.server = server

    def compose_body(self) -> Iterable[Widget]:
        with pane(VerticalScroll(id="facts-box"), "Where it is asked"):
            yield Static("", id="facts", markup=False)
        yield pane(LineView(id="requests"), "What it was asked")
        yield Static("", id="status", markup=False)

    def on_mount(self) -> None:
        self.query_one("#requests").focus()
        if not self.server.state.is_on:
            self.server.start(self.runs)
        self._fill()

    def show_server(self) -> None:
        """Show what the server has said since."""
        if self.is_open:
            self._fill()

    def _fill(self) -> None:
        state = self.server.state
        facts = self.query_one("#facts", Static)
        facts.update(state.facts())
        facts.set_class(state.phase == "failed", "-bad")
        self.query_one("#requests", LineView).show(list(state.lines))
        self.query_one("#status", Static).update(self._status())
        names = ", ".join(run.name for run in self.server.runs)
        self.query_one(TitleBar).left = f"{self.TITLE} · {visible(names)}"
        self.refresh_bindings()
        self._show_small()

    def _status(self) -> str:
        key = key_of("serve.turn", self.orpo.keymap)
        if not self.server.state.is_on:
            return f"{key} starts it."
        if set(self.runs) <= set(self.server.runs):
            return self.server.state.status()
        names = visible(", ".join(run.name for run in self.runs))
        return f"{key} ends this server, and pressed again serves {names}."

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to copy what is there."""
        return self.server.state.phase == "ready" or action not in ("copy", "copy_address")

    def action_turn(self) -> None:
        """Stop the server, or start one."""
        if self.server.state.is_on:
            self.server.stop()
        else:
            self.server.start(self.runs)
            self.show_server()

    def action_copy(self) -> None:
        """Copy the line that asks it."""
        self.orpo.copy(self.server.state.curl)

    def action_copy_address(self) -> None:
        """Copy its address."""
        self.orpo.copy(self.server.state.url)

    def action_copy_command(self) -> None:
        """Copy the command that serves without the app."""
        self.orpo.copy(self.server.command)

    def sentence(self) -> str:
        return self.server.state.sentence()
