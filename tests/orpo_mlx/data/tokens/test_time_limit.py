"""A limit on time: it stops what runs, costs nothing else, and leaves other alarms alone."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from orpo_mlx.data.tokens.time_limit import TookTooLong, time_limit


def run_for_ever() -> None:
    while True:
        pass


def test_what_takes_too_long_is_stopped() -> None:
    started = time.monotonic()
    with pytest.raises(TookTooLong, match=r"longer than 0\.05 seconds"), time_limit(0.05):
        run_for_ever()
    assert time.monotonic() - started < 5


def test_what_is_quick_is_left_alone_and_nothing_is_left_behind() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(60):
        answer = sum(range(10))
    assert answer == 45
    assert signal.getsignal(signal.SIGALRM) is before


def test_an_alarm_that_was_set_before_still_comes() -> None:
    came = threading.Event()
    handler = signal.signal(signal.SIGALRM, lambda *_: came.set())
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with time_limit(30):
            pass
        assert came.wait(5) or came.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def test_in_another_thread_it_does_nothing_but_does_not_fail() -> None:
    answers = []

    def work() -> None:
        with time_limit(0.01):
            answers.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [1]
