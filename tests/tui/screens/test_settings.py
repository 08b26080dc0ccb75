"""The settings of the app: every change counts at once and stays."""

from __future__ import annotations

import tomllib

import pytest
from textual.widgets import Checkbox, Select

from tui.screens.settings import SettingsScreen
from tui.shell.settings import config_folder
from tui.shell.themes import THEME_NAMES


def told(app):
    """What was notified; tests show no toasts."""
    return "\n".join(note.message for note in app._notifications)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the app's settings."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return config_folder()


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_a_change_is_used_kept_and_said(open_app, wait_for, screen_text, folder, size):
    async with open_app(size, charset="", theme="") as pilot:
        await pilot.press("comma")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen))
        screen = pilot.app.screen
        await wait_for(pilot, lambda: "Theme; in use: orpo-dark" in screen_text(pilot.app))
        assert "everywhere: ascii); in use: " in screen_text(pilot.app)
        screen.query_one("#charset", Select).value = "ascii"
        await wait_for(pilot, lambda: pilot.app.charset == "ascii")
        assert "everywhere: ascii); in use" not in screen_text(pilot.app)
        screen.query_one("#bell", Checkbox).toggle()
        await wait_for(pilot, lambda: not pilot.app.settings.bell)
        raw = tomllib.loads((folder / "app.toml").read_text())
        assert (raw["charset"], raw["bell"], raw["theme"]) == ("ascii", False, "auto")
        assert "charset ascii, smoothing 0.9, calm off, bell off" in screen.sentence()


async def test_a_wide_window_says_what_the_setting_does_and_draws_with_it(
    open_app, wait_for, screen_text, folder
):
    async with open_app((100, 30), theme="") as pilot:
        await pilot.press("comma")
        await wait_for(pilot, lambda: "Colours of the whole app." in screen_text(pilot.app))
        assert str(folder / "app.toml")[:30] in screen_text(pilot.app)
        assert "smoothed 0.9" in screen_text(pilot.app)
        await pilot.press("down", "down")
        await wait_for(pilot, lambda: "How much charts smooth" in screen_text(pilot.app))
        pilot.app.screen.query_one("#smoothing", Select).value = 0.5
        await wait_for(pilot, lambda: "smoothed 0.5" in screen_text(pilot.app))
        await pilot.press("down", "down", "down")
        await wait_for(pilot, lambda: "A run whose process" in screen_text(pilot.app))
        await pilot.resize_terminal(80, 24)
        await wait_for(pilot, lambda: "A run whose process" not in screen_text(pilot.app))
        assert "Ask macOS" in screen_text(pilot.app)


async def test_every_theme_can_be_chosen_and_one_of_the_palette_stays(open_app, wait_for, folder):
    async with open_app(theme="") as pilot:
        await pilot.press("comma")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen))
        field = pilot.app.screen.query_one("#theme", Select)
        for name in THEME_NAMES:
            field.value = name
            await wait_for(pilot, lambda name=name: pilot.app.theme == name)
        pilot.app.theme = "nord"  # as the palette does
        pilot.app.screen.query_one("#calm", Checkbox).toggle()
        await wait_for(pilot, lambda: pilot.app.settings.calm)
        assert pilot.app.theme == "nord"


async def test_what_is_wrong_in_the_files_is_said_and_harms_nothing(open_app, wait_for, folder):
    (folder / "app.toml").write_text('theme = ["[/red]"]\ncharset = "[bold"\n')
    (folder / "keys.toml").write_text('"live.stpo" = "[x"\n"live.pause" = "["\n"app.help" = 7\n')
    async with open_app((160, 48), charset="", theme="") as pilot:
        await wait_for(pilot, lambda: "charset = '[bold' is not known" in told(pilot.app))
        text = told(pilot.app)
        assert "theme = ['[/red]'] is not usable" in text
        assert "there is no command 'live.stpo'. Did you mean live.stop?" in text
        await pilot.press("comma")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen))


async def test_a_folder_that_cannot_be_written_is_said(open_app, wait_for, folder):
    folder.rmdir()
    folder.write_text("a file stands here")
    async with open_app((100, 30), theme="") as pilot:
        await pilot.press("comma")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen))
        pilot.app.screen.query_one("#bell", Checkbox).toggle()
        await wait_for(pilot, lambda: "kept until you quit" in told(pilot.app))
        assert not pilot.app.settings.bell
