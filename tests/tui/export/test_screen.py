"""The export screen, with an export that writes next to nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input, SelectionList

from tui.export.jobs import Job
from tui.export.screen import ExportScreen
from tui.home.screen import RunsScreen
from tui.parts.ask import AskScreen
from tui.parts.line_view import LineView

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_export.py")


@pytest.fixture
def open_export(open_app, make_run, wait_for, tmp_path):
    """Return `open(*formats, size=)`: the screen of a run with these formats chosen."""

    @asynccontextmanager
    async def open(*formats: str, size=(80, 24)):
        run = make_run()
        (run.path / "checkpoints" / "000020").mkdir(parents=True)
        async with open_app(size) as pilot:
            await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
            screen = await show(pilot, run.path, wait_for)
            if formats:
                screen.form.folder = tmp_path / "out"
                chosen = screen.query_one("#formats", SelectionList)
                chosen.deselect_all()
                for name in formats:
                    chosen.select(name)
                await pilot.pause()
            yield pilot, screen

    return open


async def show(pilot, run: Path, wait_for) -> ExportScreen:
    pilot.app.exports.writer(run).words = [FAKE]
    screen = ExportScreen(run, pilot.app.exports)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.query(LineView) and screen.is_mounted)
    await pilot.pause()
    return screen


def states(screen: ExportScreen) -> list[tuple[str, str]]:
    return [(job.format, job.state) for job in screen.writer.jobs]


async def test_formats_say_who_reads_them_and_what_is_lost(open_export, screen_text, wait_for):
    async with open_export() as (pilot, screen):
        assert screen.chosen == ["mlx"]
        await wait_for(pilot, lambda: "for mlx-lm," in screen_text(pilot.app))
        await pilot.press("down", "down")
        await wait_for(pilot, lambda: "Writes the tuned model" in screen_text(pilot.app))
        assert "Lost on the way: rounding to the number format" in screen_text(pilot.app)
        await wait_for(pilot, lambda: " free" in screen_text(pilot.app))


async def test_quick_keys_mark_what_was_selected_when_they_were_pressed(open_export, wait_for):
    async with open_export() as (pilot, screen):
        for key in ("down", "space", "down", "space"):
            pilot.app.post_message(events.Key(key, " " if key == "space" else None))
        await wait_for(pilot, lambda: screen.chosen == ["mlx", "peft", "fused"])


async def test_the_focused_option_is_explained(open_export, wait_for, screen_text):
    async with open_export("peft", size=(120, 36)) as (pilot, screen):
        screen.query_one("#dtype").focus()
        await wait_for(pilot, lambda: "Numbers: Number format of what is" in screen_text(pilot.app))
        screen.query_one("#formats").focus()
        await wait_for(pilot, lambda: "Writes the adapter folder" in screen_text(pilot.app))


async def test_chosen_formats_are_written_one_after_the_other(
    open_export, wait_for, screen_text, monkeypatch, tmp_path
):
    async with open_export("mlx", "peft", size=(120, 60)) as (pilot, screen):
        await pilot.press("ctrl+r")
        await wait_for(
            pilot, lambda: "1 written, 1 failed" in screen.writer.status, "both have ended"
        )
        assert states(screen) == [("mlx", "written"), ("peft", "failed")]
        await wait_for(pilot, lambda: "Write --dtype" in screen_text(pilot.app))
        text = screen_text(pilot.app)
        assert "written: 1 file, 38" in text
        assert "passed delta [2.5e-7, at most 1.0e-6]" in text
        assert "FAILED delta" in text
        assert "Write --dtype float32." in text
        copied = []
        monkeypatch.setattr(pilot.app, "copy", copied.append)
        await pilot.press("y")
        place = tmp_path / "out" / "run-a-mlx"
        assert copied == [f"use-mlx {place}"]
        assert place.is_dir()
        assert pilot.app.settings.export_folder == str(tmp_path / "out")
        assert pilot.app.charset == "braille"  # of the command line; keeping the folder keeps it


async def test_only_options_of_chosen_formats_are_shown_and_needed_ones_are_asked_for(
    open_export, wait_for, screen_text
):
    async with open_export("ollama", size=(120, 36)) as (pilot, screen):
        await wait_for(pilot, lambda: "Base GGUF" in screen_text(pilot.app))
        assert "Repository" not in screen_text(pilot.app)
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "ollama needs Base GGUF" in screen.writer.status)
        await wait_for(pilot, lambda: screen.query_one("#base_gguf").has_focus)
        screen.query_one("#base_gguf", Input).value = "/models/base.gguf"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: states(screen) == [("ollama", "written")])
        (note,) = screen.writer.jobs[0].notes
        assert "--base-gguf /models/base.gguf" in note
        assert "--checkpoint best" in note
        assert note.startswith("--json --out ")
        assert note.split()[2].endswith("run-a-ollama")


async def test_an_earlier_export_is_replaced_only_when_asked(open_export, wait_for, tmp_path):
    kept = tmp_path / "out" / "run-a-mlx" / "mine"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    async with open_export("mlx") as (pilot, screen):
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("enter")  # the safe answer has the focus
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert not screen.writer.jobs
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: states(screen) == [("mlx", "written")])
        assert "--force" in screen.writer.jobs[0].notes[0]


async def test_a_place_the_format_chose_itself_is_asked_for_too(open_export, wait_for):
    async with open_export("lmstudio") as (pilot, screen):
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert "its-place: is there already" in pilot.app.screen.text
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: states(screen) == [("lmstudio", "written")])


async def test_leaving_ends_nothing_and_quitting_asks(open_export, wait_for, screen_text):
    async with open_export("mlx", "fused", "gguf") as (pilot, screen):
        screen.query_one("#base_gguf", Input).value = "base.gguf"
        await pilot.press("ctrl+r")
        writer = screen.writer
        await wait_for(pilot, lambda: writer.jobs and writer.jobs[1].total == 4)
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await pilot.press("q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert "export of run-a to fused" in pilot.app.screen.question
        await pilot.press("enter")  # the safe answer has the focus
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        back = await show(pilot, screen.run.path, wait_for)
        assert back.chosen == ["mlx", "fused", "gguf"]
        await wait_for(pilot, lambda: "Writing fused" in screen_text(pilot.app))
        await pilot.press("ctrl+g")
        ended = [("mlx", "written"), ("fused", "ended"), ("gguf", "ended")]
        await wait_for(pilot, lambda: states(back) == ended)
        await wait_for(pilot, lambda: "Ended; ctrl+r starts again" in screen_text(pilot.app))


async def test_two_runs_are_exported_one_after_the_other(
    open_export, make_run, wait_for, monkeypatch, tmp_path
):
    async with open_export("fused") as (pilot, screen):
        said = []
        monkeypatch.setattr(pilot.app, "notify", lambda text, **_: said.append(text))
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: states(screen) == [("fused", "writing")])
        await pilot.press("escape")
        other = await show(pilot, make_run("run-b").path, wait_for)
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "Waiting for another export" in other.writer.status)
        assert states(other) == [("mlx", "waiting")]
        screen.writer.stop()
        await wait_for(pilot, lambda: states(other) == [("mlx", "written")])
        assert states(screen) == [("fused", "ended")]
        assert said == []  # it was ended by hand


async def test_the_end_of_an_export_one_does_not_see_is_announced(
    open_export, wait_for, monkeypatch, tmp_path
):
    async with open_export("peft") as (pilot, screen):
        said = []
        monkeypatch.setattr(pilot.app, "notify", lambda text, **how: said.append((text, how)))
        rung = []
        monkeypatch.setattr(pilot.app, "ring", rung.append)
        waits = "import pathlib, time\nwhile not pathlib.Path('{}').exists(): time.sleep(0.01)"
        (tmp_path / "waits.py").write_text(waits.format(tmp_path / "go"))
        screen.writer.words = [str(tmp_path / "waits.py")]
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: states(screen) == [("peft", "writing")])
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        (tmp_path / "go").touch()
        await wait_for(pilot, lambda: said)
        assert said[0][0].startswith("Export of run-a: 0 written, 1 failed")
        assert said[0][1]["severity"] == "error"
        assert rung == [said[0][0]]


def test_a_place_that_was_not_found_is_asked_for_in_the_form():
    job = Job("lmstudio", None)
    job.fail(
        "LM Studio's folder was not found.",
        "Start it once, or say where: --out FOLDER.",
        "no_place",
    )
    assert "in the field LM Studio above" in job.what_to_do
    job = Job("gguf", Path("x.gguf"))
    job.fail("It is there already.", "Give --force or another --out.", "target_exists")
    assert job.is_taken


async def test_a_screen_opened_before_the_last_one_has_gone_goes_on_showing(
    open_export, wait_for, screen_text
):
    async with open_export("mlx") as (pilot, screen):
        pilot.app.push_screen(newer := ExportScreen(screen.run.path, pilot.app.exports))
        await wait_for(pilot, lambda: newer.query(LineView) and newer.is_mounted)
        screen.on_unmount()
        newer.writer.say("still told")
        await wait_for(pilot, lambda: "still told" in screen_text(pilot.app))


async def test_an_export_that_dies_without_a_word_is_a_failure(open_export, wait_for, screen_text):
    async with open_export("hub") as (pilot, screen):
        screen.query_one("#repo", Input).value = "you/it"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: states(screen) == [("hub", "failed")])
        assert "the line went dead" in screen_text(pilot.app)
        assert "hub failed" in screen.sentence()
