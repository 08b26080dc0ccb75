"""Events, runs and errors as lines of text."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.listed import RUN

from orpo_mlx.cli.commands.runs import runs_table
from orpo_mlx.cli.terminal import format_error
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.event_text import plain_lines
from orpo_mlx.runs.events import DataPrepared, RunFailed, RunStarted
from orpo_mlx.runs.listing import RunSummary


def test_a_failure_in_plain_lines_has_cause_checkpoint_and_advice() -> None:
    lines = plain_lines(RunFailed("TrainingError", "loss is NaN", "Lower it.", 70, None))
    assert lines == ["failed at step 70: loss is NaN", "last checkpoint: none", "Lower it."]


def test_a_run_says_at_its_start_that_its_step_is_compiled() -> None:
    run = RunStarted("run-1", "m", "d", 10, 40, 0, 1, 2, {}, {}, "orpo", ["loss"])
    added = set(plain_lines(replace(run, is_compiled=True))) - set(plain_lines(run))
    assert added == {"step    compiled, once for each shape of a batch"}


def test_long_texts_are_cut_at_the_end_that_matters_less() -> None:
    long = " ".join(f"word{number}" for number in range(200))
    pair = {"prompt": long, "chosen": long, "rejected": "x"}
    text = "\n".join(plain_lines(DataPrepared(1, 1, {}, {}, "", {}, pair)))
    prompt, chosen = text.split("chosen")
    assert "word199" in prompt
    assert "word0 " not in prompt
    assert "word0 " in chosen
    assert "word199" not in chosen


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("response", "first pair (only the responses are scored):"),
        ("full", "first pair (responses are scored, in the NLL the prompt, too):"),
    ],
)
def test_what_is_scored_is_said(scope: str, said: str) -> None:
    assert said in plain_lines(
        DataPrepared(1, 1, {}, {}, "", {}, {"prompt": "a", "chosen": "b"}, scope)
    )


def test_an_error_says_what_is_wrong_first_and_what_to_do_last() -> None:
    error = ConfigError("run.toml, line 4: no value\x1b[2J", "Add one.")
    assert format_error(error) == "error: run.toml, line 4: no value\\x1b[2J\nAdd one.\n"


UNKNOWN = RunSummary("x", Path("/r/x"), "crashed", None, None, 0, 0, {}, None)


def test_runs_are_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert runs_table([RUN, UNKNOWN]) == [
        "RUN      STATUS   STEP    LOSS    ACC   STARTED       MODEL",
        "pairs-1  running  60/240  1.5000  75 %  01 Jan 00:00  Qwen",
        "x        crashed  0",
    ]
    assert all(len(line) <= 30 for line in runs_table([RUN, UNKNOWN], width=30))
