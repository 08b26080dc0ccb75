"""A field of one row for a text of several lines: a line break is a sign in it."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.binding import Binding

from tui.parts.fields.text_field import TextField

BREAK = "↵"
BREAK_ASCII = "¶"
"""Where there is no Unicode; Latin-1 has it."""


class LineField(TextField):
    """Keeps the line breaks of what is pasted; ctrl+j types one.

    Args:
        is_ascii: whether the terminal has no more than Latin letters.
        on_enter: called at enter, before the next key is taken, in place of a message that comes
            after the keys that were typed by then.
    """

    HELP = "One text, also of several lines: a paste keeps its line breaks, ctrl+j types one."
    BINDINGS = [Binding("ctrl+j", "line_break", "Line break", show=False)]  # noqa: RUF012

    def __init__(
        self,
        placeholder: str,
        *,
        id: str,
        is_ascii: bool = False,
        on_enter: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(placeholder=placeholder, id=id, compact=True)
        self.sign = BREAK_ASCII if is_ascii else BREAK
        self._enter = on_enter

    @property
    def text(self) -> str:
        """What is in the field, with real line breaks."""
        return self.value.replace(self.sign, "\n")

    @text.setter
    def text(self, text: str) -> None:
        self.value = self._one_line(text)

    def _one_line(self, text: str) -> str:
        lines = text.strip("\r\n").splitlines()
        return self.sign.join(line.replace("\t", "    ") for line in lines)

    async def action_submit(self) -> None:
        """Hand over what is there."""
        if self._enter is None:
            await super().action_submit()
        else:
            self._enter()

    def action_line_break(self) -> None:
        """Type a line break."""
        self.insert_text_at_cursor(self.sign)

    def on_paste(self, event: events.Paste) -> None:
        """Take all lines; an input of Textual takes the first one."""
        event.stop()
        event.prevent_default()
        self.replace(self._one_line(event.text), *self.selection)
