"""What the palette shows works on every screen; every screen can be read and helped."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Static
from textual.widgets._footer import FooterKey

from tui.chat.screen import ChatScreen
from tui.compare.group_screen import GroupScreen
from tui.compare.screen import CompareScreen
from tui.export.screen import ExportScreen
from tui.judge.screen import JudgeScreen
from tui.live.screen import LiveScreen
from tui.parts.ask import AskChoice, AskScreen
from tui.parts.key_footer import KeyFooter
from tui.parts.pick_one import PickOneScreen
from tui.parts.too_small import TooSmall
from tui.playground.screen import PlaygroundScreen
from tui.result.screen import ResultScreen
from tui.screens.help import HelpScreen
from tui.screens.settings import SettingsScreen
from tui.serve.screen import ServeScreen

FAKES = Path(__file__).parents[1] / "fakes"
LEAVING = ("App: quit", "Run: detach", "Screen: back")


def result_screen(run):
    screen = ResultScreen(run)
    screen.words = ["-m", "json.tool", "--help"]  # ends at once, with no answer
    return screen


def screens(app, run):
    test = PlaygroundScreen(run)
    test.words = [str(FAKES / "fake_playground.py")]
    chat = ChatScreen(run)
    chat.words = [str(FAKES / "fake_chat.py")]
    judge = JudgeScreen([run])
    judge.words = [str(FAKES / "fake_judge.py")]
    app.server.words = [str(FAKES / "fake_serve.py")]
    app.exports.writer(run).words = [str(FAKES / "fake_export.py")]
    return {
        "live": LiveScreen(run),
        "compare": CompareScreen([run, run.with_name("run-b")]),
        "export": ExportScreen(run, app.exports),
        "test": test,
        "chat": chat,
        "judge": judge,
        "serve": ServeScreen([run], app.server),
        "group": GroupScreen([run, run.with_name("run-b")], "sweep-x"),
        "settings": SettingsScreen(),
        "result": result_screen(run),
        "runs": None,
    }


NAMES = (
    "runs", "live", "compare", "export", "test", "chat", "judge", "serve", "settings", "result",
    "group",
)  # fmt: skip
QUICK = ("runs", "live")
"""Of these each command of the palette is run in the quick set."""


@pytest.fixture
def open_screen(open_app, make_run, wait_for):
    """Return `open(pilot, name)`: that screen on top, settled."""

    async def open(pilot, name):
        screen = screens(pilot.app, make_run("run-a").path)[name]
        make_run("run-b", seed=1)
        if screen is None:
            return pilot.app.screen
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: pilot.app.screen is screen and screen.is_mounted)
        await pilot.pause()
        return screen

    return open


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
async def test_what_the_palette_shows_works(name, open_app, open_screen, wait_for, monkeypatch):
    async with open_app((100, 30)) as pilot:
        app = pilot.app
        monkeypatch.setattr(app, "copy", lambda text: None)
        monkeypatch.setattr(
            "tui.processes.launcher.start_demo", lambda *_: pytest.fail("was not asked for")
        )
        monkeypatch.setattr(app, "_begin", lambda start: None)
        screen = await open_screen(pilot, name)
        titles = [entry.title for entry in app.get_system_commands(screen)]
        assert len(titles) == len(set(titles)), "no name twice"
        for title in titles:
            if title in LEAVING:
                continue
            found = [e for e in app.get_system_commands(screen) if e.title == title]
            if not found:
                continue  # an earlier one made it pointless: nothing is left to stop
            found[0].callback()
            await pilot.pause()
            for _ in range(50):  # whatever it opened; some things open a moment later
                await pilot.pause()
                if app.screen is screen:
                    break
                await pilot.press("escape")
            assert app.screen is screen, f"{title}: escape leads back"


@pytest.mark.parametrize("name", NAMES)
async def test_a_screen_can_be_read_and_helped(name, open_app, open_screen, wait_for, screen_text):
    async with open_app((100, 30)) as pilot:
        screen = await open_screen(pilot, name)
        sentence = pilot.app.reading()
        assert len(sentence) > 20
        assert "\n" not in sentence
        await pilot.press("f1")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        help = "\n".join(pilot.app.screen.lines)
        assert screen.HELP in help
        if screen.focused is not None and (more := getattr(screen.focused, "HELP", "")):
            assert more in help
        await pilot.press("escape")
        await wait_for(pilot, lambda: pilot.app.screen is screen)


def body_of(text: str) -> list[str]:
    """What stands between title and footer, without frames and blank lines."""
    lines = [line.strip(" │─╭╮╰╯▁▏") for line in text.splitlines()[1:-1]]
    return [line for line in lines if line]


@pytest.mark.parametrize("size", [(60, 16), (160, 48)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", NAMES)
async def test_a_screen_opens_with_something_in_it_and_whole_keys(
    name, size, open_app, open_screen, wait_for, screen_text
):
    async with open_app(size) as pilot:
        screen = await open_screen(pilot, name)
        footer = screen.query_one(KeyFooter)
        keys = await wait_for(pilot, lambda: list(footer.query(FooterKey)))
        await wait_for(pilot, lambda: all(key.region.width for key in keys))
        assert not screen.query_one(TooSmall).display
        shown = [part for part in screen.children if part.display]
        assert all(part.region.bottom <= size[1] for part in shown), "all is to be reached"
        assert len(body_of(screen_text(pilot.app))) >= 3, screen_text(pilot.app)
        last = screen_text(pilot.app).splitlines()[-1]
        regions = [key.region for key in footer.query(FooterKey)]
        assert sum(region.width for region in regions) <= size[0]
        assert all(
            not one.overlaps(other) for one in regions for other in regions if one is not other
        )
        for key in footer.query(FooterKey):
            assert f"{key.key_display} {key.description}" in last
        assert {"Help", "palette"} <= {key.description for key in footer.query(FooterKey)}


@pytest.mark.parametrize("name", ["chat", "test", "judge", "serve"])
async def test_a_screen_that_waits_for_a_model_says_so(
    name, open_app, make_run, wait_for, screen_text, monkeypatch
):
    async with open_app((80, 24)) as pilot:
        app = pilot.app
        screen = screens(app, make_run("run-a").path)[name]
        silent = ["-c", "import time; time.sleep(1000)"]
        if name == "serve":
            app.server.words = silent
        else:
            screen.words = silent
        app.push_screen(screen)
        await wait_for(pilot, lambda: app.screen is screen and screen.is_mounted)
        text = await wait_for(pilot, lambda: body_of(screen_text(app)))
        assert len(" ".join(text).split()) >= 3, screen_text(app)


@pytest.mark.parametrize(
    "dialog",
    [
        AskScreen("End it?", "It is lost.", [AskChoice("no", "Stay"), AskChoice("yes", "End it")]),
        PickOneScreen("Metric", {"a": "Loss", "b": "Margin"}, "b"),
    ],
    ids=["ask", "pick"],
)
async def test_a_dialog_can_be_read_and_answered_with_the_mouse(
    dialog, open_app, wait_for, screen_text
):
    async with open_app() as pilot:
        answers = []
        pilot.app.push_screen(dialog, answers.append)
        await wait_for(pilot, lambda: dialog.is_mounted and dialog.focused)
        assert pilot.app.reading() == dialog.sentence()
        await pilot.press("a")
        await wait_for(pilot, lambda: pilot.app._notifications)
        if isinstance(dialog, AskScreen):
            await wait_for(pilot, lambda: "> Stay      End it" in screen_text(pilot.app))
            await pilot.press("right")
            await wait_for(pilot, lambda: "Stay    > End it" in screen_text(pilot.app))
            await pilot.click("#yes")
        else:
            await pilot.click("OptionList", offset=(5, 0))
        await wait_for(pilot, lambda: answers == ["yes" if isinstance(dialog, AskScreen) else "a"])


@pytest.mark.parametrize("size", [(60, 16), (80, 24)])
async def test_no_line_of_help_breaks_out_of_its_column(size, open_app, open_screen, wait_for):
    async with open_app(size) as pilot:
        await open_screen(pilot, "test")
        await pilot.press("f1")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        text = pilot.app.screen.query_one(Static)
        await wait_for(pilot, lambda: str(text.content))
        lines = str(text.content).split("\n")
        assert any(line.startswith("  F2       ") for line in lines)
        assert any(line.startswith(" " * 11) and line.strip() for line in lines), "a second line"
        assert all(len(line) <= text.size.width for line in lines)
