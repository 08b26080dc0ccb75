"""Dots to characters: braille, quadrant blocks or ASCII; pure, numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tui.shell.charset import CharsetName

Dots = NDArray[np.bool_]
Codes = NDArray[np.uint32]


@dataclass(frozen=True)
class Charset:
    """How a cell shows dots.

    Attributes:
        across, down: dots per cell.
        weights: [down, across] value of each dot; their sum indexes `codes`.
        codes: code point of each sum.
        has_band: whether a dim band can be told from a line drawn over it.
    """

    name: CharsetName
    across: int
    down: int
    weights: tuple[tuple[int, ...], ...]
    codes: Codes
    horizontal: str
    vertical: str
    corner: str
    tick: str
    has_band: bool

    def cells(self, dots: Dots) -> NDArray[np.intp]:
        """Return the [rows, columns] sums of a [rows * down, columns * across] array of dots."""
        rows, columns = dots.shape[0] // self.down, dots.shape[1] // self.across
        blocks = dots.reshape(rows, self.down, columns, self.across)
        return np.einsum("rdca,da->rc", blocks.astype(np.intp), np.asarray(self.weights))


def _points(text: str) -> Codes:
    return np.array([ord(character) for character in text], dtype=np.uint32)


CHARSETS: dict[CharsetName, Charset] = {
    "braille": Charset(
        "braille", 2, 4, ((1, 8), (2, 16), (4, 32), (64, 128)),
        np.arange(0x2800, 0x2900, dtype=np.uint32), "─", "│", "└", "┬", True,
    ),
    "blocks": Charset(
        "blocks", 2, 2, ((1, 2), (4, 8)), _points(" ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"), "─", "│", "└", "┬", False
    ),
    "ascii": Charset("ascii", 1, 2, ((1,), (2,)), _points(" '.:"), "-", "|", "+", "+", False),
}  # fmt: skip
