"""How processes find each other before a run."""

from __future__ import annotations

import json
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import pytest

from orpo_mlx.distributed.rendezvous import meet
from orpo_mlx.distributed.world import World


@pytest.fixture
def world():
    """Two processes; the first takes messages at a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    return World(0, 2, address, ("mac1", "mac2"), "s")


def connected(world):
    """Connect to process 0 as soon as it listens."""
    until = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(world.address, 5)
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.01)


def said(world, hello):
    """Say something to process 0 as soon as it listens; returns the connection."""
    connection = connected(world)
    connection.sendall((json.dumps(hello) + "\n").encode())
    return connection


@pytest.mark.parametrize("more", [{}, {"log": "/tmp/there.log"}])
def test_a_peer_of_a_version_that_says_less_is_let_in_to_be_compared(world, more):
    with ThreadPoolExecutor(1) as pool:
        met = pool.submit(meet, world, 20, lambda: "")
        hello = {"rank": 1, "size": 2, "secret": "s", "host": "mac2", **more}
        with said(world, {**hello, "secret": "other"}), said(world, hello):
            (link,) = met.result(30)
            assert (link.rank, link.host, link.log) == (1, "mac2", more.get("log", ""))
            link.close()


@pytest.mark.parametrize(
    "nonsense", [b"", b"[" * 4096, b"[]\n", b"GET / HTTP/1.1\r\n", b"\0" * 9000]
)
def test_strangers_keep_no_peer_waiting(world, nonsense):
    """Five of them that say nothing, or no more than this, stay connected before the peer comes.

    One after the other they would take 25 s of the 20 that process 0 waits.
    """
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        met = pool.submit(meet, world, 20, lambda: "")
        for _ in range(5):
            stack.enter_context(connected(world)).sendall(nonsense)
        hello = {"rank": 1, "size": 2, "secret": "s", "host": "mac2"}
        stack.enter_context(said(world, hello))
        (link,) = met.result(30)
        assert link.host == "mac2"
        link.close()


def test_a_second_one_of_a_rank_is_sent_away(world):
    world = replace(world, size=3, names=("mac1", "mac2", "mac3"))
    with ThreadPoolExecutor(1) as pool:
        met = pool.submit(meet, world, 20, lambda: "")
        hello = {"rank": 1, "size": 3, "secret": "s", "host": "mac2"}
        with said(world, hello) as first, said(world, hello) as second:
            closed, *_ = select.select([first, second], [], [], 20)
            assert [connection.recv(1) for connection in closed] == [b""]
            with said(world, {**hello, "rank": 2}):
                links = met.result(30)
                assert [link.rank for link in links] == [1, 2]
                for link in links:
                    link.close()
