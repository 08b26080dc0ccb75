"""The gates of all widgets: no control character of a name or an event reaches the terminal, and
none of their text is taken for markup."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.content import Content
from textual.filter import LineFilter

from orpo_mlx.text.formatting import without_controls


def plain(text: str) -> Content:
    """Return a text as the title of a frame, which reads markup in a `str`."""
    return Content(text)


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
