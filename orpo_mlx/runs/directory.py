"""A run directory: where everything of a run lies, who owns it, and how it stands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import tempfile
import time
import unicodedata
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.file import load_config, with_absolute_paths, write_settings
from orpo_mlx.errors import RunError
from orpo_mlx.runs.checkpoints import iter_checkpoints
from orpo_mlx.runs.events import DONE, Record, RunFailed, RunFinished, read_last_events
from orpo_mlx.runs.lock import RunLock, is_locked, read_pid
from orpo_mlx.runs.typed import is_time, problem
from orpo_mlx.storage.atomic import remove_temporaries, sync_directory, write_unsynced
from orpo_mlx.storage.data_folder import data_folder
from orpo_mlx.storage.disk import existing_parent
from orpo_mlx.storage.regular import read_regular

Status = Literal[
    "preparing", "running", "paused", "stopping", "stalled",
    "completed", "stopped", "failed", "crashed", "damaged", "waiting",
]  # fmt: skip
"""stalled: alive without a heartbeat; crashed: ended without saying so; damaged: in a list, its
files make no sense; waiting: in a list, in the queue; the rest the trainer says."""

STALLED_AFTER_SECONDS = 60.0


@dataclass(frozen=True)
class TrainerState:
    """What `state.json` holds: the trainer's own word, a few seconds old at most."""

    status: Status
    step: int
    total_steps: int
    pid: int
    heartbeat: float
    """Unix seconds of this writing."""
    step_seconds: float = 0.0
    """Usual time of a step; a trainer is only called stalled after 20 of them."""


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run. Making the object touches nothing."""

    path: Path

    @property
    def id(self) -> str:
        """The name of the run."""
        return self.path.name

    @property
    def argument(self) -> str:
        """What names the run in a command: its id where all runs are, else its path."""
        is_listed = self.path.parent.absolute() == default_runs_dir().absolute()
        return self.id if is_listed else shlex.quote(str(self.path))

    @property
    def trunk_folder(self) -> Path:
        """Where a trunk cache on disk lies while the run is not finished."""
        return self.path / "trunk"

    @property
    def config_file(self) -> Path:
        """The resolved settings, never changed after the start."""
        return self.path / "config.toml"

    @property
    def events_file(self) -> Path:
        """The append-only event log."""
        return self.path / "events.jsonl"

    @property
    def state_file(self) -> Path:
        """The latest `TrainerState`."""
        return self.path / "state.json"

    @property
    def lock_file(self) -> Path:
        """Held by the trainer; see `orpo_mlx.runs.lock`."""
        return self.path / "run.lock"

    @property
    def control_folder(self) -> Path:
        """Requests to the trainer; see `orpo_mlx.runs.control`."""
        return self.path / "control"

    @property
    def checkpoints_folder(self) -> Path:
        """One folder per checkpoint."""
        return self.path / "checkpoints"

    @property
    def adapter_folder(self) -> Path:
        """The resulting adapter, in mlx-lm's format."""
        return self.path / "adapter"

    @property
    def drift_file(self) -> Path:
        """Answers of the base to neutral prompts, by which drift is measured in the training."""
        return self.path / "drift.json"

    @property
    def evaluation_file(self) -> Path:
        """How base and adapter compare on held-out pairs; see `orpo_mlx.runs.evaluation`."""
        return self.path / "evaluation.json"

    @property
    def report_file(self) -> Path:
        """The same as a page to look at."""
        return self.path / "report.html"

    @property
    def log_file(self) -> Path:
        """Output of a trainer started in the background."""
        return self.path / "train.log"

    @property
    def pid(self) -> int | None:
        """Process id of the present or the last trainer."""
        return read_pid(self.lock_file)

    def lock(self) -> RunLock:
        """Return the lock of this run, to be taken with `with` or `acquire()`."""
        return RunLock(self.lock_file)

    def is_locked(self) -> bool:
        """Tell whether a trainer is alive."""
        return is_locked(self.lock_file)

    def is_run(self) -> bool:
        """Tell whether the folder holds a run, be it half-written."""
        # `Path.is_file` raises where a name is too long for a file.
        return any(map(os.path.isfile, (self.config_file, self.events_file, self.lock_file)))

    def read_config(self) -> TrainConfig:
        """Return the settings the run was started with.

        Raises:
            ConfigError: they are missing or damaged.
        """
        return load_config(self.config_file)

    def write_state(self, state: TrainerState) -> None:
        """Replace `state.json` in one rename; unsynced, since it only speaks of a live trainer."""
        write_unsynced(self.state_file, (json.dumps(asdict(state)) + "\n").encode())

    def read_state(self) -> TrainerState | None:
        """Return what `state.json` holds, None if it is missing or damaged."""
        try:
            raw: Any = json.loads(read_regular(self.state_file))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(raw, dict) or problem(TrainerState, raw):
            return None
        if raw["status"] not in get_args(Status) or not is_time(raw["heartbeat"]):
            return None
        known = {field.name for field in fields(TrainerState)}
        return TrainerState(**{name: value for name, value in raw.items() if name in known})

    def read_status(self, now: float | None = None) -> Status:
        """Tell how the run stands: by the lock while it lives, by its last event after that."""
        if self.is_locked():
            return _status_alive(self.read_state(), self.pid, time.time() if now is None else now)
        return self.last_status()

    def last_status(self) -> Status:
        """Tell how the last process of this run ended, by its events alone."""
        return status_from_events(read_last_events(self.events_file))


def _status_alive(state: TrainerState | None, pid: int | None, now: float) -> Status:
    # A state of another process was left by the one this one resumes.
    if state is None or (pid is not None and state.pid != pid):
        return "preparing"
    patience = max(STALLED_AFTER_SECONDS, 20 * state.step_seconds)
    # Preparing may mean a long download, paused has nothing to do: neither is stalled.
    if state.status in ("running", "stopping") and now - state.heartbeat > patience:
        return "stalled"
    return state.status


def status_from_events(records: list[Record]) -> Status:
    """Tell how a run without a living trainer ended, from its last events."""
    for record in reversed(records):
        if isinstance(record.event, RunFinished):
            done = record.event.reason in DONE
            return "completed" if done else "stopped"
        if isinstance(record.event, RunFailed):
            return "failed"
        if record.name in ("RunStarted", "Resumed", "StepCompleted"):
            break
    return "crashed"


class Heartbeat:
    """Keeps `state.json` fresh: at once when the status changes, else every few seconds."""

    def __init__(self, run: RunDirectory, total_steps: int = 0, every_seconds: float = 2.0) -> None:
        self.run = run
        self.total_steps = total_steps
        self.every_seconds = every_seconds
        self._last: TrainerState | None = None

    def beat(self, status: Status, step: int, step_seconds: float = 0.0) -> None:
        """Say that the trainer lives; cheap enough for every step and every wait."""
        now = time.time()
        last = self._last
        if last and last.status == status and 0 <= now - last.heartbeat < self.every_seconds:
            return
        self._last = TrainerState(status, step, self.total_steps, os.getpid(), now, step_seconds)
        # A full disk must not end the training here: lock and events carry the truth.
        with contextlib.suppress(OSError):
            self.run.write_state(self._last)


def default_runs_dir() -> Path:
    """Return the folder of all runs: `$ORPO_MLX_HOME/runs`, else in the user data folder."""
    return data_folder("runs")


def runs_folder(runs_dir: str | Path | None) -> Path:
    """Return the folder of all runs, from the setting `runs_dir` or by default."""
    return Path(runs_dir).expanduser() if runs_dir else default_runs_dir()


def create_run(config: TrainConfig, name: str = "") -> RunDirectory:
    """Make the folder of a new run and write its settings into it.

    Args:
        config: names the folder (`run_dir`), or where to make one (`runs_dir`).
        name: how its id begins; default: the name of the data file or its folder.

    Raises:
        RunError: the place is taken or cannot be written; nothing there was changed.
    """
    text = write_settings(
        with_absolute_paths(config).model_copy(update={"run_dir": None, "runs_dir": None})
    )
    target = run_place(config)
    try:
        if config.run_dir:
            check_run_folder(target)
            target.mkdir(parents=True, exist_ok=True)
            run = RunDirectory(target)
        else:
            run = _new_folder(target, name or config.data)
        _write_new(run.config_file, text.encode())
        run.control_folder.mkdir(exist_ok=True)
        run.checkpoints_folder.mkdir(exist_ok=True)
        sync_directory(run.path)
        sync_directory(run.path.parent)
    except OSError as error:
        raise _unwritable(error, target) from None
    return run


def run_place(config: TrainConfig) -> Path:
    """Return the folder of a run that is to be, or the one it will be made in.

    Raises:
        RunError: it names a user who does not exist.
    """
    chosen = config.run_dir or config.runs_dir or default_runs_dir()
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError:
        raise RunError(f"{chosen}: there is no such user", "Write the folder out.") from None


def check_place(config: TrainConfig) -> None:
    """Refuse a place where no run can be made, before the work; leaves nothing there.

    Raises:
        RunError: the place is taken or cannot be written.
    """
    target = place = run_place(config)
    try:
        if config.run_dir:
            check_run_folder(target)
        place = existing_parent(target)
        # Tried, since permissions alone do not tell: disks are read-only, full or special.
        with tempfile.TemporaryDirectory(prefix=".orpo-mlx-", dir=place):
            pass
    except OSError as error:
        error.filename = place
        raise _unwritable(error, target) from None


def check_run_folder(path: Path) -> None:
    """Refuse a place for a new run that holds anything; changes nothing.

    Raises:
        RunError: naming what is there and what to do instead.
    """
    run = RunDirectory(path)
    if path.exists() and not path.is_dir():
        raise RunError(f"{path}: a run needs a folder, this is a file", "Choose another --run-dir.")
    if not path.exists():
        return
    if run.is_run():
        with_pid = f", process {run.pid} is training it" if run.is_locked() else ""
        status = run.read_status()
        goes_on = f"Go on with it by --resume {path}, or choose another --run-dir."
        if not run.is_locked() and not any(iter_checkpoints(run.checkpoints_folder)):
            goes_on = "It saved no checkpoint to go on from: remove it, or give another --run-dir."
        raise RunError(
            f"{path}: holds a run already ({status}{with_pid}); nothing was changed",
            goes_on
            if status != "completed"
            else f"Choose another --run-dir; --init-adapter {run.adapter_folder} starts from its "
            "adapter.",
        )
    if found := sorted(entry.name for entry in path.iterdir()):
        shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise RunError(
            f"{path}: is not empty and not a run (found {shown}); nothing was changed",
            "Choose another --run-dir, or an empty folder.",
        )


def _write_new(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:  # another trainer was faster
        check_run_folder(path.parent)
        raise


def _name_of_data(data: str | None) -> str:
    path = Path(data or "run")
    # Many data sets are a folder with a train.jsonl; its name says more.
    is_generic = path.stem.lower() in ("train", "data", "dataset")
    return path.absolute().parent.name if is_generic else path.stem


def new_run_id(data: str | None) -> str:
    """Return an id for a run on these data: their name, the time, and four random digits."""
    # Accents fall off their letters: a folder name that any terminal can type.
    plain = unicodedata.normalize("NFKD", _name_of_data(data).lower())
    name = "".join(sign for sign in plain if not unicodedata.combining(sign))
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:24].strip("-") or "run"
    return f"{slug}-{time.strftime('%Y%m%d-%H%M')}-{secrets.token_hex(2)}"


def _new_folder(runs_dir: Path, data: str | None) -> RunDirectory:
    runs_dir.mkdir(parents=True, exist_ok=True)
    while True:
        path = runs_dir / new_run_id(data)
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                raise
            continue
        return RunDirectory(path)


def _unwritable(error: OSError, target: Path) -> RunError:
    place = error.filename or target
    about = "" if str(place) == str(target) else f" at {place}"
    return RunError(
        f"{target}: cannot be written ({error.strerror}{about})",
        "Choose another --run-dir or --runs-dir, or free this one.",
    )


def sweep(run: RunDirectory) -> None:
    """Delete what a killed trainer left half-written; only for the holder of the lock."""
    remove_temporaries(run.path)
    if run.checkpoints_folder.is_dir():
        remove_temporaries(run.checkpoints_folder)
