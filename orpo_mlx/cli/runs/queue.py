"""`orpo-mlx queue`: what waits, and who works at it; go on, stop, remove."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from orpo_mlx.cli.parser import (
    Parser,
    add_debug_option,
    add_help_option,
    add_json_option,
    add_runs_dir_option,
)
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.runs.group.queue import Queue, QueueEntry
from orpo_mlx.runs.group.sweep import changes_text
from orpo_mlx.runs.group.worker import start_worker, trainings_besides, work_here
from orpo_mlx.runs.listing import summarise
from orpo_mlx.text.formatting import counted, visible
from orpo_mlx.text.spelling import near_hint

_ACTIONS = ("go", "stop", "remove")


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx queue`."""
    given = _parser().parse(argv)
    action, names = given.get("action", ""), given.get("names", [])
    if action not in ("", *_ACTIONS):
        raise ConfigError(
            f"orpo-mlx queue {action}: there is no such action{near_hint(action, _ACTIONS)}",
            "Write: orpo-mlx queue, queue go, queue stop, or queue remove RUN_OR_GROUP...",
        )
    if names and action != "remove":
        raise ConfigError(f"orpo-mlx queue {action}: takes no names", "Leave them out.")
    if "here" in given and action != "go":
        raise ConfigError("--here: belongs to `orpo-mlx queue go`", "Leave it out.")
    queue = Queue(given.get("runs_dir"))
    do: dict[str, Callable[[], int]] = {
        "": lambda: _list(queue, "json" in given),
        "go": lambda: _go(queue, "here" in given),
        "stop": lambda: _stop(queue),
        "remove": lambda: _remove(queue, names),
    }
    return do[action]()


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx queue",
        "Runs that follow one another, one trainer at a time; `orpo-mlx train --sweep` adds some.\n"
        "go: go on with them in the background, a half done one from its newest checkpoint;\n"
        "stop: save the one in training and end; remove: forget runs or a group of the queue\n"
        "(`done`: all that have ended).",
        usage="orpo-mlx queue [go [--here] | stop | remove RUN_OR_GROUP...] [options]",
    )
    add_help_option(parser)
    parser.add_argument("action", nargs="?", metavar="ACTION", help="go, stop or remove.")
    parser.add_argument("names", nargs="*", metavar="RUN_OR_GROUP", help="What to remove.")
    parser.add_argument(
        "--here", action="store_true", help="Work in this terminal; Ctrl-C saves and stops."
    )
    add_json_option(parser, "Print the list as JSON.")
    add_runs_dir_option(parser)
    add_debug_option(parser)
    return parser


def _list(queue: Queue, as_json: bool) -> int:
    entries = queue.read()
    if as_json:
        return print_text(json.dumps([entry_row(entry) for entry in entries], indent=2) + "\n")
    if not entries:
        return print_text("The queue is empty; `orpo-mlx train --sweep lam=0.1,0.3` fills it.\n")
    return print_text("\n".join(queue_lines(entries, queue)) + "\n")


def entry_row(entry: QueueEntry) -> dict[str, Any]:
    """Return a run of the queue as JSON has it."""
    waiting = entry.waiting
    return {
        "id": entry.run.id,
        "path": str(entry.run.path),
        "status": entry.status,
        "group": waiting.group,
        "changes": waiting.changes,
        "added": waiting.added,
        "words": waiting.words,
    }


def queue_lines(entries: Sequence[QueueEntry], queue: Queue) -> list[str]:
    """Return runs of the queue as a table, and who works at it."""
    table = [("RUN", "STATUS", "STEP", "SETTINGS", "GROUP")]
    for entry in entries:
        found = summarise(entry.run) if entry.run.is_run() else None
        step = f"{found.step}/{found.total_steps}" if found else ""
        own = changes_text(entry.waiting.changes)
        row = entry.run.id, entry.status, step, own, entry.waiting.group
        table.append(tuple(visible(cell) for cell in row))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    said = [f"{one.run.id}: {one.waiting.words}" for one in entries if one.waiting.words]
    return [*lines, *map(visible, said), _who(entries, queue)]


def _who(entries: Sequence[QueueEntry], queue: Queue) -> str:
    left = sum(entry.is_open for entry in entries)
    if queue.is_worked_at():
        stops = ", and stops when it is saved" if queue.stop_file.exists() else ""
        working = f"process {queue.pid} works at the queue{stops}; {counted(left, 'run')} left"
        return working + _waits_for(entries, queue)
    if left:
        return f"{counted(left, 'run')} left, and nobody works: `orpo-mlx queue go` goes on"
    return "all have ended; `orpo-mlx queue remove done` clears the list, the runs stay"


def _waits_for(entries: Sequence[QueueEntry], queue: Queue) -> str:
    """Return which training is waited for, "" for none."""
    entry = next((one for one in entries if one.is_open), None)
    others = trainings_besides(queue, entry) if entry and not entry.run.is_locked() else []
    return f"; it waits for {others[0].id}, which is trained besides" if others else ""


def _go(queue: Queue, is_here: bool) -> int:
    if not any(entry.is_open for entry in queue.read()):
        return print_text("Nothing waits in the queue.\n")
    if is_here:
        work_here(queue, _say)
        return 0
    pid = start_worker(queue)
    return print_text(f"process {pid} works at the queue; `orpo-mlx queue` shows it\n")


def _say(text: str) -> None:
    print_text(visible(text) + "\n")


def _stop(queue: Queue) -> int:
    queue.ask_to_stop()
    return print_text(
        "the run in training is saved, then the queue stops; `orpo-mlx queue go` goes on\n"
    )


def _remove(queue: Queue, names: Sequence[str]) -> int:
    if not names:
        raise ConfigError(
            "orpo-mlx queue remove: which?", "Give runs or groups of the queue, or `done`."
        )
    entries = queue.read()
    chosen = {entry.run.id: entry for name in names for entry in _named(entries, name)}
    for entry in chosen.values():
        queue.remove(entry)
    return print_text(f"{counted(len(chosen), 'run')} removed from the queue\n")


def _named(entries: Sequence[QueueEntry], name: str) -> list[QueueEntry]:
    if name == "done":
        return [entry for entry in entries if not entry.is_open]
    exact = [entry for entry in entries if name in (entry.run.id, entry.waiting.group)]
    found = exact or [entry for entry in entries if entry.run.id.startswith(name)]
    if not found or (len(found) > 1 and not exact):
        many = f"is the beginning of {len(found)} runs" if found else "there is no such run"
        raise RunError(f"{name}: {many} in the queue", "`orpo-mlx queue` lists all.")
    return found
