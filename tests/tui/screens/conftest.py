"""The four steps to a run with made-up answers of `fit` and `data check`, at once."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orpo_mlx import demo
from orpo_mlx.errors import ModelError
from tui.answers import Answers
from tui.draft import Draft
from tui.model_list import ModelRow
from tui.screens.new_run import NewRunScreen
from tui.widgets.data_step import DataStep
from tui.widgets.fit_card import FitCard
from tui.widgets.model_step import ModelStep

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_planning.py")
ROWS = [
    ModelRow(str(demo.model_path()), "built-in demo model", "4 bit", 1, "llama", "built-in",
             folder=str(demo.model_path())),
    ModelRow("org/huge", "org/huge", "bf16", 9_000_000_000, "llama", "cache", folder="/none"),
]  # fmt: skip


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Answers of the fake, at once; two models here, one on the Hub."""

    def answers(program):
        return Answers([FAKE, program[-1]], delay_seconds=0)

    def search(text):
        if text == "nothing":
            raise ModelError("The Hub does not answer.", "Use what is here.")
        return [ModelRow("mlx-community/found", "mlx-community/found", "4 bit", 5, place="hub")]

    monkeypatch.setattr("tui.widgets.fit_card.Answers", answers)
    monkeypatch.setattr("tui.widgets.data_step.Answers", answers)
    monkeypatch.setattr("tui.widgets.model_step.local_models", lambda folders: ROWS)
    monkeypatch.setattr("tui.widgets.model_step.search_hub", search)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def open_new(made_up, open_app, wait_for):
    """Return `open(size=)`: the screen with its models listed."""

    @asynccontextmanager
    async def open(size=(80, 24)):
        async with open_app(size) as pilot:
            screen = NewRunScreen()
            pilot.app.push_screen(screen)
            await wait_for(pilot, lambda: screen.query_one(ModelStep).shown, "models")
            yield pilot, screen

    return open


@pytest.fixture
def answered():
    """Return `answered(screen)`: whether nothing is being asked any more."""

    def check(screen: NewRunScreen) -> bool:
        card, data = screen.query_one(FitCard), screen.query_one(DataStep)
        return not card.note.startswith("estimating") and "Reading" not in data.state

    return check


@pytest.fixture
def open_data(open_new, wait_for):
    """Return `open(data, size=)`: the data step with these data."""

    @asynccontextmanager
    async def open(data: str, size=(80, 24)):
        async with open_new(size) as (pilot, screen):
            screen.change(Draft().with_values({"model": "org/m", "data": data}))
            screen.go_to(1)
            data_step = screen.query_one(DataStep)
            await wait_for(pilot, lambda: data_step.answer or "Reading" not in data_step.state)
            yield pilot, screen

    return open
