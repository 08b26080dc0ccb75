"""Peers on this machine, started and ended by process 0 itself."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orpo_mlx.distributed.log import PLACE, last_lines
from orpo_mlx.distributed.world import SECRET, World, read_world
from orpo_mlx.errors import ConfigError, PeerLostError

_HOST = "127.0.0.1"
_PORTS = range(20_000, 32_000)
"""Below those that systems give to connections: one of these may begin at any moment."""

_PATIENCE = 10.0
"""Seconds that a peer gets to end by itself."""


class StartedPeers:
    """The processes started here, by rank.

    Attributes:
        folder: of their logs, until they write to the run's.
        have_joined: they hear when the run ends; before that they are killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.have_joined = False
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, rank: int, words: Sequence[str], environment: dict[str, str]) -> None:
        """Start a peer; Ctrl-C in the terminal is not for it."""
        log = self.log_of(rank)
        with log.open("wb") as file:
            self._processes[rank] = subprocess.Popen(
                list(words), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env=environment | {PLACE: str(log)}, start_new_session=True,
            )  # fmt: skip

    def log_of(self, rank: int) -> Path:
        """Return where a peer writes before there is a run."""
        return self.folder / f"process-{rank}.log"

    def died(self) -> PeerLostError | None:
        """Return the error that one has ended, None while none has."""
        for rank, process in self._processes.items():
            if (code := process.poll()) is not None:
                said = f"process {rank} ended with exit status {code} before the run began"
                error = PeerLostError(said, "Look there for the reason, then start again.")
                error.rank, error.last_lines = rank, last_lines(self.log_of(rank))
                return error
        return None

    def end(self) -> None:
        """Wait for all; who does not end is killed."""
        until = time.monotonic() + _PATIENCE * self.have_joined
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End all at once."""
        for process in self._processes.values():
            process.kill()
            process.wait()


@contextmanager
def start_peers(size: int, words: Sequence[str]) -> Iterator[tuple[World, StartedPeers]]:
    """Start all processes of a run but this one, and end them with it.

    Args:
        size: processes in all.
        words: arguments of `python -m orpo_mlx.train`, the same for all.

    Raises:
        ConfigError: too few free ports.
    """
    # -P: modules never come from the folder the user stands in.
    command = [sys.executable, "-P", "-m", "orpo_mlx.train", *words]
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-peers-") as folder:
        hostfile = Path(folder) / "hosts.json"
        ports = _free_ports(size + 1)
        hostfile.write_text(json.dumps([[f"{_HOST}:{port}"] for port in ports[:-1]]))
        own = {"MLX_HOSTFILE": str(hostfile), SECRET: secrets.token_hex(16), "MLX_RANK": "0"}
        world = read_world(own)
        assert world is not None
        started = StartedPeers(Path(folder))
        with _environment(own):
            try:
                for rank in range(1, size):
                    started.start(rank, command, {**os.environ, "MLX_RANK": str(rank)})
                yield world, started
            finally:
                started.end()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Have environment variables: MLX reads them when it connects."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _free_ports(count: int) -> list[int]:
    """Return ports in a row that nobody listens at."""
    for _ in range(50):
        first = secrets.choice(_PORTS)
        ports = list(range(first, first + count))
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in ports:
                stack.enter_context(socket.create_server((_HOST, port)))
            return ports
    raise ConfigError(
        f"{_HOST}: no {count} ports in a row are free for the processes of a run",
        "End what listens there, or train with one process.",
    )
