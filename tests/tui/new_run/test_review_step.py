"""A planned run in plain text."""

from __future__ import annotations

import pytest

from tui.new_run.draft import Draft
from tui.new_run.review_step import review_text

COURSE = {
    "steps": 9, "pairs": 36, "evaluations": 10, "evaluated_pairs": 2, "checkpoints": 10,
    "kept_checkpoints": 5, "checkpoint_bytes": 1000,
}  # fmt: skip
FIT = {"fits": True, "estimated_bytes": 1e9, "available_bytes": 8e9, "pairs": 36}


@pytest.mark.parametrize(
    ("own", "train", "said"),
    [({}, 36, "9 on 36 pairs"), ({}, 25, "about 7 on 25 pairs"), ({"steps": 9}, 25, "9 on 25")],
)
def test_steps_and_held_out_pairs_are_those_the_check_leaves(own, train, said):
    check = {
        "split": {"train": train, "valid": 1}, "verdict": {"text": "usable"}, "findings": [],
    }  # fmt: skip
    lines = review_text(Draft(own), {**FIT, "course": COURSE}, check).split("\n")
    (steps,) = (line for line in lines if line.startswith("Steps "))
    assert said in steps
    assert "Memory    ✓ fits easily: about 1 GB of 8 GB" in lines
    assert lines[lines.index(steps) + 1].endswith("10 evaluations, each on 1 held-out pair")


def test_the_time_is_told_once():
    time = {"steps": 9, "seconds_total": 18, "seconds_per_step": 2, "peak_memory_bytes": 1}
    text = review_text(Draft(), {**FIT, "course": COURSE, "time": time}, None)
    assert text.count("18 s") == 1
