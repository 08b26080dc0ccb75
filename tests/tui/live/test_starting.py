"""A trainer that prepares is a run like any other: listed, asked about, ended by a key."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tui.live.screen import LiveScreen
from tui.live.starting import StartingScreen
from tui.parts.ask import AskScreen
from tui.processes import launcher
from tui.shell.settings import Settings

QUIET = "import time; print('loading weights', flush=True); time.sleep(600)"


@pytest.fixture
def preparing(monkeypatch, runs_dir):
    """Return `begin() -> Start`: a trainer that never gets as far as a run."""
    popen, started = subprocess.Popen, []

    def loading(argv, **given):
        return popen([sys.executable, "-c", QUIET], **given)

    monkeypatch.setattr(launcher.subprocess, "Popen", loading)

    def begin():
        started.append(launcher.start_demo(runs_dir, Settings()))
        return started[-1]

    yield begin
    for start in started:
        start.process.kill()
        start.process.wait()


async def test_it_is_listed_asked_about_and_ended_with_the_app(
    preparing, open_app, wait_for, runs_dir, monkeypatch
):
    begun = preparing()
    monkeypatch.setattr(launcher, "start_demo", lambda *_: begun)
    # It holds the lock; two of them are asked about.
    monkeypatch.setattr(launcher, "starting_runs", lambda _: [])
    async with open_app() as pilot:
        pilot.app.start_demo()
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, StartingScreen))
        monkeypatch.undo()
        offered = pilot.app.screen.active_bindings
        assert offered["escape"].binding.description == "End it, back"
        runs = pilot.app.screen_stack[1]
        await wait_for(pilot, lambda: [run.id for run in runs.runs] == [begun.run.id])
        assert runs.runs[0].status == "preparing"
        await pilot.press("q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert pilot.app.screen.question == f"{begun.run.id} goes on without this window"
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: not pilot.app.is_running)
    assert begun.process.wait(60) < 0
    assert launcher.starting_runs(runs_dir) == []


async def test_escape_ends_it_and_nothing_is_left(preparing, open_app, wait_for, runs_dir):
    begun = preparing()
    async with open_app() as pilot:
        pilot.app.starts[begun.run.path] = begun
        pilot.app.open_run(begun.run.path)
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, StartingScreen))
        await pilot.press("escape")
        await wait_for(pilot, lambda: not isinstance(pilot.app.screen, StartingScreen))
    assert begun.process.wait(60) < 0
    assert not begun.run.path.exists()


async def test_one_of_another_window_is_shown_but_takes_no_request(
    preparing, open_app, wait_for, screen_text
):
    begun = preparing()
    async with open_app((120, 36)) as pilot:
        await wait_for(pilot, lambda: pilot.app.screen.runs)
        assert "preparing" in screen_text(pilot.app)
        for action in ("export", "test", "judge", "result", "mark", "delete"):
            assert pilot.app.screen.check_action(action, ()) is False
        said = []
        pilot.app.notify = lambda text, **_: said.append(text)
        await pilot.press("o")
        await wait_for(pilot, lambda: said)
        assert "another window" in said[0]
        await pilot.press("q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: not isinstance(pilot.app.screen, AskScreen))
        assert pilot.app.is_running
    assert begun.process.poll() is None


async def test_a_question_over_it_stays_when_the_run_comes(
    preparing, open_app, wait_for, make_run, monkeypatch
):
    begun, came = preparing(), asyncio.Event()

    async def wait() -> bool:
        await came.wait()
        return True

    monkeypatch.setattr(begun, "wait", wait)
    async with open_app() as pilot:
        pilot.app.starts[begun.run.path] = begun
        pilot.app.open_run(begun.run.path)
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, StartingScreen))
        starting = pilot.app.screen
        await pilot.press("q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        make_run(begun.run.id)
        came.set()
        await wait_for(pilot, lambda: starting._has_run)
        assert isinstance(pilot.app.screen, AskScreen)
        pilot.app.screen.dismiss("cancel")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        assert getattr(pilot.app.screen, "shown_run", None) == begun.run.path
