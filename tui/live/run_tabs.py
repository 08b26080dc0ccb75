"""The lower part of the live screen: events, samples, config and log of a run."""

from __future__ import annotations

from collections.abc import Mapping

from textual.app import ComposeResult
from textual.containers import Vertical

from orpo_mlx.runs.directory import RunDirectory
from tui.live import texts
from tui.parts.line_view import LineView
from tui.parts.tab_strip import TabStrip
from tui.processes.trainer_log import log_of, read_tail
from tui.run.state import RunState
from tui.shell.commands import key_of
from tui.shell.lines import TextLine

NAMES = ("Events", "Samples", "Config", "Log")
EVENTS, SAMPLES, CONFIG, LOG = range(4)
_GROWING = (EVENTS, LOG)
"""What is new comes last there: they begin at their end, which can be followed."""

_PEER_BYTES = 1 << 12
"""Shown of what each other process printed."""


class RunTabs(Vertical):
    """Shows one of four texts; which one is a property of the widget, not of the run.

    Args:
        keys: the user's own keys by command id.
    """

    DEFAULT_CSS = """
    RunTabs { height: 1fr; min-height: 3; max-height: 12; }
    """

    def __init__(
        self, run: RunDirectory, keys: Mapping[str, str], *, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self.run, self.keys = run, keys
        self.tab = EVENTS
        self._state = RunState()

    def compose(self) -> ComposeResult:
        yield TabStrip(NAMES)
        yield LineView()

    @property
    def lines(self) -> LineView:
        """The view of the present text."""
        return self.query_one(LineView)

    def show(self, state: RunState) -> None:
        """Show the present tab of a run as it is now."""
        self._state = state
        view = self.lines
        view.show(self._text(view.size.width))
        strip = self.query_one(TabStrip)
        strip.active = self.tab
        strip.hint = (
            ""
            if view.following or self.tab not in _GROWING
            else f"{key_of('live.follow', self.keys)} follows"
        )

    def choose(self, tab: int) -> None:
        """Show another tab, from its end or from its top."""
        self.tab = tab
        self.lines.following = tab in _GROWING
        self.show(self._state)
        if not self.lines.following:
            self.lines.scroll_home(animate=False)

    def toggle_following(self) -> None:
        """Follow the newest line, or stay; samples and config have none."""
        if self.tab not in _GROWING:
            return
        self.lines.following = not self.lines.following
        self.show(self._state)

    def _text(self, width: int) -> list[TextLine]:
        if self.tab == EVENTS:
            return texts.event_lines(self._state, width)
        if self.tab == SAMPLES:
            return texts.sample_lines(self._state, width, key_of("live.sample", self.keys))
        if self.tab == CONFIG:
            return texts.text_lines(read_tail(self.run.config_file), width)
        text = read_tail(log_of(self.run)) or "The trainer has printed nothing."
        return texts.text_lines("\n".join([*self._peers_text(), text]), width)

    def _peers_text(self) -> list[str]:
        """Return what the other processes of the run printed; it comes before what is followed."""
        paths = (self.run.path / "peers").glob("process-*.log")
        return [
            f"--- {path.parent.name}/{path.name}\n{read_tail(path, _PEER_BYTES)}"
            for path in sorted(paths, key=lambda path: (len(path.name), path.name))
        ]

    def on_tab_strip_picked(self, message: TabStrip.Picked) -> None:
        message.stop()
        self.choose(message.index)
