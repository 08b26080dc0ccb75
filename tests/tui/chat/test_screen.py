"""The chat screen, with a model that makes its answers up."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input

from orpo_mlx.chat.feedback import labelled_file, pairs_file
from orpo_mlx.chat.prompt_set import saved_prompts_file
from tui.chat.screen import ChatScreen
from tui.parts.pick_one import PickOneScreen
from tui.shell.messages import OpenChat

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_chat.py")


@pytest.fixture
def open_chat(open_app, make_run, wait_for):
    """Return `open(*words, size=)`: the screen of a run, its model loaded unless it cannot be."""

    @asynccontextmanager
    async def open(*words: str, size=(80, 24)):
        run = make_run()
        async with open_app(size) as pilot:
            screen = ChatScreen(run.path)
            screen.words = [FAKE, *words]
            pilot.app.push_screen(screen)
            session = screen.session
            await wait_for(pilot, lambda: session.ready or session.failed, "it is loaded")
            yield pilot, screen

    return open


@pytest.fixture
def say(wait_for):
    """Return `await say(pilot, screen, text)`: sent, and answered."""

    async def send(pilot, screen, text):
        before = list(screen.session.talk.exchanges)
        screen.query_one("#line", Input).value = text
        await pilot.press("enter")
        await wait_for(
            pilot,
            lambda: screen.session.talk.exchanges != before and not screen.session.is_busy,
            "an answer",
        )
        await pilot.pause()

    return send


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_several_turns_are_answered_side_by_side(open_chat, say, screen_text):
    async with open_chat() as (pilot, screen):
        assert "says that the left answer is better" in screen_text(pilot.app)
        await say(pilot, screen, "Hi")
        await say(pilot, screen, "Ho")
        text = screen_text(pilot.app)
        assert "says that the left answer is better" not in text
        (both,) = [line for line in text.splitlines() if "base final on Ho (3)" in line]
        assert "adapter final on Ho (3)" in both
        assert "> Hi" in text
        assert screen.query_one("#line", Input).value == ""


@pytest.mark.parametrize(
    ("key", "chosen", "rejected"),
    [("ctrl+l", "base", "adapter"), ("ctrl+r", "adapter", "base")],
)
async def test_one_key_makes_a_pair_and_takes_it_back(
    open_chat, say, screen_text, key, chosen, rejected
):
    async with open_chat() as (pilot, screen):
        await say(pilot, screen, "Hi")
        await pilot.press(key)
        (row,) = rows(pairs_file())
        assert row["prompt"] == [{"role": "user", "content": "Hi"}]
        assert row["chosen"][0]["content"] == f"{chosen} final on Hi (1)"
        assert row["rejected"][0]["content"] == f"{rejected} final on Hi (1)"
        await pilot.pause()
        text = screen_text(pilot.app)
        assert "answer is better" in text
        assert "1 row in" in text
        assert str(pairs_file()) in text.replace("\n", "").replace(" ", "")
        await pilot.press(key)
        assert rows(pairs_file()) == []


async def test_one_key_likes_or_dislikes_a_single_answer(open_chat, say, screen_text):
    async with open_chat() as (pilot, screen):
        await pilot.press("f7")
        await say(pilot, screen, "Hi")
        assert "base" not in screen.session.talk.exchanges[0].answers
        await pilot.press("ctrl+l")  # means nothing here
        assert not pairs_file().exists()
        await pilot.press("f5")
        (row,) = rows(labelled_file())
        assert row["label"] is False
        await pilot.press("f4")
        assert [row["label"] for row in rows(labelled_file())] == [True]
        await pilot.pause()
        assert "✓ Liked" in screen_text(pilot.app)


async def test_an_answer_can_be_stopped(open_chat, wait_for, screen_text):
    async with open_chat() as (pilot, screen):
        await pilot.press(*"wait", "enter")
        await wait_for(pilot, lambda: "Answering ... ^g stops it" in screen_text(pilot.app))
        await pilot.press("x", "enter")  # the next one has to wait, and stays
        assert screen.query_one("#line", Input).value == "x"
        assert "The model is answering" in screen_text(pilot.app)
        await pilot.press("ctrl+g")
        await wait_for(pilot, lambda: "adapter, cut" in screen_text(pilot.app))
        assert "The model is answering" not in screen_text(pilot.app)
        await pilot.press("ctrl+l")
        await pilot.pause()
        assert "learn to end there" in " ".join(screen_text(pilot.app).split())
        assert not pairs_file().exists()


async def test_lines_typed_fast_are_taken_one_by_one(open_chat):
    async with open_chat() as (pilot, screen):
        for sign in "/seed 7\r/max-tokens 9\rrest":
            key = {"\r": "enter", " ": "space"}.get(sign, sign)
            pilot.app.post_message(events.Key(key, sign))
        await pilot.pause()
        drawing = screen.session.drawing
        assert (drawing.seed, drawing.max_tokens) == (7, 9)
        assert screen.query_one("#line", Input).value == "rest"


async def test_an_earlier_turn_is_chosen_changed_and_sent_again(
    open_chat, say, wait_for, screen_text
):
    async with open_chat() as (pilot, screen):
        field = screen.query_one("#line", Input)
        for text in ("One", "Two", "Three"):
            await say(pilot, screen, text)
        await pilot.press("up", "up", "up", "up", "down")
        assert field.value == "/edit #2 Two"
        await pilot.pause()
        assert "Turn 2 of 3: enter sends it again; what follows it" in screen_text(pilot.app)
        assert [view.has_class("-chosen") for view in screen._views] == [False, True, False]
        await pilot.press("x", "up")
        assert field.value == "/edit #2 Twox", "what is changed stays"
        await pilot.press("enter")
        talk = screen.session.talk
        await wait_for(pilot, lambda: "adapter" in talk.exchanges[-1].done)
        assert [exchange.user for exchange in talk.exchanges] == ["One", "Twox"]
        assert talk.exchanges[-1].answers["base"] == "base final on Twox (3)"
        await pilot.pause()
        assert "Three" not in screen_text(pilot.app)
        assert not any(view.has_class("-chosen") for view in screen._views)


async def test_the_way_back_through_the_turns_ends_in_an_empty_field(open_chat, say, screen_text):
    async with open_chat() as (pilot, screen):
        await say(pilot, screen, "One")
        field = screen.query_one("#line", Input)
        await pilot.press("down")
        assert field.value == ""
        await pilot.press("up", "down")
        assert field.value == ""
        await pilot.pause()
        assert "Turn 1" not in screen_text(pilot.app)
        await pilot.press("H", "up")
        assert field.value == "H", "what was typed stays"


async def test_an_edited_turn_that_is_refused_drops_nothing(open_chat, say, wait_for):
    async with open_chat() as (pilot, screen):
        await say(pilot, screen, "One")
        await say(pilot, screen, "Two")
        field = screen.query_one("#line", Input)
        field.value = "/edit #1 refuse"
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.session.failed)
        await pilot.pause()
        assert [exchange.user for exchange in screen.session.talk.exchanges] == ["One", "Two"]
        assert field.value == "/edit #1 refuse"
        await pilot.press("!")
        assert field.value == "/edit #1 refuse!"


async def test_the_last_turn_is_brought_back_and_sent_again(open_chat, say, wait_for):
    async with open_chat() as (pilot, screen):
        await say(pilot, screen, "Hi")
        await say(pilot, screen, "Tow")
        await pilot.press("up")
        assert screen.query_one("#line", Input).value == "/edit #2 Tow"
        await pilot.press("backspace", "backspace", "w", "o", "enter")
        talk = screen.session.talk
        await wait_for(pilot, lambda: "adapter" in talk.exchanges[-1].done)
        assert [exchange.user for exchange in talk.exchanges] == ["Hi", "Two"]
        assert talk.exchanges[-1].answers["adapter"] == "adapter final on Two (3)"


async def test_an_answer_that_fills_the_context_says_so_until_the_next_turn(
    open_chat, say, screen_text
):
    async with open_chat() as (pilot, screen):
        await say(pilot, screen, "fill")
        text = " ".join(screen_text(pilot.app).split())
        assert "Cut: the model's context is full" in text
        assert "(/new)" in text
        await say(pilot, screen, "Hi")
        assert "context is full" not in screen_text(pilot.app)


async def test_an_answer_is_corrected_in_the_field(open_chat, say, wait_for, screen_text):
    async with open_chat() as (pilot, screen):
        await say(pilot, screen, "Hi")
        await pilot.press("f9")
        assert screen.query_one("#line", Input).value == "/correct adapter final on Hi (1)"
        await pilot.press("!", "enter")
        (row,) = rows(pairs_file())
        assert row["chosen"][0]["content"] == "adapter final on Hi (1)!"
        assert row["rejected"][0]["content"] == "adapter final on Hi (1)"
        await wait_for(
            pilot, lambda: "Corrected: adapter final on Hi (1)!" in screen_text(pilot.app)
        )


async def test_how_and_by_whom_it_is_answered_goes_round_with_keys(open_chat, screen_text):
    async with open_chat(size=(100, 30)) as (pilot, _):
        for key, text in (
            ("f7", "F7 adapter ·"), ("f7", "F7 base ·"), ("f7", "F7 both ·"),
            ("f2", "F2 temperature 1 ·"), ("f2", "F2 temperature 0 ·"), ("f3", "F3 seed 1 ·"),
        ):  # fmt: skip
            await pilot.press(key)
            await pilot.pause()
            assert text in screen_text(pilot.app)


async def test_a_system_prompt_is_set_and_another_checkpoint_chosen(open_chat, say, wait_for):
    async with open_chat() as (pilot, screen):
        await pilot.press("f12", *"Be brief.", "enter")
        assert screen.session.talk.system == "Be brief."
        await pilot.press("ctrl+o")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, PickOneScreen))
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: screen.session.checkpoint == "20")
        await say(pilot, screen, "Hi")
        assert screen.session.talk.exchanges[0].answers["adapter"] == "adapter 20 on Hi (2)"


async def test_a_prompt_is_kept_and_the_conversation_saved(open_chat, say, tmp_path, screen_text):
    async with open_chat() as (pilot, screen):
        await say(pilot, screen, "Hi")
        await pilot.press("ctrl+s")
        assert rows(saved_prompts_file()) == [{"prompt": "Hi"}]
        screen.query_one("#line", Input).value = f"/save {tmp_path}/talk.md"
        await pilot.press("enter")
        assert "adapter final on Hi" in (tmp_path / "talk.md").read_text()
        await pilot.press(*"/help", "enter")
        await pilot.pause()
        assert "/correct [TEXT]" in screen_text(pilot.app)


async def test_the_saved_prompts_are_asked_of_each_checkpoint(
    open_chat, say, wait_for, screen_text
):
    async with open_chat() as (pilot, screen):
        await pilot.press("f11")
        await pilot.pause()
        assert "no prompts are kept yet" in screen_text(pilot.app)
        for text in ("Hi", "Ho"):
            await say(pilot, screen, text)
            await pilot.press("ctrl+s")
        await pilot.press("f11")
        await wait_for(pilot, lambda: "prompt 2 of 2 (after 2 turns)  Ho" in screen_text(pilot.app))
        lines = screen_text(pilot.app).splitlines()
        place = next(i for i, line in enumerate(lines) if "prompt 1 of 2  Hi" in line)
        told = [" ".join(line.split()) for line in lines[place + 1 : place + 5]]
        assert told == [
            "base base on Hi", "step 0 0 on Hi", "step 20 20 on Hi", "final final on Hi",
        ]  # fmt: skip
        assert not screen.session.is_busy
        await say(pilot, screen, "So")
        assert "prompt 1 of 2" not in screen_text(pilot.app)


async def test_a_long_conversation_is_scrolled_with_keys(open_chat, say, screen_text):
    async with open_chat("long") as (pilot, screen):
        await say(pilot, screen, "Hi")
        assert "> Hi" not in screen_text(pilot.app)
        await pilot.press("pageup", "pageup")
        await pilot.pause()
        assert "> Hi" in screen_text(pilot.app)
        await pilot.press("pagedown", "pagedown")
        await pilot.pause()
        assert "> Hi" not in screen_text(pilot.app)


async def test_what_is_refused_stays_in_the_field(open_chat, wait_for, screen_text):
    async with open_chat() as (pilot, screen):
        await pilot.press(*"/tempratur", "enter")
        await wait_for(pilot, lambda: "Did you mean temperature" in screen_text(pilot.app))
        field = screen.query_one("#line", Input)
        assert field.value == "/tempratur"
        field.clear()
        await pilot.press(*"refuse", "enter")
        await wait_for(pilot, lambda: "the template refuses it" in screen_text(pilot.app))
        assert field.value == "refuse"
        assert screen.session.talk.exchanges == []
        await pilot.press("f9")  # nothing is there to correct, and the reason stays
        await pilot.pause()
        assert "the template refuses it" in screen_text(pilot.app)


async def test_a_model_that_cannot_be_loaded_is_said(open_chat, wait_for, screen_text):
    async with open_chat("broken") as (pilot, screen):
        await wait_for(pilot, lambda: "no such model. F6 loads it" in screen_text(pilot.app))
        await pilot.press("x", "enter")
        assert screen.query_one("#line", Input).value == "x"
        assert "there is no such model" in screen.sentence()


async def test_the_model_is_unloaded_and_loaded_again(open_chat, say, wait_for, screen_text):
    async with open_chat() as (pilot, screen):
        await say(pilot, screen, "Hi")
        await pilot.press("f6")
        await wait_for(pilot, lambda: "is unloaded. F6 loads it" in screen_text(pilot.app))
        await pilot.press("f6")
        await wait_for(pilot, lambda: screen.session.ready)
        await say(pilot, screen, "Ho")
        assert screen.session.talk.exchanges[-1].answers["base"] == "base final on Ho (3)"


async def test_a_chat_that_was_left_goes_on_where_it_was(
    open_app, make_run, wait_for, say, screen_text, monkeypatch
):
    run = make_run()
    made = ChatScreen.__init__

    def with_fake(self, *given):
        made(self, *given)
        self.words = [FAKE]

    monkeypatch.setattr(ChatScreen, "__init__", with_fake)
    async with open_app() as pilot:
        for text, turns in (("Hi", 1), ("Ho", 3)):
            await wait_for(pilot, lambda: not isinstance(pilot.app.screen, ChatScreen))
            pilot.app.post_message(OpenChat(run.path))
            screen = await wait_for(
                pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and pilot.app.screen
            )
            await wait_for(pilot, lambda screen=screen: screen.session.ready)
            await say(pilot, screen, text)
            assert f"base final on {text} ({turns})" in screen_text(pilot.app)
            await pilot.press("escape")
        assert "> Hi" not in screen_text(pilot.app)


async def test_it_is_usable_in_a_small_window(open_chat, say, wait_for, screen_text):
    async with open_chat("long", size=(60, 16)) as (pilot, screen):
        text = screen_text(pilot.app)
        assert "Type and press enter" in text
        assert "F7 both" in text
        await say(pilot, screen, "Hi")

        def ends() -> int:
            lines = screen_text(pilot.app).splitlines()
            return sum(line.count("line") >= 2 for line in lines)

        await wait_for(pilot, lambda: ends() >= 8, "both answers, their ends")
        await pilot.press("ctrl+r")
        await pilot.pause()
        text = screen_text(pilot.app)
        assert "The right answer is better" in text
        assert "Left better" in text  # in the footer
