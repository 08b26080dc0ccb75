"""The export screen, with an export that writes next to nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Input, SelectionList

from tui.screens.ask import AskScreen
from tui.screens.export import ExportScreen
from tui.screens.runs import RunsScreen

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_export.py")


@pytest.fixture
def open_export(open_app, make_run, wait_for, tmp_path):
    """Return `open(*formats, size=, words=)`: the screen of a run with these formats chosen."""

    @asynccontextmanager
    async def open(*formats: str, size=(80, 24), words=()):
        run = make_run()
        (run.path / "checkpoints" / "000020").mkdir(parents=True)
        async with open_app(size) as pilot:
            await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
            screen = ExportScreen(run.path)
            screen.words = [FAKE, *words]
            pilot.app.push_screen(screen)
            await wait_for(pilot, lambda: screen.formats or words, "the formats are listed")
            if formats:
                screen.form.folder = tmp_path / "out"
                chosen = screen.query_one("#formats", SelectionList)
                chosen.deselect_all()
                for name in formats:
                    chosen.select(name)
                await pilot.pause()
            yield pilot, screen

    return open


def states(screen: ExportScreen) -> list[tuple[str, str]]:
    return [(job.format, job.state) for job in screen.jobs]


async def test_formats_say_who_reads_them_and_what_is_lost(open_export, screen_text, wait_for):
    async with open_export() as (pilot, screen):
        assert screen.chosen == ["mlx"]
        await wait_for(pilot, lambda: "readers of gguf" in screen_text(pilot.app))
        await pilot.press("down")
        await wait_for(pilot, lambda: "Writes peft files." in screen_text(pilot.app))
        await wait_for(pilot, lambda: " free" in screen_text(pilot.app))


async def test_chosen_formats_are_written_one_after_the_other(
    open_export, wait_for, screen_text, monkeypatch, tmp_path
):
    async with open_export("mlx", "peft", size=(120, 36)) as (pilot, screen):
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "1 written, 1 failed" in screen.status, "both have ended")
        assert states(screen) == [("mlx", "written"), ("peft", "failed")]
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
    async with open_export("gguf", size=(120, 36)) as (pilot, screen):
        await wait_for(pilot, lambda: "Base GGUF" in screen_text(pilot.app))
        assert "Repository" not in screen_text(pilot.app)
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "gguf needs Base GGUF" in screen.status)
        screen.query_one("#base_gguf", Input).value = "/models/base.gguf"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: states(screen) == [("gguf", "written")])
        (note,) = screen.jobs[0].notes
        assert "--base-gguf /models/base.gguf" in note
        assert note.startswith("--json --checkpoint best --out")
        assert note.split()[4].endswith("run-a-gguf.gguf")


async def test_an_earlier_export_is_replaced_only_when_asked(open_export, wait_for, tmp_path):
    kept = tmp_path / "out" / "run-a-mlx" / "mine"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    async with open_export("mlx") as (pilot, screen):
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("enter")  # the safe answer has the focus
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert not screen.jobs
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: states(screen) == [("mlx", "written")])
        assert "--force" in screen.jobs[0].notes[0]


async def test_a_place_the_format_chose_itself_is_asked_for_too(open_export, wait_for):
    async with open_export("lmstudio") as (pilot, screen):
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert "its-place: is there already" in pilot.app.screen.text
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: states(screen) == [("lmstudio", "written")])


async def test_leaving_asks_while_something_is_being_written_and_ends_it(open_export, wait_for):
    async with open_export("mlx", "fused", "gguf") as (pilot, screen):
        screen.query_one("#base_gguf", Input).value = "base.gguf"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: screen.jobs and screen.jobs[1].total == 4)
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("enter")
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert screen.is_writing
        await pilot.press("q")  # quitting asks as well
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("enter")
        await pilot.press("ctrl+g")
        ended = [("mlx", "written"), ("fused", "ended"), ("gguf", "ended")]
        await wait_for(pilot, lambda: states(screen) == ended)
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_an_export_that_dies_without_a_word_is_a_failure(open_export, wait_for, screen_text):
    async with open_export("hub") as (pilot, screen):
        screen.query_one("#repo", Input).value = "you/it"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: states(screen) == [("hub", "failed")])
        assert "the line went dead" in screen_text(pilot.app)
        assert "hub failed" in screen.sentence()


async def test_formats_that_cannot_be_listed_are_said(open_export, wait_for, screen_text):
    async with open_export(words=["broken"]) as (pilot, screen):
        await wait_for(pilot, lambda: "there is no export here" in screen_text(pilot.app))
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "Choose a format first" in screen.status)
