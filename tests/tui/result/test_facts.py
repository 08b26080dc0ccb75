"""Why a run has no evaluation, and which answers are shown of one that has none."""

from __future__ import annotations

import pytest

from orpo_mlx.runs.events import NoteLogged, RunFailed, RunFinished, SampleGenerated
from tui.result.facts import read_facts, why_none
from tui.run.state import RunState

DONE = RunFinished("completed", 9, 1.0, "a")
CUT = NoteLogged("info", "base and adapter were not compared: ended as asked; `x` does it")


@pytest.mark.parametrize(
    ("status", "said", "config", "why"),
    [
        ("running", [], {}, "still being trained"),
        ("failed", [RunFailed("E", "m", "w", 3, None)], {}, "did not come to its end"),
        (
            "completed",
            [DONE],
            {},
            "held out 8 pairs; at least 10 are needed. With pairs it has not "
            "seen: orpo-mlx evaluate run-7 --data FILE",
        ),
    ],
)
def test_why_there_is_none(make_state, status, said, config, why):
    assert why in why_none(status, make_state(*said, **config), "run-7")


def test_why_there_is_none_though_there_were_pairs(make_state):
    def of_twenty(*said, **config):
        state = make_state(*said, **config)
        object.__setattr__(state.started, "pairs_valid", 20)
        return why_none("completed", state, "run-7")

    assert "--no-evaluate" in of_twenty(DONE, evaluate=False)
    assert of_twenty(DONE, CUT).startswith("Base and adapter were not compared: ended as asked")
    assert "not compared at its end" in of_twenty(DONE)
    assert why_none("completed", RunState(), "run-7") == "Nothing is known of this run."


def test_samples_that_differ_most_stand_first(make_run, monkeypatch):
    run = make_run()
    before = ["the same words here", "the same words here", "the same words here", "x"]
    after = ["the same words here", "quite other: 123", "the same word here", "x"]
    samples = [
        SampleGenerated(step, f"p{i}", text, i)
        for step, texts in ((0, before), (40, after))
        for i, text in enumerate(texts)
    ]
    monkeypatch.setattr(RunState, "apply_all", lambda self, records: self.samples.extend(samples))
    found = read_facts(run)
    assert [pair.prompt for pair in found.answers][:2] == ["p1", "p2"]
    assert len(found.answers) == 3
    assert found.report is None


def test_a_run_with_too_few_pairs_is_not_offered_to_be_compared(make_run, monkeypatch):
    run = make_run()
    assert read_facts(run).can_compare
    monkeypatch.setattr("tui.result.facts._FEWEST", 10_000)
    found = read_facts(run)
    assert "are needed" in found.why_none
    assert not found.can_compare
