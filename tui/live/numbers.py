"""The newest numbers of a run beside its charts."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import RenderResult
from textual.content import Content
from textual.geometry import Region
from textual.widget import Widget


class NumbersPanel(Widget):
    """Rows of name and value, then free lines."""

    DEFAULT_CSS = """
    NumbersPanel {
        width: 32;
        height: 1fr;
        padding: 0 1;
        border-left: solid $foreground 30%;
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "Now"
        self._rows: Sequence[tuple[str, str]] = ()
        self._lines: Sequence[str] = ()

    def show(self, rows: Sequence[tuple[str, str]], lines: Sequence[str]) -> None:
        """Show these; nothing is drawn if nothing changed."""
        old = [*self._rows, *self._lines]
        new = [*rows, *lines]
        self._rows, self._lines = rows, lines
        if len(old) != len(new):
            self.refresh()
        elif old != new:
            width = self.content_size.width
            changed = [y for y, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]
            left, top = self.gutter.left, self.gutter.top
            self.refresh(*(Region(left, top + y, width, 1) for y in changed))

    def render(self) -> RenderResult:
        width = self.size.width
        parts = []
        for name, value in self._rows:
            gap = max(1, width - len(name) - len(value))
            line = Content(name + " " * gap).stylize("$foreground 75%")
            parts.append(line.append(Content(value).stylize("bold")))
        parts += [Content(line) for line in self._lines]
        return Content("\n").join(parts)
