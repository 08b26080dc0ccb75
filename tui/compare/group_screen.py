"""Runs of a group in a table: settings that differ, a result with its interval, the best first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.cells import cell_len
from rich.text import Text
from textual import on, work
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import DataTable, Static
from textual.worker import get_current_worker

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.evaluation import Measured
from orpo_mlx.runs.group.comparison import (
    PLACES,
    ComparedRow,
    Result,
    all_results,
    by_result,
    difference_in_kind,
    differing,
    read_row,
    result_text,
    results_differ_in_kind,
    setting_text,
    usual_metric,
    value_text,
)
from orpo_mlx.runs.metrics import metric
from orpo_mlx.text.formatting import counted, visible
from tui.charts.interval_bar import interval_bar
from tui.charts.kinds import chart_end, chart_lines, chart_marks, chosen_charts
from tui.charts.line_chart import LineChart
from tui.compare.compare_table import DIFFERS
from tui.compare.comparing import MAX_RUNS
from tui.parts.base_screen import AppScreen, pane
from tui.parts.harmless import plain
from tui.parts.line_view import LineView
from tui.parts.pick_one import PickOneScreen
from tui.parts.row_table import RowTable
from tui.run.follow import follow_run
from tui.run.state import RunState
from tui.run.status import status_text
from tui.shell.charset import CharsetName
from tui.shell.commands import bindings
from tui.shell.lines import TextLine
from tui.shell.messages import EventsArrived, OpenCompare, OpenNewRun, OpenResult
from tui.shell.names import cut_middle, shortened

_REFRESH_SECONDS = 2.0
_SETTING_CELLS = 14
_ID_CELLS = 16
"""Fewest for a run's name, whose end tells it from the others of its group."""
_NAME_CELLS = 26
"""Of a setting's name in the list of all."""
_BAR_CELLS = (16, 60)
"""Fewest and most of a column that draws results."""


def _drawn(found: Result | None) -> Measured | None:
    """Return a result as it is drawn: without an interval a mark alone."""
    if found is None:
        return None
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return Measured(found.value, low, high)


def _short_setting(value: object, width: int, charset: CharsetName) -> str:
    """Return a setting's value in so many cells, of a path its last part."""
    text = setting_text(value)
    return shortened(Path(text).name if text.startswith("/") else text, width, charset)


def _setting_lines(
    row: ComparedRow, names: Sequence[str], width: int, charset: CharsetName
) -> list[TextLine]:
    """Return all settings of a run, those in which the runs differ first and with a sign."""
    rest = [name for name in row.settings if name not in (*names, *PLACES)]
    sign = DIFFERS[charset == "ascii"]
    lines: list[TextLine] = []
    for name in (*names, *rest):
        mark = sign if name in names else " "
        label = ("quiet", f"{mark} {name.replace('_', ' '):<{_NAME_CELLS}} ")
        room = max(4, width - _NAME_CELLS - 3)
        text = _short_setting(row.settings.get(name), room, charset)
        lines.append((label, ("kind" if name in names else "text", text)))
    return lines


class GroupScreen(AppScreen):
    """Any number of runs; those that are being trained go on changing.

    Args:
        runs: folders.
        name: of the group, "" for runs that were marked.
    """

    AREA = "group"
    HELP = (
        "Runs of a group, the best first: the settings in which they differ, and one metric. With "
        "its 95 % interval it is that of a run's evaluation; without, of its best held-out "
        "evaluation while it trained. A large window also shows the course of the selected run and "
        "all its settings. Enter shows a run's result."
    )
    TITLE = "orpo-mlx · Group"
    BINDINGS = bindings("group", "screen")
    CSS_PATH = "group_screen.tcss"

    @dataclass
    class Read(Message, bubble=False):
        """The runs were read."""

        rows: list[ComparedRow]

    def __init__(self, runs: Sequence[Path], name: str = "") -> None:
        super().__init__()
        self.paths, self.group = list(runs), name
        self.rows: list[ComparedRow] = []
        self.metric = ""
        """By which they are sorted; "" until they were read."""
        self._order: list[Path] = []
        """The runs as the table shows them."""
        self._shown: object = None
        self._state = RunState()
        """What is known of the run that is followed, the selected one."""
        self._followed: Path | None = None

    def compose_body(self) -> Iterable[Widget]:
        with pane(Vertical(id="results"), "Results"):
            yield RowTable(id="rows")
        with Horizontal(id="selected"):
            yield pane(LineView(id="settings"), "Settings")
            yield pane(LineChart("", charset=self.orpo.charset, id="course"), "Course")
        yield Static("", id="said", markup=False)

    def on_mount(self) -> None:
        self.query_one("#settings", LineView).following = False
        self.query_one(LineChart).can_focus = False  # the table keeps the keys
        self.table.focus()
        self._read()
        self.set_interval(_REFRESH_SECONDS, self._read)

    @property
    def table(self) -> RowTable:
        """The runs."""
        return self.query_one(RowTable)

    @property
    def selected(self) -> ComparedRow | None:
        """The run under the cursor."""
        index = self.table.cursor_row
        return self.rows[index] if 0 <= index < len(self.rows) else None

    @work(thread=True, exclusive=True, group="read")
    def _read(self) -> None:
        rows = [read_row(RunDirectory(path)) for path in self.paths if path.is_dir()]
        if not get_current_worker().is_cancelled:
            self.post_message(self.Read(rows))

    def on_group_screen_read(self, message: Read) -> None:
        if not self.metric and all_results(message.rows):
            self.metric = usual_metric(message.rows)
        self.rows = by_result(message.rows, self.metric)
        self._draw()

    def _draw(self) -> None:
        look = (self.rows, self.metric, self.size, self.orpo.charset)
        if not self.is_open or look == self._shown:
            return
        self._shown = look
        kept = self._order[self.table.cursor_row] if self._order else None
        self._order = [row.path for row in self.rows]
        self._fill_table()
        if kept in self._order:
            self.table.move_cursor(row=self._order.index(kept))
        title_bar = self.query_one("#title")
        right = " · ".join(filter(None, [self.group, counted(len(self.rows), "run")]))
        title_bar.right = right  # type: ignore[attr-defined]
        self._say()
        self.call_after_refresh(self._show_selected)  # how wide its panes are is known then
        self._show_small()

    def _fill_table(self) -> None:
        names = differing(self.rows)
        title = metric(self.metric).title if self.metric else "no result yet"
        heads = ["St", "Run", title, *(name.replace("_", " ") for name in names), "Step"]
        lines = [self._cells(row, names) for row in self.rows]
        widths = [
            max([cell_len(head), *(line[index].cell_len for line in lines)])
            for index, head in enumerate(heads)
        ]
        between = 2 * self.table.cell_padding
        room = (
            self.size.width
            - self.query_one("#results").gutter.width
            - sum(widths)
            - between * (len(heads) + 1)
        )
        if bars := self._bars(min(_BAR_CELLS[1], room)):
            heads, widths = [*heads, bars[0]], [*widths, cell_len(bars[0])]
            lines = [[*line, bar] for line, bar in zip(lines, bars[1], strict=True)]
        self.table.clear(columns=True)
        for head, width in zip(heads, widths, strict=True):
            self.table.add_column(head, width=width)
        for row, line in zip(self.rows, lines, strict=True):
            self.table.add_row(*line, key=str(row.path))

    def _bars(self, width: int) -> tuple[str, list[Text]] | None:
        """Return head and cells of a column that draws the results on one scale, if it fits."""
        found = [_drawn(row.result(self.metric)) for row in self.rows]
        measured = [one for one in found if one]
        if not measured or width < _BAR_CELLS[0]:
            return None
        start, end = min(one.low for one in measured), max(one.high for one in measured)
        scale = [value_text(self.metric, value) for value in (start, end)]
        gap = width - sum(map(cell_len, scale))
        return (gap * " ").join(scale), [
            Text(interval_bar(one, start, end, width, self.orpo.charset) if one else width * " ")
            for one in found
        ]

    def _cells(self, row: ComparedRow, names: Sequence[str]) -> list[Text]:
        charset = self.orpo.charset
        settings = []
        for name in names:
            short = _short_setting(row.settings.get(name), _SETTING_CELLS, charset)
            settings.append(Text(short, justify="right"))
        return [
            Text(status_text(row.status, charset).sign),
            Text(cut_middle(visible(row.id), max(_ID_CELLS, self.size.width // 3), charset)),
            Text(result_text(row, self.metric), justify="right"),
            *settings,
            Text(f"{row.step}/{row.total_steps}", justify="right"),
        ]

    @on(DataTable.RowHighlighted)
    def _say(self) -> None:
        row, lines = self.selected, []
        if row is not None:
            verdict = row.evaluation.verdict if row.evaluation else "not evaluated yet"
            lines = [visible(f"{row.id}: {row.trouble or verdict}")]
        if results_differ_in_kind(self.rows, self.metric):
            lines.append(f"note: {difference_in_kind(self.metric)}; m takes another metric")
        self.query_one("#said", Static).update("\n".join(lines))
        self._show_selected()

    # The selected run

    def on_resize(self) -> None:
        super().on_resize()
        self.call_after_refresh(self._draw)

    def _show_selected(self) -> None:
        """Show settings and course of the selected run where there is room."""
        row = self.selected
        if row is None or not self.query_one("#selected").display:
            return
        if row.path != self._followed:
            self._followed, self._state = row.path, RunState()
            self.query_one(LineChart).painter.forget()
            self._follow(row.path)
        settings = self.query_one("#settings", LineView)
        settings.border_title = plain(visible(f"{row.id}: settings"))
        width = settings.scrollable_content_region.width
        lines = _setting_lines(row, differing(self.rows), width, self.orpo.charset)
        settings.show(lines)
        self._draw_course()

    @work(exclusive=True, group="follow")
    async def _follow(self, path: Path) -> None:
        await follow_run(RunDirectory(path), self.post_message, poll_seconds=1.0)

    def on_events_arrived(self, message: EventsArrived) -> None:
        if message.run == self._followed:
            self._state.apply_all(message.records)
            self._draw_course()

    def _draw_course(self) -> None:
        chart, state = self.query_one(LineChart), self._state
        # What only an evaluation measures has no course: the loss has.
        name = self.metric if self.metric in state.metrics else "loss"
        kind = chosen_charts(metric(name).id, state.metrics)[0]
        chart.rename(kind.title)
        chart.set_charset(self.orpo.charset)
        chart.view = replace(chart.view, smoothing=self.orpo.settings.smoothing)
        chart.plot(chart_lines(kind, state), chart_marks(state), end=chart_end(state))

    # Actions

    @work(exclusive=True, group="ask")
    async def action_metric(self) -> None:
        """Choose the metric they are sorted by."""
        titles = {name: metric(name).title for name in all_results(self.rows)}
        if not titles:
            self.notify("There is no result yet.")
            return
        chosen = await self.app.push_screen_wait(PickOneScreen("Metric", titles, self.metric))
        if chosen:
            self.metric = chosen
            self.rows = by_result(self.rows, chosen)
            self._draw()

    def action_charts(self) -> None:
        """Draw the first ones in one chart."""
        if len(self.rows) > 1:
            self.post_message(OpenCompare([row.path for row in self.rows[:MAX_RUNS]]))

    def action_like(self) -> None:
        """Plan a run with the selected one's settings."""
        if row := self.selected:
            self.post_message(OpenNewRun(row.path))

    @on(DataTable.RowSelected)
    def action_result(self) -> None:
        """Show the selected run's result."""
        if row := self.selected:
            self.post_message(OpenResult(row.path))

    def settings_changed(self) -> None:
        """Use another charset at once."""
        self._draw()

    def sentence(self) -> str:
        if not self.rows:
            return f"A group of {len(self.paths)} runs; they are being read."
        best = self.rows[0]
        own = ", ".join(
            f"{name.replace('_', ' ')} {setting_text(best.settings.get(name))}"
            for name in differing(self.rows)
        )
        return (
            f"{counted(len(self.rows), 'run')} by {metric(self.metric).title.lower()}, first "
            f"{best.id} ({own or 'no setting differs'}): {result_text(best, self.metric)}."
        )
