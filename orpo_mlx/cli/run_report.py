"""Everything that is printed: a run's events, lists of runs and errors.

The only module that writes to the terminal. The text comes from report_text.py and runs/history.py;
the reporters only add colour and a progress bar, and only on a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from orpo_mlx.cli.run_summary import summary_lines
from orpo_mlx.cli.terminal import make_console, silence, write_or_mute
from orpo_mlx.runs.event_text import end_line, evaluated_lines, plain_lines, slow_line, step_line
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    EvalCompleted,
    Event,
    NoteLogged,
    RunEvaluated,
    RunFailed,
    RunFinished,
    StepCompleted,
    encode,
)
from orpo_mlx.runs.history import RunHistory
from orpo_mlx.runs.listener import RunListener
from orpo_mlx.text.formatting import format_bytes, format_duration, visible
from orpo_mlx.text.progress import Unit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


SLOW_FACTOR = 3.0
"""A step this many times slower than usual is worth a warning."""


# Reporters


def build_report(output: str = "rich") -> RunListener:
    """Return the report for an output mode: rich, quiet or json."""
    if output == "json":
        return JsonReport()
    return QuietReport() if output == "quiet" else RichReport()


class RichReport:
    """Lines, colours and a progress bar; plain lines where stdout is not a terminal.

    A terminal that goes away (closed window, `| head`) mutes the report; the training goes on.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.history = RunHistory()
        self.console = console or make_console()
        self._bar: Progress | None = None
        self._download, self._began = "", 0.0
        self._started = time.monotonic()
        self._muted = False

    def handle(self, event: Event, line: str = "") -> None:
        """Show one event."""
        self._unless_gone(lambda: self._show(event))

    def catch_up(self, events: Iterable[Event]) -> None:
        """Take in what happened before, without showing it."""
        for event in events:
            self.history.apply(event)

    def progress(self, done: int, total: int, label: str, unit: Unit) -> None:
        """Show a phase by a line, a download or the tokenizing by a bar or a line at its start."""
        if unit == "phase":
            self._unless_gone(lambda: self._show_phase(label))
            return
        show = self._show_tokenizing if unit == "rows" else self._show_download
        self._unless_gone(lambda: show(done, total, label))

    def close(self) -> None:
        """Remove the progress bar."""
        bar, self._bar = self._bar, None
        if bar is not None:
            self._unless_gone(bar.stop)

    def _unless_gone(self, show: Callable[[], None]) -> None:
        if self._muted:
            return
        try:
            show()
        except OSError:
            self._muted = True
            silence()

    def _show_phase(self, label: str) -> None:
        self.close()
        since = format_duration(time.monotonic() - self._started)
        self._print([f"{label} ... (after {since})"], "dim")

    def _show_tokenizing(self, done: int, total: int, label: str) -> None:
        now = time.monotonic()
        if label != self._download:
            self.close()
            self._download, self._began = label, now
            self._print([f"{label} {total:,} rows"], "dim")
        left = (now - self._began) / max(1, done) * (total - done)
        words = f"{label}: {done:,} of {total:,} rows  left {format_duration(left)}"
        self._move_bar(done, total, words)
        if done >= total:
            self.close()

    def _show_download(self, done: int, total: int, label: str) -> None:
        if label != self._download:
            self.close()
            self._download = label
            self._print([f"download {visible(label)}: {format_bytes(total)}"], "dim")
        self._move_bar(done, total, f"{format_bytes(done)} of {format_bytes(total)}")
        if done >= total:
            self.close()

    def _show(self, event: Event) -> None:
        slowness = self.history.slowness(event) if isinstance(event, StepCompleted) else 0.0
        self.history.apply(event)
        match event:
            case StepCompleted():
                self._show_step(event, slowness)
            case RunFinished():
                self.close()
                lines = summary_lines(self.history, event, self._width)
                self._print(lines[:1], "bold")
                self._print(lines[1:])
            case RunFailed():
                self.close()
                self._print(self._failure(event))
            case RunEvaluated():
                verdict, *more = evaluated_lines(event)
                self._print(["", verdict], "bold")
                self._print(more)
            case DataPrepared():
                self._show_data(event)
            case _:
                self._print(plain_lines(event, width=self._width), _style(event))

    def _show_step(self, event: StepCompleted, slowness: float) -> None:
        left = self.history.seconds_left()
        total = self.history.total_steps
        self._print([step_line(event, width=self._width, total_steps=total, seconds_left=left)])
        if slowness > SLOW_FACTOR:
            self._print([slow_line(event, slowness)], "yellow")
        words = f"step {event.step} of {total}, {format_duration(left)} left"
        self._move_bar(event.step, total, words)

    def _show_data(self, event: DataPrepared) -> None:
        style = ""
        for line in plain_lines(event, width=self._width):
            if line.startswith("  prompt"):
                style = "dim"
            elif line.startswith(("  chosen", "  rejected", "  good ", "  bad ")):
                style = "bold"
            elif not line.startswith("           |"):  # continued lines keep their style
                style = ""
            self._print([line], style)

    def _failure(self, event: RunFailed) -> list[str]:
        # The error itself goes to stderr, from whoever catches the exception.
        if event.last_checkpoint is None:
            return [f"failed at step {event.step}; there is no checkpoint yet"]
        saved = f"failed at step {event.step}; saved: {event.last_checkpoint}"
        if event.kind == "not_finite":  # it would come to the same number again
            return [saved]
        return [saved, f"go on    {self.history.resume_command}"]

    def _move_bar(self, done: int, total: int, words: str) -> None:
        if not self.console.is_terminal or not total:
            return
        if self._bar is None:
            self._bar = _make_bar(self.console)
            self._bar.add_task("", total=total, words=words)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, words=words)
        self._bar.refresh()

    @property
    def _width(self) -> int:
        return min(self.console.width, 120)

    def _print(self, lines: Sequence[str], style: str = "") -> None:
        from rich.text import Text

        for line in lines:
            # soft_wrap: never break a path or a command in two.
            self.console.print(Text(line, style), soft_wrap=True)


def _style(event: Event) -> str:
    if isinstance(event, NoteLogged):
        return "yellow" if event.level == "warning" else "dim"
    if isinstance(event, EvalCompleted):
        return "cyan"
    return "dim" if isinstance(event, CheckpointSaved) else ""


def _make_bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    # No refresh thread: the bar moves with the events and never races the training.
    return Progress(
        BarColumn(bar_width=None),
        TextColumn("{task.fields[words]}"),
        console=console,
        transient=True,
        auto_refresh=False,
        expand=True,
    )


class QuietReport:
    """Only the final line and the verdict; errors come from the command."""

    def handle(self, event: Event, line: str = "") -> None:
        """Show the end of the run."""
        if isinstance(event, RunFinished):
            where = event.adapter_path
            write_or_mute(end_line(event) + (f": {where}" if where else "") + "\n")
        if isinstance(event, RunEvaluated):
            write_or_mute(evaluated_lines(event)[0] + "\n")

    def catch_up(self, events: Iterable[Event]) -> None:
        """Nothing to take in."""

    def progress(self, done: int, total: int, label: str, unit: Unit) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


class JsonReport:
    """The lines of the event file, as they are."""

    def handle(self, event: Event, line: str = "") -> None:
        """Write the event's line."""
        write_or_mute(line or encode(event))

    def catch_up(self, events: Iterable[Event]) -> None:
        """Nothing to take in."""

    def progress(self, done: int, total: int, label: str, unit: Unit) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


# Lists and errors
