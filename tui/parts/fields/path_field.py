"""A field for a path."""

from __future__ import annotations

from textual import events

from tui.parts.fields.text_field import TextField
from tui.shell.names import plain_path


class PathField(TextField):
    """Hands on a path without the quotes and escapes a terminal writes around it."""

    def on_paste(self, event: events.Paste) -> None:
        """Take the first line that holds something."""
        event.text = event.text.strip()

    async def action_submit(self) -> None:
        """Hand on the bare path."""
        self.value = plain_path(self.value)
        await super().action_submit()
