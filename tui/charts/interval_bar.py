"""A value with its interval as a bar of one line."""

from __future__ import annotations

from orpo_mlx.runs.evaluation import Measured
from tui.shell.charset import CharsetName

_MARKS = {"ascii": ".-||o", "unicode": "·─├┤●"}


def interval_bar(
    found: Measured, start: float, end: float, width: int, charset: CharsetName
) -> str:
    """Return a value with its interval as a bar from `start` to `end`; "" where there is no room.

    >>> interval_bar(Measured(0.5, 0.25, 0.75), 0.0, 1.0, 9, "ascii")
    '..|-o-|..'
    """
    if width < 5:
        return ""
    empty, line, left, right, mark = _MARKS["ascii" if charset == "ascii" else "unicode"]
    span = end - start

    def place(value: float) -> int:
        share = (value - start) / span if span > 0 else 0.5
        return round(min(1.0, max(0.0, share)) * (width - 1))

    low, value, high = (place(one) for one in (found.low, found.value, found.high))
    cells = [line if low <= i <= high else empty for i in range(width)]
    cells[low], cells[high], cells[value] = left, right, mark
    return "".join(cells)
