"""Child processes that answer in JSON lines: playground, export, doctor, fit, data check.

    async with JsonLinesChild(["-m", "orpo_mlx", "export", ...]) as child:
        async for message in child:
            ...
    if child.exit_code: child.complaint

None outlives the app, also one that is killed: see `tui.processes.leash`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any

from orpo_mlx.storage.safe_path import child_environment
from tui.processes import leash

MAX_LINE_BYTES = 1 << 28
"""A data check names every finding in one line."""

_PATIENCE_SECONDS = 5.0


class JsonLinesChild:
    """A `python ...` process and the JSON objects it prints, one a line.

    Args:
        words: `-m MODULE ...`, or a file of Python and its arguments.
        env: added to the environment.
        on_progress: told each progress event that the child writes to stderr.

    Attributes:
        exit_code: None while it runs.
        stray: printed lines that were no JSON, the newest last.
    """

    def __init__(
        self,
        words: Sequence[str],
        env: dict[str, str] | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.words = list(words)
        self._on_progress = on_progress
        self.stray: deque[str] = deque(maxlen=50)
        self._env = env
        self._errors: deque[str] = deque(maxlen=50)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._hold: int | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while the child runs."""
        return self._process.returncode if self._process else None

    @property
    def complaint(self) -> str:
        """What the child wrote to stderr, the end of it: an `error: ...` is there."""
        return "\n".join(self._errors)

    async def __aenter__(self) -> JsonLinesChild:
        held, self._hold = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *(leash.__file__, str(held)),
                *self.words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=child_environment(PYTHONUNBUFFERED="1", **(self._env or {})),
                limit=MAX_LINE_BYTES,
                start_new_session=True,
                pass_fds=(held,),
            )
        finally:
            os.close(held)
            if self._process is None:
                self._let_go()
        self._reader = asyncio.create_task(self._read_errors())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield what the child prints until it has ended."""
        async for text in self.lines():
            try:
                yield json.loads(text)
            except ValueError:
                if text:
                    self.stray.append(text)

    async def lines(self) -> AsyncIterator[str]:
        """Yield the lines of its output as they are, until it has ended."""
        assert self._process
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            yield line.decode("utf-8", errors="replace").strip()
        await self._process.wait()
        if self._reader:
            await self._reader

    async def send(self, message: Any) -> None:
        """Write one JSON line to the child; one that has ended says so by the end of its output."""
        assert self._process
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write((json.dumps(message) + "\n").encode())
            await self._process.stdin.drain()

    def interrupt(self) -> None:
        """Ask the child to end, as Ctrl-C does; its output ends when it has."""
        self._let_go()  # which the leash sees

    async def close(self) -> None:
        """End the child and what it started: let it clean up, then insist."""
        self._let_go()  # the leash interrupts it
        process = self._process
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        for end in (None, signal.SIGTERM, signal.SIGKILL):
            if process.returncode is not None:
                break
            if end is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, end)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _PATIENCE_SECONDS)
        if self._reader:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    def _let_go(self) -> None:
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None

    async def _read_errors(self) -> None:
        assert self._process
        assert self._process.stderr
        while line := await self._process.stderr.readline():
            if self._on_progress is not None and (event := _progress_event(line)):
                self._on_progress(event)
            else:
                self._errors.append(line.decode("utf-8", errors="replace").rstrip())


def _progress_event(line: bytes) -> dict[str, Any] | None:
    """Return what a line tells of the child's progress, None for any other line."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("event") == "progress" else None


class ChildFailed(Exception):
    """A child process ended without the answer; its text is what it wrote to stderr."""
