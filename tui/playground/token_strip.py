"""Tokens with their log-probs as lines of text: a block under each, higher is likelier; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from orpo_mlx.text.formatting import visible
from tui.shell.charset import CharsetName

_STEPS: dict[str, str] = {"braille": "▁▂▃▄▅▆▇█", "blocks": "▁▂▃▄▅▆▇█", "ascii": "_.-~=*#@"}
LOWEST = -6.0
"""Log-prob in nats from which on a token has the lowest block."""


@dataclass(frozen=True)
class Piece:
    """One token on the screen.

    Attributes:
        index: of the token in the response.
        text: as it is shown, line breaks and control characters written out.
        block: its character, repeated to the width of the text.
    """

    index: int
    text: str
    block: str


def shade(logp: float, charset: CharsetName = "braille") -> str:
    """Return the block of a log-prob: the highest for 0, the lowest for -6 nats and less."""
    steps = _STEPS[charset]
    share = 1 - max(LOWEST, min(0.0, logp)) / LOWEST
    return steps[min(len(steps) - 1, int(share * len(steps)))]


def wrap_tokens(
    tokens: Sequence[str], logps: Sequence[float], width: int, charset: CharsetName = "braille"
) -> list[list[Piece]]:
    """Break tokens into lines of at most `width` columns, each with its block.

    Args:
        tokens: texts of the tokens.
        logps: one for each, in nats.
        width: columns; a wider token is cut.
    """
    lines: list[list[Piece]] = [[]]
    used = 0
    for index, (token, logp) in enumerate(zip(tokens, logps, strict=True)):
        text = visible(token).replace("\n", "⏎" if charset != "ascii" else "\\n") or "·"
        size = cell_len(text)
        if size > width:
            text, size = set_cell_size(text, width), width
        if used + size > width:
            lines.append([])
            used = 0
        lines[-1].append(Piece(index, text, shade(logp, charset) * size))
        used += size
    return lines
