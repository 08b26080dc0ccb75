"""Ports of this machine for processes that a test starts."""

import random
import socket

_CHANCE = random.SystemRandom()


def free_ports(count):
    """Return the first of so many ports in a row that nobody listens at.

    They lie below those that a system gives to connections, of other tests for one.
    """
    while True:
        first = _CHANCE.randrange(20_000, 32_000)
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
            return first
        except OSError:
            continue
