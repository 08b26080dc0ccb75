"""Exports as they are written one after the other; pure.

Built from the JSON lines of `orpo-mlx export --json`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orpo_mlx.text.formatting import counted, format_bytes, format_duration, visible
from orpo_mlx.text.ticks import format_value
from tui.charts.sparkline import gauge
from tui.shell.charset import CharsetName
from tui.shell.lines import TextLine

JobState = Literal["waiting", "writing", "written", "failed", "ended"]

_SIGNS: dict[JobState, tuple[str, str]] = {
    "waiting": ("·", "."),
    "writing": ("▶", ">"),
    "written": ("✓", "v"),
    "failed": ("✗", "x"),
    "ended": ("■", "#"),
}
_BAR = 16
_LMSTUDIO_PLACE = (
    "Start LM Studio once, or give the folder of its models in the field LM Studio above."
)
"""In place of an option that the form asks for elsewhere."""


@dataclass
class Job:
    """One format on its way.

    Attributes:
        path: where it goes; None: where its program looks.
        checks: what was verified in the files, each with name, passed, value, limit and text.
        command: what uses the result.
        serve: commands that serve it to other programs.
    """

    format: str
    path: Path | None
    force: bool = False
    state: JobState = "waiting"
    done: int = 0
    total: int = 0
    what: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    command: str = ""
    serve: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    message: str = ""
    what_to_do: str = ""
    kind: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether it failed because its place is taken by something that may be replaced."""
        return self.state == "failed" and not self.force and self.kind == "target_exists"

    def begin(self) -> None:
        """Start, or start again."""
        self.state, self.message, self.what_to_do, self.kind = "writing", "", "", ""
        self.checks, self.done, self.total, self.what = [], 0, 0, "reading the adapter"

    def apply(self, message: dict[str, Any]) -> None:
        """Take one message in; unknown ones change nothing."""
        match message.get("event"):
            case "started":
                self.path = Path(message["out"])
            case "progress":
                self.done, self.total = message["done"], message["total"]
                self.what = message["label"]
            case "verified":
                self.checks = message["checks"]
            case "finished":
                self.state = "written"
                self.path, self.files = Path(message["path"]), message["files"]
                self.seconds, self.command = message["seconds"], message["command"]
                self.serve, self.notes = message.get("serve", []), message["notes"]
            case "failed":
                self.fail(message["message"], message["what_to_do"], message["kind"])

    def fail(self, message: str, what_to_do: str = "", kind: str = "") -> None:
        """Note why it ended; `kind` as `orpo-mlx export` names it."""
        self.state, self.message, self.kind = "failed", message, kind
        self.what_to_do = _LMSTUDIO_PLACE if kind == "no_place" else what_to_do

    def close(self, exit_code: int | None, complaint: str) -> None:
        """Note that the process has ended; without a last word that is a failure."""
        if self.state == "writing":
            said = complaint or f"The export's process ended with code {exit_code}."
            self.fail(said, "Try again; `orpo-mlx doctor` looks at the machine.")


def jobs_lines(jobs: Sequence[Job], width: int, charset: CharsetName) -> list[TextLine]:
    """Return what is shown of all jobs: how each stands, then what is known, failures first."""
    lines = [_state_line(job, charset) for job in jobs]
    for job in sorted(jobs, key=lambda job: job.state != "failed"):
        details = _details(job, width, charset)
        if details and len(jobs) > 1:
            lines += [(), (("kind", f"  {job.format}"),)]
        lines += details
    return lines


def _state_line(job: Job, charset: CharsetName) -> TextLine:
    sign = _SIGNS[job.state][charset == "ascii"]
    kind = "bad" if job.state == "failed" else "kind"
    return (kind, f"{sign} {job.format:<10} "), ("text", _headline(job, charset))


def _details(job: Job, width: int, charset: CharsetName) -> list[TextLine]:
    lines: list[TextLine] = []
    if job.state == "failed":
        lines += _wrapped(job.message, width, "bad") + _wrapped(job.what_to_do, width, "text")
    if job.state == "written":
        lines += _wrapped(str(job.path), width, "text")
    if job.command:
        lines += _wrapped(f"use it: {job.command}", width, "kind")
    for command in job.serve:
        lines += _wrapped(f"serve it: {command}", width, "quiet")
    for check in job.checks:
        lines += _check_lines(check, width, charset)
    for note in job.notes:
        lines += _wrapped(f"note: {note}", width, "quiet")
    return lines


def _headline(job: Job, charset: CharsetName) -> str:
    match job.state:
        case "waiting":
            return "waiting"
        case "writing":
            if not job.total:
                return job.what
            share = gauge(job.done / job.total, _BAR, charset)
            return f"{share} {job.done:,}/{job.total:,}  {job.what}"
        case "written":
            size = format_bytes(sum(file["bytes"] for file in job.files))
            files = counted(len(job.files), "file")
            return f"written: {files}, {size}, {format_duration(job.seconds)}"
        case "failed":
            return "failed; the reason stands below"
        case "ended":
            return "ended by you; nothing is left of it"


def _check_lines(check: dict[str, Any], width: int, charset: CharsetName) -> list[TextLine]:
    passed = check["passed"]
    sign = _SIGNS["written" if passed else "failed"][charset == "ascii"]
    figure = ""
    if check.get("value") is not None:
        figure = f" [{format_value(check['value'])}"
        limit = check.get("limit")
        figure += "]" if limit is None else f", at most {format_value(limit)}]"
    word = "passed" if passed else "FAILED"
    text = f"{sign} {word} {check['name']}{figure}: {check['text']}"
    return _wrapped(text, width, "quiet" if passed else "bad")


def _wrapped(text: str, width: int, kind: str) -> list[TextLine]:
    lines = textwrap.wrap(visible(text), max(20, width - 5), break_on_hyphens=False)
    return [((kind, f"    {line}"),) for line in lines]
