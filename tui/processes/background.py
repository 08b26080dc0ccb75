"""Blocking questions, to the Hub or a slow disk, asked aside of the app.

Not in the event loop's own pool: leaving the app would wait for those, ten seconds for a Hub that
does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def ask_aside(function: Callable[..., Result], *words: Any) -> Result:
    """Return what a blocking function returns or raises; cancelling this drops its answer."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Result] = loop.create_future()

    def settle(how: Callable[[Any], None], value: Any) -> None:
        if not answer.cancelled():
            how(value)

    def run() -> None:
        how, value = answer.set_result, None
        try:
            value = function(*words)
        except Exception as error:
            how, value = answer.set_exception, error
        with contextlib.suppress(RuntimeError):  # the app has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, how, value)

    threading.Thread(target=run, daemon=True, name=f"aside {function}").start()
    return await answer
