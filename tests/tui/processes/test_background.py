"""Blocking questions give an answer or an error, and keep nobody waiting."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tui.processes.background import ask_aside


async def test_an_answer_comes_back():
    assert await ask_aside(lambda a, b: a + b, 1, 2) == 3


async def test_an_error_comes_back():
    with pytest.raises(ValueError, match="no"):
        await ask_aside(int, "no")


async def test_who_no_longer_asks_gets_no_answer():
    begun, may_end = threading.Event(), threading.Event()

    def wait():
        begun.set()
        may_end.wait(20)

    asking = asyncio.create_task(ask_aside(wait))
    while not begun.is_set():
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    may_end.set()


def test_an_app_that_ends_waits_for_no_answer():
    may_end = threading.Event()

    def wait_here():
        may_end.wait(20)

    async def leave():
        asking = asyncio.create_task(ask_aside(wait_here))
        await asyncio.sleep(0)
        asking.cancel()

    asyncio.run(leave())
    # Those of other tests may still be at it.
    waiting = [t for t in threading.enumerate() if t.name == f"aside {wait_here}"]
    assert [thread.daemon for thread in waiting] == [True]
    may_end.set()
    waiting[0].join()
