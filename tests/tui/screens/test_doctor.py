"""The doctor screen lists what the doctor's process finds."""

from __future__ import annotations

from tui.parts.fields.option_list import OptionList
from tui.screens.doctor import DoctorScreen


async def test_the_facts_of_this_machine_are_listed(open_app, wait_for, screen_text):
    async with open_app(size=(100, 40)) as pilot:
        await pilot.press("f8")
        screen = await wait_for(
            pilot, lambda: isinstance(pilot.app.screen, DoctorScreen) and pilot.app.screen
        )
        await wait_for(pilot, lambda: "Looking" not in screen.status, "the doctor has looked")
        text = screen_text(pilot.app)
        for part in ("Machine", "chip", "Versions", "mlx-lm", "free disk"):
            assert part in text
        assert "T trains the demo" in screen.status


async def open_with(pilot, wait_for, facts) -> DoctorScreen:
    """Open the screen as if these had been found."""
    screen = DoctorScreen()
    screen._look = lambda more: None  # type: ignore[method-assign,assignment]
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.query(OptionList))
    screen.facts = facts
    screen._show()
    return screen


async def test_advice_is_broken_into_lines(open_app, wait_for, screen_text):
    fact = {"group": "power", "name": "source", "text": "battery", "level": "warning"}
    async with open_app(size=(80, 24)) as pilot:
        await open_with(pilot, wait_for, [{**fact, "what_to_do": "word " * 40}])
        shown = (line.rstrip() for line in screen_text(pilot.app).splitlines())
        lines = [line for line in shown if line][2:-2]
        assert lines[0] == " Power"
        assert lines[1].startswith("  ! source")
        assert [line.split() for line in lines[2:]] == [["word"] * 14, ["word"] * 14, ["word"] * 12]


async def test_a_wide_window_says_beside_the_list_what_to_do_about_a_check(
    open_app, wait_for, screen_text
):
    fact = {"group": "machine", "name": "chip", "text": "M9", "level": "ok", "what_to_do": ""}
    bad = {"group": "storage", "name": "free disk", "text": "1 GB", "level": "error"}
    async with open_app(size=(160, 48)) as pilot:
        screen = await open_with(
            pilot, wait_for, [fact, {**bad, "what_to_do": "Free some [space]."}]
        )
        await wait_for(pilot, lambda: "─ Machine: chip ─" in screen_text(pilot.app))
        assert "As it should be." in screen_text(pilot.app)
        assert "Free some" not in screen_text(pilot.app)
        await pilot.press("down")
        await wait_for(pilot, lambda: "─ Storage: free disk ─" in screen_text(pilot.app))
        text = screen_text(pilot.app)
        assert "In the way of a training." in text
        assert "Free some [space]." in text
        await pilot.resize_terminal(80, 24)  # there is no room beside: it stands below
        await wait_for(pilot, lambda: "In the way of" not in screen_text(pilot.app))
        await wait_for(pilot, lambda: "     Free some [space]." in screen_text(pilot.app))
        assert screen.selected["name"] == "free disk"


async def test_copying_a_long_report_does_not_cover_the_screen_with_it(
    open_app, wait_for, monkeypatch
):
    copied = []
    monkeypatch.setattr("tui.app.copy_locally", lambda text: copied.append(text) or True)
    fact = {"group": "power", "name": "source", "text": "battery", "level": "ok", "what_to_do": ""}
    async with open_app() as pilot:
        await open_with(pilot, wait_for, [{**fact, "name": f"fact {n}"} for n in range(9)])
        await pilot.press("y")
        await wait_for(pilot, lambda: copied)
        (toast,) = pilot.app._notifications
        assert toast.message == "Power\nand 9 more lines"
        assert "fact 8" in copied[0]


SELF_TEST = """
import json, sys, time
def say(group, name, text):
    fact = {"group": group, "name": name, "text": text, "level": "ok", "what_to_do": ""}
    print(json.dumps(fact), flush=True)
say("machine", "free memory", "now" if "--self-test" in sys.argv else "before")
if "--self-test" in sys.argv:
    say("self-test", "a training", "20 steps")
    say("self-test", "the same twice", "word " * 40)
    time.sleep(600)
"""


async def test_a_self_test_shows_how_far_it_is_and_ends_with_its_screen(
    open_app, wait_for, screen_text, tmp_path
):
    (tmp_path / "doctor.py").write_text(SELF_TEST)
    async with open_app(size=(80, 24)) as pilot:
        screen = DoctorScreen()
        screen.words = [str(tmp_path / "doctor.py")]
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: "All is well" in screen.status)
        await pilot.press("T")
        await wait_for(pilot, lambda: "with kept outputs" in screen.status)
        text = screen_text(pilot.app)
        assert "before" not in text  # what is known better now is not said twice
        assert text.count("free memory") == 1
        assert text.count("word word") > 2  # broken into lines, not cut
        assert "T Self-test" not in text  # one at a time
        worker = next(one for one in pilot.app.workers if one.group == "doctor")
        await pilot.press("escape")
        await wait_for(pilot, lambda: worker.is_finished)
