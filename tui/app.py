"""The app: theme, keys, and the ways between screens; no business logic."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import events, on, work
from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.screen import Screen

from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.checkpoints import iter_checkpoints
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group.like import starts_of
from orpo_mlx.runs.peers.hosts import (
    hosts_text,
    is_on_one_machine,
    newest_hosts,
    resume_command,
)
from tui.export.session import Exports
from tui.home.screen import RunsScreen
from tui.leaving import may_leave
from tui.parts.ask import AskChoice, AskScreen
from tui.parts.base_screen import AppScreen
from tui.parts.harmless import HarmlessFilter
from tui.parts.key_order import Acted, KeyOrder, KeyOrPaste, Released
from tui.parts.pick_one import PickOneScreen
from tui.processes import launcher
from tui.screens.help import HelpScreen
from tui.serve.session import ServeSession
from tui.shell.charset import CHARSET_NAMES, CharsetName
from tui.shell.commands import bindings, is_f_key, key_of
from tui.shell.driver import TerminalDriver
from tui.shell.keymap import keymap_from
from tui.shell.messages import (
    OpenChat,
    OpenCompare,
    OpenDoctor,
    OpenExport,
    OpenGroup,
    OpenJudge,
    OpenNewRun,
    OpenPlayground,
    OpenResult,
    OpenRun,
    OpenServe,
    PlanAnew,
    Resume,
    StartDemo,
    StartTraining,
)
from tui.shell.palette import palette_entries
from tui.shell.settings import Settings, config_folder, load_keys, load_settings, save_settings
from tui.shell.terminal import choose_charset, choose_theme, copy_locally, desktop_note, is_remote
from tui.shell.themes import THEMES, chart_variables, readable
from tui.shell.toasts import Toasts

if TYPE_CHECKING:
    from orpo_mlx.chat.session import ChatSession

_WIDTHS = [(0, "-tiny"), (60, "-narrow"), (96, "-wide")]
_HEIGHTS = [(0, "-flat"), (16, "-short"), (28, "-tall"), (40, "-high")]
"""(columns or rows from which on a screen has the class, class)."""


class OrpoApp(App[None]):
    """The terminal app.

    Args:
        runs_dir: folder of all runs; None: the default one.
        theme, charset: win over the settings for this session; "" for the settings.
        background: what the terminal said its background is.
        clock: Unix seconds; tests give their own.
        is_calm: no animations, no blinking.
    """

    CSS_PATH = "app.tcss"
    TITLE = "orpo-mlx"
    BINDINGS = bindings("app")
    HORIZONTAL_BREAKPOINTS = _WIDTHS
    VERTICAL_BREAKPOINTS = _HEIGHTS

    def __init__(
        self,
        runs_dir: Path | None = None,
        *,
        theme: str = "",
        charset: str = "",
        background: str | None = None,
        clock: Callable[[], float] = time.time,
        is_calm: bool = False,
    ) -> None:
        super().__init__(driver_class=TerminalDriver)
        self.runs_dir = runs_dir
        self.clock = clock
        self.exports = Exports(self)
        self.server = ServeSession(self)
        self.settings, self.problems = load_settings(config_folder())
        self.starts: dict[Path, launcher.Start] = {}
        """Trainers started by this app, by run; only their parent is told how they end."""
        self._chats: dict[Path, ChatSession] = {}
        self._keys = KeyOrder(self, self._hand_on, self._key_waits)
        self._toasts = Toasts()
        self._harmless = HarmlessFilter()
        self._given = theme, charset
        self._background = background
        keys, more = load_keys(config_folder())
        self.keymap, wrong = keymap_from(keys)
        self.problems += more + wrong
        if is_calm or self.settings.calm or self.no_color:
            self.animation_level = "none"

    # Set-up

    def on_mount(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        self._apply_theme()
        self.set_keymap(self.keymap)
        self._runs = RunsScreen(self.starts)
        self.push_screen(self._runs)
        if said := "\n".join(self.problems):  # one note, not a column of them
            self.notify(said, title="Settings", severity="warning", timeout=10, markup=False)

    async def on_unmount(self) -> None:
        await self.server.close()

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            await self._keys.add(event)
        else:
            await super().on_event(event)

    async def _hand_on(self, event: KeyOrPaste) -> None:
        """Give the focus to the field that takes what is typed, then the key to the focus."""
        screen = self.screen
        if isinstance(screen, AppScreen):
            screen.begin_text(event)
        await super().on_event(event)

    def _key_waits(self, event: KeyOrPaste) -> bool:
        return isinstance(self.screen, AppScreen) and self.screen.lets_wait(event)

    @on(Released)
    async def _keys_go_on(self, event: Released) -> None:
        await self._keys.release(event.drops)

    @on(Acted)
    async def _key_has_acted(self, event: Acted) -> None:
        await self._keys.acted(event.number)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return what every line passes before it is written."""
        return [*super().get_line_filters(), self._harmless]

    def get_key_display(self, binding: Binding) -> str:
        """Write F-keys as keyboards and help do."""
        shown = super().get_key_display(binding)
        return shown.upper() if is_f_key(binding.key) else shown

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Give every theme, Textual's too, the colours of charts."""
        return chart_variables(self.current_theme.dark)

    def get_css_variables(self) -> dict[str, str]:
        """Keep colours of any theme readable as text."""
        self.theme_variables = readable(super().get_css_variables())
        return self.theme_variables

    def _apply_theme(self) -> None:
        name = self._given[0] or self.settings.theme
        if name == "auto" or name not in self.available_themes:
            name = choose_theme(os.environ, self._background)
        self.theme = name

    @property
    def charset(self) -> CharsetName:
        """The characters charts are drawn with."""
        name = self._given[1] or self.settings.charset
        if name in CHARSET_NAMES:
            return name
        return choose_charset(os.environ, getattr(sys.__stdout__, "encoding", None))

    @property
    def redraw_seconds(self) -> float:
        """Time between two drawings of growing data."""
        return 0.25 if self.app_focus and not is_remote(os.environ) else 1.0

    def change_settings(self, settings: Settings) -> None:
        """Use and keep other settings."""
        if (settings.theme, settings.charset) != (self.settings.theme, self.settings.charset):
            self._given = "", ""  # chosen now, which wins over the command line
        is_other_theme = settings.theme != self.settings.theme
        self.settings = settings
        if is_other_theme:  # else one chosen in the palette, for this session, would go
            self._apply_theme()
        for screen in self.screen_stack:
            if (hook := getattr(screen, "settings_changed", None)) is not None:
                hook()
        try:
            save_settings(settings, config_folder())
        except OSError as error:
            text = f"{config_folder()}: cannot be written ({error.strerror}); kept until you quit"
            self.notify(text, title="Settings", severity="warning", markup=False)

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        yield from palette_entries(self, screen)
        yield SystemCommand("App: theme", "Choose one of all themes", self.action_change_theme)

    # Ways between screens

    # Screens but the first are loaded when one is first opened: the first paint waits for none.

    def on_open_run(self, message: OpenRun) -> None:
        self.open_run(message.run)

    def on_open_new_run(self, message: OpenNewRun) -> None:
        from tui.new_run.draft import Draft
        from tui.new_run.screen import NewRunScreen

        if message.like is None:
            self.push_screen(NewRunScreen(Draft()))
        elif config := self._settings_of(message.like):
            self._open_like(RunDirectory(message.like), config)

    @work(exclusive=True, group="like")
    async def _open_like(self, run: RunDirectory, config: TrainConfig) -> None:
        """Plan a run like another; ask with which adapter it begins, if that one has any."""
        from tui.new_run.draft import draft_like
        from tui.new_run.screen import NewRunScreen

        starts = starts_of(run)
        texts = {"fresh": "a fresh adapter"}
        for name in starts:
            texts[name] = "its adapter" if name == "adapter" else f"its checkpoint of step {name}"
        chosen = "fresh"
        if starts:
            picker = PickOneScreen("Its settings, beginning with", texts, chosen, "plans no run")
            chosen = await self.push_screen_wait(picker)
        if chosen:
            hosts = newest_hosts(run)
            processes = max(1, len(hosts)) if is_on_one_machine(hosts) else 1
            draft = draft_like(config, starts.get(chosen))
            self.push_screen(NewRunScreen(replace(draft, processes=processes)))

    def on_plan_anew(self, message: PlanAnew) -> None:
        from tui.new_run.draft import draft_anew
        from tui.new_run.screen import NewRunScreen

        if config := self._settings_of(message.run):
            self.push_screen(NewRunScreen(draft_anew(config, message.checkpoint)))

    def _settings_of(self, run: Path) -> TrainConfig | None:
        """Return a run's settings; None, and the reason is shown, if they cannot be read."""
        try:
            return RunDirectory(run).read_config()
        except OrpoError as error:
            self.show_error(error)
            return None

    def on_open_result(self, message: OpenResult) -> None:
        from tui.result.screen import ResultScreen

        self.push_screen(ResultScreen(message.run))

    def on_open_compare(self, message: OpenCompare) -> None:
        from tui.compare.comparing import MAX_RUNS
        from tui.compare.screen import CompareScreen

        if len(message.runs) > MAX_RUNS:  # more than a chart has colours for
            self.on_open_group(OpenGroup(message.runs))
            return
        self.push_screen(CompareScreen(message.runs))

    def on_open_group(self, message: OpenGroup) -> None:
        from tui.compare.group_screen import GroupScreen

        self.push_screen(GroupScreen(message.runs, message.name))

    def on_open_playground(self, message: OpenPlayground) -> None:
        from tui.playground.screen import PlaygroundScreen

        self.push_screen(PlaygroundScreen(message.run))

    def on_open_chat(self, message: OpenChat) -> None:
        from tui.chat.screen import ChatScreen

        screen = ChatScreen(message.run, self._chats.get(message.run))
        self._chats[message.run] = screen.session  # it goes on where it was left
        self.push_screen(screen)

    def on_open_judge(self, message: OpenJudge) -> None:
        from tui.judge.screen import JudgeScreen

        self.push_screen(JudgeScreen(message.runs))

    def on_open_export(self, message: OpenExport) -> None:
        from tui.export.screen import ExportScreen

        self.push_screen(ExportScreen(message.run, self.exports))

    def on_open_serve(self, message: OpenServe) -> None:
        from tui.serve.screen import ServeScreen

        self.push_screen(ServeScreen(message.runs, self.server))

    def on_open_doctor(self, _: OpenDoctor) -> None:
        self.action_doctor()

    def on_start_training(self, message: StartTraining) -> None:
        self.start(message.config, message.processes)

    def on_start_demo(self, _: StartDemo) -> None:
        self.start_demo()

    def on_resume(self, message: Resume) -> None:
        self.resume(RunDirectory(message.run), message.changes)

    def open_run(self, path: Path) -> None:
        """Show a run live, or what the trainer says that prepares it."""
        from tui.live.starting import StartingScreen

        if RunDirectory(path).is_run():
            self.push_screen(_live(path))
        elif path in self.starts:
            self.push_screen(StartingScreen(self.starts[path], _live))
        else:
            text = f"{path.name} waits in the queue, is prepared by another window, or gone."
            self.notify(text, markup=False)

    def start(self, config: TrainConfig, processes: int = 1) -> None:
        """Start a training with these settings, by so many processes here, and show it."""
        start = partial(launcher.start_training, config, self.runs_dir, self.settings)
        self._begin(partial(start, processes=processes))

    def start_demo(self) -> None:
        """Start the built-in demo and show it."""
        self._begin(lambda: launcher.start_demo(self.runs_dir, self.settings))

    def resume(self, run: RunDirectory, changes: Mapping[str, Any] | None = None) -> None:
        """Go on with a run and show it; one that saved nothing begins anew as a run of its own."""
        hosts = newest_hosts(run)
        if is_on_one_machine(hosts):
            self._go_on(run, changes, len(hosts))
        else:
            self._resume_elsewhere(run, changes, hosts)

    def _go_on(self, run: RunDirectory, changes: Mapping[str, Any] | None, processes: int) -> None:
        if any(iter_checkpoints(run.checkpoints_folder)):
            start = partial(launcher.resume_training, run, self.settings, changes=changes)
        else:
            start = partial(launcher.start_again, run, changes, self.settings)
        self._begin(partial(start, processes=processes))

    @work(exclusive=True, group="ask")
    async def _resume_elsewhere(
        self, run: RunDirectory, changes: Mapping[str, Any] | None, hosts: Sequence[str]
    ) -> None:
        """Go on with a run of several machines: a terminal starts all of them, the app one."""
        command = resume_command(run, hosts)
        question = AskScreen(
            f"{run.id} was trained on several machines",
            f"By {hosts_text(hosts)}. On all of them it goes on in a terminal, by the mlx.launch "
            f"it was started with, or by\n\n{command}\n\nAlone, this machine takes longer for a "
            "result that is the same up to rounding.",
            [
                AskChoice("copy", "Copy the command"),
                AskChoice("alone", "Go on here alone"),
                AskChoice("cancel", "Cancel"),
            ],
        )
        answer = await self.push_screen_wait(question)
        if answer == "copy":
            self.copy(command)
        elif answer == "alone":
            self._go_on(run, changes, 1)

    @work(exclusive=True, group="begin")
    async def _begin(self, start: Callable[[], launcher.Start]) -> None:
        from tui.live.starting import StartingScreen

        running = launcher.running_runs(self.runs_dir)
        running = running or launcher.starting_runs(self.runs_dir)
        if running and not await self._confirm_second(running[0]):
            return
        try:
            begun = start()
        except OrpoError as error:
            self.show_error(error)
            return
        self.starts[begun.run.path] = begun
        self._runs.want(begun.run.path)
        await self.push_screen(StartingScreen(begun, _live))

    def exit_code(self, run: Path) -> int | None:
        """Return how a run's trainer ended, None if it lives or another app started it."""
        start = self.starts.get(run)
        is_newest = start is not None and RunDirectory(run).pid in (None, start.process.pid)
        return start.exit_code if start and is_newest else None

    async def _confirm_second(self, run: RunDirectory) -> bool:
        answer = await self.push_screen_wait(
            AskScreen(
                f"{run.id} is being trained",
                "Two trainings at a time are slower than one after the other, and may not fit "
                "into memory together.",
                [AskChoice("cancel", "Cancel"), AskChoice("anyway", "Start anyway")],
            )
        )
        return answer == "anyway"

    def show_error(self, error: OrpoError) -> None:
        """Show an error with what to do about it."""
        self.notify(
            f"{error.message}\n{error.what_to_do}", severity="error", timeout=12, markup=False
        )

    # Actions

    def action_help(self) -> None:
        """Show help for the present screen."""
        self.push_screen(HelpScreen(self.screen, self.keymap))

    def action_settings(self) -> None:
        """Show the settings of the app."""
        from tui.screens.settings import SettingsScreen

        self.push_screen(SettingsScreen())

    def action_doctor(self) -> None:
        """Check this machine."""
        from tui.screens.doctor import DoctorScreen

        self.push_screen(DoctorScreen())

    def action_next_theme(self) -> None:
        """Switch between dark and light, for this session."""
        self.theme = "orpo-dark" if self.theme == "orpo-light" else "orpo-light"

    def reading(self) -> str:
        """Return the present screen as one sentence."""
        say = getattr(self.screen, "sentence", None)
        return say() if say else "A dialog is open."

    def action_read(self) -> None:
        """Say in a sentence what the screen shows."""
        self.clear_notifications()  # not one sentence below the other
        self._toasts.clear()
        self.notify(self.reading(), title="This screen", timeout=15, markup=False)

    def action_copy_reading(self) -> None:
        """Copy that sentence."""
        self.copy(self.reading())

    def copy(self, text: str) -> None:
        """Copy a text, by the system's own tool where the terminal cannot."""
        if not copy_locally(text):
            self.copy_to_clipboard(text)
        lines = text.strip().splitlines()
        shown = text if len(lines) < 4 else f"{lines[0]}\nand {len(lines) - 1} more lines"
        self.notify(shown, title="Copied", timeout=4, markup=False)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a toast, unless the same one is still there."""
        seconds = timeout or self.NOTIFICATION_TIMEOUT
        if self._toasts.is_new(title, message, time.monotonic(), seconds):
            super().notify(message, title=title, severity=severity, timeout=seconds, markup=markup)

    def ring(self, text: str) -> None:
        """Ring the bell, and leave a note on the desktop where terminals can."""
        if self.settings.bell and self._driver is not None:
            self.bell()
            self._driver.write(desktop_note(os.environ, f"orpo-mlx: {text}"))

    def action_help_quit(self) -> None:
        """Say how one leaves: Ctrl-C copies where a text is selected."""
        self.notify(f"{key_of('app.leave', self.keymap)} leaves; ctrl+q where letters are typed.")

    async def action_quit(self) -> None:
        """Leave, as q does."""
        self.action_leave()

    @work(exclusive=True, group="leave")
    async def action_leave(self) -> None:
        """Leave the app; ask first about what is not done. Nothing is lost either way."""
        if isinstance(self.screen, AskScreen):
            return
        if await may_leave(self, self.exports, self.server):
            self.exit()


def _live(run: Path) -> Screen[None]:
    """Make the screen of a run."""
    from tui.live.screen import LiveScreen

    return LiveScreen(run)
