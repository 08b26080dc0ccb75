"""The first line of a screen: where you are on the left, how the machine is on the right."""

from __future__ import annotations

from rich.cells import cell_len
from textual.app import RenderResult
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget


class TitleBar(Widget):
    """One line; `right` gives way when there is no room."""

    DEFAULT_CSS = """
    TitleBar {
        height: 1;
        background: $panel;
        color: $foreground;
        text-style: bold;
        padding: 0 1;
    }
    """

    left: reactive[str] = reactive("")
    """Plain text; always shown."""

    right: reactive[str] = reactive("")
    """Plain text; shown if it fits."""

    def __init__(self, left: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.set_reactive(TitleBar.left, left)

    def render(self) -> RenderResult:
        room = self.size.width - cell_len(self.left) - cell_len(self.right)
        if room < 2:
            return Content(self.left)
        return Content(self.left + " " * room).append(Content(self.right).stylize("not bold"))
