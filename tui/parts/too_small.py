"""What is shown when the window is too small for a screen: its essence, and the size needed."""

from __future__ import annotations

from textual.app import RenderResult
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

LEAST_WIDTH, LEAST_HEIGHT = 60, 16


class TooSmall(Widget):
    """Hidden unless the screen has the class -tiny or -flat."""

    DEFAULT_CSS = """
    TooSmall {
        display: none;
        height: 1fr;
        padding: 0 1;
    }
    """

    sentence: reactive[str] = reactive("")
    """The screen in one sentence."""

    def render(self) -> RenderResult:
        size = self.app.size
        need = f"needs at least {LEAST_WIDTH}x{LEAST_HEIGHT}, is {size.width}x{size.height}"
        return Content(f"{self.sentence}\n({need})" if self.sentence else need)
