"""How the processes of a run find each other, before MLX connects them.

MLX's own start has no time limit and lets no other thread run while it waits, so it is only called
once all processes are known to be there.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import queue
import socket
import threading
import time
from collections.abc import Callable

from orpo_mlx.distributed.link import MOST_BYTES, Link
from orpo_mlx.distributed.world import World
from orpo_mlx.errors import PeerLostError, PeerRefusedError, reason_of

_PAUSE = 0.1
"""Seconds between two tries."""

_MOST_WAITING = 256
"""Connections that have not said who they are; more are sent away."""


def meet(world: World, seconds: float, has_died: Callable[[], PeerLostError | None]) -> list[Link]:
    """Wait, as process 0, for all others; return their connections by rank.

    Args:
        world: of this process.
        seconds: how long to wait.
        has_died: gives the error that a started process has ended already, None if none has.

    Raises:
        PeerLostError: one did not come.
        PeerRefusedError: the port is taken.
    """
    links: dict[int, Link] = {}
    admitted: queue.Queue[Link] = queue.Queue()
    # Each in a thread of its own, so that one that says nothing keeps no peer waiting.
    waiting = threading.Semaphore(_MOST_WAITING)
    deadline = time.monotonic() + seconds
    with _listen(world) as listener:
        while len(links) < world.size - 1:
            if died := has_died():
                raise died
            if time.monotonic() > deadline:
                raise _absent(world, set(links), seconds)
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                _ask(connection, world, admitted, waiting)
            with contextlib.suppress(queue.Empty):
                while link := admitted.get_nowait():
                    if links.setdefault(link.rank, link) is not link:
                        link.close()
    return [links[rank].start() for rank in sorted(links)]


def join(world: World, seconds: float, log: str = "") -> Link:
    """Connect, as a peer, to process 0.

    Args:
        world: of this process.
        seconds: how long to try.
        log: where this process prints.

    Raises:
        PeerLostError: it cannot be reached.
    """
    deadline, why = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            connection = socket.create_connection(world.address, timeout=seconds)
        except OSError as error:
            why = reason_of(error)
            time.sleep(_PAUSE)
            continue
        hello = {"rank": world.rank, "size": world.size, "secret": world.secret}
        hello |= {"host": socket.gethostname(), "log": log}
        connection.sendall((json.dumps(hello) + "\n").encode())
        return Link(connection, 0, world.names[0]).start()
    place = "{}:{}".format(*world.address)
    raise PeerLostError(
        f"process {world.rank}: nobody answers at {place} within {seconds:g} s ({why})",
        "Start it too, or open that port between the two machines.",
    )


def _listen(world: World) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(world.address)
    except OSError as error:
        listener.close()
        place = "{}:{}".format(*world.address)
        raise PeerRefusedError(
            f"{place}: process 0 cannot take its peers' messages there ({reason_of(error)})",
            "Another run may use that port: wait for its end, or give mlx.launch another "
            "--starting-port.",
        ) from error
    listener.listen(world.size)
    listener.settimeout(_PAUSE)
    return listener


def _ask(
    connection: socket.socket,
    world: World,
    admitted: queue.Queue[Link],
    waiting: threading.Semaphore,
) -> None:
    """Have a thread find out who has connected; a peer is put into the queue."""

    def ask() -> None:
        try:
            if link := _admit(connection, world):
                admitted.put(link)
        finally:
            waiting.release()

    if waiting.acquire(blocking=False):
        threading.Thread(target=ask, name="orpo-mlx-admission", daemon=True).start()
    else:
        connection.close()


def _admit(connection: socket.socket, world: World) -> Link | None:
    """Return the link of a peer that has said who it is; anyone else is sent away."""
    connection.settimeout(5)
    try:
        # Unbuffered: what follows this line is read by the link.
        with connection.makefile("rb", buffering=0) as lines:
            hello = json.loads(lines.readline(min(MOST_BYTES, 4096)))
        rank, host = hello["rank"], str(hello["host"])
        is_known = hmac.compare_digest(str(hello["secret"]), world.secret)
        if is_known and rank in range(1, world.size) and hello["size"] == world.size:
            # Of another version it may say less; versions are compared once it is here.
            return Link(connection, rank, host, str(hello.get("log", "")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # not a peer: the connection ends, and the wait goes on
    connection.close()
    return None


def _absent(world: World, present: set[int], seconds: float) -> PeerLostError:
    missing = [rank for rank in range(1, world.size) if rank not in present]
    names = ", ".join(f"{rank} ({world.names[rank]})" for rank in missing)
    return PeerLostError(
        f"process {names}: did not come within {seconds:g} s",
        "Look whether orpo-mlx is installed there and starts, and whether "
        "{}:{} can be reached from there; --peer-timeout gives it more time.".format(
            *world.address
        ),
    )
