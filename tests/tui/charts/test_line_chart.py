"""What a chart asks to be sent to the terminal."""

from __future__ import annotations

import numpy as np
from textual.app import App, ComposeResult

from tui.charts.line_chart import LineChart
from tui.charts.picture import Line, View


class Framed(App[None]):
    CSS = "LineChart { border: round white; }"

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return {f"{name}-{i}": "red" for name in ("series", "band") for i in range(1, 5)}

    def compose(self) -> ComposeResult:
        yield LineChart("Loss")


def first(count: int) -> list[Line]:
    """The first points of a slow fall."""
    xs = np.arange(1.0, count + 1)
    return [Line("train", "t", 0, xs, 2 - xs / 500)]


async def test_a_framed_chart_sends_the_rows_that_differ_and_no_others():
    async with Framed().run_test(size=(80, 20)) as pilot:
        chart = pilot.app.query_one(LineChart)
        chart.view = View(smoothing=0.9)
        chart.plot(first(200), end=400)
        await pilot.pause()
        assert "smoothed" in str(chart.border_subtitle)
        asked: list[tuple[object, ...]] = []
        chart.refresh = lambda *regions, **_: asked.append(regions)  # type: ignore
        chart.plot(first(200), end=400)
        assert asked == []
        chart.plot(first(203), end=400)
        (regions,) = asked
    assert 0 < len(regions) < 8
