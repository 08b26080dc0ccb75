"""What someone new should know, in the space that a list leaves."""

from __future__ import annotations

from textual.app import RenderResult
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui.new_run.hints import fitting_lines


class FirstWords(Widget):
    """Paragraphs, only those that fit whole; empty where a list needs the room."""

    DEFAULT_CSS = """
    FirstWords { height: 1fr; min-height: 0; padding: 0 1; color: $foreground 80%; }
    """

    paragraphs: reactive[tuple[str, ...]] = reactive(())
    """The most important first."""

    def render(self) -> RenderResult:
        lines = fitting_lines(self.paragraphs, self.size.width, self.size.height)
        return Content("\n".join(lines))
