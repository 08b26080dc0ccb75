"""Messages of the playground become what the test screen shows."""

from __future__ import annotations

import pytest

from tui.playground.state import Draws, PlaygroundState

READY = {"event": "ready", "model": "m", "checkpoints": ["10", "best"], "checkpoint": "best",
         "memory_bytes": 5}  # fmt: skip
ANSWER = {"text": "So.", "tokens": 1, "tokens_per_second": 9.6, "mean_logp": -0.5, "ended": True}
SCORES = {
    "base": {"chosen_logps": -1.0, "rejected_logps": -0.5, "log_odds_ratio": -0.25},
    "adapter": {"chosen_logps": -0.5, "rejected_logps": -2.0, "log_odds_ratio": 1.5},
}


@pytest.fixture
def state() -> PlaygroundState:
    """A playground whose model is loaded."""
    state = PlaygroundState()
    state.apply(READY)
    return state


def test_a_model_is_ready_once_it_says_so():
    state = PlaygroundState()
    assert (state.ready, state.is_busy) == (False, True)
    state.apply({"event": "pairs", "pairs": [{"prompt": "q"}], "held_out": True})
    assert (state.ready, state.pairs) == (False, [{"prompt": "q"}])
    state.apply(READY)
    assert (state.ready, state.is_busy, state.model, state.checkpoint) == (True, False, "m", "best")


def test_answers_grow_as_they_come_and_are_replaced_by_the_whole(state):
    state.asked()
    for text in ("S", "o"):
        state.apply({"event": "text", "side": "adapter", "text": text})
    assert (state.answers, state.is_busy) == ({"adapter": "So"}, True)
    assert state.figures("adapter") == ""
    cut = {**ANSWER, "tokens": 2, "mean_logp": None, "ended": False}
    state.apply({"event": "answered", "sides": {"adapter": ANSWER, "base": cut}})
    assert (state.answers["adapter"], state.is_busy) == ("So.", False)
    assert state.figures("adapter") == "1 token, 10/s, log-prob -0.50"
    assert state.figures("base") == "2 tokens, 10/s, cut"
    state.asked()
    assert (state.answers, state.figures("base"), state.is_busy) == ({}, "", True)


def test_scores_say_which_answer_each_side_prefers_and_go_with_their_adapter(state):
    assert (state.score_rows("braille"), state.change()) == ([], None)
    state.apply({"event": "scored", "tokens": {"chosen": ["So"]}, "sides": SCORES})
    assert state.score_rows("braille") == [
        ("base", "-1.000", "-0.500", "-0.250", "rejected ✗"),
        ("adapter", "-0.500", "-2.000", "+1.500", "chosen ✓"),
    ]
    assert [row[-1] for row in state.score_rows("ascii")] == ["rejected", "chosen"]
    assert state.change() == 1.75
    state.apply({"event": "loaded", "checkpoint": "10"})
    assert (state.checkpoint, state.tokens, state.score_rows("ascii")) == ("10", {}, [])


def test_the_base_alone_has_scores_and_no_change(state):
    state.apply({"event": "scored", "tokens": {}, "sides": {"base": SCORES["base"]}})
    assert [row[0] for row in state.score_rows("ascii")] == ["base"]
    assert state.change() is None


def test_a_failure_is_one_text_until_something_works_again(state):
    state.apply({"event": "failed", "message": "Too long", "what_to_do": "Shorten it."})
    assert (state.failed, state.is_busy) == ("Too long. Shorten it.", False)
    state.apply({"event": "failed", "message": "Why? ", "what_to_do": "Ask."})
    assert state.failed == "Why? Ask."
    state.apply({"event": "pairs", "pairs": [], "held_out": True})
    assert state.failed == ""


def test_settings_go_round_their_values_and_seeds_go_on():
    draws = Draws().with_next("seed").with_next("max_tokens").with_next("top_p")
    assert draws == Draws(0.0, 1, 0.95, 1024)
    for _ in range(4):
        draws = draws.with_next("temperature")
    assert draws.temperature == 0.0
