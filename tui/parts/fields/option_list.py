"""A list of choices that may be laid out in a window of any width."""

from __future__ import annotations

from textual.geometry import Size
from textual.widgets import OptionList as TextualOptionList

_LEAST = 8


class OptionList(TextualOptionList):
    """Textual's own ends the app where nothing of its width is left to wrap lines in."""

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the height its lines need, wrapped at a few cells at least."""
        return super().get_content_height(container, viewport, max(width, _LEAST))
