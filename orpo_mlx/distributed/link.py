"""One connection between two processes of a run: short messages, and when one is gone.

A message is a line of JSON. A thread reads them, so that a peer that ends or falls silent is
noticed while this process computes. Numbers of a step travel here, tensors never do.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from typing import Any

Message = dict[str, Any]

MOST_BYTES = 1 << 24
"""Of one message; a longer one comes from something else than a peer."""


class Link:
    """A connection to one peer; usable until `lost` says why it is not.

    Args:
        connection: connected; owned from now on.
        rank: of the process at the other end.
        host: its name, for messages.
        log: the file it prints to there, "" if it has none.

    Attributes:
        lost: why nothing more will come, "" while it may.
        failure: what the peer said of its own end, None if it said nothing.
        gone_at: when it was first known to be gone, by `time.monotonic`; None while it is there.
        signal: a signal that the peer was sent, "" if none.
        heard: when anything came last, by `time.monotonic`.
        moved: when the peer was last known to get on with its work.
        doing: what the peer says it is at.
    """

    def __init__(self, connection: socket.socket, rank: int, host: str, log: str = "") -> None:
        self.rank, self.host, self.log = rank, host, log
        self.lost, self.signal, self.doing = "", "", ""
        self.failure: Message | None = None
        self.gone_at: float | None = None
        self.heard = self.moved = time.monotonic()
        self._progress = -1
        self._connection = connection
        self._sending = threading.Lock()
        self._inbox: queue.Queue[tuple[Message, float]] = queue.Queue()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)

    def start(self) -> Link:
        """Begin to read."""
        name = f"orpo-mlx-link-{self.rank}"
        threading.Thread(target=self._read, name=name, daemon=True).start()
        return self

    def send(self, kind: str, **content: Any) -> None:
        """Send a message; of a connection that is gone `lost` tells."""
        line = json.dumps({"kind": kind, **content}) + "\n"
        try:
            with self._sending:
                self._connection.sendall(line.encode())
        except OSError as error:
            self.lose(f"its connection broke ({error.strerror or error})")

    def take(self, seconds: float) -> tuple[Message, float] | None:
        """Return the next message and when it came, None if none does within `seconds`."""
        with contextlib.suppress(queue.Empty):
            return self._inbox.get(timeout=seconds)
        return None

    def lose(self, why: str) -> None:
        """Give the connection up; the first reason stands."""
        self.lost = self.lost or why
        self.gone_at = self.gone_at or time.monotonic()
        self.close()

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read(self) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                while line := lines.readline(MOST_BYTES):
                    self._accept(json.loads(line))
            self.lose("it has ended")
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self.lose("its connection broke" if isinstance(error, OSError) else "it sent nonsense")

    def _accept(self, message: Message) -> None:
        self.heard = time.monotonic()
        kind = message["kind"]
        if kind == "beat":
            self.doing = str(message["doing"])
            if message["progress"] != self._progress:
                self._progress, self.moved = message["progress"], self.heard
        elif kind == "failed":
            self.failure, self.gone_at = message, self.gone_at or self.heard
        elif kind == "signal":
            self.signal = str(message["name"])
        else:
            self.moved = self.heard
            self._inbox.put((message, self.heard))
