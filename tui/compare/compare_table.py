"""Runs beside each other in columns: results first, then settings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import set_cell_size

from tui.compare.comparing import CompareRow
from tui.parts.line_view import LineView
from tui.shell.charset import CharsetName
from tui.shell.lines import Piece, TextLine
from tui.shell.names import cut_middle

_NAME = (20, 26)
"""Fewest and most columns of a row's name."""

_VALUE = 13
"""Columns of a value with its step and star: as many as a name leaves to it, if it can."""

_GAP = 1
DIFFERS = ("≠", "#")
"""The sign of a setting that differs; the second without Unicode."""


class CompareTable(LineView):
    """A line per row; the best value has a star, in the list of all what differs has a sign."""

    HELP = "What differs between the runs. Arrow keys, page up and down move."

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.following = False

    def show_rows(
        self,
        names: Sequence[str],
        rows: Sequence[CompareRow],
        marks_differing: bool,
        charset: CharsetName,
    ) -> None:
        """Show one column per name."""
        room, columns = self.size.width - 1, max(1, len(names))
        name_width = min(_NAME[1], max(_NAME[0], room - columns * (_VALUE + _GAP)))
        width = max(6, (room - name_width) // columns - _GAP)
        lines: list[TextLine] = [
            (("kind", " " * name_width), *_cells(names, width, "kind", charset))
        ]
        for row in rows:
            sign = "  "
            if marks_differing and row.is_setting and row.differs:
                sign = DIFFERS[charset == "ascii"] + " "
            star = " *" if charset == "ascii" else " ★"
            texts = [t + star if i == row.best else t for i, t in enumerate(row.texts)]
            label: Piece = ("quiet", set_cell_size(sign + row.name, name_width))
            lines.append((label, *_cells(texts, width, "text", charset)))
        self.show(lines)


def _cells(texts: Sequence[str], width: int, kind: str, charset: CharsetName) -> list[Piece]:
    cut = (cut_middle(text, width, charset) for text in texts)
    return [(kind, " " * _GAP + set_cell_size(text, width)) for text in cut]
