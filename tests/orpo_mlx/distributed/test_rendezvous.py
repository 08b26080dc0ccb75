"""How processes find each other before a run."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orpo_mlx.distributed.rendezvous import meet
from orpo_mlx.distributed.world import World


@pytest.fixture
def world():
    """Two processes; the first takes messages at a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    return World(0, 2, address, ("mac1", "mac2"), "s")


def said(world, hello):
    """Say something to process 0 as soon as it listens; returns the connection."""
    until = time.monotonic() + 20
    while True:
        try:
            connection = socket.create_connection(world.address, 5)
            break
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.01)
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
