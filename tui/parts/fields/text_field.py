"""A field for a line of text."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class TextField(Input):
    """Its keys act in the order in which they were typed.

    Textual runs the action of a key once the key has passed every widget up to the app, while a
    letter goes in at once: typed fast, a backspace would take a letter that was typed after it.
    """

    async def on_key(self, event: events.Key) -> None:
        """Act on a key of this field as soon as it is reached."""
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            if not binding.priority and await self.app.run_action(binding.action, self):
                event.stop()
                event.prevent_default()
                return
