"""The server of this session: one at a time, which goes on when its screen is left."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from textual.worker import Worker, WorkerCancelled, WorkerFailed

from orpo_mlx.text.commands import command_line
from tui.processes.children import JsonLinesChild
from tui.serve.state import ServeState
from tui.shell.host import Host

_FIRST_PORT = 8080


class ServeSession:
    """Starts and ends `orpo-mlx serve` for the app, which ends it at the latest.

    Args:
        app: runs it, and tells of a failure that no screen shows.

    Attributes:
        state: what the server has said.
        runs: folders of the runs it serves.
        words: the program and its first words.
    """

    def __init__(self, app: Host) -> None:
        self._app = app
        self.state = ServeState()
        self.runs: tuple[Path, ...] = ()
        self.words: Sequence[str] = ("-m", "orpo_mlx", "serve")
        self._port = _FIRST_PORT
        self._turn = asyncio.Lock()
        self._child: JsonLinesChild | None = None
        self._worker: Worker[None] | None = None

    @property
    def command(self) -> str:
        """What serves the same without the app."""
        runs = map(str, self.runs)
        return command_line("orpo-mlx", "serve", *runs, "--port", str(self._port))

    def start(self, runs: Sequence[Path]) -> None:
        """Serve these runs in place of those that are served; the app does it, not the screen."""
        self.stop()
        self.runs, self.state = tuple(runs), ServeState("starting")
        work = partial(self._serve, self.state, self.runs)
        self._worker = self._app.run_worker(work, group="serve", exclusive=False)

    def stop(self) -> None:
        """Ask the server to end."""
        self.state.stop()
        if self._child is not None:
            self._child.interrupt()
        self._show()

    async def close(self) -> None:
        """Wait until the server has ended, as the app does."""
        self.stop()
        if self._worker is not None:
            with contextlib.suppress(WorkerCancelled, WorkerFailed):
                await self._worker.wait()

    async def _serve(self, state: ServeState, runs: Sequence[Path]) -> None:
        async with self._turn:  # the one before has ended
            if not state.is_on:
                return
            self._port = free_port()
            words = [*self.words, *map(str, runs), "--port", str(self._port), "--json"]
            async with JsonLinesChild(words, on_progress=self._take_progress) as self._child:
                self._show()
                async for message in self._child:
                    state.apply(message, self._app.clock())
                    self._show()
            ended = f"The server ended ({self._child.exit_code})."
            state.end(self._child.complaint or ended)
            self._child = None
        if not self._show() and state.failed:
            self._app.notify(state.facts(), severity="error", timeout=8, markup=False)

    def _take_progress(self, event: dict[str, object]) -> None:
        self.state.take_progress(event)
        self._show()

    def _show(self) -> bool:
        """Let the screen of this server show it; return whether there is one."""
        shown = [one for one in self._app.screen_stack if getattr(one, "server", None) is self]
        for screen in shown:
            screen.show_server()  # type: ignore[attr-defined]
        return bool(shown)


def free_port(first: int = _FIRST_PORT, count: int = 20) -> int:
    """Return the first port from `first` on that nothing listens on; 0, any, if all are taken."""
    for port in range(first, first + count):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 0
