"""How a run's status is written: a sign, a word and a class, never a colour alone; pure."""

from __future__ import annotations

from typing import NamedTuple

from orpo_mlx.runs.directory import Status
from tui.shell.charset import CharsetName


class StatusText(NamedTuple):
    """A status for people."""

    sign: str
    word: str
    tone: str
    """good, busy, quiet or bad."""


_TEXTS: dict[Status, tuple[str, str, str, str]] = {
    "preparing": ("…", "~", "preparing", "busy"),
    "running": ("▶", ">", "running", "good"),
    "paused": ("‖", "=", "paused", "busy"),
    "stopping": ("■", "#", "stopping", "busy"),
    "stalled": ("?", "?", "stalled", "bad"),
    "completed": ("✓", "v", "completed", "good"),
    "stopped": ("■", "#", "stopped", "quiet"),
    "failed": ("✗", "x", "failed", "bad"),
    "crashed": ("✗", "x", "crashed", "bad"),
    "waiting": ("–", "-", "waiting", "quiet"),
    "damaged": ("✗", "x", "damaged", "bad"),
}

ALIVE: tuple[Status, ...] = ("preparing", "running", "paused", "stopping", "stalled")
"""A trainer is there."""

RESUMABLE: tuple[Status, ...] = ("stopped", "failed", "crashed")
"""Ended before its last step: a trainer may go on with it."""


def status_text(status: Status, charset: CharsetName = "braille") -> StatusText:
    """Return sign, word and tone of a status."""
    sign, plain, word, tone = _TEXTS[status]
    return StatusText(plain if charset == "ascii" else sign, word, tone)
