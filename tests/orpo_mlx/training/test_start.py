"""What is said before the first step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from orpo_mlx.training.start import _crowd_note


def test_processes_that_fit_one_by_one_and_not_together_are_warned_of():
    estimate = SimpleNamespace(total=3_000_000_000)
    prepared: Any = SimpleNamespace(
        plan=SimpleNamespace(estimate=estimate), available_bytes=6_500_000_000
    )
    assert _crowd_note(prepared, 1) == _crowd_note(prepared, 2) == ""
    note = _crowd_note(prepared, 3)
    assert note.startswith("3 processes here need about 3 GB each, and 6.5 GB are there")
