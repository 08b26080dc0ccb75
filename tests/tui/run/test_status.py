"""A status can be told without its colour, in any charset."""

from __future__ import annotations

import pytest

from tui.run.status import ALIVE, status_text


def test_signs_are_ascii_where_nothing_else_is_shown():
    assert status_text("running") == ("▶", "running", "good")
    assert status_text("crashed", "ascii") == ("x", "crashed", "bad")
    assert status_text("stopped", "blocks").sign == "■"


@pytest.mark.parametrize("charset", ["braille", "ascii"])
def test_no_two_living_runs_of_different_status_look_alike(charset):
    signs = [status_text(status, charset).sign for status in ALIVE]
    assert len(set(signs)) == len(signs)
    assert all(sign.isascii() for sign in signs) == (charset == "ascii")
