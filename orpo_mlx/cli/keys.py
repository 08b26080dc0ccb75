"""Keys of a terminal one by one, without Enter; the terminal is put back whatever happens."""

from __future__ import annotations

import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def raw_keys(descriptor: int) -> Iterator[Iterator[str]]:
    """Read keys one by one from a terminal, and put it back as it was at any end.

    A process that is told to end (SIGTERM, SIGHUP) puts it back too; one that is stopped (Ctrl-Z)
    gives it back for that time.
    """
    before = termios.tcgetattr(descriptor)

    def put_back() -> None:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    def end(number: int, _: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    def stop(*_: Any) -> None:
        put_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)

    def go_on(*_: Any) -> None:
        signal.signal(signal.SIGTSTP, stop)
        tty.setcbreak(descriptor, termios.TCSADRAIN)

    handlers = {
        signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGTSTP: stop, signal.SIGCONT: go_on,
    }  # fmt: skip
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield _keys(descriptor)
    finally:
        put_back()
        for number, handler in old.items():
            signal.signal(number, handler)


def _keys(descriptor: int) -> Iterator[str]:
    """Yield keys; an escape sequence, which arrives at once, is one key."""
    while data := os.read(descriptor, 1):
        if data == b"\x1b":
            while select.select([descriptor], [], [], 0.02)[0]:
                more = os.read(descriptor, 1)
                data += more
                if not more or more.isalpha() or more == b"~":
                    break
        yield data.decode("ascii", "replace")
