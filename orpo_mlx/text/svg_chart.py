"""A line chart as SVG: plain text, no library; shared by `orpo-mlx plot` and the app."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from orpo_mlx.text.formatting import visible
from orpo_mlx.text.ticks import format_tick, nice_ticks

WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 58, 44
_LONGEST_NAME = 30
COLOURS = ("#0060A8", "#9A5200", "#303030", "#7F13EB", "#0A7A5A", "#A01060")
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "", "7 4")


@dataclass(frozen=True)
class Series:
    """One line; NaN breaks it.

    Attributes:
        faint: values drawn thinly behind (the raw ones of a smoothed line); () for none.
        points: drawn as dots, not joined.
        colour: index into the palette; None: by place in the chart.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    faint: Sequence[float] = ()
    points: bool = False
    colour: int | None = None


def chart_svg(title: str, x_name: str, series: Sequence[Series], top: float = 0.0) -> str:
    """Return a chart as an SVG group, to be put `top` below others.

    Colours are those of the app's light theme; lines also differ by dashes.
    """
    xs = [x for one in series for x in one.xs if math.isfinite(x)]
    ys = [y for one in series for y in [*one.ys, *one.faint] if math.isfinite(y)]
    parts = [f'<g transform="translate(0,{top:g})">', _text(_LEFT, 22, title, "bold")]
    if not xs or not ys:
        return "\n".join([*parts, _text(_LEFT, HEIGHT / 2, "no data"), "</g>"])
    frame = _Frame(min(0.0, *xs), max(xs), *_padded(min(ys), max(ys)))
    parts += _axes(frame, x_name)
    for index, one in enumerate(series):
        parts += _drawn(frame, one, index)
    parts += _legend(series)
    return "\n".join([*parts, "</g>"])


def svg_page(charts: Sequence[str]) -> str:
    """Return a whole SVG file of charts made for tops 0, HEIGHT, 2 * HEIGHT, ..."""
    height = HEIGHT * max(1, len(charts))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="13">'
    )
    return "\n".join(
        [head, '<rect width="100%" height="100%" fill="#fff"/>', *charts, "</svg>", ""]
    )


@dataclass(frozen=True)
class _Frame:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        span = self.x_high - self.x_low or 1.0
        return _LEFT + (value - self.x_low) / span * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        span = self.y_high - self.y_low or 1.0
        return HEIGHT - _BOTTOM - (value - self.y_low) / span * (HEIGHT - _TOP - _BOTTOM)


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low) or abs(low) * 0.1 or 1.0
    return low - room, high + room


def _axes(frame: _Frame, x_name: str) -> list[str]:
    parts = []
    ticks = nice_ticks(frame.y_low, frame.y_high, 5)
    for tick in ticks:
        y = frame.y(tick)
        parts.append(_line(_LEFT, y, WIDTH - _RIGHT, y, "#ddd"))
        parts.append(_text(_LEFT - 8, y + 4, format_tick(tick, _step(ticks)), anchor="end"))
    bottom = HEIGHT - _BOTTOM
    parts.append(_line(_LEFT, bottom, WIDTH - _RIGHT, bottom, "#555"))
    ticks = nice_ticks(frame.x_low, frame.x_high, 7)
    for tick in ticks:
        x = frame.x(tick)
        parts.append(_line(x, bottom, x, bottom + 5, "#555"))
        parts.append(_text(x, bottom + 19, format_tick(tick, _step(ticks)), anchor="middle"))
    parts.append(_text((_LEFT + WIDTH) / 2, HEIGHT - 6, x_name, anchor="middle"))
    return parts


def _step(ticks: Sequence[float]) -> float:
    return ticks[1] - ticks[0] if len(ticks) > 1 else 1.0


def _drawn(frame: _Frame, one: Series, index: int) -> list[str]:
    colour = _colour(one, index)
    if one.points:
        return [
            f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.5" fill="{colour}"/>'
            for x, y in zip(one.xs, one.ys, strict=True)
            if math.isfinite(y)
        ]
    dash = _DASHES[index % len(_DASHES)]
    parts = []
    if len(one.faint):
        parts += _paths(frame, one.xs, one.faint, f'stroke="{colour}" stroke-opacity="0.25"')
    style = f'stroke="{colour}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")
    return parts + _paths(frame, one.xs, one.ys, style)


def _paths(frame: _Frame, xs: Sequence[float], ys: Sequence[float], style: str) -> list[str]:
    """Draw the stretches between values that are no numbers."""
    stretches: list[list[str]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            stretches[-1].append(f"{frame.x(x):.1f},{frame.y(y):.1f}")
        elif stretches[-1]:
            stretches.append([])
    return [
        f'<polyline points="{" ".join(points)}" fill="none" {style}/>'
        for points in stretches
        if points
    ]


def _shortened(name: str) -> str:
    """Return a name that fits a legend; the middle gives way: both ends tell names apart."""
    if len(name) <= _LONGEST_NAME:
        return name
    head = (_LONGEST_NAME - 3) // 2
    return name[:head] + "..." + name[head + 3 - _LONGEST_NAME :]


def _legend(series: Sequence[Series]) -> list[str]:
    """Name the lines below the title, as many as fit beside each other."""
    parts, x, y = [], float(_LEFT), 38.0
    for index, one in enumerate(series):
        name = _shortened(one.name)
        width = 34 + 7.2 * len(name) + 16
        if x + width > WIDTH and x > _LEFT:
            x, y = float(_LEFT), y + 16
        parts.append(_sample(one, index, x, y - 4))
        parts.append(_text(x + 28, y, name))
        x += width
    return parts


def _sample(one: Series, index: int, x: float, y: float) -> str:
    colour = _colour(one, index)
    if one.points:
        return f'<circle cx="{x + 11:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
    dash = _DASHES[index % len(_DASHES)]
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x + 22:.1f}" y2="{y:.1f}" stroke="{colour}" '
        f'stroke-width="2"{dashes}/>'
    )


def _colour(one: Series, index: int) -> str:
    return COLOURS[(index if one.colour is None else one.colour) % len(COLOURS)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="#222" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(visible(text))}</text>'
    )
