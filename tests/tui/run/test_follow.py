"""Following a run tells each thing once."""

from __future__ import annotations

import asyncio

from tui.run.follow import GONE, follow_run
from tui.shell.messages import CaughtUp, EventsArrived, ReadingFailed, StatusChanged


async def test_a_run_nobody_works_at_is_told_once_and_a_lost_folder_when_it_goes(make_run):
    run, posted = make_run(steps=3), []
    task = asyncio.create_task(follow_run(run, posted.append, poll_seconds=0.001))

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(posted) < count:
                await asyncio.sleep(0.001)

    await until(3)
    away = run.path.rename(run.path.with_name("away"))
    await until(4)
    away.rename(run.path)
    await until(5)
    task.cancel()
    kinds = [type(message) for message in posted]
    assert kinds == [EventsArrived, CaughtUp, StatusChanged, ReadingFailed, ReadingFailed]
    assert posted[0].records[0].name == "RunStarted"
    assert posted[2].status == "completed"
    assert [message.reason for message in posted[3:]] == [GONE, ""]
