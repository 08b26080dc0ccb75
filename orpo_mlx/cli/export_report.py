"""What an export says while it works: a few lines for people, or JSON lines for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orpo_mlx.cli.progress import progress_json
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.export.checks import ExportCheck
from orpo_mlx.export.written import Exported
from orpo_mlx.text.formatting import counted, format_bytes, format_duration, visible


class ExportReport:
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
        if self.as_json:
            print_text(progress_json(done, total, what, "parts"))
        if what != self._what:
            self._line(f"  {what}")
        self._what = what

    def verified(self, checks: list[ExportCheck]) -> None:
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
            serve=done.serve,
            notes=done.notes,
        )
        for note in done.notes:
            self._line(f"  note  {note}")
        total = format_bytes(sum(size for _, size in done.files))
        self._line(
            f"written  {done.path}  ({counted(len(done.files), 'file')}, {total}, "
            f"{format_duration(seconds)})"
        )
        for command in done.serve:
            self._line(f"serve it {command}")
        self._line(f"use it   {done.command}")

    def _event(self, name: str, **content: Any) -> None:
        if self.as_json:
            print_text(json.dumps({"event": name, **content}, ensure_ascii=False) + "\n")

    def _line(self, text: str) -> None:
        if not self.as_json:
            print_text(visible(text) + "\n")


def _plain(check: ExportCheck) -> dict[str, Any]:
    """Return a check for JSON, which has no NaN and no infinity."""
    content = asdict(check)
    if check.value is not None and not math.isfinite(check.value):
        content["value"] = None
    return content
