"""The last line: keys with their names, as many as there is room for, none of them cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.events import Resize
from textual.widget import Widget
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

_PALETTE = "-command-palette"


class KeyFooter(Footer):
    """A footer that leaves out whole keys where a window is narrow.

    Help and the palette stay, by which all others are found; the key that leaves goes first, then
    those of the screen from the right, the least important ones.
    """

    _fitted_cells = 0

    def compose(self) -> ComposeResult:
        # It has no size of its own before the first.
        self._fitted_cells = self._fitted_cells or self.app.size.width
        entries = list(super().compose())
        left_out = _left_out(entries, self._fitted_cells)
        yield from (entry for entry in entries if entry not in left_out)

    @on(Resize)
    def _fit(self, event: Resize) -> None:
        # What was fitted is kept from here: a size asked for later may be another one, and a footer
        # without any, as of a screen that closes, would compose itself without end.
        if event.size.width not in (0, self._fitted_cells):
            self._fitted_cells = event.size.width
            self.call_after_refresh(self.recompose)


def _left_out(entries: Sequence[Widget], cells: int) -> list[FooterKey]:
    """Return the keys without which the others fit into a line of some cells."""
    keys = [entry for entry in entries if isinstance(entry, FooterKey)]
    free = cells - sum(map(_cells, keys))
    unneeded = [key for key in keys if key.action != "help" and not key.has_class(_PALETTE)]
    unneeded.sort(key=lambda key: key.action == "leave")
    left_out = []
    while free < 0 and unneeded:
        left_out.append(unneeded.pop())
        free += _cells(left_out[-1])
    return left_out


def _cells(key: FooterKey) -> int:
    """Return the width of a key with its name, the blanks around them, the palette's frame."""
    return cell_len(key.key_display) + cell_len(key.description) + 3
