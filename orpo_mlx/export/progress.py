"""What an export says while it works: a few lines for people, or JSON lines for programs."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orpo_mlx import report
from orpo_mlx.export.checks import Check
from orpo_mlx.export.written import Exported
from orpo_mlx.formatting import counted, format_bytes, format_duration, visible


class Progress:
    """Says how an export goes; the only way an export speaks."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._what = ""

    def started(self, format: str, out: Path) -> None:
        """Say what is written to where, before any work."""
        self._event("started", format=format, out=str(out))
        self._line(f"export to {format}: {out}")

    def step(self, done: int, total: int, what: str) -> None:
        """Say how far a piece of work is; `what` names it and stays the same while it lasts."""
        self._event("progress", done=done, total=total, what=what)
        if what != self._what:
            self._line(f"  {what}")
        self._what = what

    def verified(self, checks: list[Check]) -> None:
        """Say what was checked in the files as they were written."""
        self._event("verified", checks=[_plain(check) for check in checks])
        for check in checks:
            self._line(f"  {'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.text}")

    def finished(self, format: str, done: Exported, seconds: float) -> None:
        """Say where the result is, how large, and how to use it."""
        files = [{"name": name, "bytes": size} for name, size in done.files]
        self._event(
            "finished",
            format=format,
            path=str(done.path),
            files=files,
            seconds=round(seconds, 3),
            command=done.command,
            notes=done.notes,
        )
        for note in done.notes:
            self._line(f"  note  {note}")
        total = format_bytes(sum(size for _, size in done.files))
        self._line(
            f"written  {done.path}  ({counted(len(done.files), 'file')}, {total}, "
            f"{format_duration(seconds)})"
        )
        self._line(f"use it   {done.command}")

    def failed(self, message: str, what_to_do: str) -> None:
        """Say why it ended, in JSON; people read it on stderr."""
        self._event("failed", message=message, what_to_do=what_to_do)

    def _event(self, name: str, **content: Any) -> None:
        if self.as_json:
            report.print_text(json.dumps({"event": name, **content}, ensure_ascii=False) + "\n")

    def _line(self, text: str) -> None:
        if not self.as_json:
            report.print_text(visible(text) + "\n")


def _plain(check: Check) -> dict[str, Any]:
    """Return a check for JSON, which has no NaN and no infinity."""
    content = asdict(check)
    if check.value is not None and not math.isfinite(check.value):
        content["value"] = None
    return content


def command_line(*words: str | Path) -> str:
    """Return a command as it can be pasted into a shell."""
    return shlex.join(str(word) for word in words)
