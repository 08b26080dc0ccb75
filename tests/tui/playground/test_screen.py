"""The test screen, with a playground that makes its answers up."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input

from tui.parts.pick_one import PickOneScreen
from tui.playground.screen import PlaygroundScreen
from tui.playground.token_view import TokenView

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_playground.py")


@pytest.fixture
def open_test(open_app, make_run, wait_for):
    """Return `open(*words, size=)`: the screen of a run, its model loaded unless it cannot be."""

    @asynccontextmanager
    async def open(*words: str, size=(80, 24)):
        run = make_run()
        async with open_app(size) as pilot:
            screen = PlaygroundScreen(run.path)
            screen.words = [FAKE, *words]
            pilot.app.push_screen(screen)
            await wait_for(pilot, lambda: screen.state.ready or screen.state.failed, "it is loaded")
            yield pilot, screen

    return open


async def test_both_sides_answer_what_is_typed(open_test, wait_for, screen_text):
    async with open_test() as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done)
        await pilot.press(*"Hi", "enter")
        await wait_for(pilot, lambda: "base on Hi" in screen_text(pilot.app), "an answer")
        await wait_for(pilot, lambda: screen.state.done)
        text = screen_text(pilot.app)
        assert "adapter on Hi" in text
        assert "2 tokens" in text


async def test_the_first_held_out_prompt_is_answered_at_once(open_test, wait_for, screen_text):
    async with open_test() as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done, "an answer")
        assert "base on pair 0" in screen_text(pilot.app)
        assert screen.query_one("#prompt", Input).value == "Why is it so?"


async def test_who_types_at_once_is_not_written_over(open_test, wait_for, screen_text):
    async with open_test("late") as (pilot, screen):  # its pairs come after the first question
        await pilot.press(*"Hi", "enter")
        await wait_for(pilot, lambda: screen.state.done and screen.state.pairs)
        await pilot.pause()
        assert "base on Hi" in screen_text(pilot.app)
        assert screen.query_one("#prompt", Input).value == "Hi"


async def test_an_answer_can_be_ended(open_test, wait_for):
    async with open_test() as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done)
        await pilot.press(*"wait", "enter")
        await wait_for(pilot, lambda: screen.state.answers.get("base") == "base on wait")
        assert screen.state.is_busy
        await pilot.press("enter")  # a second question has to wait
        await pilot.press("ctrl+g")
        await wait_for(pilot, lambda: screen.state.answers.get("base") == "cut")


async def test_a_held_out_pair_is_taken_asked_and_scored(open_test, wait_for, screen_text):
    async with open_test(size=(120, 36)) as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done)
        await pilot.press("ctrl+n")
        await wait_for(pilot, lambda: screen.query_one("#prompt", Input).value == "Why is it so?")
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.state.answers.get("base") == "base on pair 0")
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: screen.state.scores, "scores")
        text = screen_text(pilot.app)
        assert "+0.900  chosen ✓ (+1.400 vs base)" in text
        assert "-0.500  rejected ✗" in text


async def test_answers_and_scores_go_with_their_pair(open_test, wait_for, screen_text):
    async with open_test("trained") as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done)
        await pilot.press("ctrl+n")
        await wait_for(pilot, lambda: "Pair 1 of 1, trained on" in screen_text(pilot.app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.state.done)
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: screen.query_one("#chosen-tokens").display)
        assert "▲ likelier than with the base" in screen_text(pilot.app)
        await pilot.press("ctrl+n")
        await wait_for(pilot, lambda: not screen.query_one("#chosen-tokens").display)
        assert "base on" not in screen_text(pilot.app)


async def test_a_key_pressed_too_early_is_answered(open_app, make_run, wait_for, screen_text):
    run = make_run()
    async with open_app() as pilot:
        screen = PlaygroundScreen(run.path)
        screen.words = [FAKE, "slow"]
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: screen.is_mounted and screen.query("#prompt"))
        await pilot.press("x", "enter")
        await wait_for(pilot, lambda: "is being loaded; ask again" in screen_text(pilot.app))
        assert screen.query_one("#prompt", Input).value == "x"


async def test_the_prompt_of_a_changed_pair_is_sent_as_text(open_test, wait_for):
    async with open_test() as (pilot, screen):
        await pilot.press("ctrl+n")
        await wait_for(pilot, lambda: screen.query_one("#prompt", Input).value)
        await pilot.press("end", *" Now?", "enter")
        await wait_for(pilot, lambda: "Now?" in screen.state.answers.get("base", ""))


async def test_the_value_of_a_token_is_read_with_the_cursor(open_test, wait_for, screen_text):
    async with open_test(size=(120, 36)) as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done)
        for name, text in (("prompt", "a"), ("chosen", "b"), ("rejected", "c")):
            screen.query_one(f"#{name}", Input).value = text
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: screen.query_one("#chosen-tokens", TokenView).tokens)
        screen.query_one("#chosen-tokens").focus()
        await pilot.press("right")
        await wait_for(
            pilot, lambda: "' it' -2.000 nats, base -2.000: +0.000" in screen_text(pilot.app)
        )
        await pilot.press("right", "right", "right")
        await wait_for(pilot, lambda: "' is.' -9.000 nats, base" in screen_text(pilot.app))
        await pilot.click("#chosen-tokens", offset=(5, 0))
        await wait_for(
            pilot, lambda: "' it' -2.000 nats, base -2.000: +0.000" in screen_text(pilot.app)
        )


async def test_another_checkpoint_can_be_chosen(open_test, wait_for):
    async with open_test() as (pilot, screen):
        await pilot.press("ctrl+o")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, PickOneScreen))
        assert list(pilot.app.screen.choices) == ["final", "20", "0"]
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: screen.state.checkpoint == "20")
        assert "step 20" in screen.query_one("#title").left


async def test_a_pasted_prompt_keeps_its_lines(open_test, wait_for, screen_text):
    async with open_test() as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done)
        await pilot.press("ctrl+u")
        pilot.app.post_message(events.Paste("One\n\ttwo\r\n"))
        await wait_for(pilot, lambda: "One↵    two" in screen_text(pilot.app))
        await pilot.press("ctrl+j", "x", "enter")
        wanted = "base on One\n    two\nx"
        await wait_for(pilot, lambda: screen.state.answers.get("base") == wanted)


async def test_how_answers_are_drawn_goes_round_with_keys(open_test, wait_for, screen_text):
    async with open_test() as (pilot, screen):
        await pilot.press("f2", "f2", "f3", "f4", "f5")
        await wait_for(pilot, lambda: "F2 temperature 0.7 · F3 seed 1" in screen_text(pilot.app))
        assert (screen.draws.top_p, screen.draws.max_tokens) == (0.95, 1024)
        await pilot.press("f4", "f4")
        assert screen.draws.top_p == 1.0


async def test_the_model_can_be_unloaded_and_loaded_again(open_test, wait_for, screen_text):
    async with open_test() as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done)
        await pilot.press("ctrl+u", "f6")
        await wait_for(pilot, lambda: "The model is unloaded. F6" in screen_text(pilot.app))
        await pilot.press("x", "enter")  # nobody is there to ask, and the reason stays
        await pilot.pause()
        assert "The model is unloaded. F6" in screen_text(pilot.app)
        await pilot.press("f6")
        await wait_for(pilot, lambda: screen.state.ready)
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.state.answers.get("base") == "base on x")


async def test_what_the_playground_refuses_is_said(open_test, wait_for, screen_text):
    async with open_test() as (pilot, screen):
        for name in ("prompt", "chosen", "rejected"):
            screen.query_one(f"#{name}", Input).value = "same"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "the texts are the same" in screen_text(pilot.app))
        assert not screen.state.is_busy


async def test_a_model_that_cannot_be_loaded_is_said(open_test, wait_for, screen_text):
    async with open_test("broken") as (pilot, screen):
        await wait_for(pilot, lambda: "there is no such model" in screen_text(pilot.app))
        assert "there is no such model" in screen.sentence()


async def test_an_empty_prompt_is_not_sent(open_test, wait_for, screen_text):
    async with open_test() as (pilot, screen):
        await wait_for(pilot, lambda: screen.state.done)
        await pilot.press("ctrl+u", "enter")
        await pilot.pause()
        assert "Type a prompt first" in screen_text(pilot.app)
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert "A score needs" in screen_text(pilot.app)


async def test_a_failure_is_not_written_over_by_a_question(open_test, wait_for, screen_text):
    async with open_test("broken") as (pilot, screen):
        await wait_for(pilot, lambda: "there is no such model. F6 loads" in screen_text(pilot.app))
        await pilot.press("enter", "ctrl+r", "ctrl+n", "ctrl+o")
        await pilot.pause()
        assert pilot.app.screen is screen
        assert "there is no such model. F6 loads" in screen_text(pilot.app)
