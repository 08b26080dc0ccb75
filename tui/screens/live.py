"""One run: its charts while it trains, and how it ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from textual import work
from textual.containers import Horizontal
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from orpo_mlx.errors import OrpoError
from orpo_mlx.formatting import visible
from orpo_mlx.runs.control import RequestName, send_request
from orpo_mlx.runs.directory import RunDirectory, Status
from tui import doors, live_text
from tui.asking import Asking
from tui.charts import CHARTS_BY_ID, X_AXES, XAxis, chosen_charts
from tui.commands import bindings, key_text
from tui.ending import ending_card
from tui.follow import follow_run
from tui.machine import Machine, memory_limit_bytes, read_machine
from tui.messages import CaughtUp, EventsArrived, RunResumed, StatusChanged
from tui.reading_rules import Note, reading_notes
from tui.run_state import RunState
from tui.runner import log_of, read_tail
from tui.save_charts import save_charts
from tui.screens.ask import Answer, AskScreen
from tui.screens.base import AppScreen
from tui.screens.pick_charts import PickChartsScreen
from tui.status import ALIVE
from tui.widgets.chart_grid import ChartGrid
from tui.widgets.ending_card import EndingCard
from tui.widgets.numbers import NumbersPanel
from tui.widgets.run_tabs import LOG, RunTabs
from tui.widgets.too_small import TooSmall

MACHINE_SECONDS = 5.0


class LiveScreen(AppScreen):
    """A run, read from its directory; opened, left and opened again at any time."""

    AREA = "live"
    HELP = (
        "A run as it trains. The trainer is a process of its own: leaving this screen, the app or "
        "the terminal does not touch it. Tab moves between the charts."
    )
    TITLE = "orpo-mlx"
    BINDINGS = bindings("live", "screen")

    @dataclass
    class MachineRead(Message, bubble=False):
        """How the machine is."""

        machine: Machine

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.run_directory = RunDirectory(path)
        self.state = RunState()
        self.status: Status = "preparing"
        self.machine: Machine | None = None
        self.x_axis: XAxis = "step"
        self.caught_up = False
        self.asking: Asking | None = None
        self._is_status_known = False  # before that the end of a run is no news
        self._drawn: tuple[object, ...] = ()

    def compose_body(self) -> Iterable[Widget]:
        settings = self.orpo.settings
        yield Static("", id="progress", markup=False)
        yield Static("", id="brief", markup=False)
        with Horizontal(id="middle"):
            yield ChartGrid(
                chosen_charts(settings.charts), self.orpo.charset, settings.smoothing, id="charts"
            )
            yield NumbersPanel(id="numbers")
        yield Static("", id="note", markup=False)
        yield EndingCard()
        yield RunTabs(self.run_directory, id="pane")

    def on_mount(self) -> None:
        self.limit_bytes = memory_limit_bytes()
        self.charts.charts[0].focus()
        self._follow()
        self._read_machine()
        self.set_interval(MACHINE_SECONDS, self._read_machine)
        self.set_interval(0.25, self._tick)

    @property
    def charts(self) -> ChartGrid:
        """The charts."""
        return self.query_one(ChartGrid)

    @property
    def is_alive(self) -> bool:
        """Whether a trainer owns the run."""
        return self.status in ALIVE

    # Facts in

    @work(exclusive=True, group="follow")
    async def _follow(self) -> None:
        await follow_run(self.run_directory, self.post_message)

    def on_events_arrived(self, message: EventsArrived) -> None:
        before = self.state.best
        self.state.apply_all(message.records)
        best = self.state.best
        if self.caught_up and best is not None and best is not before and best.step:
            self.app.notify(f"Best validation so far: loss {best.loss:.4f} at step {best.step}")

    def on_caught_up(self, message: CaughtUp) -> None:
        self.caught_up = True  # the status follows at once, and is drawn

    def on_status_changed(self, message: StatusChanged) -> None:
        was_alive = self.is_alive and self._is_status_known and self.caught_up
        self.status, self._is_status_known = message.status, True
        if not self.is_alive:
            self.asking = None
            if was_alive:
                is_bad = self.status in ("crashed", "failed")
                text = f"{self.run_directory.id} {self.status} at step {self.state.step}"
                self.orpo.announce(text, is_bad=is_bad)
        self.refresh_bindings()
        self._draw()

    @work(thread=True, exclusive=True, group="machine")
    def _read_machine(self) -> None:
        machine = read_machine()
        if not get_current_worker().is_cancelled:
            self.post_message(self.MachineRead(machine))

    def on_live_screen_machine_read(self, message: MachineRead) -> None:
        self.machine = message.machine

    # Drawing

    _last_draw = 0.0

    def _tick(self) -> None:
        """Draw if something is new, four times a second at most, less often where it costs."""
        now = time.monotonic()
        if now - self._last_draw < self.orpo.redraw_seconds * 0.9 or not self.caught_up:
            return
        if self._seen() != self._drawn or self.tabs.tab == LOG:
            if self._is_overdue:
                self.refresh_bindings()
            self._draw()

    def _seen(self) -> tuple[object, ...]:
        return self.state.version, self.status, self._asked_text, self.machine, self.size

    def _draw(self) -> None:
        self._last_draw, self._drawn = time.monotonic(), self._seen()
        state, charset, width = self.state, self.orpo.charset, self.size.width
        title = self.query_one("#title")
        title.left = live_text.title_text(  # type: ignore[attr-defined]
            self.run_directory.id, self.status, state, self._asked_text, charset
        )
        pause = key_text(self.orpo.keymap.get("live.pause", "p"))
        hint = f"{pause} goes on  " if self.status == "paused" else ""
        title.right = hint + live_text.saved_text(state)  # type: ignore[attr-defined]
        self._set("#progress", live_text.progress_bar(state, width - 2, charset))
        self._set("#brief", live_text.brief_text(state, self.limit_bytes))
        note = self._note_text()
        self._set("#note", note)
        self.query_one("#note").set_class(not note, "-empty")
        self.charts.show(state, self.x_axis)
        self.query_one(NumbersPanel).show(live_text.number_rows(state), self._machine_lines())
        self._show_card()
        self.tabs.show(state)
        self.query_one(TooSmall).sentence = self.sentence()

    def _set(self, selector: str, text: str) -> None:
        widget = self.query_one(selector, Static)
        if str(widget.content) != text:
            widget.update(text)

    def _machine_lines(self) -> list[str]:
        memory = live_text.memory_lines(self.state, self.limit_bytes, 27, self.orpo.charset)
        system = self.machine.lines() if self.machine else []
        return ["", *memory, "", *system]

    def _note_text(self) -> str:
        notes = self._notes()
        if not notes:
            return ""
        key = key_text(self.orpo.keymap.get("live.notes", "i"))
        more = f" and {len(notes) - 1} more" if len(notes) > 1 else ""
        return f"Note (press {key}{more}): {notes[0].line}"

    def _notes(self) -> list[Note]:
        return reading_notes(self.state)

    def _show_card(self) -> None:
        log = read_tail(log_of(self.run_directory), 1 << 13) if self.status == "crashed" else ""
        key = key_text(self.orpo.keymap.get("live.resume", "R"))
        self.query_one(EndingCard).show(ending_card(self.status, self.state, visible(log), key))

    # Tabs

    @property
    def tabs(self) -> RunTabs:
        """Events, samples, config and log."""
        return self.query_one(RunTabs)

    def action_tab_1(self) -> None:
        self._choose_tab(0)

    def action_tab_2(self) -> None:
        self._choose_tab(1)

    def action_tab_3(self) -> None:
        self._choose_tab(2)

    def action_tab_4(self) -> None:
        self._choose_tab(3)

    def _choose_tab(self, tab: int) -> None:
        """Show a tab; in a low window texts to read get the room of a chart."""
        self.tabs.choose(tab)
        self.set_class(tab > 0, "-reading")
        self.call_after_refresh(self._draw)

    def action_follow(self) -> None:
        self.tabs.toggle_following()

    # Requests to the trainer

    @property
    def _asked_text(self) -> str:
        """What was asked and not yet answered, "" for nothing."""
        if self.asking is not None and self.asking.is_answered(self.state):
            self.asking = None
        return self.asking.text(time.monotonic()) if self.asking else ""

    @property
    def _is_overdue(self) -> bool:
        return self.asking is not None and self.asking.is_overdue(time.monotonic())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Say which commands make sense now; the footer shows only those."""
        if action in ("pause", "stop", "stop_now", "checkpoint", "sample"):
            return self.is_alive
        if action == "resume":
            return self.status in ("stopped", "failed", "crashed")
        if action == "kill":
            return self.status == "stalled" or self._is_overdue
        if action in ("export", "test"):
            return not self.is_alive
        return True

    def _ask(self, request: RequestName) -> None:
        try:
            send_request(self.run_directory, request)
        except OrpoError as error:
            self.orpo.show_error(error)
            return
        self.asking = Asking.begin(request, self.state, time.monotonic())
        self._draw()

    def action_pause(self) -> None:
        self._ask("resume" if self.state.paused else "pause")

    def action_stop(self) -> None:
        self._ask("stop")

    @work(exclusive=True, group="ask")
    async def action_stop_now(self) -> None:
        saved = self.state.checkpoints[-1].step if self.state.checkpoints else 0
        lost = self.state.step - saved
        question = AskScreen(
            f"Stop {self.run_directory.id} without saving?",
            f"The last checkpoint is of step {saved}; the {lost} steps since are lost.",
            [Answer("no", "Go on"), Answer("yes", "Stop now", is_dangerous=True)],
        )
        if await self.app.push_screen_wait(question) == "yes":
            self._ask("abort")

    def action_checkpoint(self) -> None:
        self._ask("checkpoint")

    def action_sample(self) -> None:
        self._ask("sample")

    @work(exclusive=True, group="ask")
    async def action_kill(self) -> None:
        pid = self.run_directory.pid
        question = AskScreen(
            f"Kill process {pid}?",
            "It ends at once; the last checkpoint is safe.",
            [Answer("no", "Wait"), Answer("yes", "Kill it", is_dangerous=True)],
        )
        # The lock, not the number, says that the process is still this trainer.
        confirmed = await self.app.push_screen_wait(question) == "yes"
        if confirmed and pid is not None and self.run_directory.is_locked():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as error:
                self.notify(f"{pid}: {error.strerror}", severity="error")

    def action_resume(self) -> None:
        self.app.pop_screen()
        self.app.post_message(RunResumed(self.run_directory.path))

    # Elsewhere

    def action_detach(self) -> None:
        self.action_back()
        if self.is_alive:
            self.app.notify(f"{self.run_directory.id} goes on; Enter opens it again")

    def action_export(self) -> None:
        self.app.push_screen(doors.export(self.run_directory.path))

    def action_test(self) -> None:
        self.app.push_screen(doors.playground(self.run_directory.path))

    # Charts

    @work(exclusive=True, group="ask")
    async def action_charts(self) -> None:
        chosen = await self.app.push_screen_wait(
            PickChartsScreen([kind.id for kind in self.charts.kinds])
        )
        if chosen:
            await self.charts.choose([CHARTS_BY_ID[id] for id in chosen])
            settings = replace(self.orpo.settings, charts=",".join(chosen))
            self.orpo.change_settings(settings)
            self._draw()
            self.charts.charts[0].focus()

    def action_x_axis(self) -> None:
        self.x_axis = X_AXES[(X_AXES.index(self.x_axis) + 1) % len(X_AXES)]
        for chart in self.charts.charts:
            chart.view = replace(chart.view, cursor=None, window=None)
        self._draw()

    def action_notes(self) -> None:
        notes = self._notes()
        text = "\n\n".join(
            f"{note.line[0].upper()}{note.line[1:]}.\n{note.reason}" for note in notes
        )
        text = text or "No rule applies so far: nothing unusual can be read from the curves."
        self.app.push_screen(AskScreen("What the charts say", text, [Answer("close", "Close")]))

    def action_save_charts(self) -> None:
        try:
            paths = save_charts(self.run_directory.path / "charts", self.charts.kinds, self.state)
        except OSError as error:
            self.notify(f"not saved: {error}", severity="error", markup=False)
            return
        self.notify("\n".join(map(str, paths)), title="Saved", timeout=8, markup=False)

    def settings_changed(self) -> None:
        """Use another charset at once."""
        self.charts.set_charset(self.orpo.charset)

    def sentence(self) -> str:
        return live_text.live_sentence(self.run_directory.id, self.status, self.state)
