"""Ports of this machine for processes that a test starts."""

import socket


def free_ports(count):
    """Return the first of so many ports in a row that nobody listens at."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            first = server.getsockname()[1]
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
            return first
        except (OSError, OverflowError):
            continue
