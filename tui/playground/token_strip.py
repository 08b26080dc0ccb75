"""Tokens as lines of text with a sign under each: how likely it is, or what has changed; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from orpo_mlx.text.formatting import visible
from tui.shell.charset import CharsetName

_STEPS: dict[str, str] = {"braille": "▁▂▃▄▅▆▇█", "blocks": "▁▂▃▄▅▆▇█", "ascii": "_.-~=*#@"}
LOWEST = -6.0
"""Log-prob in nats from which on a token has the lowest block."""


_SIGNS: dict[str, str] = {"braille": "▼▿·▵▲", "blocks": "▼▿·▵▲", "ascii": "=-.+#"}
SMALL, GREAT = 0.1, 1.0
"""Nats from which on a change is shown, and shown as a great one."""


@dataclass(frozen=True)
class Piece:
    """One token on the screen.

    Attributes:
        index: of the token in the response.
        text: as it is shown, line breaks and control characters written out.
        block: its character, repeated to the width of the text.
        way: 1 for likelier than before, -1 for less likely, 0 for neither.
    """

    index: int
    text: str
    block: str
    way: int = 0


def shade(logp: float, charset: CharsetName = "braille") -> str:
    """Return the block of a log-prob: the highest for 0, the lowest for -6 nats and less."""
    steps = _STEPS[charset]
    share = 1 - max(LOWEST, min(0.0, logp)) / LOWEST
    return steps[min(len(steps) - 1, int(share * len(steps)))]


def change_sign(change: float, charset: CharsetName = "braille") -> str:
    """Return the sign of a change of log-prob: up or down, hollow below 1 nat, a dot below 0.1."""
    size = 2 if abs(change) >= GREAT else 1 if abs(change) >= SMALL else 0
    return _SIGNS[charset][2 + (size if change > 0 else -size)]


def legend(charset: CharsetName) -> str:
    """Return what the signs of changes say."""
    down, _, same, _, up = _SIGNS[charset]
    return (
        f"under each token: {up} likelier than with the base, {down} less likely, {same} as before"
    )


def wrap_tokens(
    tokens: Sequence[str],
    logps: Sequence[float],
    width: int,
    charset: CharsetName = "braille",
    before: Sequence[float] = (),
) -> list[list[Piece]]:
    """Break tokens into lines of at most `width` columns, each with its block or sign.

    Args:
        tokens: texts of the tokens.
        logps: one for each, in nats.
        width: columns; a wider token is cut.
        before: what the base says of each; empty: the block says how likely it is.
    """
    lines: list[list[Piece]] = [[]]
    used = 0
    for index, (token, logp) in enumerate(zip(tokens, logps, strict=True)):
        change = logp - before[index] if before else 0.0
        sign = change_sign(change, charset) if before else shade(logp, charset)
        way = 0 if abs(change) < SMALL else 1 if change > 0 else -1
        text = visible(token).replace("\n", "⏎" if charset != "ascii" else "\\n") or "·"
        size = cell_len(text)
        if size > width:
            text, size = set_cell_size(text, width), width
        if used + size > width:
            lines.append([])
            used = 0
        lines[-1].append(Piece(index, text, sign * size, way))
        used += size
    return lines
