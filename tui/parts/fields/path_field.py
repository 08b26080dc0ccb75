"""A field for a path, which one may begin to type from beside it."""

from __future__ import annotations

from textual import events

from tui.parts.fields.text_field import TextField
from tui.shell.names import plain_path

_BEGINNINGS = ("/", "~", ".")


class PathField(TextField):
    """Takes the focus when a path is begun while a list has it: letters there are keys."""

    _begun = 0
    """Characters that came by way of the list."""

    def begin(self, event: events.Key) -> None:
        """Go on with a path whose first character was typed elsewhere; other keys pass."""
        if self.screen.focused is self:
            # Typed fast: it was on its way to the list when the focus changed, so it comes before
            # what was typed here since. What is typed here never gets this far.
            if event.is_printable and event.character:
                self._take_late(event, event.character)
        elif event.character in _BEGINNINGS:
            self._take(event, event.character)

    def begin_with(self, event: events.Paste) -> None:
        """Take what is pasted while a list has the focus."""
        if self.screen.focused is not self and event.text.strip():
            self._take(event, event.text.strip().splitlines()[0])

    async def action_submit(self) -> None:
        """Hand on the path without the quotes and escapes a terminal writes around it."""
        self.value = plain_path(self.value)
        await super().action_submit()

    def _take_late(self, event: events.Key, character: str) -> None:
        event.stop()
        event.prevent_default()
        place, cursor = min(self._begun, len(self.value)), self.cursor_position
        self.value = self.value[:place] + character + self.value[place:]
        self.cursor_position = cursor + 1
        self._begun = place + 1

    def _take(self, event: events.Event, text: str) -> None:
        event.stop()
        event.prevent_default()
        self.select_on_focus = False  # the next character must not replace these
        self.value = text
        self.cursor_position = self._begun = len(text)
        self.screen.set_focus(self)

    def on_blur(self) -> None:
        self.select_on_focus = True
