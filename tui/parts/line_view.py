"""Lines of text one can scroll; follows the newest unless told to stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.shell.lines import TextLine


class LineView(ScrollView, can_focus=True):
    """Shows any number of lines at the cost of those in view.

    | Component class | What it styles |
    | --- | --- |
    | `line--text`, `line--quiet`, `line--kind`, `line--bad` | pieces of a line |
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"line--text", "line--quiet", "line--kind", "line--bad"}

    DEFAULT_CSS = """
    LineView {
        height: 1fr;
        scrollbar-size-vertical: 1;
        overflow-x: hidden;
        overflow-y: auto;
        .line--text { color: $foreground; }
        .line--quiet { color: $foreground 70%; }
        .line--kind { color: $foreground; text-style: bold; }
        .line--bad { color: $error; text-style: bold; }
        &:focus { background: $foreground 6%; }
    }
    """

    HELP: ClassVar[str | None] = (
        "Lines of text. Arrow keys, page up and down, home and end move; f follows the newest."
    )

    following: reactive[bool] = reactive(True)
    """Whether the newest line stays in view."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.shown: Sequence[TextLine] = ()

    def show(self, lines: Sequence[TextLine]) -> None:
        """Replace the lines; where one looks stays, or stays at the end."""
        if lines == self.shown and self.virtual_size.height == len(lines):
            return  # a redraw four times a second must not send the same again
        self.shown = lines
        self.virtual_size = Size(self.size.width, len(lines))
        if self.following:
            # Where the end is, is known once the new height has been laid out.
            self.call_after_refresh(self._to_end)
        self.refresh()

    def _to_end(self) -> None:
        if self.following:
            self.scroll_end(animate=False, immediate=True)

    def watch_following(self, following: bool) -> None:
        if following and self.is_mounted:
            self._to_end()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self.shown))
        self._to_end()

    def render_line(self, y: int) -> Strip:
        """Return one row of the widget."""
        width = self.size.width
        index = y + self.scroll_offset.y
        if not 0 <= index < len(self.shown):
            return Strip.blank(width, self.rich_style)
        segments, room = [], width
        for name, text in self.shown[index]:
            if cell_len(text) > room:
                text = set_cell_size(text, room)
            segments.append(Segment(text, self.get_component_rich_style(f"line--{name}")))
            room -= cell_len(text)
        return Strip(segments).adjust_cell_length(width, self.rich_style)
