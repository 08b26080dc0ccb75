"""Following a run's events and status from a worker; next to free while nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.message import Message

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import EventReader
from tui.shell.messages import CaughtUp, EventsArrived, ReadingFailed, StatusChanged

POLL_SECONDS = 0.25
CHUNK_BYTES = 1 << 17
"""Read at a time: a few milliseconds of parsing, so that keys stay quick while attaching."""

GONE = "the folder is gone"

Post = Callable[[Message], object]


async def follow_run(run: RunDirectory, post: Post, poll_seconds: float = POLL_SECONDS) -> None:
    """Post a run's events and changes of its status until cancelled.

    What cannot be read is told, and tried again: a disk may come back.
    """
    reader = EventReader(run.events_file, CHUNK_BYTES)
    caught_up, was_alive, status, trouble = False, False, None, ""
    while True:
        # Before reading: what a trainer wrote last is then surely read.
        alive = run.is_locked()
        changed, found_trouble = False, "" if run.path.exists() else GONE
        try:
            while records := reader.poll():
                changed = True
                post(EventsArrived(run.path, records))
                await asyncio.sleep(0)
        except OSError as error:
            found_trouble = error.strerror or str(error)
        if found_trouble != trouble:
            trouble = found_trouble
            post(ReadingFailed(run.path, trouble))
        if not caught_up:
            caught_up = True
            post(CaughtUp(run.path))
        # The status of a run nobody works at is read again only if something happened.
        if alive or was_alive or changed or status is None:
            found = run.read_status()
            if found != status:
                status = found
                post(StatusChanged(run.path, status))
        was_alive = alive
        await asyncio.sleep(poll_seconds)
