"""Several runs in one chart, and a table of what differs between them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from textual import work
from textual.widget import Widget
from textual.widgets import Static

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.text.formatting import counted
from tui.charts.kinds import X_AXES, XAxis, chart_end
from tui.charts.line_chart import LineChart
from tui.charts.saving import write_texts
from tui.compare import comparing
from tui.compare.compare_table import DIFFERS, CompareTable
from tui.compare.comparing import LETTERS, MAX_RUNS, ComparedRun
from tui.parts.base_screen import AppScreen
from tui.parts.pick_one import PickOneScreen
from tui.run.follow import follow_run
from tui.run.status import status_text
from tui.shell.commands import bindings, key_of
from tui.shell.messages import CaughtUp, EventsArrived, OpenJudge, OpenNewRun, StatusChanged


class CompareScreen(AppScreen):
    """Up to four runs; those that are being trained go on growing.

    Args:
        runs: folders; the first four are taken.
    """

    AREA = "compare"
    HELP = (
        "Runs beside each other. Each has a letter and a colour. The crosshair (arrow keys) reads "
        "every run's value, in the title and in the table. Metric and x axis can be chosen; the "
        "table shows the settings that differ, or all of them."
    )
    TITLE = "orpo-mlx · Compare"
    CSS_PATH = "screen.tcss"
    BINDINGS = bindings("compare", "screen")

    def __init__(self, runs: Sequence[Path]) -> None:
        super().__init__()
        self.left_out = max(0, len(runs) - MAX_RUNS)
        self.runs = [ComparedRun(path, letter) for path, letter in zip(runs, LETTERS, strict=False)]
        self.curve = comparing.VALID_LOSS
        self.x_axis: XAxis = "step"
        self.shows_all = False
        self._metric_chosen = False
        self._drawn: object = None
        self._last_draw = 0.0

    def compose_body(self) -> Iterable[Widget]:
        chart = LineChart(self.curve.title, charset=self.orpo.charset, id="chart")
        view = replace(chart.view, smoothing=self.orpo.settings.smoothing, band=-1)
        chart.set_reactive(LineChart.view, view)
        yield chart
        yield Static("", id="head", markup=False)
        yield CompareTable(id="rows")

    def on_mount(self) -> None:
        self.chart.focus()
        for index, run in enumerate(self.runs):
            follow = partial(follow_run, RunDirectory(run.path), self.post_message)
            self.run_worker(follow, group=f"follow-{index}", exclusive=True)
        self.set_interval(0.25, self._tick)

    @property
    def chart(self) -> LineChart:
        """The chart."""
        return self.query_one(LineChart)

    @property
    def caught_up(self) -> bool:
        """Whether all that is in the files has been read."""
        return all(run.caught_up for run in self.runs)

    # Facts in

    def _run(self, path: Path) -> ComparedRun:
        return next(run for run in self.runs if run.path == path)

    def on_events_arrived(self, message: EventsArrived) -> None:
        self._run(message.run).state.apply_all(message.records)

    def on_caught_up(self, message: CaughtUp) -> None:
        self._run(message.run).caught_up = True
        if self.caught_up and not self._metric_chosen:
            self.curve = comparing.default_curve(self.runs)
        self._draw()

    def on_status_changed(self, message: StatusChanged) -> None:
        self._run(message.run).status = message.status

    def _tick(self) -> None:
        """Draw if something is new."""
        seen = (*((run.state.version, run.status) for run in self.runs), self.size)
        is_time = time.monotonic() - self._last_draw >= self.orpo.redraw_seconds * 0.9
        if is_time and self.caught_up and seen != self._drawn:
            self._drawn = seen
            self._draw()

    # Drawing

    def _draw(self) -> None:
        if not self.is_open:
            return
        self._last_draw = time.monotonic()
        chart = self.chart
        chart.rename(self.curve.title)
        lines = comparing.compared_lines(self.runs, self.curve, self.x_axis)
        end = max(chart_end(run.state, self.x_axis) for run in self.runs)
        chart.plot(lines, (), self.x_axis, end)
        title = self.query_one("#title")
        title.left = f"{self.TITLE} · {self.curve.title} over {self.x_axis}"  # type: ignore[attr-defined]
        smoothing = chart.view.smoothing
        parts = [f"the first {MAX_RUNS} of {MAX_RUNS + self.left_out}"] if self.left_out else []
        parts += [f"smoothing {smoothing:g}"] if lines[0].may_smooth else []
        title.right = " · ".join(parts)  # type: ignore[attr-defined]
        self._draw_table()
        self._show_small()

    def _draw_table(self) -> None:
        settings = comparing.setting_rows(self.runs)
        differing = [row for row in settings if row.differs]
        rows = [
            comparing.value_row(self.runs, self.curve, self.x_axis, self.chart.view),
            *comparing.result_rows(self.runs),
        ]
        equal = len(settings) - len(differing)
        where = comparing.where_text(self.x_axis, self.chart.view)
        key = key_of("compare.settings", self.orpo.keymap)
        more = f"{key} shows {counted(equal, 'equal setting')}, too"
        text = f"Values {where} · what differs · {more}"
        if self.shows_all:
            sign = DIFFERS[self.orpo.charset == "ascii"]
            text = f"Values {where} · all settings ({sign} marks the {len(differing)} that differ)"
        self.query_one("#head", Static).update(text)
        shown = settings if self.shows_all else differing
        names = [self._heading(run) for run in self.runs]
        self.query_one(CompareTable).show_rows(
            names, [*rows, *shown], self.shows_all, self.orpo.charset
        )

    def _heading(self, run: ComparedRun) -> str:
        sign = status_text(run.status, self.orpo.charset).sign
        return f"{run.letter} {sign} {run.id}"

    # The chart's crosshair, zoom and smoothing

    def on_line_chart_cursor_moved(self, message: LineChart.CursorMoved) -> None:
        message.stop()
        self.chart.view = replace(self.chart.view, cursor=message.x)
        self._draw_table()

    def on_line_chart_zoomed(self, message: LineChart.Zoomed) -> None:
        message.stop()
        self.chart.view = replace(self.chart.view, window=message.window)

    def on_line_chart_smoothed(self, message: LineChart.Smoothed) -> None:
        message.stop()
        self.chart.view = replace(self.chart.view, smoothing=message.smoothing)
        self._draw()

    def on_line_chart_maximised(self, message: LineChart.Maximised) -> None:
        message.stop()
        self.toggle_class("-alone")

    # Actions

    @work(exclusive=True, group="ask")
    async def action_metric(self) -> None:
        """Choose the metric."""
        curves = comparing.curves(comparing.all_metrics(self.runs))
        titles = {id: curve.title for id, curve in curves.items()}
        picker = PickOneScreen("Metric", titles, self.curve.id)
        chosen = await self.app.push_screen_wait(picker)
        if chosen:
            self._metric_chosen = True
            self.curve = curves[chosen]
            self._draw()

    def action_x_axis(self) -> None:
        """Go to the next x axis; where one looked means nothing on it."""
        self.x_axis = X_AXES[(X_AXES.index(self.x_axis) + 1) % len(X_AXES)]
        self.chart.view = replace(self.chart.view, cursor=None, window=None)
        self._draw()

    def action_settings(self) -> None:
        """Show all settings, or only those that differ."""
        self.shows_all = not self.shows_all
        self.set_class(self.shows_all, "-all")
        self._draw_table()

    @work(exclusive=True, group="ask")
    async def action_like(self) -> None:
        """Plan a run with the settings of one of these."""
        titles = {str(run.path): f"{run.letter} {run.id}" for run in self.runs}
        picker = PickOneScreen("A new run from which", titles, next(iter(titles)), "plans no run")
        if chosen := await self.app.push_screen_wait(picker):
            self.post_message(OpenNewRun(Path(chosen)))

    def action_judge(self) -> None:
        """Judge answers of the first two runs, blind."""
        self.post_message(OpenJudge([run.path for run in self.runs[:2]]))

    def action_save(self) -> None:
        """Write the chart's numbers and its picture into the first run's folder."""
        folder = self.runs[0].path / "charts"
        smoothing = self.chart.view.smoothing
        svg = comparing.compare_svg(self.runs, self.curve, self.x_axis, smoothing)
        texts = {
            f"compare-{self.curve.id}.csv": comparing.compare_csv(self.runs, self.curve),
            f"compare-{self.curve.id}.svg": svg,
        }
        self.tell_saved("The comparison was", folder, partial(write_texts, folder, texts))

    def settings_changed(self) -> None:
        """Use another charset at once."""
        self.chart.set_charset(self.orpo.charset)
        self._draw_table()

    def sentence(self) -> str:
        if not self.caught_up:
            return f"Comparing {len(self.runs)} runs; they are being read."
        view = self.chart.view
        row = comparing.value_row(self.runs, self.curve, self.x_axis, view)
        values = zip(self.runs, row.texts, strict=True)
        said = ", ".join(f"{run.letter} {run.id} {text}" for run, text in values)
        return (
            f"Comparing {len(self.runs)} runs: {row.name} "
            f"{comparing.where_text(self.x_axis, view)}: {said}."
        )
