"""A line chart in characters: the newest data, a crosshair, zoom; redraws only changed cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui.charts.cells import CHARSETS
from tui.charts.moves import (
    moved_cursor,
    newest_x,
    next_smoothing,
    panned_window,
    x_at,
    zoomed_window,
)
from tui.charts.painting import Painter, smoothing_text
from tui.charts.picture import Line, Painting, View, ink_name
from tui.charts.scaling import Scale
from tui.parts.harmless import plain
from tui.shell.charset import CharsetName
from tui.shell.commands import bindings


class LineChart(Widget, can_focus=True):
    """Draws lines over a common x axis.

    `plot` hands it the data; it keeps references, and draws at the next refresh. The crosshair and
    the zoom are told to the parent by messages, which may hand them to other charts.

    | Component class | What it styles |
    | --- | --- |
    | `chart--title`, `--label`, `--axis`, `--grid`, `--quiet` | the frame |
    | `chart--line-1` to `-4`, `chart--band-1` to `-4` | lines, raw values behind them |
    | `chart--cursor`, `chart--mark`, `chart--bad` | crosshair, marks, values that are no numbers |
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--title", "chart--label", "chart--axis", "chart--grid", "chart--quiet",
        "chart--cursor", "chart--mark", "chart--bad",
        *(f"chart--line-{n}" for n in range(1, 5)),
        *(f"chart--band-{n}" for n in range(1, 5)),
    }  # fmt: skip

    DEFAULT_CSS = """
    LineChart {
        height: 1fr;
        width: 1fr;
        .chart--title { color: $foreground; text-style: bold; }
        .chart--label { color: $foreground 70%; }
        .chart--axis { color: $foreground 45%; }
        .chart--grid { color: $foreground 22%; }
        .chart--quiet { color: $foreground 70%; }
        .chart--cursor { color: $background; background: $foreground; }
        .chart--mark { color: $accent; text-style: bold; }
        .chart--bad { color: $background; background: $error; text-style: bold; }
        .chart--line-1 { color: $series-1; text-style: bold; }
        .chart--line-2 { color: $series-2; text-style: bold; }
        .chart--line-3 { color: $series-3; text-style: bold; }
        .chart--line-4 { color: $series-4; text-style: bold; }
        .chart--band-1 { color: $band-1; }
        .chart--band-2 { color: $band-2; }
        .chart--band-3 { color: $band-3; }
        .chart--band-4 { color: $band-4; }
        &:focus { background: $foreground 6%; }
    }
    """

    BINDINGS = bindings("chart")
    COMMAND_AREA = "chart"
    HELP: ClassVar[str | None] = (
        "A chart. Arrow keys move the crosshair in all charts, + and - or the wheel zoom, h and l "
        "move a zoomed chart, 0 shows all again. [ and ] smooth less and more, y makes the y axis "
        "logarithmic, b chooses whose raw values are drawn dimly behind, Enter shows one chart "
        "alone. On the x axis: ▴ checkpoint, ‖ pause, ▸ resume, ! a value that is no number."
    )

    view: reactive[View] = reactive(View(), layout=False, init=False)
    """Smoothing, logarithm, zoom and crosshair."""

    @dataclass
    class CursorMoved(Message):
        """The crosshair was moved to an x, or taken away (None)."""

        chart: LineChart
        x: float | None

    @dataclass
    class Zoomed(Message):
        """Another stretch of x is shown; None: all."""

        chart: LineChart
        window: Scale | None

    @dataclass
    class Smoothed(Message):
        """The smoothing was changed."""

        chart: LineChart
        smoothing: float

    @dataclass
    class Maximised(Message):
        """The user wants this chart alone, or all again."""

        chart: LineChart

    def __init__(
        self,
        title: str,
        *,
        charset: CharsetName = "braille",
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.painter = Painter(title, CHARSETS[charset])
        self.lines: Sequence[Line] = ()
        self.marks: Sequence[tuple[float, str]] = ()
        self.end = 0.0
        self.border_title = plain(title)
        self.painting: Painting | None = None
        self._is_plotted = False
        self._strips: list[Strip | None] = []
        self._styles: dict[int, Style] = {}

    # Data in

    def rename(self, title: str) -> None:
        """Show something else from the next `plot` on."""
        if title != self.painter.title:
            self.painter.title = title
            self.border_title = plain(title)
            self.painter.forget()

    def plot(
        self,
        lines: Sequence[Line],
        marks: Sequence[tuple[float, str]] = (),
        x_name: str = "step",
        end: float = 0.0,
    ) -> None:
        """Show these lines from now on; rows that stay the same are not sent again.

        Args:
            end: where x will end, 0 if nobody knows.
        """
        self.lines, self.marks, self.end, self._is_plotted = lines, marks, end, True
        if x_name != self.painter.x_name:
            self.painter.x_name = x_name
            self.painter.forget()
        self._paint()

    def set_charset(self, name: CharsetName) -> None:
        """Draw with other characters from now on."""
        self.painter.charset = CHARSETS[name]
        self._paint()

    def watch_view(self, old: View, new: View) -> None:
        if old.log_y != new.log_y or old.window != new.window:
            self.painter.forget()
        self._paint()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()
        self._strips = [None] * len(self._strips)

    def on_resize(self) -> None:
        self._paint()

    # Drawing

    def _paint(self) -> None:
        """Paint anew and refresh the rows that differ."""
        width, height = self.size
        if not width or not height or not self._is_plotted:
            return  # empty rather than "no loss yet" while a long run is still being read
        old = self.painting
        is_framed = bool(self.styles.border_bottom[0])
        new = self.painter.paint(
            self.lines, self.view, width, height, self.marks, self.end, not is_framed
        )
        said = smoothing_text(self.lines, self.view) if is_framed else ""
        if said != (self.border_subtitle or ""):  # setting it sends the whole widget again
            self.border_subtitle = plain(said)
        self.painting = new
        if old is None or old.codes.shape != new.codes.shape:
            self._strips = [None] * height
            self.refresh()
            return
        changes = new.changes(old)
        for y, _, _ in changes:
            self._strips[y] = None
        left, top = self.gutter.left, self.gutter.top
        if changes:
            self.refresh(*(Region(left + a, top + y, b - a, 1) for y, a, b in changes))

    def render_line(self, y: int) -> Strip:
        """Return one row of the widget."""
        painting = self.painting
        if painting is None or y >= painting.codes.shape[0]:
            return Strip.blank(self.size.width, self.rich_style)
        strip = self._strips[y]
        if strip is None:
            strip = self._strips[y] = self._make_strip(painting, y)
        return strip

    def _make_strip(self, painting: Painting, y: int) -> Strip:
        segments = [Segment(text, self._style(ink)) for text, ink in painting.pieces(y)]
        return Strip(segments, painting.codes.shape[1])

    def _style(self, ink: int) -> Style:
        if ink not in self._styles:
            name = ink_name(ink)
            self._styles[ink] = (
                self.get_component_rich_style(f"chart--{name}") if name else self.rich_style
            )
        return self._styles[ink]

    # Keys and mouse

    def action_cursor_left(self) -> None:
        """Move the crosshair a column to the left."""
        self._move_cursor(-1)

    def action_cursor_right(self) -> None:
        """Move the crosshair a column to the right."""
        self._move_cursor(1)

    def _move_cursor(self, direction: int) -> None:
        if self.painting is None:
            return
        x = moved_cursor(self.painting, self.lines, self.view, direction)
        if x is not None:
            self.post_message(self.CursorMoved(self, x))

    def action_zoom_in(self) -> None:
        """Zoom in around the crosshair, or around the newest point."""
        self._zoom_at_cursor(2.0)

    def action_zoom_out(self) -> None:
        """Zoom out likewise."""
        self._zoom_at_cursor(0.5)

    def _zoom_at_cursor(self, factor: float) -> None:
        if self.painting:
            cursor = self.view.cursor
            at = newest_x(self.lines) if cursor is None else cursor
            self._zoom(factor, at)

    def action_pan_left(self) -> None:
        """Move a zoomed chart to the left by a quarter of its width."""
        self._pan(-0.25)

    def action_pan_right(self) -> None:
        """Move it to the right."""
        self._pan(0.25)

    def _pan(self, share: float) -> None:
        if self.painting:
            self.post_message(self.Zoomed(self, panned_window(self.painting, self.view, share)))

    def action_fit(self) -> None:
        """Show everything and take the crosshair away."""
        self.post_message(self.CursorMoved(self, None))
        self.post_message(self.Zoomed(self, None))

    def action_log(self) -> None:
        """Switch the y axis."""
        self.view = replace(self.view, log_y=not self.view.log_y)

    def action_smooth_less(self) -> None:
        """Smooth less."""
        self._smooth(-1)

    def action_smooth_more(self) -> None:
        """Smooth more."""
        self._smooth(1)

    def _smooth(self, direction: int) -> None:
        self.post_message(self.Smoothed(self, next_smoothing(self.view.smoothing, direction)))

    def action_band(self) -> None:
        """Draw the raw values of the next line behind, after the last one of none."""
        count = sum(not line.points for line in self.lines)
        band = self.view.band + 1
        self.view = replace(self.view, band=band if band < count else -1)

    def action_maximise(self) -> None:
        """Ask to be shown alone, or not any more."""
        self.post_message(self.Maximised(self))

    def _zoom(self, factor: float, at: float) -> None:
        if self.painting:
            window = zoomed_window(self.painting, self.lines, self.view, factor, at)
            self.post_message(self.Zoomed(self, window))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._zoom(1.5, self._x_at(event.x - self.gutter.left))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._zoom(1 / 1.5, self._x_at(event.x - self.gutter.left))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        painting, column = self.painting, event.x - self.gutter.left
        if painting and painting.plot_width and column >= painting.left:
            self.post_message(self.CursorMoved(self, self._x_at(column)))

    def on_leave(self) -> None:
        if not self.has_focus and self.view.cursor is not None:
            self.post_message(self.CursorMoved(self, None))

    def on_click(self, event: events.Click) -> None:
        if event.chain == 2:
            self.action_maximise()

    def _x_at(self, column: int) -> float:
        return x_at(self.painting, column) if self.painting else 0.0
