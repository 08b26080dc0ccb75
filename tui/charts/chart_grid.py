"""Several charts of one run with one crosshair, one zoom and one smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from textual.app import ComposeResult
from textual.containers import Grid
from textual.message import Message

from tui.charts.kinds import ChartKind, XAxis, chart_end, chart_lines, chart_marks
from tui.charts.line_chart import LineChart
from tui.run.state import RunState
from tui.shell.charset import CharsetName


class ChartGrid(Grid):
    """Charts in two columns; where the screen is narrow, app.tcss shows two below each other."""

    DEFAULT_CSS = """
    ChartGrid { grid-size: 2; grid-gutter: 0 1; height: 1fr; width: 1fr; }
    ChartGrid.-alone { grid-size: 1; }
    ChartGrid.-alone > LineChart { display: none; }
    ChartGrid.-alone > LineChart.-shown { display: block; }
    """

    @dataclass
    class SmoothingChanged(Message):
        """All charts smooth by this weight now."""

        smoothing: float

    def __init__(
        self, kinds: Sequence[ChartKind], charset: CharsetName, smoothing: float, *, id: str
    ) -> None:
        super().__init__(id=id)
        self.kinds = list(kinds)
        self.charset: CharsetName = charset
        self.smoothing = smoothing

    def compose(self) -> ComposeResult:
        yield from self._make_charts()

    def _make_charts(self) -> list[LineChart]:
        charts = []
        for index, kind in enumerate(self.kinds):
            # Two charts can be read at 80 columns, four cannot.
            chart = LineChart(
                kind.title, charset=self.charset, classes="-extra" if index > 1 else ""
            )
            chart.set_reactive(LineChart.view, replace(chart.view, smoothing=self.smoothing))
            charts.append(chart)
        return charts

    @property
    def charts(self) -> list[LineChart]:
        """The charts in order."""
        return list(self.query(LineChart))

    def show(self, state: RunState, x_axis: XAxis) -> None:
        """Draw a run; charts that are not displayed draw nothing."""
        marks = chart_marks(state, x_axis)
        end = chart_end(state, x_axis)
        for kind, chart in zip(self.kinds, self.charts, strict=False):
            chart.plot(chart_lines(kind, state, x_axis), marks, x_axis, end)

    async def choose(self, kinds: Sequence[ChartKind]) -> None:
        """Show other charts."""
        self.kinds = list(kinds)
        self.remove_class("-alone")
        await self.remove_children()
        await self.mount_all(self._make_charts())

    def set_charset(self, charset: CharsetName) -> None:
        """Draw all charts with other characters."""
        self.charset = charset
        for chart in self.charts:
            chart.set_charset(charset)

    # One crosshair, zoom and smoothing

    def on_line_chart_cursor_moved(self, message: LineChart.CursorMoved) -> None:
        message.stop()
        for chart in self.charts:
            chart.view = replace(chart.view, cursor=message.x)

    def on_line_chart_zoomed(self, message: LineChart.Zoomed) -> None:
        message.stop()
        for chart in self.charts:
            chart.view = replace(chart.view, window=message.window)

    def on_line_chart_smoothed(self, message: LineChart.Smoothed) -> None:
        message.stop()
        self.smoothing = message.smoothing
        for chart in self.charts:
            chart.view = replace(chart.view, smoothing=message.smoothing)
        self.post_message(self.SmoothingChanged(message.smoothing))

    def on_line_chart_maximised(self, message: LineChart.Maximised) -> None:
        message.stop()
        alone = self.toggle_class("-alone").has_class("-alone")
        for chart in self.charts:
            chart.set_class(alone and chart is message.chart, "-shown")
        message.chart.focus()
