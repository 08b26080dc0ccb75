"""What is said before the first step."""

from __future__ import annotations

from orpo_mlx.training.start import _beyond_note, _crowd_note


def test_processes_that_fit_one_by_one_and_not_together_are_warned_of():
    each, there = 3_000_000_000, 6_500_000_000
    assert _crowd_note(each, there, 1) == _crowd_note(each, there, 2) == ""
    note = _crowd_note(each, there, 3)
    assert note.startswith("3 processes here need about 3 GB each, and 6.5 GB are there")


def test_pairs_beyond_the_models_context_are_counted():
    assert _beyond_note([100, 512], 512) == _beyond_note([600], None) == _beyond_note([], 512) == ""
    note = _beyond_note([100, 513, 700], 512)
    assert note.startswith("2 of 3 pairs are longer than the model's context of 512 tokens, up to")
    assert "up to 700" in note
    assert "--max-seq-length 512" in note
