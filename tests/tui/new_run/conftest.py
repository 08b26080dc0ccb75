"""The four steps to a run, opened with made-up answers."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from tui.new_run.data.step import DataStep
from tui.new_run.draft import Draft
from tui.new_run.fit_card import FitCard
from tui.new_run.models.step import ModelStep
from tui.new_run.screen import NewRunScreen


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
            await wait_for(pilot, lambda: data_step.answer or data_step.refusal)
            yield pilot, screen

    return open
