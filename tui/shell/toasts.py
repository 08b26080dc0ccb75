"""Which toasts are up: the same one is not put below itself; pure."""

from __future__ import annotations


class Toasts:
    """Remembers what was said, for as long as it can be read."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def is_new(self, title: str, message: str, now: float, seconds: float) -> bool:
        """Tell whether a toast is to be shown for so long, and remember it.

        False while the same one is still there: a key pressed twice says its thing once.
        """
        self._until = {said: end for said, end in self._until.items() if end > now}
        if (title, message) in self._until:
            return False
        self._until[title, message] = now + seconds
        return True

    def clear(self) -> None:
        """Forget all: they have been taken away."""
        self._until.clear()
