"""Everything that is printed: a run's events as terminal lines, tables and errors.

The only module that writes to the terminal. Text is made by pure functions (`plain_lines`,
`format_error`, `runs_table`); the reporters only add colour and a progress bar, and only on a
terminal.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.directory import default_runs_dir, runs_folder
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    EvalCompleted,
    Event,
    NoteLogged,
    Paused,
    Record,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
    encode,
)
from orpo_mlx.runs.listing import RunSummary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

WIDTH = 80
"""Columns where no terminal says otherwise."""

SLOW_FACTOR = 3.0
"""A step this many times slower than usual is worth a warning."""


# Numbers and text


def format_bytes(count: float) -> str:
    """Return a size in decimal units: 5.4 GB is 5.4e9 bytes."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * size:
            return (
                f"{count / size:.3g} {unit}"
                if count < 999.5 * size
                else f"{count / size:.0f} {unit}"
            )
    return f"{count:.0f} B"


def format_count(count: float) -> str:
    """Return a large number briefly: 1.24 B, 7.6 M, 12.3 k."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e4)):
        if count >= size:
            return f"{count / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{count:.0f}"


def format_duration(seconds: float) -> str:
    """Return a time as people say it: 8.5 s, 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def visible(text: str) -> str:
    """Return the text with control characters written out, so that none reaches a terminal."""
    return "".join(
        character if character in "\n\t" or not _is_control(character) else ascii(character)[1:-1]
        for character in text
    ).expandtabs(4)


def _is_control(character: str) -> bool:
    # C0, DEL, C1, direction overrides (they reorder a line), lone surrogates (no encoding).
    code = ord(character)
    return (
        code < 32
        or 127 <= code < 160
        or 0x202A <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or 0xD800 <= code <= 0xDFFF
    )


def _excerpt(label: str, text: str, width: int, max_lines: int, keep_end: bool) -> list[str]:
    """Return a labelled block of wrapped text, cut to a few lines at one end."""
    room = max(20, width - 13)
    lines = [
        part
        for line in visible(text).strip("\n").split("\n")
        for part in textwrap.wrap(line, room) or [""]
    ]
    if len(lines) > max_lines:
        lines = ["...", *lines[1 - max_lines :]] if keep_end else [*lines[: max_lines - 1], "..."]
    labels = [label, *[""] * len(lines)]
    return [f"  {name:<9}| {line}".rstrip() for name, line in zip(labels, lines, strict=False)]


# One event as lines


def plain_lines(event: Event, *, width: int = WIDTH, total_steps: int = 0) -> list[str]:
    """Return an event as lines of text without control codes.

    Args:
        event: any event.
        width: columns to stay within where that loses nothing (paths are never broken).
        total_steps: of the run, 0 if unknown.
    """
    match event:
        case RunStarted():
            return _start_lines(event)
        case DataPrepared():
            return _data_lines(event, width)
        case StepCompleted():
            return [step_line(event, width=width, total_steps=total_steps)]
        case EvalCompleted():
            return [_eval_line(event)]
        case SampleGenerated():
            return _sample_lines(event, width)
        case CheckpointSaved():
            size, took = format_bytes(event.bytes), format_duration(event.seconds)
            return [f"checkpoint at step {event.step}: {size} in {took}, {event.path}"]
        case NoteLogged():
            first, *more = visible(event.text).split("\n")
            return [f"{_NOTE_WORDS.get(event.level, event.level)}: {first}", *more]
        case Paused():
            return [f"paused at step {event.step}; memory is kept"]
        case Resumed():
            how = "taken up again after" if event.new_process else "goes on after"
            return [f"{how} step {event.step}"]
        case RunFinished():
            return [_end_line(event)]
        case RunFailed():
            return _failure_lines(event)


_NOTE_WORDS = {"info": "note", "warning": "warning"}


def _start_lines(event: RunStarted) -> list[str]:
    share = event.trainable_parameters / event.total_parameters if event.total_parameters else 0
    trained = format_count(event.trainable_parameters)
    resumed = f", resumed after step {event.resumed_from_step}" if event.resumed_from_step else ""
    pairs = _counted(event.pairs_train, "training pair")
    return [
        f"run     {visible(event.run_id)}",
        f"model   {visible(event.model)}",
        f"adapter {trained} of {format_count(event.total_parameters)} parameters "
        f"are trained ({share * 100:.2f} %)",
        f"data    {visible(event.data)}",
        f"plan    {_counted(event.total_steps, 'step')} over {pairs}, "
        f"{event.pairs_valid} for validation{resumed}",
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _data_lines(event: DataPrepared, width: int) -> list[str]:
    lines = [
        f"rows    {event.read} read, {event.kept} kept, {sum(event.dropped.values())} dropped"
        + (f"; format: {visible(event.layout)}" if event.layout else "")
    ]
    lines += _reasons("dropped", event.dropped) + _reasons("kept, but", event.noted)
    if event.token_percentiles:
        lines.append(_token_line(event.token_percentiles))
    if event.first_pair:
        lines.append("first pair (only the responses are scored):")
        lines += _pair_lines(event.first_pair, width)
    return lines


def _token_line(percentiles: dict[str, int]) -> str:
    """Return "tokens  prompt 14/19/21, ..." from prompt_p50, prompt_p95, prompt_max, ..."""
    sides = [name.removesuffix("_p50") for name in percentiles if name.endswith("_p50")]
    ends = ("p50", "p95", "max")
    if {f"{side}_{end}" for side in sides for end in ends} != set(percentiles):
        return "tokens  " + ", ".join(f"{name} {count}" for name, count in percentiles.items())
    sizes = [f"{s} " + "/".join(str(percentiles[f"{s}_{end}"]) for end in ends) for s in sides]
    return f"tokens  {', '.join(sizes)} (median/95 %/longest)"


def _reasons(verb: str, counts: dict[str, int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"        {count:>5} {verb}: {visible(reason)}" for reason, count in ordered]


def _pair_lines(pair: dict[str, Any], width: int) -> list[str]:
    lines = []
    for name, max_lines, keep_end in (
        ("prompt", 5, True), ("chosen", 5, False), ("rejected", 5, False),
    ):  # fmt: skip
        if name in pair:
            lines += _excerpt(name, str(pair[name]), width, max_lines, keep_end)
    return lines


def step_line(
    event: StepCompleted, *, width: int = WIDTH, total_steps: int = 0, seconds_left: float = 0.0
) -> str:
    """Return a step's numbers on one line; what does not fit into the width is left out."""
    total = str(total_steps) if total_steps else ""
    line = f"step {event.step:>{len(total) or 1}}" + (f"/{total}" if total else "")
    parts = [
        f"loss {event.loss:.4f}",
        f"acc {event.preference_accuracy * 100:.0f} %",
        f"margin {event.logps_margin:+.2f}",
        f"{event.tokens_per_second:.0f} tok/s",
        f"left {format_duration(seconds_left)}" if seconds_left else "",
        format_bytes(event.peak_memory_bytes) if event.peak_memory_bytes else "",
        f"nll {event.nll_loss:.4f}",
        f"lr {event.learning_rate:.1e}",
    ]
    for part in filter(None, parts):
        if len(line) + 2 + len(part) <= width:
            line += "  " + part
    return line


def _eval_line(event: EvalCompleted) -> str:
    best = ", the best so far" if event.is_best and event.step else ""
    return (
        f"validation at step {event.step}: loss {event.loss:.4f}, "
        f"acc {event.preference_accuracy * 100:.0f} %, margin {event.logps_margin:+.2f}{best}"
    )


def _sample_lines(event: SampleGenerated, width: int) -> list[str]:
    return [
        f"sample {event.index + 1} at step {event.step}:",
        *_excerpt("prompt", event.prompt, width, 3, keep_end=True),
        *_excerpt("answer", event.response, width, 8, keep_end=False),
    ]


_ENDS = {
    "completed": "completed",
    "early_stop": "stopped early: validation no longer improved",
    "stopped": "stopped as asked",
    "aborted": "aborted as asked",
}


def _end_line(event: RunFinished) -> str:
    how = _ENDS.get(event.reason, event.reason)
    best = f"; best at step {event.best_step}" if event.best_step is not None else ""
    return f"{how} after step {event.step} in {format_duration(event.seconds)}{best}"


def _failure_lines(event: RunFailed) -> list[str]:
    saved = event.last_checkpoint or "none"
    return [
        f"failed at step {event.step}: {visible(event.message)}",
        f"last checkpoint: {saved}",
        *([visible(event.what_to_do)] if event.what_to_do else []),
    ]


# What a run has shown so far


class RunHistory:
    """What the closing table and the remaining time need, gathered from events."""

    def __init__(self) -> None:
        self.started: RunStarted | None = None
        self.step = 0
        self.evals: dict[int, EvalCompleted] = {}
        self.samples: dict[tuple[int, int], SampleGenerated] = {}
        self._step_seconds: deque[float] = deque(maxlen=50)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, 0 while unknown."""
        return self.started.total_steps if self.started else 0

    @property
    def run_path(self) -> Path | None:
        """The run's folder, None while unknown."""
        if self.started is None:
            return None
        config = self.started.config
        if config.get("run_dir"):
            return Path(config["run_dir"]).expanduser().absolute()
        return runs_folder(config.get("runs_dir")).absolute() / self.started.run_id

    @property
    def resume_command(self) -> str:
        """What takes the run up again, "" while unknown."""
        path = self.run_path
        if path is None:
            return ""
        is_listed = path.parent == default_runs_dir().absolute()
        return f"orpo-mlx resume {path.name if is_listed else shlex.quote(str(path))}"

    def apply(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case RunStarted():
                self.started = event
                self.step = event.resumed_from_step
                self._step_seconds.clear()
            case StepCompleted():
                self.step = event.step
                self._step_seconds.append(event.step_seconds)
            case EvalCompleted():
                self.evals[event.step] = event
            case SampleGenerated():
                self.samples[event.step, event.index] = event
            case Resumed() if event.new_process:
                self.step = event.step
                self.evals = {s: e for s, e in self.evals.items() if s <= event.step}
                self.samples = {k: e for k, e in self.samples.items() if k[0] <= event.step}
            case _:
                pass

    def seconds_left(self) -> float:
        """Return the time for the remaining steps at the recent median; evaluation comes on top."""
        if not self._step_seconds:
            return 0.0
        return max(0, self.total_steps - self.step) * statistics.median(self._step_seconds)

    def slowness(self, event: StepCompleted) -> float:
        """Return by what factor a step is slower than the median of those before it; 0 unknown."""
        if len(self._step_seconds) < 5 or not (usual := statistics.median(self._step_seconds)):
            return 0.0
        return event.step_seconds / usual


def summary_lines(history: RunHistory, end: RunFinished, width: int) -> list[str]:
    """Return the closing text of a run: numbers and answers before and after, paths, commands."""
    return [
        _end_line(end),
        *_eval_table(history, end),
        *_sample_table(history, width),
        *_next_lines(history, end),
    ]


_TABLE = (
    ("loss", "loss", "{:.4f}"),
    ("nll", "nll_loss", "{:.4f}"),
    ("odds-ratio loss", "odds_ratio_loss", "{:.4f}"),
    ("log-odds ratio", "log_odds_ratio", "{:+.4f}"),
    ("chosen log-prob", "chosen_logps", "{:.4f}"),
    ("rejected log-prob", "rejected_logps", "{:.4f}"),
    ("accuracy", "preference_accuracy", "{:.4f}"),
    ("margin", "logps_margin", "{:+.4f}"),
)


def _eval_table(history: RunHistory, end: RunFinished) -> list[str]:
    if not history.evals:
        return []
    before, after = history.evals[min(history.evals)], history.evals[max(history.evals)]
    config = history.started.config if history.started else {}
    if config.get("keep_best") and end.best_step in history.evals:
        after = history.evals[end.best_step]
    if before.step == after.step:
        return [_eval_line(after)]
    title = f"validation, {_counted(after.pairs, 'pair')}"
    lines = ["", f"{title:<30}{f'step {before.step}':>12}{f'step {after.step}':>12}"]
    for label, name, form in _TABLE:
        values = (form.format(getattr(row, name)) for row in (before, after))
        lines.append(f"  {label:<28}" + "".join(f"{value:>12}" for value in values))
    return lines


def _sample_table(history: RunHistory, width: int) -> list[str]:
    lines: list[str] = []
    for index in sorted({index for _, index in history.samples}):
        steps = [step for step, i in history.samples if i == index]
        before, after = (history.samples[step, index] for step in (min(steps), max(steps)))
        lines += ["", f"sample {index + 1}"]
        lines += _excerpt("prompt", after.prompt, width, 3, keep_end=True)
        if before.step != after.step:
            lines += _excerpt("before", before.response, width, 4, keep_end=False)
        lines += _excerpt("after", after.response, width, 4, keep_end=False)
    return lines


def _next_lines(history: RunHistory, end: RunFinished) -> list[str]:
    lines = [""]
    if end.adapter_path:
        lines.append(f"adapter  {end.adapter_path}")
    if history.run_path:
        lines.append(f"run      {history.run_path}")
    if end.reason in ("stopped", "aborted") and history.resume_command:
        lines.append(f"go on    {history.resume_command}")
    if end.adapter_path and history.started:
        model = history.started.config.get("model") or history.started.model
        prompts = [event.prompt for event in history.samples.values() if len(event.prompt) < 60]
        words = ["mlx_lm.generate", "--model", model, "--adapter-path", end.adapter_path]
        words += ["--prompt", visible([*prompts, "Hello"][0])]
        lines.append(f"try it   {shlex.join(words)}")
    return lines if len(lines) > 1 else []


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
        """Show how far a download is, in bytes."""
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
        self._download = ""
        self._muted = False

    def handle(self, event: Event, line: str = "") -> None:
        """Show one event."""
        self._unless_gone(lambda: self._show(event))

    def catch_up(self, events: Iterable[Event]) -> None:
        """Take in what happened before, without showing it."""
        for event in events:
            self.history.apply(event)

    def progress(self, done: int, total: int, label: str) -> None:
        """Show how far a download is, in bytes: a bar, or a line at its start."""
        self._unless_gone(lambda: self._show_download(done, total, label))

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
            self._print([_slow_line(event, slowness)], "yellow")
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


def _slow_line(event: StepCompleted, slowness: float) -> str:
    return (
        f"warning: step {event.step} took {format_duration(event.step_seconds)}, "
        f"{slowness:.1f} times the usual; swapping or hot?"
    )


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
            _write_or_mute(_end_line(event) + (f": {where}" if where else "") + "\n")

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


def runs_table(summaries: Sequence[RunSummary], width: int | None = None) -> list[str]:
    """Return runs as aligned lines, the newest first.

    Args:
        summaries: what `list_runs` returned.
        width: cut lines to this; None: never (a pipe).
    """
    rows = [("RUN", "STATUS", "STEP", "LOSS", "ACC", "STARTED", "MODEL")]
    rows += [_run_row(summary) for summary in summaries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [
        line if width is None or len(line) <= width else line[: width - 1] + "…" for line in lines
    ]


def _run_row(run: RunSummary) -> tuple[str, ...]:
    started = "" if run.started is None else time.localtime(run.started)
    return (
        visible(run.id),
        run.status,
        f"{run.step}/{run.total_steps}" if run.total_steps else str(run.step),
        "" if run.loss is None else f"{run.loss:.4f}",
        "" if run.preference_accuracy is None else f"{run.preference_accuracy * 100:.0f} %",
        started and time.strftime("%d %b %H:%M", started),
        visible(Path(run.model).name if run.model else ""),
    )


def print_runs(summaries: Sequence[RunSummary], folder: Path, as_json: bool = False) -> int:
    """Print the runs as a table or as a JSON list; return the exit code 0."""
    if as_json:
        rows = [{**vars(summary), "path": str(summary.path)} for summary in summaries]
        return print_text(json.dumps(rows, indent=2) + "\n")
    if not summaries:
        return print_text(f"No runs in {folder} yet. Start one: orpo-mlx train --demo\n")
    width = terminal_width() if sys.stdout.isatty() else None
    return print_text("\n".join(runs_table(summaries, width)) + "\n")


def terminal_width() -> int:
    """Return the columns of the terminal, 80 if there is none."""
    import shutil

    return shutil.get_terminal_size((WIDTH, 24)).columns


def format_error(error: OrpoError) -> str:
    """Return an error for stderr: what is wrong first, what to do last."""
    return visible(f"error: {error.message}\n{error.what_to_do}").rstrip() + "\n"


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
