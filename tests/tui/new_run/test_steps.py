"""What can be done in which step."""

from __future__ import annotations

import pytest

from tui.new_run.draft import Draft
from tui.new_run.steps import DATA, FORM, MODEL, REVIEW, first_open_step, is_offered
from tui.shell.commands import AREAS


@pytest.mark.parametrize(
    ("action", "steps"),
    [
        ("start", {REVIEW}),
        ("map", {DATA}),
        ("source", {MODEL, DATA}),
        ("next", {MODEL, DATA, FORM}),
        ("afresh", {MODEL, DATA, FORM, REVIEW}),
    ],
)
def test_an_action_is_offered_where_it_makes_sense(action, steps):
    assert action in {command.action for command in AREAS["new"]}
    assert {step for step in range(4) if is_offered(action, step)} == steps


@pytest.mark.parametrize(
    ("own", "step"),
    [
        ({}, MODEL),
        ({"data": "d"}, MODEL),
        ({"model": "m"}, DATA),
        ({"model": "m", "data": "d"}, FORM),
    ],
)
def test_one_goes_on_where_something_is_missing(own, step):
    assert first_open_step(Draft(own)) == step
