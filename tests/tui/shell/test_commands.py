"""Commands are declared once and hang together: ids, keys, actions, keymap."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tui.app import OrpoApp
from tui.charts.line_chart import LineChart
from tui.home.screen import RunsScreen
from tui.live.screen import LiveScreen
from tui.new_run.data.pair_preview import PairPreview
from tui.new_run.screen import NewRunScreen
from tui.parts.base_screen import AppScreen
from tui.shell.commands import AREAS, all_commands, key_text

PLACES = {
    "app": OrpoApp, "screen": AppScreen, "runs": RunsScreen, "live": LiveScreen, "chart": LineChart,
    "new": NewRunScreen, "preview": PairPreview,
}  # fmt: skip


@pytest.mark.parametrize("area", PLACES)
def test_every_command_has_its_action(area):
    for command in AREAS[area]:
        assert callable(getattr(PLACES[area], f"action_{command.action}")), command.id


def test_ids_are_unique_and_name_their_area():
    ids = [command.id for command in all_commands()]
    assert [id for id, count in Counter(ids).items() if count > 1] == []
    for area, commands in AREAS.items():
        assert {command.area for command in commands} <= {area}


@pytest.mark.parametrize("area", AREAS)
def test_no_key_means_two_things_in_one_place(area):
    shared = [] if area == "app" else [*AREAS["app"], *AREAS["screen"]]
    keys = Counter(k for c in {*AREAS[area], *shared} for k in c.key.split(","))
    assert [key for key, count in keys.items() if count > 1] == []


def test_keys_reach_an_app_in_every_terminal():
    """Letters, digits, named signs, F-keys, arrows and ctrl+letter; ctrl+b belongs to tmux."""
    names = r"question_mark|comma|slash|space|escape|enter|tab|plus|minus|equals_sign|left|right"
    names += r"|up|down|left_square_bracket|right_square_bracket|backspace|delete|full_stop|period"
    allowed = re.compile(rf"[A-Za-z0-9]|f\d+|ctrl\+[ac-z]|{names}|pageup|pagedown|home|end")
    for command in all_commands():
        for key in command.key.split(","):
            assert allowed.fullmatch(key), (command.id, key)


@pytest.mark.parametrize("area", [area for area in AREAS if area not in ("app", "screen")])
def test_the_footer_fits_eighty_columns(area):
    labels = [c for c in (*AREAS[area], *AREAS["app"]) if c.footer]
    # A run is alive or has ended, and planning is at one of its steps: never all are offered.
    planning = {"next", "browse", "map", "reset", "preset", "start", "copy_command"}
    steps = ({"next", "browse", "map"}, {"next", "copy_command", "reset", "preset"},
             {"start", "copy_command", "preset"})  # fmt: skip
    two, one = {"left", "right"}, {"like", "dislike"}
    never = {
        "live": [{"pause", "stop", "checkpoint"}, {"resume", "export", "chat", "test"}],
        "chat": [{"stop", *two}, {"stop", *one}, {*two, *one}],
        "new": [planning - step for step in steps],
    }
    for absent in never.get(area, [set()]):
        shown = [c for c in labels if c.action not in absent]
        width = sum(len(key_text(c.key)) + len(c.footer) + 3 for c in shown)
        assert width + len("^p palette") + 2 <= 80, width


async def test_a_key_of_the_users_replaces_the_default(
    open_app, wait_for, tmp_path, monkeypatch, screen_text
):
    (tmp_path / "keys.toml").write_text('[app]\nhelp = "f2"\n')
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    async with open_app() as pilot:
        await pilot.press("question_mark")
        assert "esc closes" not in screen_text(pilot.app)
        await pilot.press("f2")
        await wait_for(pilot, lambda: "esc closes" in screen_text(pilot.app))
