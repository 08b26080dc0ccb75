"""Playing a run again: its events, at their own pace or faster, into a new run directory.

Whoever watches sees a training; nothing is computed. For demonstrations, screenshots and tests.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orpo_mlx import report
from orpo_mlx.command_line import Parser, add_help_option
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.runs import events
from orpo_mlx.runs.control import Inbox, SignalFlags
from orpo_mlx.runs.directory import Heartbeat, RunDirectory, Status, check_run_folder, runs_folder
from orpo_mlx.runs.listing import find_run

LONGEST_GAP_SECONDS = 5.0
"""A pause or a night between two events is not waited for."""


def replay(source: RunDirectory, target: RunDirectory, speed: float) -> str:
    """Play a run's events into a new directory; return how it ended.

    Args:
        source: any run, finished or not; it is not changed.
        target: a place for a new run.
        speed: times faster than it was; 0: without waiting.

    Raises:
        RunError: the run has no events, or the place is taken.
    """
    records = list(events.read_events(source.events_file)) if source.events_file.exists() else []
    if not records:
        raise RunError(f"run {source.id} has no events: nothing to replay", "Choose another run.")
    _make_folder(source, target)
    with target.lock(), SignalFlags() as signals:
        inbox = Inbox(target.control_folder)
        with contextlib.closing(events.EventWriter(target.events_file)) as writer:
            return _play(_paced(records, speed), target, writer, inbox, signals)


def _make_folder(source: RunDirectory, target: RunDirectory) -> None:
    check_run_folder(target.path)
    try:
        target.control_folder.mkdir(parents=True, exist_ok=True)
        target.checkpoints_folder.mkdir(exist_ok=True)
        if source.config_file.exists():
            shutil.copyfile(source.config_file, target.config_file)
    except OSError as error:
        raise RunError(
            f"{target.path}: cannot be written ({error.strerror})", "Choose another --run-dir."
        ) from None


def _paced(records: Sequence[events.Record], speed: float) -> Iterator[events.Record]:
    before = records[0].time
    for record in records:
        if speed and record.time > before:
            time.sleep(min(record.time - before, LONGEST_GAP_SECONDS) / speed)
        before = record.time
        yield record


def _play(
    records: Iterator[events.Record],
    target: RunDirectory,
    writer: events.EventWriter,
    inbox: Inbox,
    signals: SignalFlags,
) -> str:
    heartbeat = Heartbeat(target)
    started, step = time.time(), 0
    status: Status = "preparing"
    for record in records:
        if _is_asked_to_stop(inbox, signals):
            writer.write(events.RunFinished("stopped", step, time.time() - started, None))
            return "stopped"
        event = record.event
        if isinstance(event, events.RunStarted):
            heartbeat.total_steps = event.total_steps
        if isinstance(event, events.StepCompleted):
            step, status = event.step, "running"
        elif isinstance(event, events.Paused):
            status = "paused"
        heartbeat.beat(status, step)
        _write_again(writer, record, target)
    return "played"


def _is_asked_to_stop(inbox: Inbox, signals: SignalFlags) -> bool:
    asked = {request.name for request in inbox.poll()}
    return signals.stop or bool(asked & {"stop", "abort"})


def _write_again(writer: events.EventWriter, record: events.Record, target: RunDirectory) -> None:
    """Write an event as new; one this version does not know goes by as it is not understood."""
    raw: dict[str, Any] = dict(record.raw)
    if record.name == "RunStarted":
        raw |= {"run_id": target.id, "run_path": str(target.path)}
    event = events.decode(json.dumps(raw)).event
    if event is not None:
        writer.write(event)


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx replay`."""
    given = _parser().parse(argv)
    if "run" not in given:
        raise ConfigError(
            "orpo-mlx replay: which run?", "Give its id: orpo-mlx replay RUN; see `orpo-mlx runs`."
        )
    source = find_run(given["run"], given.get("runs_dir"))
    speed = _speed(given.get("speed", "1"))
    if given.get("run_dir"):
        path = Path(given["run_dir"]).expanduser().absolute()
    else:
        name = f"replay-{time.strftime('%H%M%S')}-{source.id}"
        path = runs_folder(given.get("runs_dir")).absolute() / name
    target = RunDirectory(path)
    how = replay(source, target, speed)
    return report.print_text(f"{source.id}: {how} into {target.path}\n")


def _speed(text: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(speed := float(text)) and speed >= 0:
            return speed
    raise ConfigError(f"--speed: {text} is not a number from 0 on", "Write --speed 10.")


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx replay",
        "Play the events of a run again into a new run directory, to watch it.",
        usage="orpo-mlx replay RUN [options]",
    )
    add_help_option(parser)
    parser.add_argument("run", nargs="?", metavar="RUN", help="Id, its beginning, or path.")
    parser.add_argument(
        "--speed", metavar="X", help="Times faster than it was; 0: no waiting. [default 1]"
    )
    parser.add_argument("--run-dir", metavar="FOLDER", help="The replay's own folder.")
    parser.add_argument("--runs-dir", metavar="FOLDER", help="Folder of all runs.")
    parser.add_argument("--debug", action="store_true", help="Show tracebacks of errors.")
    return parser
