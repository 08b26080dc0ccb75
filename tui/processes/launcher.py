"""Starting a trainer that outlives the app, and waiting until it has a run.

The trainer is a session leader without a terminal: closing the window or the app ends nothing. Its
output goes to a file beside the runs until the run's folder exists, then it is that run's
`train.log` (`tui.processes.trainer_log`). After the start everything goes by the run directory
(orpo_mlx.runs).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.file import with_absolute_paths, write_settings
from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import RunDirectory, new_run_id, runs_folder
from orpo_mlx.runs.group.launch import (
    STARTING,
    start_in_background,
    start_trainer,
    starting_log,
    trainer_argv,
)
from orpo_mlx.runs.listing import iter_runs
from orpo_mlx.storage.atomic import write_unsynced
from orpo_mlx.storage.safe_path import child_environment
from tui.processes.trainer_log import (
    add_line,
    mark_seen,
    read_tail,
    resumed_line,
    starting,
)
from tui.shell.settings import Settings

_POLL_SECONDS = 0.1


@dataclass
class Start:
    """A trainer that has been started and may have a run by now."""

    run: RunDirectory
    argv: list[str]
    log_file: Path
    process: subprocess.Popen[bytes]
    log_begin: int = 0
    """Bytes of the log that an earlier process wrote."""

    @property
    def command(self) -> str:
        """The command as a user would type it."""
        return shlex.join(["python", *self.argv[1:]])

    def read_log(self, max_bytes: int = 1 << 16) -> str:
        """Return the end of the trainer's output so far."""
        return read_tail(self.log_file, max_bytes, begin=self.log_begin)

    @property
    def exit_code(self) -> int | None:
        """How the trainer ended: below 0 by that signal; None while it lives."""
        return self.process.poll()

    def is_started(self) -> bool:
        """Tell whether the run is there and owned by a living trainer, or already over."""
        there = self.run.is_run() and self.run.events_file.exists()
        return there and (self.run.is_locked() or self.process.poll() is not None)

    async def wait(self) -> bool:
        """Wait until the run is there (True), or the trainer ended without one (False).

        A first start may download a model, so there is no time limit.
        """
        while not self.is_started():
            if self.process.poll() is not None:
                return self.is_started()
            await asyncio.sleep(_POLL_SECONDS)
        self._adopt_log()
        return True

    def cancel(self) -> None:
        """Ask the trainer to end; it saves nothing before the first step."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        self.has_been_seen()

    def has_been_seen(self) -> None:
        """Note that the user knows of a start that came to nothing."""
        if self.log_file != self.run.log_file:
            mark_seen(self.log_file)
            self.log_file = self.log_file.with_suffix(".seen")

    def _adopt_log(self) -> None:
        """Make the output the run's own log; the trainer goes on writing into it."""
        if self.log_file != self.run.log_file and not self.run.log_file.exists():
            # Where it cannot be moved it stays; `log_of` finds it there.
            with contextlib.suppress(OSError):
                self.log_file.with_suffix(".toml").unlink(missing_ok=True)
                os.rename(self.log_file, self.run.log_file)
                self.log_file = self.run.log_file


def start_training(
    config: TrainConfig, runs_dir: Path | None, settings: Settings, processes: int = 1
) -> Start:
    """Start a new run with these settings, shared by so many processes of this machine.

    Raises:
        RunError: the folder of all runs cannot be written.
    """
    run = _new_run(config, runs_dir)
    unset = {"run_dir": None, "runs_dir": None}
    if processes > 1 and "micro_batch_parts" not in config.model_fields_set:
        unset["micro_batch_parts"] = None  # the trainer gives each process a part of the step
    text = write_settings(with_absolute_paths(config).model_copy(update=unset))
    aside = _starting_folder(run.path.parent)
    file = aside / f"{run.id}.toml"
    try:
        write_unsynced(file, text.encode())
    except OSError as error:
        raise _unwritable(file, error) from None
    words = ["--config", str(file), "--run-dir", str(run.path), *_shared_by(processes)]
    return _start(run, words, settings)


def start_demo(runs_dir: Path | None, settings: Settings) -> Start:
    """Start the built-in demo.

    Raises:
        RunError: the folder of all runs cannot be written.
    """
    run = RunDirectory(_folder(runs_dir) / new_run_id("demo"))
    _starting_folder(run.path.parent)
    return _start(run, ["--demo", "--run-dir", str(run.path)], settings)


def start_again(
    run: RunDirectory, changes: Mapping[str, Any] | None, settings: Settings, processes: int = 1
) -> Start:
    """Start a training like a run that saved nothing, as a run of its own; as `start_training`."""
    config = run.read_config().model_copy(update=dict(changes or {}))
    return start_training(config, run.path.parent, settings, processes)


def resume_training(
    run: RunDirectory,
    settings: Settings,
    why: str = "resumed",
    changes: Mapping[str, Any] | None = None,
    processes: int = 1,
) -> Start:
    """Start a trainer that goes on with a run; its output follows the earlier one.

    Args:
        why: what the log says above the output.
        changes: settings it shall have from now on.
        processes: of this machine that share it.

    Raises:
        RunError: a trainer is at it, or the log cannot be written.
    """
    if run.is_locked():
        raise RunError(f"{run.id}: process {run.pid} is training this run", "Open it instead.")
    words = [
        word
        for name, value in (changes or {}).items()
        for word in ("--" + name.replace("_", "-"), str(value))
    ]
    argv = trainer_argv("--resume", str(run.path), *words, *_shared_by(processes))
    add_line(run.log_file, resumed_line(why))
    spoken = _last_event(run)
    try:
        with run.log_file.open("ab") as log:
            begin = log.tell()
            process = start_in_background(argv, log, trainer_environment(settings))
    except OSError as error:
        raise _unwritable(run.log_file, error) from None
    return ResumeStart(run, argv, run.log_file, process, begin, spoken)


@dataclass
class ResumeStart(Start):
    """A trainer going on with a run: it has started when it holds the lock."""

    spoken: int = 0
    """When the trainers before it wrote their last event."""

    def is_started(self) -> bool:
        """Tell whether the trainer owns the run, or has owned it: it finished or wrote events."""
        return (
            self.run.is_locked() or self.process.poll() == 0 or _last_event(self.run) != self.spoken
        )


def _last_event(run: RunDirectory) -> int:
    """Return when a run's last event was written, in nanoseconds; 0 where none can be seen."""
    try:
        return run.events_file.stat().st_mtime_ns
    except OSError:
        return 0


def running_runs(runs_dir: Path | None) -> list[RunDirectory]:
    """Return the runs a living trainer owns; more than one at a time slows all of them."""
    return [run for run in iter_runs(runs_dir) if run.is_locked()]


def starting_runs(runs_dir: Path | None) -> list[RunDirectory]:
    """Return the runs that living trainers prepare: they have no folder yet."""
    return [RunDirectory(path) for path in starting(_folder(runs_dir))]


def trainer_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a trainer."""
    environment = child_environment(PYTHONUNBUFFERED="1")
    if settings.relax_gpu_watchdog:
        environment["AGX_RELAX_CDM_CTXSTORE_TIMEOUT"] = "1"
    return environment


def _start(run: RunDirectory, words: Sequence[str], settings: Settings) -> Start:
    argv = trainer_argv(*words)
    try:
        process = start_trainer(run, argv, trainer_environment(settings))
    except OSError as error:
        raise _unwritable(starting_log(run), error) from None
    return Start(run, argv, starting_log(run), process)


def _shared_by(processes: int) -> list[str]:
    return ["--processes", str(processes)] if processes > 1 else []


def _folder(runs_dir: Path | None) -> Path:
    return runs_folder(runs_dir).absolute()


def _new_run(config: TrainConfig, runs_dir: Path | None) -> RunDirectory:
    if config.run_dir:
        return RunDirectory(Path(config.run_dir).expanduser().absolute())
    folder = _folder(Path(config.runs_dir) if config.runs_dir else runs_dir)
    return RunDirectory(folder / new_run_id(config.data))


def _starting_folder(folder: Path) -> Path:
    aside = folder / STARTING
    try:
        aside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(aside, error) from None
    return aside


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path}: cannot be written ({error.strerror})",
        "Start the app with --runs-dir FOLDER on a disk with space, or set ORPO_MLX_HOME.",
    )
