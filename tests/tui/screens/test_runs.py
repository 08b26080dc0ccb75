"""The list of runs: shows, filters, marks, deletes; a welcome where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tui.screens.ask import AskScreen
from tui.screens.live import LiveScreen
from tui.screens.runs import RunsScreen
from tui.widgets.welcome import Welcome


async def runs_screen(pilot, wait_for) -> RunsScreen:
    screen = pilot.app.screen
    assert isinstance(screen, RunsScreen)
    await wait_for(pilot, lambda: screen._listed, "runs are listed")
    return screen


async def test_without_runs_there_are_three_ways_to_begin(open_app, wait_for, screen_text):
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        assert screen.query_one(Welcome).size.height
        text = screen_text(pilot.app)
        for choice in ("Try the demo", "Train on my data", "Check this machine"):
            assert choice in text


async def test_runs_are_listed_with_their_status_in_words(
    make_run, open_app, wait_for, screen_text
):
    make_run("good")
    make_run("bad", nan_at=20)
    async with open_app(size=(120, 30)) as pilot:
        await runs_screen(pilot, wait_for)
        text = screen_text(pilot.app)
        assert "✓  good" in text
        assert "✗  bad failed" in text
        assert "40/40" in text


async def test_enter_opens_the_selected_run_and_escape_comes_back(make_run, open_app, wait_for):
    make_run()
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        await pilot.press("escape")
        await wait_for(pilot, lambda: pilot.app.screen is screen)


async def test_the_filter_keeps_runs_with_all_words(make_run, open_app, wait_for):
    make_run("first-poems")
    make_run("second-poems")
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        await pilot.press("slash", *"poems sec")
        await wait_for(pilot, lambda: [run.id for run in screen.table.runs] == ["second-poems"])
        await pilot.press("escape")
        await wait_for(pilot, lambda: len(screen.table.runs) == 2)


@pytest.mark.parametrize(("keys", "is_there"), [(["enter"], True), (["right", "enter"], False)])
async def test_deleting_asks_and_moves_to_the_trash(
    make_run, open_app, wait_for, runs_dir: Path, keys: list[str], is_there: bool
):
    make_run("gone")
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        await pilot.press("D")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert "gone" in pilot.app.screen.question
        await pilot.press(*keys)
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        await wait_for(pilot, lambda: (runs_dir / "gone").exists() == is_there)
        assert (runs_dir / ".trash" / "gone").exists() != is_there
        await wait_for(pilot, lambda: len(screen.runs) == int(is_there))
