"""What a chart is made of: its lines, how it is looked at, and the painted cells; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tui.charts.scaling import Scale
from tui.run.columns import Floats


class Ink(IntEnum):
    """What a cell shows; a widget gives each a colour. `LINE + n` and `BAND + n`: of line n."""

    BLANK = 0
    AXIS = 1
    LABEL = 2
    TITLE = 3
    GRID = 4
    CURSOR = 5
    MARK = 6
    BAD = 7
    QUIET = 8
    LINE = 10
    BAND = 20


def ink_name(ink: int) -> str:
    """Return the name of an ink, which is that of its style: axis, line-1, band-2; "" for blank."""
    if ink >= Ink.BAND:
        return f"band-{ink - Ink.BAND + 1}"
    if ink >= Ink.LINE:
        return f"line-{ink - Ink.LINE + 1}"
    return "" if ink == Ink.BLANK else Ink(ink).name.lower()


MARK_SIGNS = {"checkpoint": "▴", "pause": "‖", "resume": "▸", "nan": "!"}
ASCII_SIGNS = {"checkpoint": "^", "pause": "=", "resume": ">", "nan": "!"}


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    Attributes:
        marker: its letter, so that lines differ without colour.
        colour: 0 to 3, which of the palette's.
        points: drawn as single markers, not joined (evaluations).
        may_smooth: false for what smoothing would falsify, such as the learning rate.
    """

    name: str
    marker: str
    colour: int
    xs: Floats
    ys: Floats
    points: bool = False
    may_smooth: bool = True


@dataclass(frozen=True)
class View:
    """How a chart is looked at; the y axis follows what the x axis shows.

    Attributes:
        smoothing: weight of the past, 0 to below 1.
        window: the stretch of x shown; None: all of it.
        cursor: x of the crosshair.
        band: index of the line whose raw values are drawn dimly behind; -1: of none.
    """

    smoothing: float = 0.0
    log_y: bool = False
    window: Scale | None = None
    cursor: float | None = None
    band: int = 0


@dataclass
class Painting:
    """[height, width] characters and inks, and where the axes stand."""

    codes: NDArray[np.uint32]
    inks: NDArray[np.uint8]
    x: Scale
    y: Scale
    left: int = 0
    """Cells before the plot."""
    plot_width: int = 0

    @classmethod
    def blank(cls, width: int, height: int) -> Painting:
        """Return an empty painting."""
        codes = np.full((height, width), ord(" "), dtype=np.uint32)
        return cls(codes, np.zeros((height, width), np.uint8), Scale(0, 1), Scale(0, 1))

    def write(self, row: int, column: int, text: str, ink: int) -> int:
        """Put text on a row, cut at the border; return the column after it."""
        if not 0 <= row < self.codes.shape[0]:
            return column
        skipped, column = max(0, -column), max(0, column)
        text = text[skipped : skipped + max(0, self.codes.shape[1] - column)]
        end = column + len(text)
        self.codes[row, column:end] = [ord(character) for character in text]
        self.inks[row, column:end] = ink
        return end

    def row_text(self, row: int) -> str:
        """Return a row as text."""
        return "".join(map(chr, self.codes[row]))

    def pieces(self, row: int) -> Iterator[tuple[str, int]]:
        """Yield a row in pieces of one ink each: (text, ink)."""
        inks, text = self.inks[row], self.row_text(row)
        borders = [0, *(np.flatnonzero(np.diff(inks)) + 1).tolist(), len(inks)]
        for start, stop in pairwise(borders):
            if stop > start:
                yield text[start:stop], int(inks[start])

    def changes(self, old: Painting) -> list[tuple[int, int, int]]:
        """Return (row, first column, column after the last) of what differs from one as large.

        Not whole rows: what a terminal at the end of a slow line gets is what one feels.
        """
        changed = (old.codes != self.codes) | (old.inks != self.inks)
        first = changed.argmax(axis=1).tolist()
        stop = (changed.shape[1] - changed[:, ::-1].argmax(axis=1)).tolist()
        rows = np.flatnonzero(changed.any(axis=1)).tolist()
        return [(row, first[row], stop[row]) for row in rows]

    def text(self) -> str:
        """Return the whole as lines of text."""
        return "\n".join(self.row_text(row).rstrip() for row in range(self.codes.shape[0]))
