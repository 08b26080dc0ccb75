"""A setting with several values in the wizard: asked for, shown, checked, kept, started."""

from __future__ import annotations

import shlex

import pytest
from textual.widgets import Input, Static

from orpo_mlx.cli.commands.train import parse_train
from orpo_mlx.runs.group.queue import Queue
from tui.home.screen import RunsScreen
from tui.new_run.draft import Draft, load_draft, save_draft
from tui.new_run.review_step import ReviewStep, review_text
from tui.new_run.sweep.dialog import SweepScreen

PLANNED = Draft().with_values({"model": "org/model", "data": "org/pairs", "rank": "4"})
SWEPT = Draft(PLANNED.own, sweeps={"lam": ["0.1", "0.5"], "steps": ["3", "9"]})


def test_the_runs_are_those_of_the_command():
    runs = SWEPT.runs()
    assert [(c.lam, c.steps, c.rank) for c, _ in runs] == [
        (0.1, 3, 4), (0.1, 9, 4), (0.5, 3, 4), (0.5, 9, 4),
    ]  # fmt: skip
    command = parse_train(shlex.split(SWEPT.command())[2:])
    assert [one.config for one in command.sweep] == [config for config, _ in runs]
    assert PLANNED.runs() == []


def test_what_one_of_them_cannot_be_is_named():
    draft = Draft(PLANNED.own, sweeps={"lam": ["0.1", "many"]})
    (problem,) = draft.problems()
    assert problem.text.startswith("lam many: found 'many', needs a number")
    assert Draft(PLANNED.own, sweeps={"lam": ["0.1"]}).problems() == []


def test_the_review_says_what_is_swept():
    text = review_text(SWEPT, None, None)
    assert "Sweep     lam 0.1, 0.5 · steps 3, 9" in text
    assert "4 runs, one after the other" in text
    assert "Sweep" not in review_text(PLANNED, None, None)


def test_it_is_kept_with_the_draft(tmp_path):
    save_draft(SWEPT, tmp_path / "draft.json")
    assert load_draft(tmp_path / "draft.json") == SWEPT
    for odd in ('{"lam": 7}', "[1]", '{"nope": ["1"]}', '{"lam": ["1", "1"]}'):
        (tmp_path / "odd.json").write_text(f'{{"own": {{"model": "m"}}, "sweeps": {odd}}}')
        assert load_draft(tmp_path / "odd.json").sweeps == {}


@pytest.fixture
def started(monkeypatch):
    """Queues that a worker would have been started for."""
    found = []
    monkeypatch.setattr(
        "tui.new_run.sweep.start.start_worker", lambda queue, environment: found.append(queue)
    )
    return found


async def ask(pilot, wait_for) -> SweepScreen:
    await pilot.press("w")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, SweepScreen))
    await wait_for(pilot, lambda: pilot.app.screen.focused.id == "sweep-values")
    return pilot.app.screen


async def test_marked_in_the_review_they_are_put_into_the_queue(
    open_data, wait_for, started, runs_dir, tmp_path
):
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    async with open_data("pairs.jsonl") as (pilot, screen):
        assert not screen.check_action("sweep", ())
        screen.go_to(3)
        review = screen.query_one(ReviewStep)
        dialog = await ask(pilot, wait_for)
        await pilot.press(*"0.1,x", "enter")
        problem = dialog.query_one("#dialog-problem", Static)
        await wait_for(pilot, lambda: "found 'x', needs a number" in str(problem.content))
        await pilot.press("backspace", *"0.5", "enter")
        await wait_for(pilot, lambda: "2 runs, one after the other" in review.text)
        assert "--sweep lam=0.1,0.5" in review.text
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        entries = Queue(runs_dir).read()
        assert [entry.waiting.changes for entry in entries] == [{"lam": "0.1"}, {"lam": "0.5"}]
        assert [queue.runs_dir for queue in started] == [runs_dir]
        assert not screen.keeper.file.exists()
        await wait_for(pilot, lambda: len(pilot.app.screen.runs) == 2)


async def test_what_cannot_be_swept_is_said_in_the_dialog(open_data, wait_for):
    async with open_data("pairs.jsonl") as (pilot, screen):
        screen.go_to(3)
        dialog = await ask(pilot, wait_for)
        dialog.query_one("#sweep-name", Input).value = "lma"
        await pilot.press("1", "enter")
        problem = dialog.query_one("#dialog-problem", Static)
        await wait_for(pilot, lambda: "there is no such setting" in str(problem.content))
        dialog.query_one("#sweep-name", Input).value = "lam"
        dialog.query_one("#sweep-values", Input).value = ""
        await pilot.press("enter")
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert screen.draft.sweeps == {}
