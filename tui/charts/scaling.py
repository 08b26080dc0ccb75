"""From points to columns of a chart; pure, numpy only.

A chart is drawn in dots: two or one per cell across, one to four down, by charset (`cells.py`).
x and y are scaled to dots first, then every dot column gets the span of dots to fill.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orpo_mlx.text.ticks import nice_step
from tui.run.columns import Floats


@dataclass(frozen=True)
class Columns:
    """What happens in each dot column: NaN where nothing does.

    Attributes:
        first, last: y of the first and the last point in the column.
        low, high: smallest and largest y of its points.
        left, right: y where the line through the points enters and leaves the column.
    """

    first: Floats
    last: Floats
    low: Floats
    high: Floats
    left: Floats
    right: Floats

    def line_span(self) -> tuple[Floats, Floats]:
        """Return (lowest, highest) y of the joined line in each column."""
        parts = np.stack([self.low, self.high, self.left, self.right])
        return _nan_low(parts), _nan_high(parts)


def resample(xs: Floats, ys: Floats, width: int) -> Columns:
    """Reduce points to `width` columns without losing an extreme.

    Args:
        xs: in columns, ascending; points outside [0, width) only join the line at the border.
        ys: any unit; NaN breaks the line.
        width: number of dot columns.
    """
    nothing = np.full(width, np.nan)
    if not len(xs):
        return Columns(*(nothing.copy() for _ in range(6)))
    start, stop = np.searchsorted(xs, (0, width), side="left")
    low, high, first, last = (nothing.copy() for _ in range(4))
    if stop > start:
        inside = np.clip(xs[start:stop].astype(np.intp), 0, width - 1)
        values = ys[start:stop]
        begins = np.flatnonzero(np.diff(inside, prepend=-1))
        at = inside[begins]
        low[at] = np.fmin.reduceat(values, begins)
        high[at] = np.fmax.reduceat(values, begins)
        first[at] = values[begins]
        last[at] = values[np.append(begins[1:], len(values)) - 1]
    edges = _line_at(np.arange(width + 1.0), xs, ys)
    return Columns(first, last, low, high, edges[:-1], edges[1:])


def _line_at(where: Floats, xs: Floats, ys: Floats) -> Floats:
    """Return the joined line's y at some x; NaN outside the points and beside a NaN."""
    after = np.searchsorted(xs, where, side="left")
    between = (after > 0) & (after < len(xs))
    result = np.full(len(where), np.nan)
    i = after[between]
    x0, x1, y0, y1 = xs[i - 1], xs[i], ys[i - 1], ys[i]
    width = np.where(x1 > x0, x1 - x0, 1.0)
    result[between] = y0 + (where[between] - x0) / width * (y1 - y0)
    return result


def _nan_low(parts: Floats) -> Floats:
    return np.fmin.reduce(parts, axis=0)


def _nan_high(parts: Floats) -> Floats:
    return np.fmax.reduce(parts, axis=0)


def fill_spans(low: Floats, high: Floats, height: int) -> NDArray[np.bool_]:
    """Return [height, width] dots, true from `low` to `high`; row 0 is the top, y grows upwards.

    Spans are in dots from the bottom; NaN columns stay empty, what is outside is cut off.
    """
    valid = ~(np.isnan(low) | np.isnan(high))
    bottom = np.floor(np.where(valid, low, 1.0))
    top = np.floor(np.where(valid, high, 0.0))
    # A point on the upper border belongs to the uppermost row.
    bottom = np.where(bottom == height, height - 1, bottom)
    rows = np.arange(height - 1, -1, -1.0)[:, None]
    return (rows >= bottom) & (rows <= top) & valid


@dataclass(frozen=True)
class Scale:
    """A stretch of an axis and how it maps to dots."""

    low: float
    high: float
    log: bool = False

    def to_dots(self, values: Floats, dots: int) -> Floats:
        """Map values to [0, dots]; what a logarithm cannot take becomes NaN."""
        low, high = self.low, self.high
        if self.log:
            with np.errstate(invalid="ignore", divide="ignore"):
                values = np.where(values > 0, np.log10(values), np.nan)
            low, high = math.log10(low), math.log10(high)
        return (values - low) * (dots / (high - low))

    def from_dots(self, dot: float, dots: int) -> float:
        """Map a position back to a value."""
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return 10 ** (low + dot / dots * (high - low))
        return self.low + dot / dots * (self.high - self.low)

    def zoomed(self, factor: float, at: float) -> Scale:
        """Return the stretch made `1 / factor` as long around a value."""
        return Scale(at - (at - self.low) / factor, at + (self.high - at) / factor, self.log)

    def moved(self, share: float) -> Scale:
        """Return the stretch moved by a share of its length."""
        by = share * (self.high - self.low)
        return Scale(self.low + by, self.high + by, self.log)


def grown_x(scale: Scale | None, low: float, high: float) -> Scale:
    """Return an x axis that holds [low, high] and grows in steps of about a tenth."""
    if scale is not None and scale.low <= low and high <= scale.high and scale.low == low:
        return scale
    if high <= low:
        return Scale(low, low + 10)
    step = nice_step((high - low) * 1.1, 10)
    return Scale(low, low + math.ceil((high - low) / step + 1e-9) * step)


def settled_y(scale: Scale | None, low: float, high: float, log: bool = False) -> Scale:
    """Return a y axis for [low, high]: the old one unless left, or used by less than 70 %."""
    if scale is not None and scale.log == log and scale.low <= low and high <= scale.high:
        used = _length(low, high, log) / _length(scale.low, scale.high, log)
        if used >= 0.7:
            return scale
    if log and low > 0:
        ends = math.log10(low), math.log10(high)
        room = max(0.02, 0.08 * (ends[1] - ends[0]))
        return Scale(10 ** (ends[0] - room), 10 ** (ends[1] + room), True)
    if high <= low:
        room = abs(low) * 0.1 or 1.0
        return Scale(low - room, high + room)
    room = 0.08 * (high - low)
    return Scale(low - room, high + room)


def _length(low: float, high: float, log: bool) -> float:
    return math.log10(high / low) if log and low > 0 else high - low


def data_range(series: list[Floats], log: bool = False) -> tuple[float, float] | None:
    """Return the finite extremes of several arrays (above 0 on a logarithmic axis), or None."""
    low, high = math.inf, -math.inf
    for values in series:
        usable = values[np.isfinite(values) & ((values > 0) | (not log))]
        if len(usable):
            low, high = min(low, float(usable.min())), max(high, float(usable.max()))
    return (low, high) if low <= high else None
