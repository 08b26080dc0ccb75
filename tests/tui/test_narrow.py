"""A window may be drawn together to nothing and apart again: the app lives, wherever it is."""

import pytest

from tui.parts.pick_one import PickOneScreen

SIZES = ((1, 1), (2, 10), (5, 3), (9, 10), (20, 10), (100, 30))


@pytest.mark.parametrize("step", [0, 1, 2, 3])
async def test_the_wizard_lives_through_any_width(step, open_app, made_up, wait_for):
    from tui.new_run.screen import NewRunScreen

    async with open_app((100, 30)) as pilot:
        screen = NewRunScreen()
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: screen.is_mounted)
        screen.go_to(step)
        await narrowed(pilot)
        assert pilot.app.screen is screen


async def test_the_welcome_and_a_choice_live_through_any_width(open_app):
    async with open_app((100, 30)) as pilot:
        await narrowed(pilot)
        pilot.app.push_screen(PickOneScreen("Which?", {"a": "One of them", "b": "The other"}, "a"))
        await pilot.pause()
        await narrowed(pilot)
        assert isinstance(pilot.app.screen, PickOneScreen)


async def narrowed(pilot):
    for size in SIZES:
        await pilot.resize_terminal(*size)
        await pilot.pause()
