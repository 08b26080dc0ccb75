"""Boxes to tick whose state is a sign, `[x]` or `[ ]`, not a colour alone."""

from __future__ import annotations

from rich.segment import Segment
from textual.content import Content
from textual.strip import Strip
from textual.widgets import Checkbox, SelectionList
from textual.widgets.option_list import OptionDoesNotExist

_ON, _OFF = "[x] ", "[ ] "


def tick(is_on: bool) -> str:
    """Return the sign of a box, four cells."""
    return _ON if is_on else _OFF


class Choices(SelectionList[str]):
    """A list of which any number can be chosen."""

    DEFAULT_CSS = """
    Choices, Choices:focus { border: none; background: $background; }
    Choices > .option-list--option-highlighted { background: $foreground 10%; color: $foreground; }
    Choices:focus > .option-list--option-highlighted {
        background: $foreground 18%; color: $foreground; text-style: bold;
    }
    """

    def action_select(self) -> None:
        """Toggle at once: Textual's message toggles what is highlighted when it arrives."""
        if self.highlighted is not None:
            self.toggle(self.get_option_at_index(self.highlighted))

    def render_line(self, y: int) -> Strip:
        """Return one row, Textual's box replaced by the sign."""
        line = super().render_line(y)
        index = self.scroll_offset.y + y
        try:
            value = self.get_option_at_index(index).value
        except OptionDoesNotExist:
            return line
        rest = line.crop(len(_ON))
        first = next(iter(rest), None)
        return Strip([Segment(tick(value in self.selected), first.style if first else None), *rest])


class Tick(Checkbox):
    """One box."""

    @property
    def _button(self) -> Content:
        return Content(tick(self.value).rstrip())
