"""What is drawn can be read: the contrast of each piece of text to its ground, in every theme."""

from __future__ import annotations

import re

import pytest
from textual.color import Color

from tui.compare.screen import CompareScreen
from tui.export.screen import ExportScreen
from tui.live.screen import LiveScreen
from tui.new_run.data.found_pairs import FindingList
from tui.new_run.draft import Draft
from tui.new_run.screen import NewRunScreen
from tui.new_run.steps import DATA, FORM
from tui.parts.ask import AskChoice, AskScreen
from tui.result.screen import ResultScreen
from tui.screens.settings import SettingsScreen
from tui.shell.themes import THEME_NAMES

DRAWN = re.compile(r"[\s·\u2500-\u25ff\u2800-\u28ff]*")
"""Frames, bars and lines of charts: no text."""
QUICK = ("orpo-dark", "orpo-light")
"""The others are slow."""


def luminance(colour: Color) -> float:
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour.normalized
    ]
    return sum(map(float.__mul__, (0.2126, 0.7152, 0.0722), linear))


def ratio(one: Color, other: Color) -> float:
    """WCAG 2 contrast."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def pale_texts(app) -> set[tuple[str, float]]:
    """Texts on the screen with less contrast than WCAG 2 AA asks for; of a dialog those in it."""
    found = set()
    place = app.screen.children[0].region if app.screen.is_modal else app.screen.region
    lines = app.screen._compositor.render_strips()[place.y : place.bottom]
    for line in lines:
        for text, style, _ in line.crop(place.x, place.right):
            if DRAWN.fullmatch(text) or not (style and style.color and style.bgcolor):
                continue
            colours = [Color.from_rich_color(c) for c in (style.color, style.bgcolor)]
            if (found_ratio := ratio(*colours)) < 4.5:
                found.add((text.strip(), round(found_ratio, 2)))
    return found


def test_contrast_is_that_of_the_standard():
    assert ratio(Color(0, 0, 0), Color(255, 255, 255)) == pytest.approx(21)
    assert ratio(Color.parse("#767676"), Color.parse("#FFFFFF")) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize(
    "theme",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in THEME_NAMES],
)
async def test_every_text_has_the_contrast_that_wcag_asks_for(
    theme, open_app, make_run, made_up, wait_for
):
    runs = [make_run(f"run-{seed}", seed=seed).path for seed in range(2)]
    planned = {"model": "org/small", "data": "pairs.jsonl", "lam": "x"}
    async with open_app((160, 48), theme=theme) as pilot:
        app = pilot.app
        await wait_for(pilot, lambda: len(app.screen.runs) == 2)
        await pilot.pause()
        assert pale_texts(app) == set()
        for screen in (
            LiveScreen(runs[0]), ResultScreen(runs[0]), CompareScreen(runs), SettingsScreen(),
            ExportScreen(runs[0], app.exports), NewRunScreen(),
            AskScreen("End it?", "It ends.", [AskChoice("no", "Stay"), AskChoice("yes", "End")]),
        ):  # fmt: skip
            app.push_screen(screen)
            await wait_for(pilot, lambda s=screen: app.screen is s and s.is_mounted)
            if isinstance(screen, NewRunScreen):
                screen.change(Draft({**planned, "lam": "0.1"}))
                screen.go_to(DATA)
                await wait_for(pilot, lambda s=screen: s.query_one(FindingList).option_count)
                screen.query_one(FindingList).focus()
                await pilot.pause(0.3)
                assert pale_texts(app) == set(), "findings"
                screen.change(Draft(planned))
                screen.go_to(FORM)
            await pilot.pause(0.3)
            assert pale_texts(app) == set(), type(screen).__name__
            app.pop_screen()
