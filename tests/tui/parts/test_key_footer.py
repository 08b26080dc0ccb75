"""Keys of the last line are whole, or not there."""

from __future__ import annotations

from typing import ClassVar

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets._footer import FooterKey

from tui.parts.key_footer import KeyFooter


class KeysApp(App[None]):
    """Four keys; with names and blanks they take 10, 12, 8 and 8 cells, the palette 12."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "first", "First"),
        Binding("f3", "second", "Second!"),
        Binding("question_mark", "help", "Help"),
        Binding("q", "leave", "Quit"),
    ]

    def compose(self) -> ComposeResult:
        yield KeyFooter()


def shown(app: App[None]) -> list[str]:
    return [key.description for key in app.query(FooterKey)]


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (50, ["First", "Second!", "Help", "Quit", "palette"]),
        (49, ["First", "Second!", "Help", "palette"]),
        (42, ["First", "Second!", "Help", "palette"]),
        (41, ["First", "Help", "palette"]),
        (20, ["Help", "palette"]),
    ],
)
async def test_keys_without_room_are_left_out_the_least_important_first(cells, names, wait_for):
    async with KeysApp().run_test(size=(cells, 5)) as pilot:
        await wait_for(pilot, lambda: shown(pilot.app) == names)


async def test_a_wider_window_shows_them_again(wait_for):
    async with KeysApp().run_test(size=(29, 5)) as pilot:
        await wait_for(pilot, lambda: shown(pilot.app) == ["Help", "palette"])
        await pilot.resize_terminal(80, 5)
        await wait_for(
            pilot, lambda: shown(pilot.app) == ["First", "Second!", "Help", "Quit", "palette"]
        )


async def test_a_narrower_window_leaves_out_keys(wait_for):
    async with KeysApp().run_test(size=(80, 5)) as pilot:
        await wait_for(pilot, lambda: len(shown(pilot.app)) == 5)
        await pilot.resize_terminal(42, 5)
        await wait_for(pilot, lambda: shown(pilot.app) == ["First", "Second!", "Help", "palette"])


async def test_a_footer_without_width_is_left_alone(wait_for):
    async with KeysApp().run_test(size=(80, 5)) as pilot:
        await wait_for(pilot, lambda: len(shown(pilot.app)) == 5)
        footer, composed = pilot.app.query_one(KeyFooter), []
        compose = footer.compose
        footer.compose = lambda: composed.append(True) or compose()
        footer.styles.width = 0
        await wait_for(pilot, lambda: footer.size.width == 0)
        for _ in range(5):
            await pilot.pause()
        assert not composed
        footer.styles.width = 42
        await wait_for(pilot, lambda: shown(pilot.app) == ["First", "Second!", "Help", "palette"])
        assert len(composed) == 1
