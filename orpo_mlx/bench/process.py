"""A worker as its parent sees it: rows that come in time, or the reason why none came."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from orpo_mlx.storage.safe_path import child_environment
from orpo_mlx.text.formatting import format_duration

Row = dict[str, Any]
"""What was found of one thing; its keys are those of the function that found it."""
Say = Callable[[str, float], None]
"""Told what is being done, and for how many seconds; several times a second."""

_TICK_SECONDS = 0.25
_MOST_SAID = 300


class WorkerFailed(Exception):
    """A worker did not end well; the rows it gave before stand.

    Args:
        reason: for a reader.
        code: its exit code, negative for a signal.
        is_late: whether it was ended because its time was over.
    """

    def __init__(self, reason: str, code: int, is_late: bool) -> None:
        super().__init__(reason)
        self.reason, self.code, self.is_late = reason, code, is_late


def run_job(
    job: str, task: Row, seconds: float, say: Say, environment: dict[str, str]
) -> Iterator[Row]:
    """Yield the rows of a job of `worker` as they come.

    Args:
        job: its name in `worker.JOBS`.
        task: what it gets; "folder" is where it works.
        seconds: it may take; then it is killed with all it has started.
        say: told how far it is.
        environment: more variables.

    Raises:
        WorkerFailed: after its last row.
    """
    command = [sys.executable, "-m", "orpo_mlx.bench.worker", job]
    yield from run_command(command, task, seconds, say, environment)


def run_command(
    command: Sequence[str], task: Row, seconds: float, say: Say, environment: dict[str, str]
) -> Iterator[Row]:
    """Do what `run_job` does with a program that reads a task and writes lines as a worker does."""
    deadline, label = time.monotonic() + seconds, "starting"
    began = time.monotonic()
    with _started(command, task, environment) as (process, lines, complaints):
        while (line := _next_line(lines, deadline)) is not None:
            found = _read(line)
            label = found.get("say", label)
            say(label, time.monotonic() - began)
            if "row" in found:
                yield found["row"]
        is_late = time.monotonic() >= deadline
        if is_late:
            _end(process)
        if code := process.wait():
            raise WorkerFailed(_reason(code, is_late, seconds, complaints), code, is_late)


@contextlib.contextmanager
def _started(
    command: Sequence[str], task: Row, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[str], queue.Queue[str | None], IO[str]]]:
    """Start a program that leads a session of its own, and give it its task."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
            errors="replace",
            env=child_environment(**environment),
            cwd=Path(task["folder"]),
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin and process.stdout  # noqa: PT018
        try:
            with contextlib.suppress(BrokenPipeError):  # its exit code will say more
                process.stdin.write(json.dumps(task))
                process.stdin.close()
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
            yield process, lines, complaints
        finally:  # an interrupted parent leaves no worker behind
            _end(process)


def _pass_on(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _next_line(lines: queue.Queue[str | None], deadline: float) -> str | None:
    """Return the next line, "" where none came in a moment, None at the end of lines or time."""
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    try:
        return lines.get(timeout=min(left, _TICK_SECONDS))
    except queue.Empty:
        return ""


def _read(line: str) -> Row:
    try:
        found = json.loads(line) if line else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        # macOS says "not permitted" of a group that has just ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(code: int, is_late: bool, seconds: float, complaints: IO[str]) -> str:
    if is_late:
        return f"ended after {format_duration(seconds)}, the time there was for it"
    complaints.seek(0)
    lines = [line.strip() for line in complaints.read().splitlines() if line.strip()]
    said = f": {lines[-1][-_MOST_SAID:]}" if lines else ""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}{said}"
    return f"its process failed{said}"
