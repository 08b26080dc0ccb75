"""Any number of runs in a table: sorted by a metric, the differing settings beside it."""

from __future__ import annotations

import json

from tui.compare.group_screen import GroupScreen
from tui.compare.screen import CompareScreen
from tui.new_run.screen import NewRunScreen
from tui.parts.pick_one import PickOneScreen
from tui.result.screen import ResultScreen


def evaluate(run, value: float) -> None:
    """Leave an evaluation with this accuracy in a run's folder."""
    side = {"value": value, "low": value - 0.1, "high": value + 0.1}
    content = {
        "verdict": {"text": f"{run.id} was judged"},
        "counts": {"pairs": 4, "available": 4},
        "metrics": {"preference_accuracy": {"adapter": side}},
    }
    run.evaluation_file.write_text(json.dumps(content))


async def opened(pilot, wait_for, runs) -> GroupScreen:
    screen = GroupScreen([run.path for run in runs], "sweep-x")
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: len(screen.rows) == len(runs))
    return screen


async def test_the_best_stands_first_with_interval_and_differing_settings(
    make_run, open_app, wait_for, screen_text
):
    runs = [make_run(f"run-{n}", seed=n) for n in range(5)]
    for run, value in zip(runs, (0.5, 0.7, 0.6, 0.8, 0.4), strict=True):
        evaluate(run, value)
    async with open_app((120, 30)) as pilot:
        screen = await opened(pilot, wait_for, runs)
        assert [row.id for row in screen.rows] == ["run-3", "run-1", "run-2", "run-0", "run-4"]
        await wait_for(pilot, lambda: "run-3 was judged" in screen_text(pilot.app))
        text = screen_text(pilot.app).replace("│", "")
        assert "80.0 % (70.0 to 90.0)" in text
        assert "sweep-x · 5 runs" in text
        head = next(line for line in text.splitlines() if "Accuracy" in line)
        scale = ["30.0", "%", "90.0", "%"]
        assert head.split() == ["St", "Run", "Accuracy", "seed", "Step", *scale]
        best = next(line for line in text.splitlines() if "run-3" in line)
        worst = next(line for line in text.splitlines() if "run-4" in line)
        # Of 60 cells from 30 to 90 %: 70, 80 and 90 %; 30, 40 and 50 %.
        assert best.rstrip().endswith("·├─────────●─────────┤"), best
        assert "├─────────●─────────┤·" in worst, worst
        assert "first run-3 (seed 3): 80.0 %" in screen.sentence()


async def test_a_large_window_shows_settings_and_course_of_the_selected_run(
    make_run, open_app, wait_for, screen_text
):
    runs = [make_run(f"run-{n}", seed=n) for n in range(3)]
    for run, value in zip(runs, (0.9, 0.8, 0.7), strict=True):
        evaluate(run, value)
    async with open_app((160, 48)) as pilot:
        screen = await opened(pilot, wait_for, runs)
        await wait_for(pilot, lambda: "─ Accuracy ─" in screen_text(pilot.app))
        await wait_for(pilot, lambda: "v validation" in screen_text(pilot.app))
        await pilot.press("down", "down")
        await wait_for(pilot, lambda: "─ run-2: settings ─" in screen_text(pilot.app))
        lines = [line.split() for line in screen_text(pilot.app).splitlines()]
        settings = [line[1:4] for line in lines if "│" in line]
        assert ["≠", "seed", "2"] in settings
        assert ["lam", "0.1", "││"] in settings
        screen.metric = "loss"
        screen._draw()
        await wait_for(pilot, lambda: "─ Loss ─" in screen_text(pilot.app))
        await pilot.resize_terminal(80, 24)
        await wait_for(pilot, lambda: "─ Loss ─" not in screen_text(pilot.app))
        assert screen.selected.id == "run-2"


async def test_a_narrow_table_has_no_room_for_bars(make_run, open_app, wait_for, screen_text):
    runs = [make_run(f"a-name-{n}", seed=n) for n in range(2)]
    for run in runs:
        evaluate(run, 0.5)
    async with open_app((60, 16)) as pilot:
        await opened(pilot, wait_for, runs)
        await wait_for(pilot, lambda: "50.0 % (40.0 to 60.0)" in screen_text(pilot.app))
        assert "├" not in screen_text(pilot.app)


async def test_another_metric_sorts_anew_and_the_cursor_stays_on_its_run(
    make_run, open_app, wait_for
):
    runs = [make_run(f"run-{n}", seed=n, steps=10 + 30 * n) for n in range(2)]
    evaluate(runs[0], 0.9)
    evaluate(runs[1], 0.1)
    async with open_app((120, 30)) as pilot:
        screen = await opened(pilot, wait_for, runs)
        await pilot.press("down")
        await wait_for(pilot, lambda: screen.selected.id == "run-1")
        await pilot.press("m")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, PickOneScreen))
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: screen.metric == "loss")
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert [row.id for row in screen.rows] == ["run-1", "run-0"], "trained longer"
        assert screen.selected.id == "run-1"
        await pilot.press("m")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, PickOneScreen))
        await pilot.press("home", "enter")
        await wait_for(pilot, lambda: screen.metric == "preference_accuracy")
        await wait_for(pilot, lambda: screen.table.cursor_row == 1)
        assert screen.selected.id == "run-1"


async def test_keys_lead_to_charts_result_and_a_new_run(make_run, open_app, wait_for, made_up):
    runs = [make_run(f"run-{n}", seed=n) for n in range(2)]
    async with open_app((120, 30)) as pilot:
        screen = await opened(pilot, wait_for, runs)
        for key, kind in (("c", CompareScreen), ("r", ResultScreen), ("n", NewRunScreen)):
            await pilot.press(key)
            await wait_for(pilot, lambda kind=kind: isinstance(pilot.app.screen, kind))
            pilot.app.pop_screen()
            await wait_for(pilot, lambda: pilot.app.screen is screen)


async def test_a_run_that_went_away_is_left_out(make_run, open_app, wait_for, runs_dir):
    run = make_run("run-0")
    async with open_app((60, 16)) as pilot:
        pilot.app.push_screen(screen := GroupScreen([run.path, runs_dir / "gone"]))
        await wait_for(pilot, lambda: [row.id for row in screen.rows] == ["run-0"])
