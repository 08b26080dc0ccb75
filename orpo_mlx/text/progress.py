"""How far long work is, and its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from orpo_mlx.text.formatting import format_bytes, format_duration, visible

Unit = Literal["bytes", "rows", "parts", "phase"]

OnProgress = Callable[[int, int, str, Unit], None]
"""Called with (done, total, label, unit); for bytes the label names what is downloaded. A phase has
no parts that could be counted: both numbers are 0."""


def tell_phase(on_progress: OnProgress | None, label: str) -> None:
    """Say that a phase begins, if anybody listens."""
    if on_progress is not None:
        on_progress(0, 0, label, "phase")


def progress_text(done: int, total: int, label: str, unit: str, seconds: float = 0.0) -> str:
    """Return how far it is in words.

    Args:
        done, total: of the unit.
        label: what is done; of bytes, what is downloaded.
        unit: one of `Unit`.
        seconds: since the beginning, for the speed and the time left; 0: they are left out.

    >>> progress_text(5, 10, "checking rows", "rows")
    'checking rows: 5 of 10'
    """
    if unit == "bytes":
        return f"downloading {visible(label)}: {format_bytes(done)} of {format_bytes(total)}"
    if unit == "phase":
        return f"{visible(label)} ..."
    words = f"{visible(label)}: {done:,} of {total:,}"
    if not (seconds and done):
        return words
    left = format_duration(seconds / done * max(0, total - done))
    return f"{words}, {done / seconds:,.0f}/s, {left} left"
