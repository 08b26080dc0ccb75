"""All that is seen of one run: its course in charts and numbers, a note, its end, its texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from orpo_mlx.runs.directory import RunDirectory, Status
from orpo_mlx.text.formatting import visible
from tui.charts.chart_grid import ChartGrid
from tui.charts.kinds import X_AXES, ChartKind, XAxis
from tui.live import texts
from tui.live.ending_card import EndingCard
from tui.live.numbers import NumbersPanel
from tui.live.peers import peer_rows, peers_line
from tui.live.run_tabs import LOG, RunTabs
from tui.processes.trainer_log import log_of, read_tail
from tui.run.ending import Card, ending_card, unreadable_card
from tui.run.notes import reading_notes
from tui.run.state import RunState
from tui.shell.charset import CharsetName
from tui.shell.commands import key_of
from tui.shell.machine import Machine, memory_limit_bytes

_PANEL = 27
"""Columns of lines beside the charts."""


@dataclass(frozen=True)
class RunFacts:
    """What a run view shows.

    Attributes:
        machine: None until it has been read.
        exit_code: how the trainer ended, None where nobody knows.
        is_freed: it was stopped to give its memory back.
        unreadable: why nothing new can be read, "" if it can.
    """

    state: RunState
    status: Status
    machine: Machine | None = None
    exit_code: int | None = None
    is_freed: bool = False
    unreadable: str = ""


class RunView(Vertical):
    """Draws a run when it is told to; app.tcss says what fits which window.

    Args:
        keys: the user's own keys by command id.
    """

    def __init__(
        self,
        run: RunDirectory,
        kinds: Sequence[ChartKind],
        charset: CharsetName,
        smoothing: float,
        keys: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.run, self.keys = run, keys
        self.charset: CharsetName = charset
        self.x_axis: XAxis = "step"
        self._kinds, self._smoothing = kinds, smoothing
        self._limit_bytes = memory_limit_bytes()

    def compose(self) -> ComposeResult:
        yield Static("", id="progress", markup=False)
        yield Static("", id="brief", markup=False)
        yield Static("", id="peers", classes="-empty", markup=False)
        with Horizontal(id="middle"):
            yield ChartGrid(self._kinds, self.charset, self._smoothing, id="charts")
            yield NumbersPanel(id="numbers")
        yield Static("", id="note", markup=False)
        yield EndingCard()
        yield RunTabs(self.run, self.keys, id="pane")

    @property
    def charts(self) -> ChartGrid:
        """The charts."""
        return self.query_one(ChartGrid)

    @property
    def tabs(self) -> RunTabs:
        """Events, samples, config and log."""
        return self.query_one(RunTabs)

    @property
    def changes(self) -> Mapping[str, Any]:
        """What the card offers to resume with; empty where it offers nothing."""
        card = self.query_one(EndingCard).card
        return card.changes if card else {}

    @property
    def is_moving(self) -> bool:
        """Whether it shows what may change without an event: the log."""
        return self.tabs.tab == LOG

    def show(self, facts: RunFacts) -> None:
        """Draw a run as it is now; what stayed the same is not sent again."""
        state, charset = facts.state, self.charset
        self._set("#progress", texts.progress_bar(state, self.size.width - 2, charset))
        self._set("#brief", texts.brief_text(state, self._limit_bytes))
        shared = peers_line(state, self.size.width - 2)
        self._set("#peers", shared)
        self.query_one("#peers").set_class(not shared, "-empty")
        note = self._note_text(state)
        self._set("#note", note)
        self.query_one("#note").set_class(not note, "-empty")
        self.charts.show(state, self.x_axis)
        memory = texts.memory_lines(state, self._limit_bytes, _PANEL, charset)
        system = facts.machine.lines() if facts.machine else []
        lines = ["", *memory, *peer_rows(state, _PANEL), "", *system]
        self.query_one(NumbersPanel).show(texts.number_rows(state), lines)
        self._show_card(facts)
        self.tabs.show(state)

    def _set(self, selector: str, text: str) -> None:
        widget = self.query_one(selector, Static)
        if str(widget.content) != text:
            widget.update(text)

    def _note_text(self, state: RunState) -> str:
        notes = reading_notes(state)
        if not notes:
            return ""
        more = f" and {len(notes) - 1} more" if len(notes) > 1 else ""
        return f"Note (press {key_of('live.notes', self.keys)}{more}): {notes[0].line}"

    def _show_card(self, facts: RunFacts) -> None:
        card = self._card(facts)
        self.query_one(EndingCard).show(card)
        self.set_class(card is not None and card.is_bad, "-bad-end")

    def _card(self, facts: RunFacts) -> Card | None:
        if facts.unreadable:
            return unreadable_card(facts.unreadable, self.run.events_file)
        log = read_tail(log_of(self.run), 1 << 13) if facts.status == "crashed" else ""
        return ending_card(
            facts.status,
            facts.state,
            visible(log),
            self.keys,
            exit_code=facts.exit_code,
            is_freed=facts.is_freed,
        )

    def next_x_axis(self) -> None:
        """Draw over steps, tokens or time from the next drawing on."""
        self.x_axis = X_AXES[(X_AXES.index(self.x_axis) + 1) % len(X_AXES)]
        for chart in self.charts.charts:
            chart.view = replace(chart.view, cursor=None, window=None)

    def set_charset(self, charset: CharsetName) -> None:
        """Draw with other characters."""
        self.charset = charset
        self.charts.set_charset(charset)
