"""Where crosshair, zoom and smoothing of a chart go when a key or the wheel moves them; pure."""

from __future__ import annotations

from collections.abc import Sequence

from tui.charts.picture import Line, Painting, View
from tui.charts.scaling import Scale

SMOOTHING_STEPS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def next_smoothing(smoothing: float, direction: int) -> float:
    """Return the next weaker (-1) or stronger (1) smoothing; at the ends the same again."""
    steps = SMOOTHING_STEPS
    nearest = min(range(len(steps)), key=lambda i: abs(steps[i] - smoothing))
    return steps[min(len(steps) - 1, max(0, nearest + direction))]


def x_at(painting: Painting, column: int) -> float:
    """Return the x in the middle of a column of cells; 0 where nothing is plotted."""
    if not painting.plot_width:
        return 0.0
    return painting.x.from_dots(column - painting.left + 0.5, painting.plot_width)


def newest_x(lines: Sequence[Line]) -> float:
    """Return the x of the newest point, 0 if there is none."""
    return max((float(line.xs[-1]) for line in lines if len(line.xs)), default=0.0)


def moved_cursor(
    painting: Painting, lines: Sequence[Line], view: View, direction: int
) -> float | None:
    """Return where the crosshair goes by some columns; the first time to the newest point.

    None where nothing is plotted.
    """
    if not painting.plot_width:
        return None
    step = (painting.x.high - painting.x.low) / painting.plot_width
    x = newest_x(lines) if view.cursor is None else view.cursor + direction * step
    return min(max(x, painting.x.low), painting.x.high)


def zoomed_window(
    painting: Painting, lines: Sequence[Line], view: View, factor: float, at: float
) -> Scale | None:
    """Return the stretch of x after zooming around `at`; None: all of it.

    A stretch too short to tell its points apart, or without data, stays as it is.
    """
    data = [line.xs for line in lines if len(line.xs)]
    if not data or not painting.plot_width:
        return view.window
    window = painting.x.zoomed(factor, at)
    low, high = min(0.0, *(float(xs[0]) for xs in data)), max(float(xs[-1]) for xs in data)
    if factor < 1 and window.low <= low and window.high >= high:
        return None
    is_long_enough = window.high - window.low > 1e-9 * max(1.0, abs(high))
    return window if is_long_enough else view.window


def panned_window(painting: Painting, view: View, share: float) -> Scale | None:
    """Return a zoomed stretch moved by a share of its width; all of it stays all of it."""
    return painting.x.moved(share) if view.window else None
