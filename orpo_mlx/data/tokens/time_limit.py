"""A limit on the time a piece of Python may take, for programs of others such as chat templates."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TookTooLong(Exception):
    """The limit was reached; what ran was stopped."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop the block after so many seconds.

    It costs two system calls, so that it can stand around each row. Only the main thread of a Unix
    process can be interrupted; elsewhere there is no limit. An alarm that was set before goes on.

    Raises:
        TookTooLong: from wherever the block is.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"longer than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    started = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            still = max(1e-3, left - (time.monotonic() - started))
            signal.setitimer(signal.ITIMER_REAL, still, interval)
