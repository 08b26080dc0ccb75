"""Everything that is printed: a run's events, lists of runs and errors.

The only module that writes to the terminal. The text comes from report_text.py and run_history.py;
the reporters only add colour and a progress bar, and only on a terminal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orpo_mlx.errors import OrpoError
from orpo_mlx.formatting import format_bytes, format_duration, visible
from orpo_mlx.hub_client import TOKENIZING
from orpo_mlx.report_text import (
    WIDTH,
    check_lines,
    end_line,
    fit_lines,
    format_error,
    plain_lines,
    runs_table,
    slow_line,
    step_line,
)
from orpo_mlx.run_history import RunHistory, summary_lines
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    EvalCompleted,
    Event,
    NoteLogged,
    Record,
    RunFailed,
    RunFinished,
    StepCompleted,
    encode,
)
from orpo_mlx.runs.listing import RunSummary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from orpo_mlx.fit import Answer
    from orpo_mlx.verify import Check

CHECKING_ROWS, DOWNLOADING = "checking rows", "downloading"
"""How lines of progress on stderr begin."""

SLOW_FACTOR = 3.0
"""A step this many times slower than usual is worth a warning."""


# Reporters


class Report(Protocol):
    """Shows the events of a run as they come."""

    def handle(self, event: Event, line: str = "") -> None:
        """Show one event.

        Args:
            event: what happened.
            line: the event as it stands in the event file, if known.
        """
        ...

    def catch_up(self, events: Iterable[Event]) -> None:
        """Take in what happened before, without showing it (a resumed run)."""
        ...

    def progress(self, done: int, total: int, label: str) -> None:
        """Show how far a download is, in bytes, or with the label `TOKENIZING` in rows."""
        ...

    def close(self) -> None:
        """Leave the terminal in order, however the run ended."""
        ...


def build_report(output: str = "rich") -> Report:
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
        self._muted = False

    def handle(self, event: Event, line: str = "") -> None:
        """Show one event."""
        self._unless_gone(lambda: self._show(event))

    def catch_up(self, events: Iterable[Event]) -> None:
        """Take in what happened before, without showing it."""
        for event in events:
            self.history.apply(event)

    def progress(self, done: int, total: int, label: str) -> None:
        """Show how far a download or the tokenizing is: a bar, or a line at its start."""
        show = self._show_tokenizing if label == TOKENIZING else self._show_download
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
            elif line.startswith(("  chosen", "  rejected")):
                style = "bold"
            elif not line.startswith("           |"):  # continued lines keep their style
                style = ""
            self._print([line], style)

    def _failure(self, event: RunFailed) -> list[str]:
        # The error itself goes to stderr, from whoever catches the exception.
        if event.last_checkpoint is None:
            return [f"failed at step {event.step}; there is no checkpoint yet"]
        return [
            f"failed at step {event.step}; saved: {event.last_checkpoint}",
            f"go on    {self.history.resume_command}",
        ]

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


def make_console() -> Console:
    """Return a console on stdout that survives the terminal's end and odd encodings."""
    from rich.console import Console

    class SteadyConsole(Console):
        def on_broken_pipe(self) -> None:
            # Rich would end the process here, and with it the training.
            raise BrokenPipeError

    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return SteadyConsole(highlight=False, markup=False, emoji=False)


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
    """Only the final line; errors come from the command."""

    def handle(self, event: Event, line: str = "") -> None:
        """Show the end of the run."""
        if isinstance(event, RunFinished):
            where = event.adapter_path
            _write_or_mute(end_line(event) + (f": {where}" if where else "") + "\n")

    def catch_up(self, events: Iterable[Event]) -> None:
        """Nothing to take in."""

    def progress(self, done: int, total: int, label: str) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


class JsonReport:
    """The lines of the event file, as they are."""

    def handle(self, event: Event, line: str = "") -> None:
        """Write the event's line."""
        _write_or_mute(line or encode(event))

    def catch_up(self, events: Iterable[Event]) -> None:
        """Nothing to take in."""

    def progress(self, done: int, total: int, label: str) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


def _write_or_mute(text: str) -> None:
    try:
        print_text(text)
    except OSError:
        silence()


def show_plain(records: Iterable[Record], history: RunHistory) -> None:
    """Write events as plain lines, whatever stdout is (`watch --plain`)."""
    for record in records:
        if record.event is not None:
            history.apply(record.event)
            lines = plain_lines(record.event, total_steps=history.total_steps)
            print_text("".join(line + "\n" for line in lines))


def show_raw(records: Iterable[Record]) -> None:
    """Write events as JSON lines, unknown fields and events included (`watch --json`)."""
    for record in records:
        print_text(json.dumps(record.raw, ensure_ascii=False) + "\n")


# Lists and errors


def print_runs(summaries: Sequence[RunSummary], folder: Path, as_json: bool = False) -> int:
    """Print the runs as a table or as a JSON list; return the exit code 0."""
    if as_json:
        rows = [{**vars(summary), "path": str(summary.path)} for summary in summaries]
        return print_text(json.dumps(rows, indent=2) + "\n")
    if not summaries:
        return print_text(f"No runs in {folder} yet. Start one: orpo-mlx train --demo\n")
    width = terminal_width() if sys.stdout.isatty() else None
    return print_text("\n".join(runs_table(summaries, width)) + "\n")


def print_checks(checks: Iterable[Check], as_json: bool = False) -> int:
    """Print each check as it comes, or all as a JSON list; return 1 if one failed, else 0."""
    done = []
    for check in checks:
        done.append(check)
        if not as_json:
            print_text("".join(line + "\n" for line in check_lines(check)))
    failed = sum(not check.passed for check in done)
    if as_json:
        print_text(json.dumps([vars(check) for check in done], indent=2) + "\n")
    elif failed:
        print_text(
            f"{failed} of {len(done)} checks failed. Do not trust a training here before it is "
            "clear why;\nplease report it with these lines and the versions in use.\n"
        )
    else:
        print_text(f"all {len(done)} checks passed\n")
    return 1 if failed else 0


def print_fit(found: Answer, as_json: bool = False) -> int:
    """Print what a training needs and which settings fit; return the exit code 0."""
    if not as_json:
        return print_text("\n".join(fit_lines(found)) + "\n")
    suggestions = [
        {"what": one.what, "flags": one.flags, "settings": one.changes, "bytes": one.total,
         "grad_checkpoint_every": one.recompute_every}
        for one in found.suggestions
    ]  # fmt: skip
    savings = found.plan.savings
    content: dict[str, Any] = {
        "fits": found.fits,
        "estimated_bytes": found.estimate.total,
        "available_bytes": found.limit,
        "parts": found.estimate.parts(),
        "scoring": found.way,
        "pairs": found.pairs,
        "suggestions": suggestions,
        "past_runs": list(found.past),
        "grid": asdict(found.grid),
        "grad_checkpoint_every": savings.recompute_every,
        "head_chunk": savings.head_chunk,
        "notes": list(found.notes),
    }
    if found.time is not None:
        content["time"] = asdict(found.time)
    return print_text(json.dumps(content, indent=2) + "\n")


def print_checkup(content: dict[str, Any], as_json: bool = False, show: int = 1) -> int:
    """Print what `data check` found, as text or as one JSON object; return the exit code 0.

    Args:
        content: of the checkup; see `data_check`.
        as_json: whether programs read it.
        show: pairs shown token by token.
    """
    if as_json:
        return print_text(json.dumps(content, ensure_ascii=False) + "\n")
    from orpo_mlx.doctor_text import checkup_lines

    if not sys.stdout.isatty():
        lines = ("".join(text for text, _ in line) for line in checkup_lines(content, show))
        return print_text("".join(line.rstrip() + "\n" for line in lines))
    from rich.text import Text

    console = make_console()
    for line in checkup_lines(content, show, min(console.width, 120)):
        console.print(Text.assemble(*line), soft_wrap=True)
    return 0


class StatusLine:
    """What is going on, on stderr: one line on a terminal, written anew a few times a second.

    A program that reads stderr gets lines of their own, one a second, and only if it asks for them.
    """

    def __init__(self, for_program: bool = False) -> None:
        self._for_program = for_program and not _is_terminal(sys.stderr)
        self._pause_seconds = 1.0 if self._for_program else 0.3
        self._shown = time.monotonic()
        self._is_shown = False

    @property
    def is_due(self) -> bool:
        """Whether anybody looks and the last text is old."""
        is_old = time.monotonic() - self._shown >= self._pause_seconds
        return is_old and (self._for_program or _is_terminal(sys.stderr))

    def show(self, text: str) -> None:
        """Show a text instead of the last one."""
        self._shown = time.monotonic()
        self._is_shown = not self._for_program
        _write_error(text + "\n" if self._for_program else f"\r\x1b[K{text}")

    def close(self) -> None:
        """Remove the line."""
        if self._is_shown:
            self._is_shown = False
            _write_error("\r\x1b[K")


class RowProgress:
    """How far a pass over rows is, and how long it will take."""

    def __init__(
        self, total: int, label: str = CHECKING_ROWS, line: StatusLine | None = None
    ) -> None:
        self.total, self.label = total, label
        self._line = line or StatusLine()
        self._started = time.monotonic()

    def update(self, done: int) -> None:
        """Show that so many rows are done."""
        if not self._line.is_due:
            return
        seconds = time.monotonic() - self._started
        left = seconds / done * max(0, self.total - done)
        words = f"{self.label}: {done:,} of {self.total:,}, {done / seconds:,.0f}/s"
        self._line.show(f"{words}, {format_duration(left)} left")

    def close(self) -> None:
        """Remove the line."""
        self._line.close()


class DownloadProgress:
    """How far a download is; called as `hub_client.OnProgress` says."""

    def __init__(self, line: StatusLine) -> None:
        self._line = line

    def __call__(self, done: int, total: int, label: str) -> None:
        if self._line.is_due:
            amount = f"{format_bytes(done)} of {format_bytes(total)}"
            self._line.show(f"{DOWNLOADING} {visible(label)}: {amount}")
        if done >= total:
            self._line.close()


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def terminal_width() -> int:
    """Return the columns of the terminal, 80 if there is none."""
    import shutil

    return shutil.get_terminal_size((WIDTH, 24)).columns


def print_error(error: OrpoError, details: str = "") -> None:
    """Write an error to stderr, with its traceback if `details` holds one."""
    _write_error(details + format_error(error))


def print_internal_error(error: Exception, details: str = "") -> None:
    """Write an error nobody foresaw to stderr."""
    words = visible(f"{type(error).__name__}: {error}".split("\n")[0])
    advice = "" if details else "Run it again with --debug to see where; please report it.\n"
    _write_error(f"{details}error: internal error ({words})\n{advice}")


def print_error_text(text: str) -> None:
    """Write one line to stderr."""
    _write_error(visible(text) + "\n")


def _write_error(text: str) -> None:
    try:
        sys.stderr.write(text.encode("utf-8", "replace").decode("utf-8"))
        sys.stderr.flush()
    except OSError:
        return  # nobody is there to read it


def print_text(text: str) -> int:
    """Write text to stdout; return the exit code 0."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
    return 0


def open_missing_streams() -> None:
    """Give a process that was started without stdout or stderr (`>&-`) somewhere to write.

    The first file opened later would otherwise get the number of stdout, and what native code
    prints would land in it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def flush() -> None:
    """Write what is still buffered, so that a broken pipe shows here and not at exit."""
    sys.stdout.flush()


def silence() -> None:
    """Point stdout at nothing after its reader went away: else Python complains at exit."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        return  # stdout is no file (captured in a test)
