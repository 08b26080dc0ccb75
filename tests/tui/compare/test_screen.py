"""The compare screen: several runs, one crosshair, only what differs."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from orpo_mlx.runs.directory import RunDirectory
from tui.charts.scaling import Scale
from tui.compare.compare_table import CompareTable
from tui.compare.screen import CompareScreen
from tui.new_run.screen import NewRunScreen
from tui.parts.pick_one import PickOneScreen


@pytest.fixture
def open_compare(open_app, make_run, wait_for):
    """Return `open(count, size=)`: simulated runs of other seeds and lengths, all read."""

    @asynccontextmanager
    async def open(count: int, size=(80, 24)):
        runs = [make_run(f"run-{n}", seed=n, steps=20 + 20 * n) for n in range(count)]
        async with open_app(size) as pilot:
            screen = CompareScreen([run.path for run in runs])
            pilot.app.push_screen(screen)
            await wait_for(pilot, lambda: screen.caught_up, "all runs are read")
            yield pilot, screen

    return open


async def test_runs_are_told_apart_by_letters_and_only_differences_are_listed(
    open_compare, wait_for, screen_text
):
    async with open_compare(2) as (pilot, screen):
        await wait_for(pilot, lambda: screen_text(pilot.app).count(" ✓ run-") == 2)
        text = screen_text(pilot.app)
        assert "A ✓ run-0" in text
        assert "B ✓ run-1" in text
        assert "★" in text
        assert screen.chart.painting.x == Scale(0, 40)  # to the end of the longest run
        assert "micro batch size" not in text
        await pilot.press("d")
        await wait_for(pilot, lambda: "all settings" in screen_text(pilot.app))
        names = [line[0][1].strip() for line in screen.query_one(CompareTable).shown]
        assert "≠ steps" in names
        assert "micro batch size" in names


async def test_the_crosshair_reads_every_run(open_compare, wait_for, screen_text):
    async with open_compare(2, size=(120, 36)) as (pilot, screen):
        await pilot.press("left", *["left"] * 20)
        await wait_for(pilot, lambda: "Values at step" in screen_text(pilot.app))
        cursor = screen.chart.view.cursor
        assert 20 < cursor < 40
        assert f"step {cursor:,.0f}" in screen.sentence()
        # run-0 had ended after 20 steps
        assert "A run-0 -," in screen.sentence()


async def test_another_metric_and_another_axis(open_compare, wait_for, screen_text):
    async with open_compare(2) as (pilot, screen):
        await pilot.press("m")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, PickOneScreen))
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: screen.curve.id == "loss")
        await pilot.press("x")
        await wait_for(pilot, lambda: "Training loss over tokens" in screen_text(pilot.app))
        assert screen.chart.border_title == "Training loss"
        await pilot.press("left_square_bracket", "y", "plus")
        await wait_for(pilot, lambda: screen.chart.view.window is not None)
        assert (screen.chart.view.smoothing, screen.chart.view.log_y) == (0.8, True)


async def test_a_fifth_run_is_left_out_and_that_is_said(open_compare, wait_for, screen_text):
    async with open_compare(5, size=(160, 48)) as (pilot, screen):
        assert [run.letter for run in screen.runs] == ["A", "B", "C", "D"]
        await wait_for(pilot, lambda: "the first 4 of 5" in screen_text(pilot.app))


async def test_a_new_run_begins_with_the_settings_of_the_one_that_is_chosen(
    open_compare, wait_for, made_up
):
    async with open_compare(2, size=(120, 36)) as (pilot, screen):
        await pilot.press("n")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, PickOneScreen))
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen))
        assert str(pilot.app.screen.draft.get("steps")) == "40"
        assert screen.runs[1].config()["steps"] == 40


async def test_what_is_shown_is_saved(open_compare, wait_for):
    async with open_compare(2) as (pilot, screen):
        await pilot.press("w")
        folder = screen.runs[0].path / "charts"
        await wait_for(pilot, lambda: (folder / "compare-valid_loss.svg").exists())
        assert "run-1,40.0," in (folder / "compare-valid_loss.csv").read_text()


async def test_a_running_one_goes_on_growing(open_app, make_run, runs_dir, wait_for):
    old = make_run("old")
    path = runs_dir / "now"
    words = ["simulate", "--speed", "25", "--steps", "5000", "--run-dir", str(path)]
    trainer = subprocess.Popen([sys.executable, "-m", "orpo_mlx", *words])
    try:
        async with open_app() as pilot:
            await wait_for(pilot, lambda: RunDirectory(path).is_locked())
            screen = CompareScreen([old.path, path])
            pilot.app.push_screen(screen)
            await wait_for(pilot, lambda: screen.runs[1].state.step > 2)
            seen = screen.runs[1].state.step
            await wait_for(pilot, lambda: screen.runs[1].state.step > seen)
            assert screen.runs[1].status == "running"
    finally:
        trainer.kill()
        trainer.wait()
