"""Runs that wait for their turn: a file each beside the runs; nothing but the disk remembers.

`.queue/ID.json` says what the run `ID` is to be. How far it is its own folder says; only how an
attempt ended that left no folder to say it, or that is not to be tried again, stands in the entry.
The lock `.queue/worker.lock` says who works at the queue.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.file import with_absolute_paths, write_settings
from orpo_mlx.errors import RunError, reason_of
from orpo_mlx.runs.directory import RunDirectory, new_run_id, runs_folder
from orpo_mlx.runs.group.launch import is_alive
from orpo_mlx.runs.lock import RunLock, is_locked, read_pid
from orpo_mlx.runs.typed import is_time, problem
from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.storage.regular import read_regular

QUEUE = ".queue"
GROUP = "sweep-"
"""How the name of a group begins; its runs have it as a tag."""
OUTCOMES = ("", "completed", "failed", "stopped")
_MAX_BYTES = 1 << 18
_LONGEST = 200


@dataclass(frozen=True)
class Waiting:
    """What a queue's file says of one run.

    Attributes:
        group: the name that runs of one sweep share.
        number: its place; lower ones go first.
        changes: the settings in which it differs from the rest of its group.
        settings: all of them, as a settings file.
        added: Unix seconds.
        outcome: of `OUTCOMES`; "" while there is something to do.
        words: more about the outcome.
    """

    group: str
    number: int
    changes: dict[str, str]
    settings: str
    added: float
    outcome: str = ""
    words: str = ""


@dataclass(frozen=True)
class QueueEntry:
    """A run in the queue."""

    run: RunDirectory
    waiting: Waiting = field(compare=False)

    @property
    def is_open(self) -> bool:
        """Whether there is something to do."""
        return not self.waiting.outcome

    @property
    def status(self) -> str:
        """How it stands, in a word: waiting, or that of its run."""
        if self.waiting.outcome:
            return self.waiting.outcome
        return self.run.read_status() if self.run.is_run() else "waiting"


class Queue:
    """The queue beside the runs of a folder.

    Args:
        runs_dir: the folder of all runs; None: the default one.
    """

    def __init__(self, runs_dir: str | Path | None = None) -> None:
        self.runs_dir = runs_folder(runs_dir).absolute()
        self.folder = self.runs_dir / QUEUE

    @property
    def lock_file(self) -> Path:
        """Held by who works at it."""
        return self.folder / "worker.lock"

    @property
    def stop_file(self) -> Path:
        """There while the worker is asked to stop."""
        return self.folder / "stop"

    @property
    def log_file(self) -> Path:
        """Output of a worker in the background."""
        return self.folder / "worker.log"

    def lock(self) -> RunLock:
        """Return the lock of who works at the queue."""
        return RunLock(self.lock_file)

    def is_worked_at(self) -> bool:
        """Tell whether somebody does."""
        return is_locked(self.lock_file)

    @property
    def pid(self) -> int | None:
        """Process id of the present or the last worker."""
        return read_pid(self.lock_file)

    # Entries

    def read(self) -> list[QueueEntry]:
        """Return the runs of the queue in order; a damaged file is none."""
        try:
            paths = sorted(self.folder.glob("*.json"))
        except OSError:
            return []
        # A name that begins with a dot is none of ours: "..", for one, leads elsewhere.
        plain = [path for path in paths if not path.name.startswith(".")]
        found = [entry for path in plain if (entry := self._entry(path)) is not None]
        return sorted(found, key=lambda entry: (entry.waiting.number, entry.run.id))

    def _entry(self, path: Path) -> QueueEntry | None:
        try:
            raw: Any = json.loads(read_regular(path, _MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(raw, dict) or problem(Waiting, raw):
            return None
        if raw.get("outcome", "") not in OUTCOMES or not is_time(raw["added"]):
            return None
        known = {one.name: raw[one.name] for one in fields(Waiting) if one.name in raw}
        return QueueEntry(RunDirectory(self.runs_dir / path.stem), Waiting(**known))

    def add(
        self, configs: Sequence[TrainConfig], changes: Sequence[Mapping[str, str]]
    ) -> list[QueueEntry]:
        """Put runs at the end of the queue, all of one group.

        Args:
            configs: settings of each.
            changes: what is each one's own, as it was typed.

        Raises:
            RunError: the folder cannot be written; nothing waits then.
        """
        last = max((entry.waiting.number for entry in self.read()), default=0)
        group = f"{GROUP}{time.strftime('%Y%m%d-%H%M')}-{secrets.token_hex(2)}"
        entries: list[QueueEntry] = []
        now = time.time()
        for place, (config, own) in enumerate(zip(configs, changes, strict=True), start=1):
            here = config.model_copy(update={"run_dir": None, "runs_dir": None})
            text = write_settings(with_absolute_paths(here))
            said = Waiting(group, last + place, dict(own), text, now)
            entries.append(QueueEntry(RunDirectory(self._free_place(config)), said))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for entry in entries:
                self._write(entry)
        except OSError as error:
            for entry in entries:
                self.remove(entry)
            raise _unwritable(self.folder, error) from None
        return entries

    def _free_place(self, config: TrainConfig) -> Path:
        while True:
            path = self.runs_dir / new_run_id(config.data)
            if not path.exists() and not self._file(path.name).exists():
                return path

    def _file(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.json"

    def _write(self, entry: QueueEntry) -> None:
        text = json.dumps(asdict(entry.waiting), indent=1) + "\n"
        write_atomically(self._file(entry.run.id), text.encode())

    def close(self, entry: QueueEntry, outcome: str, words: str = "") -> None:
        """Note how a run ended; one that was removed meanwhile stays removed.

        Raises:
            RunError: it cannot be written.
        """
        if self._file(entry.run.id).exists():
            said = replace(entry.waiting, outcome=outcome, words=words[:_LONGEST])
            try:
                self._write(QueueEntry(entry.run, said))
            except OSError as error:
                raise _unwritable(self.folder, error) from None

    def remove(self, entry: QueueEntry) -> None:
        """Forget a run of the queue; its folder, if it has one, stays.

        Raises:
            RunError: it is being trained by the queue.
        """
        if is_alive(entry.run) and self.is_worked_at():
            raise RunError(
                f"{entry.run.id} is being trained by the queue",
                f"Stop the queue first (`orpo-mlx queue stop`), or only this run "
                f"(`orpo-mlx stop {entry.run.argument}`).",
            )
        try:
            self._file(entry.run.id).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"{self._file(entry.run.id)}: cannot be removed ({reason_of(error)})",
                "See who owns the folder.",
            ) from None

    def forget(self, run: RunDirectory) -> None:
        """Have no entry of a run whose folder went; one that cannot be removed is none of ours."""
        with contextlib.suppress(OSError):
            self._file(run.id).unlink()

    def ask_to_stop(self) -> None:
        """Ask the worker to stop: the run in training is saved, and gone on with later.

        Raises:
            RunError: nobody works at it, or the folder cannot be written.
        """
        if not self.is_worked_at():
            raise RunError("nobody works at the queue: nothing to stop", "See `orpo-mlx queue`.")
        try:
            self.stop_file.touch()
        except OSError as error:
            raise _unwritable(self.stop_file, error) from None


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path}: cannot be written ({reason_of(error)})",
        "Choose another --runs-dir, or free some disk.",
    )
