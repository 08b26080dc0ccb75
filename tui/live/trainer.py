"""A run's trainer as a viewer talks to it: asks, waits for the answer, ends it; no Textual."""

from __future__ import annotations

import contextlib
import os
import signal

from orpo_mlx.errors import OrpoError, RunError
from orpo_mlx.runs.control import RequestName
from orpo_mlx.runs.directory import RunDirectory, Status
from tui.live.pending import Asking
from tui.processes.requests import send
from tui.run.state import RunState
from tui.run.status import ALIVE, RESUMABLE


class Trainer:
    """The other end of a run's `control/` folder.

    Attributes:
        asking: what was asked and not yet answered.
        is_freeing: the stop that was asked for is a pause which gives the memory back.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.asking: Asking | None = None
        self.is_freeing = False

    def ask(
        self, request: RequestName, state: RunState, now: float, *, frees: bool = False
    ) -> None:
        """Send a request; the same one is not sent again while it waits.

        Raises:
            RunError: no trainer is there, or the folder cannot be written.
        """
        if self.asking and self.asking.request == request and not self.asking.is_answered(state):
            return
        send(self.run, request)
        self.asking = Asking.begin(request, state, now, frees=frees)
        self.is_freeing = frees

    def waiting_text(self, state: RunState, now: float, kill_key: str) -> str:
        """Return what is being waited for, "" for nothing."""
        if self.asking is not None and self.asking.is_answered(state):
            self.asking = None
        return self.asking.text(now, kill_key) if self.asking else ""

    def is_overdue(self, now: float) -> bool:
        """Tell whether a stop has had no answer for too long."""
        return self.asking is not None and self.asking.is_overdue(now)

    def has_ended(self) -> None:
        """Forget what was asked: nobody is there to answer."""
        self.asking = None

    def allows(self, action: str, status: Status, now: float) -> bool:
        """Tell whether a command makes sense now."""
        if action in ("pause", "free", "stop", "stop_now", "checkpoint", "sample"):
            return status in ALIVE
        if action == "resume":
            return status in RESUMABLE
        if action == "kill":
            return status == "stalled" or self.is_overdue(now)
        if action in ("export", "chat", "test", "result", "anew"):
            return status not in ALIVE
        return True

    def kill(self) -> None:
        """End the process at once.

        Raises:
            RunError: it has ended by itself, or is not ours to end.
        """
        pid = self.run.pid
        # The lock, not the number, says that the process is still this trainer.
        if pid is None or not self.run.is_locked():
            raise RunError(
                f"{self.run.id}: its trainer has ended meanwhile", "Resume goes on with it."
            )
        # It leaves word that a person ended the run, which is then not resumed by itself; a full
        # disk must not keep anybody from ending it.
        with contextlib.suppress(OrpoError):
            send(self.run, "abort")
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError as error:
            raise RunError(
                f"process {pid} cannot be ended ({error.strerror})",
                "Its owner can: see `ps` for who that is.",
            ) from None
