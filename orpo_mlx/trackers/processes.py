"""The trackers beside a trainer, each a process that reads the event file.

A tracker may hang, crash or fill its memory: the trainer only looks whether it has ended. It ends
by itself when the pipe on its standard input does, also if the trainer is killed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.storage.safe_path import child_environment
from orpo_mlx.text.commands import tool

PATIENCE_SECONDS = 20.0
"""How long the end of a run waits for what its trackers have still to hand on."""
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


class TrackerProcesses:
    """Starts trackers of a run; `complaints` are for the run's notes.

    Args:
        run: whose event file is there, or about to be.
        names: of the trackers.
    """

    def __init__(self, run: RunDirectory, names: Sequence[str]) -> None:
        self._run = run
        self._running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._late: list[str] = []
        for name in dict.fromkeys(names):
            self._start(name)

    def _start(self, name: str) -> None:
        words = ["-P", "-m", "orpo_mlx.cli.trackers.log", str(self._run.path), "--to", name]
        environment = child_environment()
        for secret in _SECRETS:
            environment.pop(secret, None)
        try:
            said = tempfile.TemporaryFile()  # noqa: SIM115
            # A session of its own: Ctrl-C is meant for the trainer, whose end ends this.
            process = subprocess.Popen(
                [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=said, start_new_session=True, env=environment,
            )  # fmt: skip
        except OSError as error:
            self._late.append(self._complaint(name, str(error)))
            return
        self._running[name] = process, said

    def complaints(self) -> list[str]:
        """Return what is to be noted of trackers that have ended; each is told once."""
        ended = [name for name, (process, _) in self._running.items() if process.poll() is not None]
        told, self._late = self._late, []
        return told + [text for name in ended if (text := self._let_go(name))]

    def close(self) -> list[str]:
        """Let the trackers hand on the rest, not for ever; return what is to be noted."""
        for process, _ in self._running.values():
            if process.stdin:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        until = time.monotonic() + PATIENCE_SECONDS
        for process, _ in self._running.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return self.complaints()

    def _let_go(self, name: str) -> str:
        process, said = self._running.pop(name)
        with said:
            said.seek(0)
            lines = said.read(1 << 16).decode("utf-8", "replace").strip().split("\n")
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if process.returncode == 0:
            return ""
        if process.returncode < 0 and not lines[-1]:
            lines = ["it took too long or was killed"]
        return self._complaint(name, " ".join(lines)[:400])

    def _complaint(self, name: str, reason: str) -> str:
        later = f"{tool('orpo-mlx')} log {self._run.argument} --to {name}"
        return (
            f"the tracker {name} has ended: {reason.rstrip('. ')}. What is missing there: {later}"
        )
