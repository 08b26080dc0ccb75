"""Who works at the queue: one trainer after the other, each a process of its own.

All it knows stands on the disk: killed at any moment, the next one goes on with what is half done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from orpo_mlx.errors import OrpoError, RunError, reason_of
from orpo_mlx.runs.checkpoints import iter_checkpoints
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group.launch import (
    STARTING,
    is_alive,
    start_in_background,
    start_trainer,
    starting_log,
    trainer_argv,
)
from orpo_mlx.runs.group.queue import Queue, QueueEntry
from orpo_mlx.runs.group.removal import move_to_trash
from orpo_mlx.runs.group.sweep import changes_text
from orpo_mlx.runs.label import LONGEST_NAME, NO_LABEL, RunLabel, read_label, write_label
from orpo_mlx.runs.listing import iter_runs
from orpo_mlx.runs.lock import RunLock
from orpo_mlx.storage.atomic import write_unsynced
from orpo_mlx.storage.regular import read_regular_text
from orpo_mlx.storage.safe_path import child_environment

_started: list[subprocess.Popen[bytes]] = []
"""Workers this process began: one that is forgotten while it lives would be warned of."""

POLL_SECONDS = 0.3
START_SECONDS = 20.0
"""A worker in the background has the lock by then, or has ended."""

Say = Callable[[str], None]


class QueueWorker:
    """Works at a queue until nothing is left, or until it is asked to stop.

    Args:
        queue: whose lock the caller holds.
        say: is told of each begin and end.
        argv: makes a trainer's words; tests give their own.
    """

    def __init__(
        self, queue: Queue, say: Say, argv: Callable[..., list[str]] = trainer_argv
    ) -> None:
        self.queue = queue
        self._say = say
        self._argv = argv
        self._environment = child_environment(PYTHONUNBUFFERED="1")
        self.is_stopping = False

    def work(self) -> None:
        """Train what waits, one after the other."""
        self.queue.stop_file.unlink(missing_ok=True)  # of an earlier worker
        while not self._must_stop():
            entry = next((one for one in self.queue.read() if one.is_open), None)
            if entry is None:
                return
            if trainings_besides(self.queue, entry):
                time.sleep(POLL_SECONDS)
                continue
            try:
                self._train(entry)
            except (OSError, OrpoError) as error:
                self.queue.close(entry, "failed", _reason(error))
                self._say(f"{entry.run.id}: failed: {_reason(error)}")
        self.queue.stop_file.unlink(missing_ok=True)

    def stop(self, *_: object) -> None:
        """End when the run in training is saved; a signal handler."""
        self.is_stopping = True

    def _must_stop(self) -> bool:
        self.is_stopping = self.is_stopping or self.queue.stop_file.exists()
        return self.is_stopping

    # One run

    def _train(self, entry: QueueEntry) -> None:
        run = entry.run
        if is_alive(run):  # its trainer outlived the worker that started it
            self._wait(entry, None)
        elif run.is_run() and run.read_status() == "completed":
            self.queue.close(entry, "completed")
        else:
            self._say(f"{run.id}: {'goes on' if run.is_run() else 'begins'}")
            self._wait(entry, self._start(entry))

    def _start(self, entry: QueueEntry) -> subprocess.Popen[bytes]:
        run = entry.run
        if run.is_run() and any(iter_checkpoints(run.checkpoints_folder)):
            with run.log_file.open("ab") as log:
                argv = self._argv("--resume", str(run.path))
                return start_in_background(argv, log, self._environment)
        if run.is_run():  # it was ended before it had saved anything
            move_to_trash(run)
        file = run.path.parent / STARTING / f"{run.id}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_unsynced(file, entry.waiting.settings.encode())
        argv = self._argv("--config", str(file), "--run-dir", str(run.path))
        return start_trainer(run, argv, self._environment)

    def _wait(self, entry: QueueEntry, process: subprocess.Popen[bytes] | None) -> None:
        """Wait for the end of a run, which is named as soon as it is there; stop it if need be."""
        has_asked = False
        while process.poll() is None if process else is_alive(entry.run):
            self._name(entry)
            if self._must_stop() and not has_asked:
                has_asked = _ask_to_stop(entry.run, process)
            time.sleep(POLL_SECONDS)
        self._name(entry)
        self._close(entry, process)

    def _name(self, entry: QueueEntry) -> None:
        """Give a run the name and the tag of what it is in its group; a person's own stay."""
        if entry.run.is_run() and read_label(entry.run.path) == NO_LABEL:
            name = changes_text(entry.waiting.changes)[:LONGEST_NAME]
            with contextlib.suppress(OrpoError):  # a full disk ends no queue
                write_label(entry.run.path, RunLabel(name, (entry.waiting.group,)))

    def _close(self, entry: QueueEntry, process: subprocess.Popen[bytes] | None) -> None:
        run = entry.run
        status = run.last_status() if run.is_run() else "failed"
        log = starting_log(run)
        words = "" if run.is_run() else _last_words(log)
        if run.is_run() and not run.log_file.exists():
            with contextlib.suppress(OSError):
                os.rename(log, run.log_file)
        if self._must_stop() and status != "completed":
            if not run.is_run():  # else a later app would tell of a start that failed
                log.unlink(missing_ok=True)
            self._say(f"{run.id}: stopped; `orpo-mlx queue go` goes on with it")
            return
        if status == "crashed":
            code = f", code {process.returncode}" if process else ""
            status, words = "failed", f"its process ended without a word{code}"
        self.queue.close(entry, status if status in ("completed", "stopped") else "failed", words)
        self._say(f"{run.id}: {status}" + (f": {words}" if words else ""))


def trainings_besides(queue: Queue, entry: QueueEntry) -> list[RunDirectory]:
    """Return what is trained now; it is waited for: two at a time are slower, and may not fit."""
    folder = queue.runs_dir
    logs = (folder / STARTING).glob("*.log")
    runs = {*iter_runs(folder), *(RunDirectory(folder / log.stem) for log in logs)}
    return sorted((run for run in runs if run != entry.run and is_alive(run)), key=lambda r: r.id)


def _ask_to_stop(run: RunDirectory, process: subprocess.Popen[bytes] | None) -> bool:
    """Ask a trainer to save and end; one that still prepares has nothing to save."""
    try:
        send_request(run, "stop")
    except (OrpoError, OSError):
        if process is None or run.is_locked():
            return False
        process.send_signal(signal.SIGTERM)
    return True


def _last_words(log: Path) -> str:
    try:
        lines = read_regular_text(log, "replace").strip().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("error")), lines[-1] if lines else "")


def _reason(error: OSError | OrpoError) -> str:
    return error.message if isinstance(error, OrpoError) else reason_of(error)


def work_here(queue: Queue, say: Say) -> None:
    """Work at a queue in this process; SIGINT and SIGTERM stop it, SIGHUP ends nothing.

    Raises:
        RunError: another process works at it, or its folder cannot be written.
    """
    lock, worker = _taken(queue), QueueWorker(queue, say)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, worker.stop)
    while True:
        try:
            worker.work()
        finally:
            lock.release()
        # Who added a run after the last look at the queue found the lock taken: nobody was started.
        if worker.is_stopping or not any(entry.is_open for entry in queue.read()):
            return
        try:
            lock.acquire()
        except RunError:
            return  # somebody else works at it now


def _taken(queue: Queue) -> RunLock:
    """Return the lock of a queue, taken.

    Raises:
        RunError: as `work_here`.
    """
    lock = queue.lock()
    try:
        queue.folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise RunError(
            f"{queue.folder}: cannot be written ({reason_of(error)})", "Choose another --runs-dir."
        ) from None
    except RunError:
        if queue.is_worked_at():
            raise worked_at(queue) from None
        raise
    return lock


def worked_at(queue: Queue) -> RunError:
    """Return the error of a second worker."""
    return RunError(
        f"{queue.folder}: process {queue.pid} works at the queue",
        "`orpo-mlx queue` shows it, `orpo-mlx queue stop` ends it.",
    )


def start_worker(queue: Queue, environment: Mapping[str, str] | None = None) -> int:
    """Start a worker that outlives this process; return its process id, or that of another one
    who was quicker.

    Raises:
        RunError: one is at work already, or it ended at once.
    """
    if queue.is_worked_at():
        raise worked_at(queue)
    argv = [sys.executable, "-m", "orpo_mlx", "queue", "go", "--here"]
    argv += ["--runs-dir", str(queue.runs_dir)]
    try:
        queue.folder.mkdir(parents=True, exist_ok=True)
        with queue.log_file.open("wb") as log:
            process = start_in_background(argv, log, environment or child_environment())
    except OSError as error:
        raise RunError(
            f"{queue.folder}: cannot be written ({reason_of(error)})", "Choose another --runs-dir."
        ) from None
    _started.append(process)
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if queue.is_worked_at() and queue.pid == process.pid:  # written once the lock is held
            return process.pid
        time.sleep(0.05)
    if process.poll() and not queue.is_worked_at():
        raise RunError(
            f"{queue.log_file}: the worker ended at once: {_last_words(queue.log_file)}",
            "`orpo-mlx queue go --here` works in this terminal, and shows why.",
        )
    return queue.pid if process.poll() and queue.pid else process.pid
