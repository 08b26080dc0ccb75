"""Exports of one run, one after the other, in a process of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from tui.export.jobs import Job
from tui.export.writer import DONE, HINT, ExportWriter

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_export.py")


@pytest.fixture
def writer(tmp_path) -> ExportWriter:
    writer = ExportWriter(tmp_path / "poems", asyncio.Lock())
    writer.words = [FAKE]
    return writer


async def write(writer: ExportWriter, jobs: list[Job], replaces: bool = False) -> list[str]:
    """Write jobs as the app does; return what was asked."""
    asked: list[str] = []

    async def ask(text: str) -> bool:
        asked.append(text)
        return replaces

    async with asyncio.timeout(60):
        await writer.write_all(jobs, "best", {"base_id": "org/base"}, ask)
    return asked


async def test_each_job_is_written_with_its_words_and_the_sum_is_told(writer, tmp_path):
    assert (writer.status, writer.is_writing) == (HINT, False)
    jobs = [Job("mlx", tmp_path / "out"), Job("peft", tmp_path / "p"), Job("hub", tmp_path / "h")]
    assert await write(writer, jobs) == []
    assert [job.state for job in jobs] == ["written", "failed", "failed"]
    assert jobs[2].message.endswith("the line went dead.")
    assert jobs[0].notes == ["--json --out " + str(tmp_path / "out") + (
        " --checkpoint best --base-id org/base"
    )]  # fmt: skip
    assert writer.status == "1 written, 2 failed."
    await write(writer, [Job("mlx", tmp_path / "out")])
    assert writer.status == DONE


@pytest.mark.parametrize(("replaces", "state"), [(True, "written"), (False, "failed")])
async def test_a_place_that_is_taken_is_asked_for(writer, replaces, state):
    job = Job("lmstudio", None)
    assert await write(writer, [job], replaces) == ["its-place: is there already."]
    assert (job.state, job.force) == (state, replaces)


async def test_what_is_unfinished_is_named_and_ending_it_begins_no_other(writer, tmp_path):
    jobs = [Job("fused", tmp_path / "f"), Job("mlx", tmp_path / "out")]
    assert writer.unfinished == ""
    task = asyncio.create_task(write(writer, jobs))
    writer.work = SimpleNamespace(cancel=task.cancel, is_cancelled=False)  # as the app's
    changes, writing = [], asyncio.Event()

    def note() -> None:
        changes.append(writer.status)
        if jobs[0].total:
            writing.set()

    writer.on_change = note
    async with asyncio.timeout(60):
        await writing.wait()
        assert writer.unfinished == "export of poems to fused"
        writer.stop()
        await asyncio.gather(task, return_exceptions=True)
    assert [job.state for job in jobs] == ["ended", "ended"]
    assert changes[-2:] == ["Ending ...", "Ended; ctrl+r starts again."]
    assert (writer.is_writing, writer.unfinished) == (False, "")
    writer.stop()
    assert writer.status == "Ended; ctrl+r starts again."


async def test_a_second_run_waits_for_the_first(tmp_path):
    turn = asyncio.Lock()
    writer = ExportWriter(tmp_path / "poems", turn)
    writer.words = [FAKE]
    async with turn:
        task = asyncio.create_task(write(writer, [Job("mlx", tmp_path / "out")]))
        await asyncio.sleep(0)
        assert writer.status == "Waiting for another export to end ..."
        assert writer.jobs[0].state == "waiting"
    await task
    assert writer.jobs[0].state == "written"
