"""Hostile runs in the app: nothing of theirs moves the terminal, and none ends the app."""

from __future__ import annotations

import ast
from pathlib import Path

import tui
from orpo_mlx.runs.events import (
    CheckpointSaved,
    NoteLogged,
    RunFailed,
    RunStarted,
    SampleGenerated,
    StepCompleted,
    encode,
)
from tui.live.screen import LiveScreen

EVIL = "\x1b]52;c;Y3VybA==\x07\x1b[2J\x9b31m\u202eend"
EVENTS = [
    RunStarted(EVIL, EVIL, EVIL, 5, 8, 2, 10, 100, {"model": EVIL}, {}, EVIL, ["loss", EVIL]),
    StepCompleted({"loss": 1.0, EVIL: 2.0}, step=1),
    SampleGenerated(1, EVIL, EVIL, 0),
    CheckpointSaved(1, EVIL, 0.1, 1000),
    NoteLogged("warning", EVIL),
    RunFailed(EVIL, EVIL, EVIL, 1, EVIL),
]
ODD = ('{"event": "StepCompleted", "step": ' + "[" * 100_000, '{"event": "Paused", "time": 1e300}')


def raw_text(app) -> str:
    """All that the screen would write, segments as they go to the driver."""
    strips = app.screen._compositor.render_strips()
    return "".join(segment.text for strip in strips for segment in strip)


def write(runs_dir, name: str) -> None:
    folder = runs_dir / name
    folder.mkdir()
    (folder / "config.toml").write_text('model = "\\u001b[2Jmodel"\n')
    text = "".join(encode(event, now=1.7e9) for event in EVENTS) + "\n".join(ODD) + "\n"
    (folder / "events.jsonl").write_text(text)


async def test_no_control_character_of_a_run_reaches_the_screen(
    runs_dir, open_app, wait_for, screen_text
):
    write(runs_dir, "run\x1b[31m")
    async with open_app(size=(130, 40)) as pilot:
        shown = await wait_for(pilot, lambda: "damaged" in screen_text(pilot.app) and "[2J" in
                               screen_text(pilot.app))  # fmt: skip
        assert shown
        assert raw_text(pilot.app).isprintable()
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        await wait_for(pilot, lambda: pilot.app.screen.caught_up)
        for tab in range(1, 6):
            await pilot.press(str(tab))
            await pilot.pause()
            assert raw_text(pilot.app).isprintable()
        pilot.app.notify(EVIL, title=EVIL, markup=False)
        await wait_for(pilot, lambda: "Y3VybA" in screen_text(pilot.app))
        assert raw_text(pilot.app).isprintable()


MARKED = "run [red]x"


async def test_markup_in_the_name_of_a_run_is_its_name(runs_dir, open_app, wait_for, screen_text):
    write(runs_dir, MARKED)
    async with open_app(size=(130, 40)) as pilot:
        await wait_for(pilot, lambda: screen_text(pilot.app).count(MARKED) == 2)
        for key, count in (("l", 3), ("D", 4)):  # once more in a title, and in the question
            shown = screen_text(pilot.app)
            await pilot.press(key)
            await wait_for(pilot, lambda shown=shown: screen_text(pilot.app) != shown)
            assert screen_text(pilot.app).count(MARKED) == count
            await pilot.press("escape")
            await wait_for(pilot, lambda shown=shown: screen_text(pilot.app) == shown)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        await wait_for(pilot, lambda: pilot.app.screen.caught_up and MARKED in
                       screen_text(pilot.app))  # fmt: skip


def test_titles_that_are_not_written_here_are_plain():
    """A frame reads markup in a text: what stands in brackets would be gone, or end the app."""
    wrong = [
        f"{path}:{node.lineno}"
        for path in Path(tui.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and _is_title(node) and not _is_plain(node.value)
    ]
    assert not wrong


def _is_title(node: ast.Assign) -> bool:
    names = {target.attr for target in node.targets if isinstance(target, ast.Attribute)}
    return bool(names & {"border_title", "border_subtitle"})


def _is_plain(value: ast.expr) -> bool:
    if isinstance(value, ast.IfExp):
        return _is_plain(value.body) and _is_plain(value.orelse)
    is_gated = isinstance(value, ast.Call) and getattr(value.func, "id", "") == "plain"
    return is_gated or isinstance(value, ast.Constant)
