"""Going on by itself after a crash: when that is allowed, and a trace of each try in the run.

Only for a run that crashed, its process gone without a word. One that failed said why (no number,
a setting, a full disk), and the same settings would fail the same way. So would a trainer that went
on with a run and ended before its first event: it was refused, or its user cancelled it. Each try
is a file `auto-resume-N.json` in the run, made exclusively: two open windows do not both take it.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.peers.hosts import is_on_one_machine, newest_hosts, resume_command
from tui.processes import launcher
from tui.shell.settings import Settings

MOST_TRIES = 3


@dataclass(frozen=True)
class Attempt:
    """What became of a crash: a trainer that goes on, or none, and what to tell the user."""

    start: launcher.Start | None
    text: str


def tries(run: RunDirectory) -> int:
    """Return how often a run was resumed by itself."""
    return sum(_claim_file(run, number).exists() for number in range(1, MOST_TRIES + 1))


def go_on(run: RunDirectory, step: int, cause: str, settings: Settings) -> Attempt | None:
    """Start a trainer for a run that has just crashed; None where nothing is to be done or said.

    Args:
        step: the last one it reported.
        cause: how it ended, as far as is known.
    """
    if not settings.auto_resume or run.read_status() != "crashed" or was_stopped(run):
        return None
    number = tries(run) + 1
    if _said_nothing(run, number - 1):
        return None
    if number > MOST_TRIES:
        text = f"{run.id} crashed at step {step}, after {MOST_TRIES} tries to go on by itself"
        return Attempt(None, f"{text}; it stays ended. Resume goes on with it.")
    if others := [other.id for other in launcher.running_runs(run.path.parent)]:
        return Attempt(None, f"{run.id} crashed at step {step}; {others[0]} is trained now, so it "
                       "does not go on by itself.")  # fmt: skip
    hosts = newest_hosts(run)
    if not is_on_one_machine(hosts):
        where = f"in a terminal: {resume_command(run, hosts)}"
        return Attempt(None, f"{run.id} crashed at step {step}; its machines go on with it {where}")
    what = f"try {number} of {MOST_TRIES}"
    try:
        _claim(run, number, step, cause)
        why = f"resumed by itself, {what}, as {cause}"
        start = launcher.resume_training(run, settings, why, processes=len(hosts))
    except FileExistsError:
        return None  # another window was faster
    except OSError as error:
        return Attempt(None, f"{run.id} crashed and cannot go on: {error.strerror}")
    except OrpoError as error:
        return Attempt(None, f"{run.id} crashed and cannot go on: {error.message}")
    return Attempt(start, f"{run.id} crashed at step {step}; it goes on by itself, {what}")


def was_stopped(run: RunDirectory) -> bool:
    """Tell whether somebody asked the newest trainer to end.

    Requests older than a trainer have been put aside by it as stale.
    """
    with contextlib.suppress(OSError):
        names = [path.name for path in run.control_folder.iterdir()]
        asked = [name for name in names if name.endswith((".json", ".ack"))]
        begun = _begun(run)
        ends = [name for name in asked if "-stop-" in name or "-abort-" in name]
        return any(_sent(name) >= begun for name in ends)
    return False


def _begun(run: RunDirectory) -> float:
    """Return when the newest trainer took the run, Unix seconds: it writes its pid then."""
    try:
        return run.lock_file.stat().st_mtime
    except OSError:
        return 0.0


def _sent(name: str) -> float:
    number = name.partition("-")[0]
    return int(number) / 1e9 if number.isdigit() else 0.0


def _said_nothing(run: RunDirectory, tried: int) -> bool:
    """Tell whether the newest trainer, or the one of the last try, has written no event."""
    try:
        said = run.events_file.stat().st_mtime
        return _begun(run) > said or (tried > 0 and _claim_file(run, tried).stat().st_mtime >= said)
    except OSError:
        return True


def _claim(run: RunDirectory, number: int, step: int, cause: str) -> None:
    words = {"try": number, "time": round(time.time(), 3), "step": step, "cause": cause}
    with _claim_file(run, number).open("x", encoding="utf-8") as file:
        file.write(json.dumps(words) + "\n")


def _claim_file(run: RunDirectory, number: int) -> Path:
    return run.path / f"auto-resume-{number}.json"
