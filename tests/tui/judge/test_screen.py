"""The judging screen, with a process behind it that makes its answers up."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tui.judge.screen import JudgeScreen

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_judge.py")


@pytest.fixture
def open_judge(open_app, make_run, wait_for):
    """Return `open(*words, size=)`: the screen of a run."""

    @asynccontextmanager
    async def open(*words: str, size=(80, 24)):
        run = make_run()
        async with open_app(size) as pilot:
            screen = JudgeScreen([run.path])
            screen.words = [FAKE, *words]
            pilot.app.push_screen(screen)
            await wait_for(pilot, lambda: screen.is_mounted and screen.query("#prompt"))
            yield pilot, screen

    return open


async def test_keys_are_verdicts_until_all_is_judged(open_judge, wait_for, screen_text):
    async with open_judge() as (pilot, screen):
        await wait_for(pilot, lambda: "1 of 3 · 3 prompts left" in screen_text(pilot.app))
        text = screen_text(pilot.app)
        assert "Why is it so, 0?" in text
        assert "Nobody knows 0." in text
        assert "tiny" not in text  # blind
        for number, key in enumerate("1t2", start=1):
            await pilot.press(key)
            await wait_for(pilot, lambda n=number: screen.state.counts["left"] == 3 - n)
        await wait_for(pilot, lambda: "All is judged" in screen_text(pilot.app))
        text = screen_text(pilot.app)
        assert "run-a against tiny:" in text
        assert "1 won" in text
        assert "1 tied" in text
        assert "no difference could be shown" in text
        await pilot.press("1")  # nothing is left
        assert not screen.state.is_sent


async def test_a_key_counts_once_and_only_for_what_is_shown(open_judge, wait_for, screen_text):
    async with open_judge("slow") as (pilot, screen):
        await wait_for(pilot, lambda: "answering prompts: 4 of 20" in screen_text(pilot.app))
        await pilot.press("1")
        assert not screen.state.is_sent
        screen._send({})
        await wait_for(pilot, lambda: screen.state.duel)
        assert screen.state.verdict_on("first") == {"place": 0, "says": "first"}
        assert screen.state.verdict_on("second") is None


@pytest.mark.parametrize(
    ("word", "says"),
    [("broken", "there is no such model"), ("training", "is being trained\nWait for its end.")],
)
async def test_what_goes_wrong_is_shown(open_judge, wait_for, screen_text, word, says):
    async with open_judge(word) as (pilot, screen):
        await wait_for(pilot, lambda: "It cannot go on" in screen_text(pilot.app))
        assert says.split("\n")[0] in screen_text(pilot.app)
        assert says.split("\n")[-1] in screen.sentence()


async def test_it_opens_from_a_run_from_two_marked_ones_and_from_compare(
    open_app, make_run, wait_for, monkeypatch
):
    monkeypatch.setattr(JudgeScreen, "on_mount", lambda self: None)
    first, second = make_run("run-a").path, make_run("run-b", seed=1).path
    async with open_app((100, 30)) as pilot:
        runs = pilot.app.screen
        await wait_for(pilot, lambda: runs.selected)

        async def words_after(*keys: str) -> list[str]:
            await pilot.press(*keys)
            await wait_for(pilot, lambda: isinstance(pilot.app.screen, JudgeScreen))
            words = pilot.app.screen.words[2:]
            await pilot.press("escape")
            return words

        assert await words_after("j") == [str(runs.selected.path)]
        runs.marked = {first, second}
        both = await words_after("j")
        assert both[1] == "--against"
        assert {both[0], both[2]} == {str(first), str(second)}
        await pilot.press("c")
        await wait_for(pilot, lambda: pilot.app.screen.AREA == "compare")
        assert len(await words_after("j")) == 3
