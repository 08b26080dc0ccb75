"""What is said before the first step."""

from __future__ import annotations

from orpo_mlx.training.start import _crowd_note


def test_processes_that_fit_one_by_one_and_not_together_are_warned_of():
    each, there = 3_000_000_000, 6_500_000_000
    assert _crowd_note(each, there, 1) == _crowd_note(each, there, 2) == ""
    note = _crowd_note(each, there, 3)
    assert note.startswith("3 processes here need about 3 GB each, and 6.5 GB are there")
