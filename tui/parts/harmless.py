"""The gate of all widgets: no control character of a name or an event reaches the terminal."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from orpo_mlx.text.formatting import without_controls


class HarmlessFilter(LineFilter):
    """Leaves control characters out of each line; they take no columns."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments with the same columns, without control characters."""
        return [
            segment
            if segment.text.isprintable()
            else Segment(without_controls(segment.text), segment.style, segment.control)
            for segment in segments
        ]
