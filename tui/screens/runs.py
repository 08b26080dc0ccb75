"""The first screen: all runs, what is known of the selected one, or a welcome if there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from textual import on, work
from textual.containers import Vertical
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widget import Widget
from textual.widgets import DataTable, Input
from textual.worker import get_current_worker

from orpo_mlx.errors import OrpoError
from orpo_mlx.formatting import counted
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.listing import RunSummary
from tui import doors
from tui.commands import bindings
from tui.follow import follow_run
from tui.messages import EventsArrived, RunOpened, RunResumed
from tui.run_list import RunList, RunRow, move_to_trash, row_of
from tui.run_state import RunState
from tui.screens.ask import Answer, AskScreen
from tui.screens.base import AppScreen
from tui.status import ALIVE, status_text
from tui.widgets.run_summary import RunSummaryPanel
from tui.widgets.too_small import TooSmall
from tui.widgets.welcome import Welcome

REFRESH_SECONDS = 2.0
_NEEDS_RUN = ("open", "resume", "compare", "export", "test", "mark", "delete", "filter")
WIDE = 96
"""Columns from which on model and data are shown."""


class RunsScreen(AppScreen):
    """All runs."""

    AREA = "runs"
    HELP = (
        "All runs, newest first. Enter opens the selected one; space marks runs for comparing. A "
        "deleted run lies in the folder .trash beside the runs until you remove it there."
    )
    TITLE = "orpo-mlx · Runs"
    BINDINGS = bindings("runs")

    @dataclass
    class Listed(Message, bubble=False):
        """The runs were read."""

        runs: list[RunSummary]

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[RunSummary] = []
        self.shown: list[RunRow] = []
        self.marked: set[Path] = set()
        self.state = RunState()
        self._listed = False
        self._is_wide = False
        self._followed: Path | None = None

    def compose_body(self) -> Iterable[Widget]:
        yield Welcome()
        with Vertical(id="runs"):
            yield Input(placeholder="Show runs that contain ...", id="filter", compact=True)
            yield DataTable(id="table", cursor_type="row", zebra_stripes=False)
            yield RunSummaryPanel()

    def on_mount(self) -> None:
        self._list = RunList(self.orpo.runs_dir)
        self._set_columns()
        self.query_one("#filter").display = False
        self.refresh_runs()
        self.set_interval(REFRESH_SECONDS, self.refresh_runs)

    def on_resize(self) -> None:
        super().on_resize()
        if self._is_wide != (self.size.width >= WIDE):
            self._set_columns()
            self.shown = []
            self._fill()

    def _set_columns(self) -> None:
        """Make the columns that fit; model and data need a wide window."""
        self._is_wide = self.size.width >= WIDE
        self._table.clear(columns=True)
        wide = ("Model", "Data") if self._is_wide else ()
        for name in ("", "Run", *wide, "Step", "Loss", "Acc", "When"):
            self._table.add_column(name, key=name or "sign")

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one("#table", DataTable)

    @property
    def selected(self) -> RunSummary | None:
        """The run under the cursor."""
        rows = self.shown
        index = self._table.cursor_row
        if not rows or not 0 <= index < len(rows):
            return None
        return next((run for run in self.runs if run.path == rows[index].path), None)

    # Reading

    @work(thread=True, exclusive=True, group="list")
    def refresh_runs(self) -> None:
        """Read the runs again, in a thread: folders may be slow."""
        runs = self._list.read()
        if not get_current_worker().is_cancelled:
            self.post_message(self.Listed(runs))

    def on_runs_screen_listed(self, message: Listed) -> None:
        if not self._listed or message.runs != self.runs:
            self._listed = True
            self.runs = message.runs
            self.marked &= {run.path for run in self.runs}
            self._fill()
        self._update_title()

    def _fill(self) -> None:
        """Show the runs, the cursor staying on its run."""
        table, kept = self._table, self.selected
        words = self.query_one("#filter", Input).value
        now = self.orpo.clock()
        rows = [row_of(run, now) for run in self.runs]
        rows = [row for row in rows if row.matches(words)]
        if [row.path for row in rows] == [row.path for row in self.shown]:
            for index, row in enumerate(rows):
                for column, cell in enumerate(self._cells(row)):
                    if table.get_cell_at(Coordinate(index, column)) != cell:
                        table.update_cell_at(Coordinate(index, column), cell, update_width=True)
            self.shown = rows
        else:
            self.shown = rows
            table.clear()
            for row in rows:
                table.add_row(*self._cells(row), key=str(row.path))
            paths = [row.path for row in rows]
            if kept is not None and kept.path in paths:
                table.move_cursor(row=paths.index(kept.path))
        self._show_welcome()
        self._follow_selected()
        self.query_one(TooSmall).sentence = self.sentence()

    def _cells(self, row: RunRow) -> list[Text]:
        run = next(run for run in self.runs if run.path == row.path)
        status = status_text(run.status, self.orpo.charset)
        mark = "*" if row.path in self.marked else " "
        word = "" if run.status == "completed" else f" {status.word}"
        name = Text(row.id, overflow="ellipsis", no_wrap=True)
        name.append(word, style="italic" if status.tone != "bad" else "bold red")
        wide = [Text(row.model[:24]), Text(row.data[:18])] if self._is_wide else []
        numbers = [Text(text, justify="right") for text in (row.step, row.loss, row.accuracy)]
        return [Text(mark + status.sign), name, *wide, *numbers, Text(row.when)]

    def _show_welcome(self) -> None:
        empty = not self.runs
        self.refresh_bindings()
        welcome = self.query_one(Welcome)
        # By classes: a style set here would win over the rule for windows that are too small.
        welcome.set_class(not empty, "-empty")
        self.query_one("#runs").set_class(empty, "-empty")
        if empty:
            welcome.focus_first()
        elif self.focused is None or welcome in self.focused.ancestors:
            self._table.focus()

    def _update_title(self) -> None:
        alive = sum(run.status in ALIVE for run in self.runs)
        text = counted(len(self.runs), "run") + (f", {alive} training" if alive else "")
        title = self.query_one("#title")
        title.right = text if self.runs else ""  # type: ignore[attr-defined]

    # The selected run

    @on(DataTable.RowHighlighted)
    def _follow_selected(self) -> None:
        run = self.selected
        if run is None:
            return
        if run.path != self._followed:
            self._followed = run.path
            self.state = RunState()
            self._follow(run.path)
        self.query_one(RunSummaryPanel).show(run, self.state, self.orpo.charset)

    @work(exclusive=True, group="follow")
    async def _follow(self, path: Path) -> None:
        await follow_run(RunDirectory(path), self.post_message, poll_seconds=1.0)

    def on_events_arrived(self, message: EventsArrived) -> None:
        if message.run != self._followed:
            return
        self.state.apply_all(message.records)
        run = self.selected
        if run is not None:
            self.query_one(RunSummaryPanel).show(run, self.state, self.orpo.charset)

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what needs a run only where there is one."""
        return bool(self.runs) or action not in _NEEDS_RUN

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        if run := self.selected:
            self.post_message(RunOpened(run.path))

    def action_new(self) -> None:
        self.app.push_screen(doors.new_run())

    def action_demo(self) -> None:
        self.orpo.start_demo()

    def on_welcome_chosen(self, message: Welcome.Chosen) -> None:
        {"demo": self.action_demo, "data": self.action_new, "doctor": self.orpo.action_doctor}[
            message.choice
        ]()

    def action_resume(self) -> None:
        run = self.selected
        if run is None:
            return
        if run.status in ALIVE or run.status == "completed":
            is_done = run.status == "completed"
            self.notify(f"{run.id} {'is complete' if is_done else 'is being trained'}")
        else:
            self.post_message(RunResumed(run.path))

    def action_mark(self) -> None:
        if run := self.selected:
            self.marked ^= {run.path}
            self._fill()

    def action_compare(self) -> None:
        """Compare the marked runs; with fewer than two, the selected one and the newest other."""
        paths = [run.path for run in self.runs if run.path in self.marked]
        selected = self.selected
        if len(paths) < 2 and selected is not None:
            first = [*paths, *([selected.path] if selected.path not in paths else [])]
            others = [run.path for run in self.runs if run.path not in first]
            paths = (first + others)[:2]
        if len(paths) < 2:
            self.notify("There is only one run; comparing needs two.")
        else:
            self.app.push_screen(doors.compare(paths))

    def action_export(self) -> None:
        if run := self.selected:
            self.app.push_screen(doors.export(run.path))

    def action_test(self) -> None:
        if run := self.selected:
            self.app.push_screen(doors.playground(run.path))

    @work(exclusive=True, group="delete")
    async def action_delete(self) -> None:
        """Move the selected run to the trash, after asking."""
        run = self.selected
        if run is None:
            return
        question = AskScreen(
            f"Delete {run.id}?",
            f"Its folder with all checkpoints and the adapter moves to {run.path.parent}/.trash.",
            [Answer("keep", "Keep it"), Answer("delete", "Delete", is_dangerous=True)],
        )
        if await self.app.push_screen_wait(question) != "delete":
            return
        try:
            place = move_to_trash(RunDirectory(run.path))
        except OrpoError as error:
            self.orpo.show_error(error)
        else:
            self.notify(f"{run.id} lies in {place.parent} now", timeout=8)
        self.refresh_runs()

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    @on(Input.Changed, "#filter")
    def _refill(self) -> None:
        self._fill()

    @on(Input.Submitted, "#filter")
    def _to_table(self) -> None:
        self._table.focus()

    def key_escape(self) -> None:
        """Leave the filter and show all runs again."""
        field = self.query_one("#filter", Input)
        if field.display:
            field.value = ""
            field.display = False
            self._table.focus()

    def sentence(self) -> str:
        if not self.runs:
            return "No runs yet. Choices: try the demo, train on my data, check this machine."
        parts = [f"{counted(len(self.runs), 'run')}."]
        if run := self.selected:
            row = row_of(run, self.orpo.clock())
            loss = f", loss {row.loss}" if row.loss else ""
            parts.append(f"Selected: {run.id}, {run.status}, step {row.step}{loss}.")
        return " ".join(parts)
