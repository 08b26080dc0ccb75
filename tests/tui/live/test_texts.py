"""The live screen's texts from known states."""

from __future__ import annotations

import pytest

from orpo_mlx.runs.events import CheckpointSaved, NoteLogged, SampleGenerated
from tui.live.texts import (
    brief_text,
    event_lines,
    live_sentence,
    memory_lines,
    number_rows,
    progress_bar,
    sample_lines,
    text_lines,
    title_end,
    title_text,
)
from tui.run.state import RunState


def text_of(lines) -> list[str]:
    return ["".join(text for _, text in line) for line in lines]


def test_the_title_says_what_is_left_only_while_the_run_goes_on(make_state):
    state = make_state({"step": 40, "epoch": 0.8}, epochs=2.0)
    assert title_text("r", "running", state, "", "ascii") == (
        "> RUNNING  r  40/100  epoch 1  left 2 min"
    )
    assert title_text("r", "paused", state, "", "braille") == "‖ PAUSED  r  40/100  epoch 1"
    assert title_text("r", "running", state, "pausing ...", "braille").startswith("▶ PAUSING ...")
    # The last step ends the second of two epochs; there is no third.
    last = make_state({"step": 100, "epoch": 2.0}, epochs=2.0)
    assert title_text("r", "completed", last, "", "ascii") == "v COMPLETED  r  100/100  epoch 2"


def test_what_is_saved_stands_at_the_right(make_state):
    assert title_end("running", make_state(), "p") == ""
    assert title_end("paused", make_state({"step": 1}), "p") == "p goes on  nothing saved yet"
    saved = make_state({"step": 1200}, CheckpointSaved(1100, "x", 1.0, 1))
    assert title_end("running", saved, "p") == "saved @1,100"


@pytest.mark.parametrize(
    ("step", "width", "text"),
    [
        (0, 14, "--------   0%"),
        (50, 14, "====----  50%"),
        (100, 14, "======== 100%"),
        (50, 3, "  50%"),
    ],
)
def test_the_bar_fills_with_the_run(make_state, step, width, text):
    assert progress_bar(make_state({"step": step}), width, "ascii") == text
    assert progress_bar(RunState(), 14, "braille") == "────────   0%"


def test_memory_is_a_share_of_what_the_machine_has(make_state):
    state = make_state({"step": 1, "peak_memory_bytes": 8e9})
    assert memory_lines(state, 16_000_000_000, 15, "ascii") == [
        "peak 8 GB of 16 GB", "#####.....  50%"
    ]  # fmt: skip
    assert memory_lines(state, 0, 15, "ascii") == memory_lines(RunState(), 1, 15, "ascii") == []
    assert brief_text(state, 1).endswith("  mem 8 GB")
    assert "mem" not in brief_text(state, 0)


def test_of_each_prompt_the_first_and_the_newest_answer_are_shown(make_state):
    state = make_state(
        SampleGenerated(0, "how?", "before", 0), SampleGenerated(5, "how?", "old", 0),
        SampleGenerated(9, "how?", "a\x1b[1m", 0), SampleGenerated(9, "why?", "b", 1),
    )  # fmt: skip
    assert text_of(sample_lines(state, 40, "x")) == [
        "> how?", "before, step 0", "before", "step 9", "a\\x1b[1m", "",
        "> why?", "step 9", "b", "",
    ]  # fmt: skip
    beside = text_of(sample_lines(state, 83, "x"))
    assert beside[1].split() == ["before,", "step", "0", "│", "step", "9"]
    assert beside[2].split() == ["before", "│", "a\\x1b[1m"]
    assert beside[2].index("│") == beside[1].index("│") == 41
    assert text_of(sample_lines(make_state(), 40, "x")) == ["No samples yet; x asks for some."]


@pytest.mark.parametrize("width", [12, 20, 40])
def test_a_file_is_wrapped_into_the_room(width):
    lines = text_of(text_lines("word " * 30 + "\n\nend", width))
    assert max(map(len, lines)) <= width
    assert lines[-2:] == ["", "end"]
    assert "".join(lines[:-2]) == ("word " * 30)


def test_before_the_first_step_no_numbers_are_made_up(make_state):
    assert number_rows(make_state()) == []
    assert brief_text(make_state(), 1) == ""
    assert live_sentence("r", "preparing", make_state()) == "Run r is preparing, step 0 of 100."


def test_one_sentence_says_it_all(make_state, make_eval):
    state = make_state({"step": 50}, make_eval(50, loss=0.75, is_best=True))
    assert live_sentence("r", "running", state) == (
        "Run r is running, step 50 of 100, loss 1.000, log-odds ratio +0.20, accuracy 50%, "
        "best validation loss 0.750 at step 50, 1 min 40 s left, nothing saved yet."
    )


def test_an_event_is_one_line_with_its_time(make_state):
    lines = text_of(event_lines(make_state(SampleGenerated(5, "q", "one\ntwo", 0)), 80))
    assert lines[1] == "22:13:21 sample  step 5  1: one two"


def test_an_event_longer_than_its_row_goes_on_below(make_state):
    words = "comparing base and adapter on 40 held-out pairs, about 7 seconds of time"
    lines = text_of(event_lines(make_state(NoteLogged("info", words)), 60))[1:]
    assert lines == [
        "22:13:21 note    comparing base and adapter on 40 held-out",
        " " * 17 + "pairs, about 7 seconds of time",
    ]
