"""Fields of one line: what is typed fast arrives in the order in which it was typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual import events
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

import tui
from tui.parts.fields.text_field import TextField


class FieldApp(App[None]):
    """A field some widgets below the app, as the real ones are."""

    submitted = ""

    def compose(self) -> ComposeResult:
        with Vertical(), Vertical(), Vertical():
            yield TextField("old", select_on_focus=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.submitted = event.value


KEYS = {"<": "backspace", "{": "home", "}": "end", ">": "delete", "-": "left"}


@pytest.mark.parametrize(
    ("typed", "value"),
    [("<<<new", "new"), ("{a}b", "aoldb"), ("ab<c-d", "oldadc"), ("{>>>x", "x")],
)
async def test_keys_act_in_the_order_in_which_they_were_typed(typed: str, value: str):
    app = FieldApp()
    async with app.run_test() as pilot:
        for sign in typed:
            key = KEYS.get(sign)
            app.post_message(events.Key(key or sign, None if key else sign))
        app.post_message(events.Key("enter", "\r"))
        await pilot.pause()
        assert app.query_one(TextField).value == app.submitted == value


def test_every_field_of_the_app_is_one():
    made = re.compile(r"(?<![\w.])Input\(")
    files = Path(tui.__file__).parent.rglob("*.py")
    assert [file.name for file in files if made.search(file.read_text("utf-8"))] == []
