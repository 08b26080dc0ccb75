"""A chart as rows of characters and styles; pure, so that it can be tested without an app."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from orpo_mlx.text.smoothing import smooth
from orpo_mlx.text.ticks import format_tick, format_value, log_ticks, nice_ticks
from tui.charts.cells import CHARSETS, Charset
from tui.charts.picture import ASCII_SIGNS, MARK_SIGNS, Ink, Line, Painting, View
from tui.charts.scaling import (
    Columns,
    Scale,
    data_range,
    fill_spans,
    grown_x,
    resample,
    settled_y,
)
from tui.run.columns import Floats


@dataclass
class Painter:
    """Paints a chart; remembers its axes, so that they stay while the data grows."""

    title: str = ""
    charset: Charset = field(default_factory=lambda: CHARSETS["braille"])
    x_name: str = "step"
    _x: Scale | None = None
    _y: Scale | None = None

    def forget(self) -> None:
        """Let the axes be chosen anew."""
        self._x = self._y = None

    def paint(
        self,
        lines: Sequence[Line],
        view: View,
        width: int,
        height: int,
        marks: Sequence[tuple[float, str]] = (),
        end: float = 0.0,
        is_titled: bool = True,
    ) -> Painting:
        """Return the chart in `width` by `height` cells.

        Args:
            lines: later ones are drawn over earlier ones.
            marks: (x, kind) with a kind of `MARK_SIGNS`.
            end: where x will end one day, 0 if nobody knows; the axis goes there from the first.
            is_titled: else the title stands elsewhere.
        """
        picture = Painting.blank(width, height)
        smoothed = [drawn_values(line, view) for line in lines]
        self._write_legend(picture, lines, view, smoothed, is_titled)
        rows = height - 3
        if width < 16 or rows < 1:
            return picture
        shown = self._choose_axes(lines, view, smoothed, end)
        if not shown:
            message = self._nothing_text(lines, view)
            picture.write(1 + rows // 2, max(0, (width - len(message)) // 2), message, Ink.QUIET)
            return picture
        picture.x, picture.y = view.window or self._x or Scale(0, 1), self._y or Scale(0, 1)
        self._draw_y_axis(picture, rows)
        self._draw_x_axis(picture, rows, marks)
        for index, line in enumerate(lines):
            if not line.points and index == view.band and self._has_band(line, view):
                self._draw_band(picture, line, rows)
        middles = []
        for line, ys in zip(lines, smoothed, strict=True):
            if line.points:
                self._draw_points(picture, line, rows)
            else:
                middles.append((line, self._draw_line(picture, line, ys, rows)))
        if len(lines) > 1:
            # After all lines: where two run together both letters can be seen.
            for line, middle in middles:
                self._put_markers(picture, line, middle, rows)
        self._draw_cursor(picture, view, rows)
        return picture

    def _nothing_text(self, lines: Sequence[Line], view: View) -> str:
        if data_range([line.ys for line in lines]) is None:
            return f"no {self.title.lower()} yet"
        return "no value above 0 for a log axis" if view.log_y else "no value in this part"

    def _has_band(self, line: Line, view: View) -> bool:
        return self.charset.has_band and view.smoothing > 0 and line.may_smooth

    def _choose_axes(
        self, lines: Sequence[Line], view: View, smoothed: Sequence[Floats], end: float
    ) -> bool:
        xs = data_range([line.xs for line in lines if len(line.xs)])
        if xs is None:
            return False
        low = min(0.0, xs[0])
        # Step 0 is evaluated before there is any step: the end is known by then.
        ends = end > low and end >= xs[1]
        self._x = Scale(low, end) if ends else grown_x(self._x, low, xs[1])
        stretch = view.window or self._x
        values = []
        for index, line in enumerate(lines):
            start = int(np.searchsorted(line.xs, stretch.low, side="left"))
            stop = int(np.searchsorted(line.xs, stretch.high, side="right"))
            raw = line.points or index == view.band or not self._has_band(line, view)
            values.append((line.ys if raw else smoothed[index])[start:stop])
        ys = data_range(values, view.log_y)
        if ys is None:
            return False
        self._y = settled_y(self._y, *ys, log=view.log_y)
        return True

    def _write_legend(
        self,
        picture: Painting,
        lines: Sequence[Line],
        view: View,
        smoothed: Sequence[Floats],
        is_titled: bool,
    ) -> None:
        """Write what is drawn; where it is narrow values give way, then names become short."""
        width = picture.codes.shape[1]
        end = picture.write(0, 0, self.title, Ink.TITLE) if is_titled else 0
        if view.log_y:
            end = picture.write(0, end + (end > 0), "log", Ink.QUIET)
        if view.cursor is not None:
            said = f" {self.x_name} {_x_text(view.cursor)} "
            end = picture.write(0, end + (end > 0), said, Ink.CURSOR)
        values = [value_at(line, view, ys) for line, ys in zip(lines, smoothed, strict=True)]
        texts = ["-" if np.isnan(value) else format_value(value) for value in values]
        gap, names = _fit_legend(lines, texts, width - end, bool(end))
        groups = groupby(zip(lines, texts, strict=True), lambda pair: pair[0].name)
        for name, (_, group) in zip(names, groups, strict=True):
            pairs, end = list(group), end + gap - 1 if end else -1
            for line, _ in pairs:
                end = picture.write(0, end + 1, line.marker, Ink.LINE + line.colour)
            for word, ink in ((name, Ink.QUIET), *((text, Ink.TITLE) for _, text in pairs)):
                end = picture.write(0, end + 1, word, ink) if word else end
        said = smoothing_text(lines, view)
        if is_titled and said and end + 2 + len(said) <= width:
            picture.write(0, width - len(said), said, Ink.QUIET)

    def _draw_y_axis(self, picture: Painting, rows: int) -> None:
        scale, charset = picture.y, self.charset
        ticks = y_ticks(scale, rows)
        step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(scale.high - scale.low)
        labels = [format_tick(tick, tick if scale.log else step) for tick in ticks]
        picture.left = max(4, *map(len, labels), 0) + 1 if labels else 5
        picture.plot_width = picture.codes.shape[1] - picture.left
        for row in range(rows):
            picture.write(1 + row, picture.left - 1, charset.vertical, Ink.AXIS)
        for tick, label in zip(ticks, labels, strict=True):
            dot = scale.to_dots(np.array([tick]), rows)[0]
            row = rows - 1 - min(rows - 1, int(dot))
            picture.write(1 + row, picture.left - 1 - len(label), label, Ink.LABEL)
            dots = "·   " if charset.name != "ascii" else ".   "
            picture.write(1 + row, picture.left, (dots * rows * 40)[: picture.plot_width], Ink.GRID)

    def _draw_x_axis(
        self, picture: Painting, rows: int, marks: Sequence[tuple[float, str]]
    ) -> None:
        axis, width, charset = 1 + rows, picture.plot_width, self.charset
        line = charset.corner + charset.horizontal * width
        picture.write(axis, picture.left - 1, line, Ink.AXIS)
        ticks = nice_ticks(picture.x.low, picture.x.high, max(1, min(8, width // 12)))
        step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
        border = picture.write(axis + 1, 0, self.x_name, Ink.QUIET)
        for tick in ticks:
            label = self._x_label(tick, step)
            column = picture.left + min(
                width - 1, int(picture.x.to_dots(np.array([tick]), width)[0])
            )
            place = min(column, picture.codes.shape[1] - len(label))
            picture.write(axis, column, charset.tick, Ink.AXIS)
            if place >= border:
                border = picture.write(axis + 1, place, label, Ink.LABEL) + 1
        signs = ASCII_SIGNS if charset.name == "ascii" else MARK_SIGNS
        for x, kind in marks:
            dot = picture.x.to_dots(np.array([x]), width)[0]
            if 0 <= dot <= width:
                ink = Ink.BAD if kind == "nan" else Ink.MARK
                picture.write(axis, picture.left + min(width - 1, int(dot)), signs[kind], ink)

    def _x_label(self, tick: float, step: float) -> str:
        return clock_text(tick) if self.x_name == "time" else format_tick(tick, step)

    def _draw_band(self, picture: Painting, line: Line, rows: int) -> None:
        columns = self._columns(picture, line.xs, line.ys, rows)
        self._put(picture, columns.low, columns.high, rows, Ink.BAND + line.colour)

    def _draw_line(self, picture: Painting, line: Line, ys: Floats, rows: int) -> Floats:
        """Draw a line; return the middle of its height in each dot column."""
        low, high = self._columns(picture, line.xs, ys, rows).line_span()
        self._put(picture, low, high, rows, Ink.LINE + line.colour)
        self._put_bad(picture, line, rows)
        return (low + high) / 2

    def _columns(self, picture: Painting, xs: Floats, ys: Floats, rows: int) -> Columns:
        across, down = self.charset.across, self.charset.down
        # Only what is in view, and one point beside it on either side.
        start = max(0, int(np.searchsorted(xs, picture.x.low)) - 1)
        stop = int(np.searchsorted(xs, picture.x.high, side="right")) + 1
        dots = picture.x.to_dots(xs[start:stop], picture.plot_width * across)
        # The point at the very end belongs to the last column.
        end = picture.plot_width * across
        dots = np.where(dots == end, end - 1e-6, dots)
        return resample(
            dots, picture.y.to_dots(ys[start:stop], rows * down), picture.plot_width * across
        )

    def _put(self, picture: Painting, low: Floats, high: Floats, rows: int, ink: int) -> None:
        sums = self.charset.cells(fill_spans(low, high, rows * self.charset.down))
        window = np.s_[1 : 1 + rows, picture.left : picture.left + picture.plot_width]
        drawn = sums > 0
        picture.codes[window][drawn] = self.charset.codes[sums[drawn]]
        picture.inks[window][drawn] = ink

    def _put_markers(self, picture: Painting, line: Line, middle: Floats, rows: int) -> None:
        """Write the line's letter on it here and there; lines take turns."""
        across, down = self.charset.across, self.charset.down
        columns = range(6 + 4 * line.colour, picture.plot_width, 18)
        drawn = np.flatnonzero(~np.isnan(middle))
        if len(drawn) and drawn[-1] < columns.start * across:
            columns = range(drawn[-1] // across, picture.plot_width)[:1]  # too short for its turn
        for column in columns:
            y = middle[column * across]
            if not np.isnan(y) and 0 <= y <= rows * down:
                row = rows - 1 - min(rows - 1, int(y / down))
                picture.write(1 + row, picture.left + column, line.marker, Ink.LINE + line.colour)

    def _draw_points(self, picture: Painting, line: Line, rows: int) -> None:
        columns = picture.x.to_dots(line.xs, picture.plot_width)
        heights = picture.y.to_dots(line.ys, rows)
        for column, height in zip(columns, heights, strict=True):
            if 0 <= column <= picture.plot_width and 0 <= height <= rows:
                row = rows - 1 - min(rows - 1, int(height))
                place = picture.left + min(picture.plot_width - 1, int(column))
                picture.write(1 + row, place, line.marker, Ink.LINE + line.colour)

    def _put_bad(self, picture: Painting, line: Line, rows: int) -> None:
        """Mark on the x axis where a value is no number."""
        bad = line.xs[~np.isfinite(line.ys)]
        for dot in np.unique(picture.x.to_dots(bad, picture.plot_width).astype(int)):
            if 0 <= dot < picture.plot_width:
                picture.write(1 + rows, picture.left + int(dot), "!", Ink.BAD)

    def _draw_cursor(self, picture: Painting, view: View, rows: int) -> None:
        if view.cursor is None:
            return
        dot = picture.x.to_dots(np.array([view.cursor]), picture.plot_width)[0]
        if 0 <= dot <= picture.plot_width:
            column = picture.left + min(picture.plot_width - 1, int(dot))
            for row in range(1, rows + 1):
                if picture.inks[row, column] < Ink.LINE:
                    picture.write(row, column, self.charset.vertical, Ink.AXIS)
                else:
                    picture.inks[row, column] = Ink.CURSOR


def drawn_values(line: Line, view: View) -> Floats:
    """Return the y values of a line as they are drawn: smoothed, unless it may not be."""
    if view.smoothing > 0 and line.may_smooth and not line.points:
        return smooth(line.ys, smoothing_for(line, view))
    return line.ys


def value_at(line: Line, view: View, drawn: Floats) -> float:
    """Return the value a read-out shows: at the crosshair, else the newest.

    NaN where the line has none: before its first and after its last point.

    Args:
        drawn: of `drawn_values`.
    """
    if not len(line.ys) or (view.cursor is not None and not _reaches(line.xs, view.cursor)):
        return float("nan")
    index = len(line.ys) - 1 if view.cursor is None else nearest_index(line.xs, view.cursor)
    return float(drawn[index])


def _reaches(xs: Floats, x: float) -> bool:
    spacing = (xs[-1] - xs[0]) / max(1, len(xs) - 1) or 1.0
    return bool(xs[0] - spacing <= x <= xs[-1] + spacing)


def smoothing_for(line: Line, view: View) -> float:
    """Return the weight of the past: as chosen, but never over more than a tenth of the points.

    A short run would otherwise look flat.
    """
    return min(view.smoothing, max(0.0, 1 - 10 / max(1, len(line.ys))))


def nearest_index(xs: Floats, x: float) -> int:
    """Return the index of the point nearest to x; xs ascend and are not empty."""
    after = int(np.searchsorted(xs, x))
    if after == 0:
        return 0
    if after == len(xs):
        return after - 1
    return after if xs[after] - x < x - xs[after - 1] else after - 1


_SHORT_NAMES = {"validation": "valid", "rejected": "rej"}


def _fit_legend(
    lines: Sequence[Line], texts: list[str], room: int, is_after: bool
) -> tuple[int, list[str]]:
    """Empty the values that have no room; return the blanks before a name, and the names.

    Names stay before values. Where they have no room by themselves, the blanks go first, then names
    become short from the last one on, then the last is left to its letter. Values under one name go
    together: one alone would not say whose it is.

    Args:
        is_after: whether something stands before, from which blanks part the first name.
    """
    whole = [name for name, _ in groupby(line.name for line in lines)]
    apart = len(whole) - (not is_after)

    def cells(gap: int, names: Sequence[str]) -> int:
        return gap * apart + 2 * len(lines) - len(whole) + sum(len(n) + 1 for n in names if n)

    tried = ((gap, names) for names in _names_to_try(whole) for gap in (2, 1))
    gap, names = next((one for one in tried if cells(*one) <= room), (1, [""] * len(whole)))
    for index in reversed(range(len(texts))):
        if cells(gap, names) + sum(len(text) + 1 for text in texts if text) > room:
            name = lines[index].name
            texts[:] = [
                "" if line.name == name else text for line, text in zip(lines, texts, strict=True)
            ]
    return gap, names


def _names_to_try(whole: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names of a legend, each time less of them."""
    for named in range(len(whole), -1, -1):
        for kept in range(named, -1, -1):
            short = [_SHORT_NAMES.get(name, name) for name in whole[kept:named]]
            yield [*whole[:kept], *short, *[""] * (len(whole) - named)]


def smoothing_text(lines: Sequence[Line], view: View) -> str:
    """Return how much is smoothed, "" if nothing is."""
    weights = [smoothing_for(line, view) for line in lines if line.may_smooth and not line.points]
    most = max(weights, default=0.0)
    return f"smoothed {most:.2g}" if most > 0 else ""


def y_ticks(scale: Scale, rows: int) -> list[float]:
    """Return where the y axis has labels: at two places at least, if there are rows for two."""
    make = log_ticks if scale.log else nice_ticks
    count = max(1, min(5, rows // 2))
    found = make(scale.low, scale.high, count)
    while rows > 1 and len(found) < 2 and count < 12:
        count += 1
        found = make(scale.low, scale.high, count)
    return found if rows < 2 or len(found) > 1 else [scale.low, scale.high]


def _x_text(x: float) -> str:
    return f"{x:,.0f}"


def clock_text(seconds: float) -> str:
    """Return a time on an axis: 45s, 12m, 1h30."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes}m{seconds % 60:02d}" if seconds % 60 else f"{minutes}m"
    return f"{minutes // 60}h{minutes % 60:02d}" if minutes % 60 else f"{minutes // 60}h"
