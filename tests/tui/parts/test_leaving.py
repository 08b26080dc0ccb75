"""No work of a screen outlives its parts: news that came between would find them gone."""

from __future__ import annotations

import asyncio

from textual.containers import Vertical
from textual.widgets import Static

from tui.app import OrpoApp
from tui.new_run.data.step import DataStep
from tui.new_run.draft import Draft
from tui.new_run.screen import NewRunScreen
from tui.parts.base_screen import AppScreen
from tui.processes.children import ChildFailed

BUSY = {"screen waits", "part waits"}


class Last(Static):
    """Tells what still worked when it was taken away, the first of all parts."""

    def __init__(self, app):
        super().__init__("")
        self.workers_of, self.found = app.workers, None

    def on_unmount(self):
        self.found = {worker.name for worker in self.workers_of if not worker.is_cancelled}


class Busy(AppScreen):
    """A screen that waits for news, and so does one of its parts."""

    def compose_body(self):
        yield Vertical(Last(self.app), id="part")

    def on_mount(self):
        for node in (self, self.query_one("#part")):
            node.run_worker(asyncio.Event().wait(), name=f"{node.id or 'screen'} waits")

    def sentence(self):
        return "Busy."


async def open_busy(pilot):
    screen = Busy()
    await pilot.app.push_screen(screen)
    assert {worker.name for worker in pilot.app.workers} >= BUSY
    assert screen.is_open
    return screen, screen.query_one(Last)


async def test_work_ends_before_the_first_part_goes(open_app, wait_for):
    async with open_app() as pilot:
        screen, last = await open_busy(pilot)
        screen.action_back()
        await wait_for(pilot, lambda: last.found is not None)
        assert not BUSY & last.found
        assert not screen.is_open


async def test_work_ends_before_the_first_part_goes_as_the_app_ends(runs_dir):
    async with OrpoApp(runs_dir).run_test() as pilot:
        _, last = await open_busy(pilot)
    assert not BUSY & last.found


async def test_a_failed_check_told_while_the_wizard_is_left(open_app, wait_for, monkeypatch):
    """Told when the pairs' parts are gone and the step is not, it ended the app with a crash."""
    told = asyncio.get_running_loop().create_future()

    async def ask(words, on_progress=None):
        return await told

    gone = asyncio.Event()

    class Pairs(Static):
        def on_unmount(self):
            if not told.cancelled():
                told.set_exception(ChildFailed("no model"))
            gone.set()

    async with open_app((100, 30)) as pilot:
        screen = NewRunScreen(Draft().with_data("examples/pairs.jsonl"))
        await pilot.app.push_screen(screen)
        step = screen.query_one(DataStep)
        monkeypatch.setattr(step.checks, "ask", ask)
        await step.found.mount(Pairs(""))
        step._asked = []
        step.look()
        await pilot.pause()
        await pilot.app.pop_screen()
        await wait_for(pilot, gone.is_set)
        await pilot.pause()
        assert pilot.app.is_running
        assert told.cancelled()
