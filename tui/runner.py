"""Starting a trainer that outlives the app, and waiting until it has a run.

The trainer is a session leader without a terminal: closing the window or the app ends nothing. Its
output goes to a file beside the runs until the run's folder exists, then it is that run's
`train.log`. After the start everything goes by the run directory (orpo_mlx.runs).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orpo_mlx.config import TrainConfig
from orpo_mlx.durable import write_unsynced
from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import RunDirectory, runs_folder
from orpo_mlx.runs.listing import iter_runs
from orpo_mlx.settings_file import with_absolute_paths, write_settings
from tui.settings import Settings

_STARTING = ".starting"
_POLL_SECONDS = 0.1


@dataclass
class Start:
    """A trainer that has been started and may have a run by now."""

    run: RunDirectory
    argv: list[str]
    log_file: Path
    process: subprocess.Popen[bytes]

    @property
    def command(self) -> str:
        """The command as a user would type it."""
        return shlex.join(["python", *self.argv[1:]])

    def read_log(self, max_bytes: int = 1 << 16) -> str:
        """Return the end of the trainer's output so far."""
        return read_tail(self.log_file, max_bytes)

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

    def _adopt_log(self) -> None:
        """Make the output the run's own log; the trainer goes on writing into it."""
        if self.log_file != self.run.log_file and not self.run.log_file.exists():
            # On another disk it stays where it is; `log_of` finds it there.
            with contextlib.suppress(OSError):
                os.rename(self.log_file, self.run.log_file)
                self.log_file = self.run.log_file


def start_training(config: TrainConfig, runs_dir: Path | None, settings: Settings) -> Start:
    """Start a new run with these settings.

    Raises:
        RunError: the folder of all runs cannot be written.
    """
    run = _new_run(config, runs_dir)
    text = write_settings(
        with_absolute_paths(config).model_copy(update={"run_dir": None, "runs_dir": None})
    )
    aside = _starting_folder(run.path.parent)
    file = aside / f"{run.id}.toml"
    try:
        write_unsynced(file, text.encode())
    except OSError as error:
        raise _unwritable(file, error) from None
    return _start(run, ["--config", str(file), "--run-dir", str(run.path)], aside, settings)


def start_demo(runs_dir: Path | None, settings: Settings) -> Start:
    """Start the built-in demo.

    Raises:
        RunError: the folder of all runs cannot be written.
    """
    run = RunDirectory(_folder(runs_dir) / _new_id("demo"))
    aside = _starting_folder(run.path.parent)
    return _start(run, ["--demo", "--run-dir", str(run.path)], aside, settings)


def resume_training(run: RunDirectory, settings: Settings) -> Start:
    """Start a trainer that goes on with a run.

    Raises:
        RunError: a trainer is at it, or the log cannot be written.
    """
    if run.is_locked():
        raise RunError(f"{run.id}: process {run.pid} is training this run", "Open it instead.")
    # A refused resume must find no old events to take for its own.
    aside = _starting_folder(run.path.parent)
    start = _start(run, ["--resume", str(run.path)], aside, settings)
    return ResumeStart(start.run, start.argv, start.log_file, start.process)


@dataclass
class ResumeStart(Start):
    """A trainer going on with a run: it has started when it holds the lock."""

    def is_started(self) -> bool:
        """Tell whether the trainer owns the run, or has already finished with it."""
        return self.run.is_locked() or self.process.poll() == 0

    def _adopt_log(self) -> None:
        # The earlier output stays first, as `>>` would have it: the whole story in one file.
        with contextlib.suppress(OSError):
            if not self.run.log_file.exists():
                super()._adopt_log()


def running_runs(runs_dir: Path | None) -> list[RunDirectory]:
    """Return the runs a living trainer owns; more than one at a time slows all of them."""
    return [run for run in iter_runs(runs_dir) if run.is_locked()]


def trainer_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a trainer."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if settings.relax_gpu_watchdog:
        environment["AGX_RELAX_CDM_CTXSTORE_TIMEOUT"] = "1"
    return environment


def log_of(run: RunDirectory) -> Path:
    """Return the file with a run's output: its log, or where the last start left it."""
    aside = run.path.parent / _STARTING / f"{run.id}.log"
    if not aside.exists():
        return run.log_file
    newer = not run.log_file.exists() or aside.stat().st_mtime >= run.log_file.stat().st_mtime
    return aside if newer else run.log_file


def read_tail(path: Path, max_bytes: int = 1 << 16) -> str:
    """Return the end of a text file, "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _start(run: RunDirectory, words: Sequence[str], aside: Path, settings: Settings) -> Start:
    argv = [sys.executable, "-m", "orpo_mlx.train", *words]
    log_file = aside / f"{run.id}.log"
    try:
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=trainer_environment(settings),
            )
    except OSError as error:
        raise _unwritable(log_file, error) from None
    _keep_awake(process.pid)
    return Start(run, argv, log_file, process)


def _keep_awake(pid: int) -> None:
    """Keep a Mac from sleeping while a process lives."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            subprocess.Popen(
                ["caffeinate", "-i", "-w", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )


def _folder(runs_dir: Path | None) -> Path:
    return runs_folder(runs_dir).absolute()


def _new_run(config: TrainConfig, runs_dir: Path | None) -> RunDirectory:
    if config.run_dir:
        return RunDirectory(Path(config.run_dir).expanduser().absolute())
    folder = _folder(Path(config.runs_dir) if config.runs_dir else runs_dir)
    return RunDirectory(folder / _new_id(Path(config.data or "run").stem))


def _new_id(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24].strip("-") or "run"
    return f"{slug}-{time.strftime('%Y%m%d-%H%M')}-{secrets.token_hex(2)}"


def _starting_folder(folder: Path) -> Path:
    aside = folder / _STARTING
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
