"""Keys that come faster than they act still act one after the other."""

from __future__ import annotations

import pytest
from textual.events import Key

from tui.new_run.draft import Draft
from tui.new_run.screen import FORM, NewRunScreen

NAMES = {"v": "down", "^": "up", ">": "tab"}


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("vv12", {"epochs": "12"}),
        ("vv12v5vv256", {"epochs": "12", "learning_rate": "5", "max_seq_length": "256"}),
        ("vv12>0.5^7", {"epochs": "7", "learning_rate": "0.5"}),
    ],
)
async def test_digits_behind_an_arrow_go_to_the_next_field(typed, values, open_app, wait_for):
    async with open_app() as pilot:
        screen = NewRunScreen(Draft({"model": "org/m"}))
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: pilot.app.focused and pilot.app.focused.id == "preset")
        for sign in typed:
            name = NAMES.get(sign)
            pilot.app.post_message(Key(name or sign, None if name else sign))
        for name, value in values.items():
            field = screen.query_one(f"#row-{name} .field")
            await wait_for(pilot, lambda field=field, value=value: field.value == value, name)
        assert screen.step == FORM
        await wait_for(
            pilot, lambda: {n: str(screen.draft.own.get(n)) for n in values} == values, "draft"
        )
