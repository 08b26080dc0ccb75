"""How far a command is: one line on stderr for people, JSON lines for programs."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator

from orpo_mlx.cli.terminal import is_terminal, print_text, write_controls, write_error
from orpo_mlx.errors import OrpoError
from orpo_mlx.text.formatting import format_duration
from orpo_mlx.text.progress import progress_text


class ProgressLine:
    """Called as `OnProgress` says; on stderr, because a result goes to stdout.

    People see one line that is written anew a few times a second. A program that reads stderr gets
    lines of JSON, one a second, and only if it asks for them.

    Args:
        as_json: whether it asks.
        says_phases: for work of minutes: whatever begins is told at once, and also where stderr is
            a file or a pipe, by a line each.
    """

    def __init__(self, as_json: bool = False, *, says_phases: bool = False) -> None:
        self._as_json = as_json and not is_terminal(sys.stderr)
        self._says_phases = says_phases
        self._pause_seconds = 1.0 if self._as_json else 0.3
        self._shown = self._began = self._started = time.monotonic()
        self._label = ""
        self._is_shown = False

    def __call__(self, done: int, total: int, label: str, unit: str) -> None:
        """Show how far it is if anybody looks and the last text is old."""
        now = time.monotonic()
        begins = label != self._label
        if begins:
            self._label, self._began = label, now
        is_told = begins and self._says_phases
        if now - self._shown < self._pause_seconds and not is_told:
            return
        if self._as_json:
            write_error(progress_json(done, total, label, unit, now - self._began))
        elif is_terminal(sys.stderr):
            self._is_shown = True
            write_controls(f"\r\x1b[K{progress_text(done, total, label, unit, now - self._began)}")
        elif is_told:
            what = progress_text(done, total, label, "bytes" if unit == "bytes" else "phase")
            write_error(f"{what} (after {format_duration(now - self._started)})\n")
        self._shown = now

    def close(self) -> None:
        """Remove the line."""
        if self._is_shown:
            self._is_shown = False
            write_controls("\r\x1b[K")


def progress_json(done: int, total: int, label: str, unit: str, seconds: float = 0.0) -> str:
    """Return how far it is as a line of JSON; `seconds` since its beginning, 0: unknown."""
    content = {"event": "progress", "done": done, "total": total, "label": label, "unit": unit}
    if seconds:
        content["seconds"] = round(seconds, 3)
    return json.dumps(content, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def failures_as_json(is_wanted: bool) -> Iterator[None]:
    """Print an error as a JSON object on stdout where programs read; people read it on stderr."""
    try:
        yield
    except OrpoError as error:
        if is_wanted:
            said = {"message": error.message, "what_to_do": error.what_to_do}
            print_text(json.dumps({"event": "failed", "kind": error.kind, **said}) + "\n")
        raise
