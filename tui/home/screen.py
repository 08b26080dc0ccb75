"""The first screen: all runs, what is known of the selected one, or a welcome if there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.cells import cell_len
from textual import on, work
from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import DataTable, Input, Static
from textual.worker import get_current_worker

from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group.removal import TRASH, throw_away
from orpo_mlx.runs.label import write_label
from orpo_mlx.runs.listing import RunSummary
from orpo_mlx.text.formatting import counted
from tui.home.label_dialog import LabelScreen
from tui.home.queue_dialog import tend
from tui.home.queued_runs import left_over
from tui.home.run_list import Order, RunList, group_of, row_of, runs_to_compare, title_end
from tui.home.run_news import RunNews
from tui.home.run_summary import RunSummaryPanel
from tui.home.run_table import RunTable
from tui.home.welcome import Welcome
from tui.parts.ask import AskChoice, AskScreen
from tui.parts.base_screen import AppScreen
from tui.parts.fields.text_field import TextField
from tui.parts.title_bar import TitleBar
from tui.parts.too_small import TooSmall
from tui.processes.launcher import Start
from tui.run.status import ALIVE, RESUMABLE
from tui.shell.commands import bindings, key_of
from tui.shell.machine import Machine, read_machine
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
    Resume,
    StartDemo,
)

REFRESH_SECONDS = 2.0
MACHINE_SECONDS = 10.0
_NEEDS_RUN = (
    "like", "open", "resume", "compare", "export", "chat", "test", "judge", "serve", "result",
    "mark", "delete", "label", "filter", "sort", "turn",
)  # fmt: skip
_NEEDS_FOLDER = (
    "like", "export", "chat", "test", "judge", "serve", "result", "mark", "delete", "label",
)  # fmt: skip
"""What a run that is still being prepared cannot serve."""


class RunsScreen(AppScreen):
    """All runs. It lives as long as the app, so it is the one that tells of a run's end.

    Args:
        starts: trainers started by this app, by run.
    """

    AREA = "runs"
    HELP = (
        "All runs. Enter opens the selected one; marked runs are compared; a click on a header "
        "sorts. A deleted run lies in the folder .trash beside the runs until you remove it there; "
        "moved back, it is listed again."
    )
    TITLE = "orpo-mlx · Runs"
    BINDINGS = bindings("runs")

    @dataclass
    class Listed(Message, bubble=False):
        """The runs were read."""

        runs: list[RunSummary]

    @dataclass
    class MachineRead(Message, bubble=False):
        """How the machine is."""

        machine: Machine

    def __init__(self, starts: dict[Path, Start]) -> None:
        super().__init__()
        self._starts = starts
        self.runs: list[RunSummary] = []
        self.marked: set[Path] = set()
        self.machine: Machine | None = None
        self._listed = False

    def compose_body(self) -> Iterable[Widget]:
        yield Welcome()
        with Vertical(id="runs"):
            yield TextField(placeholder="Show runs that contain ...", id="filter", compact=True)
            yield RunTable(id="table")
            yield Static("", id="none", classes="-empty", markup=False)
            yield RunSummaryPanel()

    def on_mount(self) -> None:
        self._list = RunList(self.orpo.runs_dir)
        self.query_one("#filter").display = False
        self._news = RunNews(self.orpo, self._starts)
        self.run_worker(self._news.tell_failed_starts, thread=True)
        self.refresh_runs()
        self.set_interval(REFRESH_SECONDS, self.refresh_runs)
        self._read_machine()
        self.set_interval(MACHINE_SECONDS, self._read_machine)

    def on_resize(self) -> None:
        super().on_resize()
        if self._listed:
            self._fill()
            self._update_title()

    @property
    def table(self) -> RunTable:
        """The runs that match the filter."""
        return self.query_one(RunTable)

    @property
    def selected(self) -> RunSummary | None:
        """The run under the cursor."""
        return self.table.selected

    # Reading

    @work(thread=True, exclusive=True, group="list")
    def refresh_runs(self) -> None:
        """Read the runs again, in a thread: folders may be slow."""
        runs = self._list.read()
        if not get_current_worker().is_cancelled:
            self.post_message(self.Listed(runs))

    @work(thread=True, exclusive=True, group="machine")
    def _read_machine(self) -> None:
        if not self.is_current:
            return  # nobody sees it
        machine = read_machine()
        if not get_current_worker().is_cancelled:
            self.post_message(self.MachineRead(machine))

    def on_runs_screen_machine_read(self, message: MachineRead) -> None:
        self.machine = message.machine
        self._update_title()

    def on_runs_screen_listed(self, message: Listed) -> None:
        if not self._listed and (left := left_over(self._list.queue)):
            key = key_of("runs.queue", self.orpo.keymap)
            text = f"{counted(left, 'run')} left in the queue, and nobody works: {key} goes on."
            self.notify(text, title="Queue", timeout=12)
        if not self._listed or message.runs != self.runs:
            self._listed = True
            self.runs = message.runs
            self.marked &= {run.path for run in self.runs}
            self._fill()
        self._update_title()
        for run in self._news.ended(message.runs):
            # Not a coroutine: one whose worker never begins, as the app ends, would be left.
            self.run_worker(partial(self._news.tell_end, run))

    def _fill(self) -> None:
        words = self.query_one("#filter", Input).value
        now = self.orpo.clock()
        matching = [run for run in self.runs if row_of(run, now).matches(words)]
        self.table.show(
            matching,
            marked=self.marked,
            now=now,
            charset=self.orpo.charset,
            width=self.size.width,
        )
        none = self.query_one("#none", Static)
        none.update(f"No run contains {words.strip()!r}. Esc shows all {len(self.runs)} again.")
        none.set_class(bool(matching), "-empty")
        self.query_one(RunSummaryPanel).set_class(not matching, "-empty")
        self._show_welcome()
        self._show_selected()
        self.query_one(TooSmall).sentence = self.sentence()

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
            self.table.focus()

    def _update_title(self) -> None:
        alive = sum(run.status in ALIVE for run in self.runs)
        runs = counted(len(self.runs), "run") + (f", {alive} training" if alive else "")
        title = self.query_one(TitleBar)
        title.right = title_end(
            self.machine, runs if self.runs else "", self.size.width - cell_len(title.left)
        )

    def want(self, path: Path) -> None:
        """Put the cursor on a run that is being started."""
        self.table.want(path)

    def settings_changed(self) -> None:
        """Use another charset at once."""
        self._fill()

    @on(DataTable.RowHighlighted)
    def _show_selected(self) -> None:
        self.refresh_bindings()
        if run := self.selected:
            self.query_one(RunSummaryPanel).show(
                run, self.orpo.charset, key_of("runs.resume", self.orpo.keymap)
            )

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what needs a run only where there is one, and Resume where it can go on."""
        if action == "resume" and (run := self.selected):
            return run.status in RESUMABLE and run.path not in self._list.queued
        if action in _NEEDS_FOLDER and (run := self.selected):
            is_queued = action == "delete" and run.path in self._list.queued
            return is_queued or RunDirectory(run.path).is_run()
        return bool(self.runs) or action not in _NEEDS_RUN

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        if run := self.selected:
            self.post_message(OpenRun(run.path))

    def action_new(self) -> None:
        self.post_message(OpenNewRun())

    def action_like(self) -> None:
        """Plan a run with the selected one's settings."""
        if run := self.selected:
            self.post_message(OpenNewRun(run.path))

    def action_demo(self) -> None:
        self.post_message(StartDemo())

    def on_welcome_chosen(self, message: Welcome.Chosen) -> None:
        wanted = {"demo": StartDemo, "data": OpenNewRun, "doctor": OpenDoctor}
        self.post_message(wanted[message.choice]())

    def action_resume(self) -> None:
        if run := self.selected:
            self.post_message(Resume(run.path))

    def action_mark(self) -> None:
        if run := self.selected:
            self.marked ^= {run.path}
            self._fill()

    def action_sort(self) -> None:
        columns = self.table.columns_for(self.size.width)
        names = ["When", *(name for name in columns if name != "When")]
        now = self.table.order.column
        index = names.index(now) if now in names else -1
        self._sort(Order.first_by(names[(index + 1) % len(names)]))

    def action_turn(self) -> None:
        self._sort(self.table.order.turned())

    def on_run_table_sorted(self, message: RunTable.Sorted) -> None:
        self._sort(message.order)

    def _sort(self, order: Order) -> None:
        self.table.order = order
        self._fill()

    def action_compare(self) -> None:
        """Compare the marked runs; with fewer than two, the selected one and the newest other."""
        if not self.marked and (group := self._group()):
            self.post_message(group)
            return
        ready = [run for run in self.runs if RunDirectory(run.path).is_run()]
        selected = self.selected if self.selected in ready else None
        paths = runs_to_compare(ready, self.marked, selected)
        if len(paths) < 2:
            self.notify("There is only one run to compare; comparing needs two.")
        else:
            self.post_message(OpenCompare(paths))

    def _group(self) -> OpenGroup | None:
        """Return the selected run's sweep; None if it is of none, or has no second run yet."""
        name = group_of(self.selected) if self.selected else ""
        runs = [run for run in self.runs if name and group_of(run) == name]
        paths = [run.path for run in runs if RunDirectory(run.path).is_run()]
        return OpenGroup(paths, name) if len(paths) > 1 else None

    @work(exclusive=True, group="queue")
    async def action_queue(self) -> None:
        """Say how the queue stands; go on, stop or empty it."""
        await tend(self.orpo, self, self._list.queue)
        self.refresh_runs()

    def action_export(self) -> None:
        if run := self.selected:
            self.post_message(OpenExport(run.path))

    def action_chat(self) -> None:
        if run := self.selected:
            self.post_message(OpenChat(run.path))

    def action_test(self) -> None:
        if run := self.selected:
            self.post_message(OpenPlayground(run.path))

    def action_judge(self) -> None:
        """Judge two marked runs against each other, or the selected one against its base."""
        marked = [run.path for run in self.runs if run.path in self.marked]
        if len(marked) > 2:
            self.notify(f"{len(marked)} runs are marked; answers of two can be judged.")
        elif len(marked) == 2:
            self.post_message(OpenJudge(marked))
        elif run := self.selected:
            self.post_message(OpenJudge([run.path]))

    def action_serve(self) -> None:
        """Serve the marked runs, or else the selected one."""
        marked = [run.path for run in self.runs if run.path in self.marked]
        if runs := marked or ([self.selected.path] if self.selected else []):
            self.post_message(OpenServe(runs))

    def action_result(self) -> None:
        if run := self.selected:
            self.post_message(OpenResult(run.path))

    @work(exclusive=True, group="label")
    async def action_label(self) -> None:
        """Name the selected run, tag it, note something about it."""
        if (run := self.selected) is None:
            return
        is_ascii = self.orpo.charset == "ascii"
        said = await self.app.push_screen_wait(LabelScreen(run.id, run.label, is_ascii))
        if said is not None and said != run.label:
            try:
                write_label(run.path, said)
            except OrpoError as error:
                self.orpo.show_error(error)
            self.refresh_runs()

    @work(exclusive=True, group="delete")
    async def action_delete(self) -> None:
        """Move the marked runs, or else the selected one, to the trash, after asking."""
        marked = [run for run in self.runs if run.path in self.marked]
        runs = marked or ([self.selected] if self.selected else [])
        queued = [run for run in runs if run.path in self._list.queued]
        if runs and await self.app.push_screen_wait(_may_delete(runs, len(queued))) == "delete":
            self._delete(runs)

    def _delete(self, runs: Sequence[RunSummary]) -> None:
        gone = []
        for run in runs:
            try:
                if entry := self._list.queued.get(run.path):
                    self._list.queue.remove(entry)
                    continue
                gone.append(throw_away(RunDirectory(run.path)))
            except OrpoError as error:
                self.orpo.show_error(error)
        if gone:
            text = gone[0].name if len(gone) == 1 else f"{len(gone)} runs"
            self.notify(f"{text} now in {gone[0].parent}", timeout=8, markup=False)
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
        self.table.focus()

    def key_escape(self) -> None:
        """Leave the filter and show all runs again."""
        field = self.query_one("#filter", Input)
        if field.display:
            field.value = ""
            field.display = False
            self.table.focus()

    def sentence(self) -> str:
        if not self.runs:
            return "No runs yet. Choices: try the demo, train on my data, check this machine."
        parts = [f"{counted(len(self.runs), 'run')}."]
        if run := self.selected:
            row = row_of(run, self.orpo.clock())
            loss = f", loss {row.loss}" if row.loss else ""
            parts.append(f"Selected: {run.id}, {run.status}, step {row.step}{loss}.")
        return " ".join(parts)


def _may_delete(runs: Sequence[RunSummary], queued: int) -> AskScreen:
    """Ask whether runs of one folder may go; those of the queue have none to be moved."""
    names = ", ".join(run.id for run in runs[:5]) + (", ..." if len(runs) > 5 else "")
    what = names if len(runs) == 1 else f"{len(runs)} marked runs"
    text = (
        f"{names}: with all checkpoints and the adapter moved to {runs[0].path.parent / TRASH}; "
        "moved back from there, a run is listed again."
    )
    if queued:
        out = f"{counted(queued, 'run')} taken out of the queue, not to be trained."
        text = out if queued == len(runs) else f"{text} {out}"
    return AskScreen(
        f"Delete {what}?",
        text,
        [AskChoice("keep", "Keep"), AskChoice("delete", "Delete", is_dangerous=True)],
    )
