"""One run: its charts while it trains, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from textual import work
from textual.message import Message
from textual.widget import Widget
from textual.worker import get_current_worker

from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.checkpoints import checkpoint_path
from orpo_mlx.runs.control import RequestName
from orpo_mlx.runs.directory import RunDirectory, Status
from tui.charts.chart_grid import ChartGrid
from tui.charts.kinds import ChartKind, chart_kinds, chosen_charts
from tui.charts.saving import save_charts
from tui.live import questions, texts
from tui.live.best_news import BestNews
from tui.live.pick_charts import PickChartsScreen
from tui.live.run_view import RunFacts, RunView
from tui.live.trainer import Trainer
from tui.parts.base_screen import AppScreen
from tui.parts.title_bar import TitleBar
from tui.parts.too_small import TooSmall
from tui.run.follow import follow_run
from tui.run.notes import reading_notes
from tui.run.state import RunState
from tui.run.status import ALIVE
from tui.shell.commands import bindings, key_of
from tui.shell.machine import Machine, read_machine
from tui.shell.messages import (
    CaughtUp,
    EventsArrived,
    OpenChat,
    OpenExport,
    OpenNewRun,
    OpenPlayground,
    OpenResult,
    PlanAnew,
    ReadingFailed,
    Resume,
    StatusChanged,
)

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
        self.caught_up = False
        self._was_alive = False
        self.unreadable = ""
        self.trainer = Trainer(self.run_directory)
        self._drawn: tuple[object, ...] = ()

    def compose_body(self) -> Iterable[Widget]:
        settings = self.orpo.settings
        kinds = chosen_charts(settings.charts)
        yield RunView(
            self.run_directory, kinds, self.orpo.charset, settings.smoothing, self.orpo.keymap
        )

    def on_mount(self) -> None:
        self._best_news = BestNews(self.orpo)
        self.query_one(TitleBar).left = f"{self.run_directory.id}  reading ..."
        self.charts.charts[0].focus()
        self._follow()
        self._read_machine()
        self.set_interval(MACHINE_SECONDS, self._read_machine)
        self.set_interval(0.25, self._tick)

    @property
    def course(self) -> RunView:
        """What is drawn."""
        return self.query_one(RunView)

    @property
    def charts(self) -> ChartGrid:
        """The charts."""
        return self.course.charts

    @property
    def shown_run(self) -> Path:
        """The run."""
        return self.run_directory.path

    # Facts in

    @work(exclusive=True, group="follow")
    async def _follow(self) -> None:
        await follow_run(self.run_directory, self.post_message)

    def on_events_arrived(self, message: EventsArrived) -> None:
        before, offered = self.state.best, self._kinds_of()
        self.state.apply_all(message.records)
        if self._kinds_of() != offered:
            self._offer_charts()
        if self.caught_up and self.state.best is not before and self.is_current:
            self._best_news.tell(self.state)

    def _kinds_of(self) -> tuple[object, ...]:
        """Return what says which charts the run has."""
        return self.state.metrics, bool(self.state.hosts)

    def on_caught_up(self, message: CaughtUp) -> None:
        self.caught_up = True  # the status follows at once, and is drawn

    def on_status_changed(self, message: StatusChanged) -> None:
        was_alive, self.status = self._was_alive, message.status
        self._was_alive = self.status in ALIVE
        if not self._was_alive:
            self.trainer.has_ended()
            if was_alive and self._has_news:
                self.action_result()
        self.refresh_bindings()
        self._draw()

    @property
    def _has_news(self) -> bool:
        """Whether the run that has just ended, and is being looked at, says if it helped."""
        is_over = self.state.evaluated is not None and not self.trainer.is_freeing
        return is_over and self.is_current

    def on_reading_failed(self, message: ReadingFailed) -> None:
        self.unreadable = message.reason
        self.refresh_bindings()
        if self.caught_up:
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
        if self._seen() != self._drawn or self.course.is_moving:
            if self.trainer.is_overdue(now):
                self.refresh_bindings()
            self._draw()

    def _seen(self) -> tuple[object, ...]:
        facts = self.state.version, self.status, self._waiting_text, self.machine, self._exit_code
        return *facts, self.size

    def _draw(self) -> None:
        self._last_draw, self._drawn = time.monotonic(), self._seen()
        title = self.query_one(TitleBar)
        status = "stalled" if self.unreadable else self.status
        title.left = texts.title_text(
            self.run_directory.id, status, self.state, self._waiting_text, self.orpo.charset
        )
        pause = key_of("live.pause", self.orpo.keymap)
        title.right = texts.title_end(self.status, self.state, pause)
        self.course.show(
            RunFacts(
                self.state,
                self.status,
                self.machine,
                self._exit_code,
                self.trainer.is_freeing,
                self.unreadable,
            )
        )
        self.query_one(TooSmall).sentence = self.sentence()

    @property
    def _exit_code(self) -> int | None:
        """How the process ended, where this app was told."""
        return self.orpo.exit_code(self.run_directory.path) if self.status == "crashed" else None

    # Tabs

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
        self.course.tabs.choose(tab)
        self.set_class(tab > 0, "-reading")
        self.call_after_refresh(self._draw)

    def action_follow(self) -> None:
        self.course.tabs.toggle_following()

    # Requests to the trainer

    @property
    def _waiting_text(self) -> str:
        kill_key = key_of("live.kill", self.orpo.keymap)
        waiting = self.trainer.waiting_text(self.state, time.monotonic(), kill_key)
        return "cannot be read" if self.unreadable else waiting

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Say which commands make sense now; the footer shows only those."""
        needs_folder = action in ("resume", "export", "chat", "test", "save_charts")
        if action == "gentler" and not self.course.changes:
            return False
        allowed = self.trainer.allows(action, self.status, time.monotonic())
        return allowed and not (needs_folder and self.unreadable)

    def _ask(self, request: RequestName, *, frees: bool = False) -> None:
        try:
            self.trainer.ask(request, self.state, time.monotonic(), frees=frees)
        except OrpoError as error:
            self.orpo.show_error(error)
            return
        self._draw()

    def action_pause(self) -> None:
        self._ask("resume" if self.state.paused else "pause")

    def action_free(self) -> None:
        self._ask("stop", frees=True)

    def action_stop(self) -> None:
        self._ask("stop")

    @work(exclusive=True, group="ask")
    async def action_stop_now(self) -> None:
        question = questions.stop_without_saving(self.run_directory.id, self.state)
        if await self.app.push_screen_wait(question) == "yes":
            self._ask("abort")

    def action_checkpoint(self) -> None:
        self._ask("checkpoint")

    def action_sample(self) -> None:
        self._ask("sample")

    @work(exclusive=True, group="ask")
    async def action_kill(self) -> None:
        if await self.app.push_screen_wait(questions.kill(self.run_directory.pid)) == "yes":
            try:
                self.trainer.kill()
            except OrpoError as error:
                self.orpo.show_error(error)

    def action_resume(self) -> None:
        self.app.pop_screen()
        self.app.post_message(Resume(self.run_directory.path))

    def action_gentler(self) -> None:
        """Go on as the card proposes."""
        self.app.pop_screen()
        self.app.post_message(Resume(self.run_directory.path, self.course.changes))

    def action_anew(self) -> None:
        """Plan a run like this one, or the one that the card of a NaN speaks of."""
        if not (self.state.has_met_nan and self.status == "failed"):
            self.post_message(OpenNewRun(self.run_directory.path))
            return
        folder = self.run_directory.checkpoints_folder
        saved = [checkpoint_path(folder, event.step) for event in self.state.checkpoints]
        newest = next((path for path in reversed(saved) if path.is_dir()), None)
        self.post_message(PlanAnew(self.run_directory.path, newest))

    # Elsewhere

    def action_detach(self) -> None:
        self.action_back()
        if self.status in ALIVE:
            self.app.notify(f"{self.run_directory.id} goes on; Enter opens it again", markup=False)

    def action_export(self) -> None:
        self.post_message(OpenExport(self.run_directory.path))

    def action_result(self) -> None:
        self.post_message(OpenResult(self.run_directory.path))

    def action_chat(self) -> None:
        self.post_message(OpenChat(self.run_directory.path))

    def action_test(self) -> None:
        self.post_message(OpenPlayground(self.run_directory.path))

    # Charts

    @work(exclusive=True, group="charts")
    async def _offer_charts(self) -> None:
        """Show what the settings name of the charts that this run has."""
        kinds = self._chosen(self.orpo.settings.charts)
        if kinds != self.charts.kinds:
            await self.charts.choose(kinds)

    def _chosen(self, names: str | list[str]) -> list[ChartKind]:
        is_shared = bool(self.state.hosts)
        return chosen_charts(names, self.state.metrics, is_shared=is_shared)

    @work(exclusive=True, group="ask")
    async def action_charts(self) -> None:
        kinds = chart_kinds(self.state.metrics, is_shared=bool(self.state.hosts))
        picker = PickChartsScreen(kinds, [kind.id for kind in self.charts.kinds])
        chosen = await self.app.push_screen_wait(picker)
        if chosen:
            await self.charts.choose(self._chosen(chosen))
            settings = replace(self.orpo.settings, charts=",".join(chosen))
            self.orpo.change_settings(settings)
            self._draw()
            self.charts.charts[0].focus()

    def action_x_axis(self) -> None:
        self.course.next_x_axis()
        self._draw()

    def action_notes(self) -> None:
        self.app.push_screen(questions.what_charts_say(reading_notes(self.state)))

    def action_save_charts(self) -> None:
        folder = self.run_directory.path / "charts"
        write = partial(save_charts, folder, self.charts.kinds, self.state)
        self.tell_saved("The charts were", folder, write)

    def settings_changed(self) -> None:
        """Use another charset at once."""
        self.course.set_charset(self.orpo.charset)

    def sentence(self) -> str:
        return texts.live_sentence(self.run_directory.id, self.status, self.state)
