"""The queue in the first screen: what waits is listed, gone on with, stopped, removed."""

from __future__ import annotations

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.runs.group.queue import Queue
from orpo_mlx.runs.label import RunLabel, write_label
from tui.compare.group_screen import GroupScreen
from tui.home.run_list import RunList, group_of
from tui.parts.ask import AskScreen


@pytest.fixture
def queue(runs_dir):
    """Two runs that wait, and nobody who works at them."""
    made = Queue(runs_dir)
    configs = [TrainConfig(model="org/m", data="d", lam=lam) for lam in (0.1, 0.5)]
    made.add(configs, [{"lam": "0.1"}, {"lam": "0.5"}])
    return made


def test_what_waits_is_listed_in_order_with_what_it_will_be(queue, runs_dir):
    first, second = queue.read()
    runs = RunList(runs_dir).read()
    assert [run.id for run in runs] == [first.run.id, second.run.id]
    assert [run.status for run in runs] == ["waiting", "waiting"]
    assert [run.label.name for run in runs] == ["lam 0.1", "lam 0.5"]
    assert runs[0].model == "org/m"
    assert group_of(runs[0]) == first.waiting.group
    queue.close(first, "failed", "error: no such model")
    failed = next(run for run in RunList(runs_dir).read() if run.id == first.run.id)
    assert (failed.status, failed.damage) == ("failed", "error: no such model")


def test_a_run_of_the_queue_that_has_begun_is_listed_once(queue, runs_dir, make_run):
    first, second = queue.read()
    make_run(first.run.id)
    found = {run.id: run.status for run in RunList(runs_dir).read()}
    assert found == {first.run.id: "completed", second.run.id: "waiting"}
    assert len(RunList(runs_dir).read()) == 2


def test_a_run_of_the_queue_that_ended_and_went_is_listed_no_more(queue, runs_dir):
    first, second = queue.read()
    queue.close(first, "completed")
    queue.close(second, "stopped")
    assert RunList(runs_dir).read() == []


async def test_a_new_app_offers_to_go_on_and_does(
    queue, open_app, wait_for, screen_text, monkeypatch
):
    started = []
    monkeypatch.setattr("tui.home.queue_dialog.start_worker", lambda *given: started.append(given))
    async with open_app((120, 30)) as pilot:
        told = pilot.app._notifications
        await wait_for(pilot, lambda: any("2 runs left in the" in one.message for one in told))
        await wait_for(pilot, lambda: "lam 0.1" in screen_text(pilot.app))
        assert "lam 0.5" in screen_text(pilot.app)
        assert "waiting" in screen_text(pilot.app)
        await pilot.press("Q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert "2 runs left, nobody works at them; 0 runs of the queue ended" in (
            pilot.app.screen.text
        )
        await pilot.press("enter")
        await wait_for(pilot, lambda: started)
        assert started[0][0].runs_dir == queue.runs_dir


async def test_it_is_stopped_while_somebody_works(queue, open_app, wait_for):
    with queue.lock():
        async with open_app((120, 30)) as pilot:
            await wait_for(pilot, lambda: len(pilot.app.screen.runs) == 2)
            await pilot.press("Q")
            await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
            await pilot.press("right", "enter")
            await wait_for(pilot, queue.stop_file.exists)


async def test_a_waiting_run_is_removed_and_so_is_the_rest(queue, open_app, wait_for):
    async with open_app((120, 30)) as pilot:
        screen = pilot.app.screen
        await wait_for(pilot, lambda: len(screen.runs) == 2)
        assert not screen.check_action("test", ())
        await pilot.press("D")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert pilot.app.screen.text == "1 run taken out of the queue, not to be trained."
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: len(queue.read()) == 1)
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        await pilot.press("Q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("right", "right", "enter")
        await wait_for(pilot, lambda: queue.read() == [])


async def test_compare_shows_the_whole_sweep_of_the_selected_run(make_run, open_app, wait_for):
    runs = [make_run(f"run-{n}", seed=n) for n in range(3)]
    for run in runs[:2]:
        write_label(run.path, RunLabel("x", ("sweep-1",)))
    async with open_app((120, 30)) as pilot:
        screen = pilot.app.screen
        await wait_for(pilot, lambda: len(screen.runs) == 3)
        screen.want(runs[0].path)
        await wait_for(pilot, lambda: screen.selected.id == "run-0")
        await pilot.press("c")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, GroupScreen))
        assert {path.name for path in pilot.app.screen.paths} == {"run-0", "run-1"}
