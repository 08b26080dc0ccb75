"""`orpo-mlx runs` and what else is asked of runs: watch, stop, pause, checkpoint, sample."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    add_run_argument,
    add_runs_dir_option,
    missing_run,
)
from orpo_mlx.cli.run_report import RichReport
from orpo_mlx.cli.terminal import print_error_text, print_text, terminal_width
from orpo_mlx.errors import TrainingError
from orpo_mlx.runs.control import RequestName, is_acknowledged, send_request
from orpo_mlx.runs.directory import RunDirectory, runs_folder
from orpo_mlx.runs.event_text import plain_lines
from orpo_mlx.runs.events import EventReader, Record, RunFailed, unusable
from orpo_mlx.runs.history import RunHistory
from orpo_mlx.runs.label import has_tags
from orpo_mlx.runs.listing import RunSummary, find_run, list_runs
from orpo_mlx.runs.metrics import shown
from orpo_mlx.runs.peers.hosts import newest_hosts, resume_command
from orpo_mlx.text.formatting import visible

_POLL_SECONDS = 0.25
_RUNS_DIR_HELP = "Folder of all runs, if it is not $ORPO_MLX_HOME/runs or the user data folder."

Show = Callable[[list[Record]], None]


def _parse(
    argv: Sequence[str], name: str, usage: str, description: str, run: bool = True, **flags: str
) -> dict[str, Any]:
    """Read a small command's options: RUN if it has one, --runs-dir, and the named switches."""
    parser = Parser(f"orpo-mlx {name}", description, usage=f"orpo-mlx {name} {usage} [options]")
    add_help_option(parser)
    if run:
        add_run_argument(parser)
    add_runs_dir_option(parser, _RUNS_DIR_HELP)
    add_debug_option(parser)
    for flag, help in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=help)
    given = parser.parse(argv)
    if run and "run" not in given:
        raise missing_run(name)
    return given


def _find(given: dict[str, Any]) -> RunDirectory:
    return find_run(given["run"], given.get("runs_dir"))


def list_command(argv: Sequence[str]) -> int:
    """Run `orpo-mlx runs`."""
    usage = "orpo-mlx runs [--tag T] [--json] [options]"
    parser = Parser("orpo-mlx runs", "List all runs.", usage=usage)
    add_help_option(parser)
    parser.add_argument(
        "--tag", metavar="T", action="append", help="Only runs with this tag; of several, with all."
    )
    add_json_option(parser, "Print a JSON list.")
    add_runs_dir_option(parser, _RUNS_DIR_HELP)
    add_debug_option(parser)
    given = parser.parse(argv)
    folder, tags = given.get("runs_dir"), given.get("tag", [])
    runs = list_runs(folder)
    found = [run for run in runs if has_tags(run.label, tags)]
    if runs and not found and "json" not in given:
        return print_text(visible(f"No run has the tag {', '.join(tags)}.") + "\n")
    return print_runs(found, runs_folder(folder), "json" in given)


def watch(argv: Sequence[str]) -> int:
    """Run `orpo-mlx watch`; 1 if the run failed, 130 if the watching was interrupted."""
    given = _parse(
        argv,
        "watch",
        "RUN [--plain|--json]",
        "Follow a run; Ctrl-C leaves it alone.",
        plain="Print plain lines without colours or a bar.",
        json="Print events as JSON lines.",
    )
    run = _find(given)
    show, close = _viewer(given)
    try:
        last = _follow(run, show)
    except KeyboardInterrupt:
        print_error_text(f"stopped watching; run {run.id} goes on")
        return 130
    finally:
        close()
    status = run.read_status()
    if status == "crashed":
        raise TrainingError(
            f"run {run.id}: its process ended without a word",
            f"See {run.log_file if run.log_file.exists() else run.path}; "
            f"go on with `{resume_command(run, newest_hosts(run))}`.",
        )
    return 1 if isinstance(last and last.event, RunFailed) else 0


def _viewer(given: dict[str, Any]) -> tuple[Show, Callable[[], None]]:
    if "json" in given:
        return show_raw, lambda: None
    if "plain" in given:
        history = RunHistory()
        return lambda records: show_plain(records, history), lambda: None
    reporter = RichReport()

    def show(records: list[Record]) -> None:
        for record in records:
            if record.event is not None:
                reporter.handle(record.event)

    return show, reporter.close


def _follow(run: RunDirectory, show: Show) -> Record | None:
    """Show a run's events until its trainer has ended and all are shown; return the last one."""
    reader = EventReader(run.events_file)
    last = None
    while True:
        alive = run.is_locked()  # before reading: what it wrote last is then surely read
        try:
            records = reader.poll()
        except OSError as error:
            raise unusable(run.events_file, error) from None
        show(records)
        last = records[-1] if records else last
        if not records and not alive:
            return last
        if not records:
            time.sleep(_POLL_SECONDS)


def stop(argv: Sequence[str]) -> int:
    """Run `orpo-mlx stop`."""
    given = _parse(
        argv,
        "stop",
        "RUN [--now] [--wait]",
        "Finish the step, save and end a run.",
        now="End without saving: what came after the last checkpoint is lost.",
        wait="Return when the run has ended.",
    )
    run = _find(given)
    send_request(run, "abort" if "now" in given else "stop")
    if "wait" not in given:
        return print_text(f"Asked {run.id} to stop; `orpo-mlx watch {run.id}` shows it.\n")
    while run.is_locked():
        time.sleep(_POLL_SECONDS)
    return print_text(f"{run.id}: {run.read_status()}\n")


def pause(argv: Sequence[str]) -> int:
    """Run `orpo-mlx pause`."""
    given = _parse(argv, "pause", "RUN", "Let a run wait, memory kept.")
    return _ask(given, "pause", "pauses")


def unpause(argv: Sequence[str]) -> int:
    """Run `orpo-mlx unpause`."""
    given = _parse(argv, "unpause", "RUN", "Let a paused run go on.")
    return _ask(given, "resume", "goes on")


def checkpoint(argv: Sequence[str]) -> int:
    """Run `orpo-mlx checkpoint`."""
    given = _parse(argv, "checkpoint", "RUN", "Save a checkpoint now.")
    return _ask(given, "checkpoint", "saves a checkpoint")


def sample(argv: Sequence[str]) -> int:
    """Run `orpo-mlx sample`."""
    given = _parse(argv, "sample", "RUN", "Answer the held-out prompts now.")
    return _ask(given, "sample", "answers the samples")


def _ask(given: dict[str, Any], request: RequestName, done: str) -> int:
    """Send one request and wait a moment for the answer."""
    run = _find(given)
    path = send_request(run, request)
    deadline = time.monotonic() + 2.0
    while not is_acknowledged(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    when = "" if is_acknowledged(path) else ", after the present step"
    return print_text(f"{run.id}: {done}{when}\n")


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


def print_runs(summaries: Sequence[RunSummary], folder: Path, as_json: bool = False) -> int:
    """Print the runs as a table or as a JSON list; return the exit code 0."""
    if as_json:
        rows = [_json_row(summary) for summary in summaries]
        return print_text(json.dumps(rows, indent=2) + "\n")
    if not summaries:
        return print_text(f"No runs in {folder} yet. Start one: orpo-mlx train --demo\n")
    width = terminal_width() if sys.stdout.isatty() else None
    lines = runs_table(summaries, width)
    lines += [visible(f"{run.id}: damaged: {run.damage}") for run in summaries if run.damage]
    return print_text("\n".join(lines) + "\n")


_USUAL = ("loss", "log_odds_ratio", "preference_accuracy")


def _json_row(run: RunSummary) -> dict[str, Any]:
    metrics = {row.name: run.metrics[row.name] for row in shown(run.metrics, _USUAL)}
    row: dict[str, Any] = {}
    for name, value in vars(run).items():
        if name == "metrics":
            row |= dict.fromkeys(_USUAL) | metrics
        else:
            row |= asdict(value) if name == "label" else {name: value}
    return row | {"path": str(run.path)}


def runs_table(summaries: Sequence[RunSummary], width: int | None = None) -> list[str]:
    """Return runs as aligned lines, the newest first.

    Args:
        summaries: what `list_runs` returned.
        width: cut lines to this; None: never (a pipe).
    """
    rows = [("RUN", "STATUS", "STEP", "LOSS", "ACC", "STARTED", "MODEL")]
    rows += [_run_row(summary) for summary in summaries]
    if any(run.label.short for run in summaries):  # a column of its own, last: nobody parses it
        labels = ["LABEL", *(visible(run.label.short) for run in summaries)]
        rows = [(*row, label) for row, label in zip(rows, labels, strict=True)]
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
        run.brief("loss", 4),
        run.brief("preference_accuracy").replace("%", " %"),
        started and time.strftime("%d %b %H:%M", started),
        visible(Path(run.model).name if run.model else ""),
    )
