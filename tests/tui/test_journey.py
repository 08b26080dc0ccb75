"""The way of a newcomer, with the real trainer, playground and exports; nothing is simulated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from textual.widgets import Input

from orpo_mlx import demo
from orpo_mlx.chat.feedback import labelled_file
from orpo_mlx.config import build_config
from tui.chat.screen import ChatScreen
from tui.export.screen import ExportScreen
from tui.home.screen import RunsScreen
from tui.live.screen import LiveScreen
from tui.new_run.screen import NewRunScreen
from tui.playground.screen import PlaygroundScreen
from tui.processes import launcher
from tui.result.screen import ResultScreen
from tui.run.status import ALIVE

PATIENCE_SECONDS = 300.0
"""A busy machine is slow, not wrong."""


@pytest.fixture
def wait_long(wait_for):
    """Return `await wait_long(pilot, condition, what)`: what a model has to be loaded for."""

    async def wait(pilot, condition, what):
        return await wait_for(pilot, condition, what, seconds=PATIENCE_SECONDS)

    return wait


@pytest.fixture
def trainers(monkeypatch):
    """The trainers the app starts; all have ended when the test has."""
    started = []
    begin = launcher._start

    def start(*given):
        started.append(begin(*given))
        return started[-1]

    monkeypatch.setattr(launcher, "_start", start)
    yield started
    for one in started:
        one.cancel()
        one.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def short_demo(monkeypatch, trainers):
    """The demo as it is, but of six steps."""
    places = {
        "model": demo.model_path(),
        "data": demo.train_path(),
        "valid_data": demo.valid_path(),
    }
    settings = {name: value for name, value in demo.SETTINGS.items() if name != "epochs"}
    given = {**settings, **{name: str(path) for name, path in places.items()}, "steps": 6}
    config = build_config(given, {})

    def start(runs_dir, settings):
        return launcher.start_training(config, runs_dir, settings)

    monkeypatch.setattr(launcher, "start_demo", start)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


async def test_from_the_welcome_over_a_real_training_chat_and_test_to_an_exported_adapter(
    open_app, wait_for, wait_long, screen_text, short_demo, tmp_path
):
    async with open_app((100, 30)) as pilot:
        app = pilot.app
        await wait_for(pilot, lambda: "Try the demo" in screen_text(app))
        await pilot.press("enter")
        await wait_long(pilot, lambda: isinstance(app.screen, LiveScreen), "a run")
        live = app.screen
        await wait_long(pilot, lambda: live.status == "completed", "the end of the training")
        assert live.state.step == 6
        await wait_long(pilot, lambda: isinstance(app.screen, ResultScreen), "whether it helped")
        # How many of the 40 pairs it asks depends on the time they take.
        assert " % -> " in screen_text(app)
        assert "held-out pairs" in screen_text(app)

        # From the welcome it was enter; with these it is five keys to an answer of the adapter.
        await pilot.press("C")
        chat = await wait_for(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen)
        await wait_long(pilot, lambda: chat.session.ready, "the model")
        await pilot.press("H", "i", "enter")
        first = await wait_for(pilot, lambda: chat.session.talk.last)
        await wait_long(pilot, lambda: len(first.done) == 2, "both answers")
        assert first.answers["adapter"].strip()
        await pilot.press("f7", "?", "enter")
        await wait_for(pilot, lambda: chat.session.talk.last is not first)
        await wait_long(pilot, lambda: not chat.session.is_busy, "the adapter's answer")
        await pilot.press("f5")
        (row,) = map(json.loads, labelled_file().read_text().splitlines())
        assert row["label"] is False
        assert [turn["content"] for turn in row["prompt"]] == ["Hi", first.answers["adapter"], "?"]
        await pilot.press("escape", "escape")
        await wait_for(pilot, lambda: app.screen is live)
        assert "r shows the result, C chats, t tests it, e exports it" in screen_text(app)
        run = live.run_directory

        await pilot.press("t")
        test = await wait_for(
            pilot, lambda: isinstance(app.screen, PlaygroundScreen) and app.screen
        )
        await wait_long(pilot, lambda: test.state.ready, "the model")
        await pilot.press("ctrl+n")
        await wait_long(pilot, lambda: test.query_one("#prompt", Input).value, "a held-out pair")
        await pilot.press("enter")
        await wait_long(pilot, lambda: len(test.state.done) == 2, "both answers")
        assert all(side["tokens"] > 0 for side in test.state.done.values())
        await pilot.press("ctrl+r")
        await wait_long(pilot, lambda: len(test.state.scores) == 2, "both scores")
        assert test.state.change() > 0  # six steps towards the chosen answers
        await pilot.press("escape")

        await wait_for(pilot, lambda: app.screen is live)
        await pilot.press("e")
        export = await wait_for(pilot, lambda: isinstance(app.screen, ExportScreen) and app.screen)
        await wait_for(pilot, lambda: export.chosen == ["mlx"])
        export.form.folder = tmp_path / "out"
        await pilot.press("ctrl+r")
        await wait_long(
            pilot,
            lambda: export.writer.jobs and export.writer.jobs[0].state in ("written", "failed"),
            "the exported adapter",
        )
        (job,) = export.writer.jobs
        assert (job.format, job.state) == ("mlx", "written"), job
        assert all(check["passed"] for check in job.checks)
        assert "mlx_lm" in job.command
        name = "adapters.safetensors"
        assert digest(job.path / name) == digest(run.path / "adapter" / name)


@pytest.mark.slow
async def test_a_training_planned_in_the_wizard_is_started_detached_and_shown_again(
    open_app, wait_for, wait_long, screen_text, trainers
):
    async with open_app((100, 30)) as pilot:
        app = pilot.app
        await wait_for(pilot, lambda: "Train on my data" in screen_text(app))
        await pilot.press("n")
        wizard = await wait_for(pilot, lambda: isinstance(app.screen, NewRunScreen) and app.screen)
        await wait_for(pilot, lambda: "built-in demo model" in screen_text(app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: wizard.step == 1)
        await pilot.press("enter")
        await wait_long(pilot, lambda: "200 of 200 rows" in screen_text(app), "the pairs")
        await pilot.press("ctrl+n", "ctrl+n")
        await wait_long(
            pilot, lambda: "200 pairs train, 40 validate" in screen_text(app), "the review"
        )
        await pilot.press("ctrl+r")
        await wait_long(pilot, lambda: isinstance(app.screen, LiveScreen), "a run")
        run = app.screen.run_directory
        await wait_long(pilot, lambda: app.screen.state.step >= 2, "two steps")
    assert run.is_locked()  # the app has gone, the training has not
    async with open_app((80, 24)) as pilot:
        app = pilot.app
        await wait_for(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.runs)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, LiveScreen) and app.screen.caught_up)
        assert app.screen.status in ALIVE
        await pilot.press("s")
        # Live shows it, or the result where the run was quicker than the request.
        await wait_long(
            pilot,
            lambda: run.read_status() in ("stopped", "completed") and not run.is_locked(),
            "the end it was asked for",
        )
