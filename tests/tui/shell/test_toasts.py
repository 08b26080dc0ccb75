"""A toast is said once while it can be read, and again afterwards."""

from __future__ import annotations

import pytest

from tui.shell.toasts import Toasts


@pytest.mark.parametrize(
    ("title", "text", "now", "is_new"),
    [
        ("t", "a", 3.9, False),
        ("t", "a", 4.0, True),  # it has gone just now
        ("t", "b", 0.5, True),
        ("u", "a", 0.5, True),
    ],
)
def test_the_same_toast_is_not_put_below_itself(title, text, now, is_new):
    toasts = Toasts()
    assert toasts.is_new("t", "a", 0.0, 4.0)
    assert toasts.is_new(title, text, now, 4.0) is is_new


def test_a_toast_that_was_taken_away_may_come_again():
    toasts = Toasts()
    toasts.is_new("t", "a", 0.0, 4.0)
    toasts.clear()
    assert toasts.is_new("t", "a", 1.0, 4.0)
    assert not toasts.is_new("t", "a", 2.0, 4.0)
