"""Requests to a running trainer: small files dropped into its `control/` folder, and signals.

Files work over ssh, from scripts and from two windows at once. The trainer looks once per step and
renames what it took: `.ack` done, `.bad` not understood, `.stale` older than the trainer.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, get_args

from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import Event, NoteLogged, Paused, Resumed

RequestName = Literal["pause", "resume", "checkpoint", "stop", "abort", "sample"]
REQUEST_NAMES: tuple[RequestName, ...] = get_args(RequestName)

_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Request:
    """What someone asks of the trainer."""

    name: RequestName
    file: str
    """Name of the file it came in."""


def send_request(run: RunDirectory, name: RequestName) -> Path:
    """Ask something of a running trainer; it answers within a step.

    Returns:
        The file of the request; see `is_acknowledged`.

    Raises:
        RunError: no trainer is there to read it.
    """
    if not run.is_locked():
        status = run.read_status()
        go_on = f"`orpo-mlx resume {run.id}` goes on with it; " if status != "completed" else ""
        raise RunError(
            f"run {run.id} is not running (it is {status}): nothing to {name}",
            f"{go_on}`orpo-mlx runs` lists all runs.",
        )
    folder = run.control_folder
    folder.mkdir(exist_ok=True)
    # Nanoseconds first, so that names sort by arrival even within one tick of the file clock.
    path = folder / f"{time.time_ns():020d}-{name}-{secrets.token_hex(2)}.json"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps({"request": name, "time": time.time()}), encoding="utf-8")
    os.replace(temporary, path)
    return path


def is_acknowledged(path: Path) -> bool:
    """Tell whether the trainer has taken a request."""
    return path.with_suffix(".ack").exists()


class Inbox:
    """The trainer's side of `control/`. Make it right after taking the lock.

    What lies there already was meant for an earlier process and is put aside.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._notes: list[str] = []
        # By name too: where renaming fails, a request must still not be taken twice.
        self._seen: set[str] = set()
        for path in self._waiting():
            self._put_aside(path, ".stale")

    def poll(self) -> list[Request]:
        """Return the new requests in order of arrival; each is returned once."""
        requests = []
        for path in self._waiting():
            try:
                requests.append(_read(path))
                self._put_aside(path, ".ack")
            except (OSError, ValueError) as error:
                self._put_aside(path, ".bad")
                self._notes.append(f"Request {path.name} was not understood: {error}")
        return requests

    def take_notes(self) -> list[str]:
        """Return what could not be understood since the last call, for the event log."""
        notes, self._notes = self._notes, []
        return notes

    def _waiting(self) -> list[Path]:
        try:
            with os.scandir(self.folder) as entries:
                found = [
                    (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name)
                    for entry in entries
                    if entry.name.endswith(".json")
                    and not entry.name.startswith(".")
                    and entry.name not in self._seen
                ]
        except OSError:
            return []
        return [self.folder / name for _, name in sorted(found)]

    def _put_aside(self, path: Path, suffix: str) -> None:
        try:
            os.replace(path, path.with_suffix(suffix))
        except OSError:
            self._seen.add(path.name)


def _read(path: Path) -> Request:
    if path.is_symlink() or not path.is_file():
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES)
    try:
        raw: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    name = raw.get("request") if isinstance(raw, dict) else None
    if name not in REQUEST_NAMES:
        raise ValueError(f"no such request: {str(name)[:40]!r}; known: {', '.join(REQUEST_NAMES)}")
    return Request(name, path.name)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Before and after the steps, where there are no `SignalFlags`: SIGTERM ends at once.

    SIGHUP is ignored there, too. Outside the main thread signals cannot be handled.

    Raises:
        KeyboardInterrupt: SIGTERM came; its text says so.
    """

    def end(*_: object) -> None:
        raise KeyboardInterrupt("ended by SIGTERM; what was saved before is kept")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = {signal.SIGTERM: end, signal.SIGHUP: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class SignalFlags:
    """Turns signals into flags the training loop reads between steps; a context manager.

    SIGINT and SIGTERM ask to stop after the step, a second SIGINT to abort without finishing it, a
    third one raises KeyboardInterrupt. SIGHUP is ignored: a closed terminal ends nothing. Outside
    the main thread signals cannot be handled; the flags then stay false.

    Attributes:
        stop: finish the step, save and end.
        abort: end now.
        signal_name: the first signal that came, "" if none did.
    """

    def __init__(self) -> None:
        self.stop = False
        self.abort = False
        self.signal_name = ""
        self._interrupts = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> SignalFlags:
        if threading.current_thread() is threading.main_thread():
            self._install(signal.SIGINT, self._interrupt)
            self._install(signal.SIGTERM, self._terminate)
            self._install(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None: installed by C code, which Python cannot give back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _install(self, number: signal.Signals, handler: Any) -> None:
        self._previous[number] = signal.signal(number, handler)

    def ask(self, name: str) -> None:
        """Ask to stop after the step, as the signal of this name does."""
        self.stop = True
        self.signal_name = self.signal_name or name

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._ask(number)
        self._interrupts += 1
        self.abort = self._interrupts > 1
        if self._interrupts > 2:
            raise KeyboardInterrupt

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._ask(number)

    def _ask(self, number: int) -> None:
        self.ask(signal.Signals(number).name)


@dataclass(frozen=True)
class Actions:
    """What a trainer does when it is asked.

    Attributes:
        emit: writes an event.
        save: writes a checkpoint.
        sample: answers the held-out prompts.
        wait: lets a moment pass; called again and again while paused.
    """

    emit: Callable[[Event], object]
    save: Callable[[], object]
    sample: Callable[[], object]
    wait: Callable[[], object]


def obey(
    inbox: Inbox, signals: SignalFlags, actions: Actions, step: int
) -> Literal["", "stopped", "aborted"]:
    """Do what signals and control files ask after a step; return why to end, "" to go on."""
    paused = False
    while True:
        if signals.abort or signals.stop:
            return "aborted" if signals.abort else "stopped"
        for request in inbox.poll():
            if request.name in ("stop", "abort"):
                return "stopped" if request.name == "stop" else "aborted"
            if request.name == "checkpoint":
                actions.save()
            elif request.name == "sample":
                actions.sample()
            elif paused != (request.name == "pause"):
                paused = not paused
                actions.emit(Paused(step) if paused else Resumed(step))
        for note in inbox.take_notes():
            actions.emit(NoteLogged("warning", note))
        if not paused:
            return ""
        actions.wait()
