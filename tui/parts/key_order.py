"""Keys act in the order in which they were pressed."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from textual import events
from textual.app import App
from textual.message import Message
from textual.widget import Widget

KeyOrPaste = events.Key | events.Paste

_PATIENCE_SECONDS = 0.2
"""After which a key counts as acted on: the way of its sign may have ended with its screen."""


class Acted(Message):
    """Follows a key from widget to widget up to the app, where the bindings of keys act."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Released(Message):
    """Keys that waited for a question of their screen may go on, or are of no use any more."""

    def __init__(self, drops: bool) -> None:
        super().__init__()
        self.drops = drops


class KeyOrder:
    """Hands a key on once the one before has acted.

    Textual gives a key to what has the focus as it comes, while keys before are still on their
    way: digits typed right behind an arrow would go into the field that is being left.

    Args:
        app: that gets the keys.
        hand_on: gives a key to what has the focus.
        waits: tells whether a key has to wait for a question of the screen; others overtake it.
    """

    def __init__(
        self,
        app: App[Any],
        hand_on: Callable[[KeyOrPaste], Awaitable[None]],
        waits: Callable[[KeyOrPaste], bool],
    ) -> None:
        self._app = app
        self._waits = waits
        self._hand_on = hand_on
        self._held: deque[KeyOrPaste] = deque()
        self._number = 0
        self._followed: Widget | None = None
        """What the key that has not acted yet was given to."""

    async def add(self, event: KeyOrPaste) -> None:
        """Hand a key on now, or hold it until its turn."""
        self._held.append(event)
        if self._is_acting():
            self._app.set_timer(_PATIENCE_SECONDS, self._give_up(self._number))
        else:
            await self._next()

    async def acted(self, number: int) -> None:
        """Hand on what waited for a key."""
        if number == self._number:
            self._followed = None
            await self._next()

    async def release(self, drops: bool) -> None:
        """Hand on what waited for a question of the screen, or forget it."""
        if drops:
            self._held.clear()
        await self._next()

    def _is_acting(self) -> bool:
        widget = self._followed
        return widget is not None and widget.is_attached and widget.screen is self._app.screen

    def _give_up(self, number: int) -> Callable[[], Awaitable[None]]:
        return lambda: self.acted(number)

    async def _next(self) -> None:
        while self._held and not self._is_acting():
            event = next((one for one in self._held if not self._waits(one)), None)
            if event is None:
                return
            self._held.remove(event)
            self._number += 1
            await self._hand_on(event)
            self._followed = self._follow(event, self._app.focused or self._app.screen)

    def _follow(self, event: KeyOrPaste, target: Widget) -> Widget | None:
        """Send a sign behind a key; what a field takes as text goes no further than there."""
        if isinstance(event, events.Paste) or target.check_consume_key(event.key, event.character):
            return None
        return target if target.post_message(Acted(self._number)) else None
