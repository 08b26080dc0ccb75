"""One line of tabs, by key and by click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.app import RenderResult
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget


class TabStrip(Widget):
    """Names in a row; the active one stands in brackets and bold, not in colour alone.

    Args:
        names: of the tabs.
        is_numbered: whether number keys choose them, so that their numbers are shown.
    """

    DEFAULT_CSS = """
    TabStrip { height: 1; background: $surface; padding: 0 1; }
    """

    active: reactive[int] = reactive(0)
    """Index of the active tab."""

    hint: reactive[str] = reactive("")
    """Shown at the right end."""

    @dataclass
    class Picked(Message):
        """A tab was clicked."""

        index: int

    names: reactive[tuple[str, ...]] = reactive(())
    """Of the tabs, in order."""

    def __init__(
        self, names: Sequence[str], *, is_numbered: bool = True, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self.set_reactive(TabStrip.names, tuple(names))
        self.is_numbered = is_numbered

    def _labels(self) -> list[str]:
        texts = [
            f"{index + 1} {name}" if self.is_numbered else name
            for index, name in enumerate(self.names)
        ]
        return [f"[{t}]" if i == self.active else f" {t} " for i, t in enumerate(texts)]

    def render(self) -> RenderResult:
        parts = [
            Content(label).stylize("bold" if index == self.active else "$foreground 70%")
            for index, label in enumerate(self._labels())
        ]
        line = Content(" ").join(parts)
        room = self.size.width - line.cell_length - len(self.hint)
        return line.append(" " * room + self.hint) if room > 1 and self.hint else line

    def on_click(self, event: events.Click) -> None:
        column = event.get_content_offset_capture(self).x
        start = 0
        for index, label in enumerate(self._labels()):
            if start <= column < start + len(label):
                self.post_message(self.Picked(index))
            start += len(label) + 1
