"""The list of runs: shows, filters, marks, deletes; a welcome where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.coordinate import Coordinate

from orpo_mlx.runs.label import RunLabel, read_label
from orpo_mlx.runs.listing import summarise
from tui.home.label_dialog import LabelScreen
from tui.home.run_list import when_text
from tui.home.screen import RunsScreen
from tui.home.welcome import Welcome
from tui.live.screen import LiveScreen
from tui.new_run.screen import NewRunScreen
from tui.parts.ask import AskScreen
from tui.parts.pick_one import PickOneScreen
from tui.processes.trainer_log import sweep


async def runs_screen(pilot, wait_for) -> RunsScreen:
    screen = pilot.app.screen
    assert isinstance(screen, RunsScreen)
    await wait_for(pilot, lambda: screen._listed, "runs are listed")
    return screen


async def test_without_runs_there_are_three_ways_to_begin(open_app, wait_for, screen_text):
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        assert screen.query_one(Welcome).size.height
        text = screen_text(pilot.app)
        for choice in ("Try the demo", "Train on my data", "Check this machine"):
            assert choice in text


async def test_runs_are_listed_with_their_status_in_words(
    make_run, open_app, wait_for, screen_text
):
    make_run("good")
    make_run("bad", nan_at=20)
    async with open_app(size=(120, 30)) as pilot:
        await runs_screen(pilot, wait_for)
        text = screen_text(pilot.app)
        assert "✓  good" in text
        assert "✗  bad failed" in text
        assert "40/40" in text


async def test_enter_opens_the_selected_run_and_escape_comes_back(make_run, open_app, wait_for):
    make_run()
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, LiveScreen))
        await pilot.press("escape")
        await wait_for(pilot, lambda: pilot.app.screen is screen)


async def test_a_new_run_may_begin_with_a_checkpoint_of_the_selected_one(
    make_run, open_app, wait_for, made_up
):
    run = make_run(seed=3)
    for folder in (run.adapter_folder, run.checkpoints_folder / "0000010"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text("{}")
    async with open_app(size=(120, 30)) as pilot:
        await runs_screen(pilot, wait_for)
        await pilot.press("N")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, PickOneScreen))
        assert pilot.app.screen.choices == {
            "fresh": "a fresh adapter",
            "adapter": "its adapter",
            "10": "its checkpoint of step 10",
        }
        await pilot.press("down", "down", "enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen))
        draft = pilot.app.screen.draft
        assert draft.own["init_adapter"] == str(run.checkpoints_folder / "0000010")
        assert "rank" not in draft.own
        assert str(draft.get("seed")) == "3"


@pytest.mark.parametrize(("hosts", "processes"), [(["a", "a"], 2), (["a", "b"], 1), ([], 1)])
async def test_a_new_run_like_one_of_several_processes_has_as_many(
    make_run, share, open_app, wait_for, made_up, hosts, processes
):
    share(make_run(), *hosts)
    async with open_app(size=(120, 30)) as pilot:
        await runs_screen(pilot, wait_for)
        await pilot.press("N")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen))
        assert pilot.app.screen.draft.processes == processes


async def test_a_run_is_named_tagged_and_noted(make_run, open_app, wait_for, screen_text):
    run = make_run()
    async with open_app(size=(120, 30)) as pilot:
        screen = await runs_screen(pilot, wait_for)
        await pilot.press("l")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, LabelScreen))
        await wait_for(pilot, lambda: pilot.app.screen.focused.id == "label-name")
        await pilot.press(*"First", "enter", *"a b", "enter", *"late", "enter")
        await wait_for(pilot, lambda: "First · run-a" in screen_text(pilot.app))
        assert read_label(run.path) == RunLabel("First", ("a", "b"), "late")
        await wait_for(pilot, lambda: "First #a #b · late" in screen_text(pilot.app))
        await pilot.press("l")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, LabelScreen))
        await pilot.press("x", "escape")
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert read_label(run.path).name == "First"


async def test_the_filter_keeps_runs_with_all_words(make_run, open_app, wait_for):
    make_run("first-poems")
    make_run("second-poems")
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        await pilot.press("slash", *"poems sec")
        await wait_for(pilot, lambda: [run.id for run in screen.table.runs] == ["second-poems"])
        await pilot.press("escape")
        await wait_for(pilot, lambda: len(screen.table.runs) == 2)


@pytest.mark.parametrize(("keys", "is_there"), [(["enter"], True), (["right", "enter"], False)])
async def test_deleting_asks_and_moves_to_the_trash(
    make_run, open_app, wait_for, runs_dir: Path, keys: list[str], is_there: bool
):
    make_run("gone")
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        await pilot.press("D")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert "gone" in pilot.app.screen.question
        await pilot.press(*keys)
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        await wait_for(pilot, lambda: (runs_dir / "gone").exists() == is_there)
        assert (runs_dir / ".trash" / "gone").exists() != is_there
        await wait_for(pilot, lambda: len(screen.runs) == int(is_there))


async def test_marked_runs_are_deleted_together(make_run, open_app, wait_for, runs_dir: Path):
    for name in ("a", "b", "c"):
        make_run(name)
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        await wait_for(pilot, lambda: len(screen.runs) == 3)
        screen.marked = {runs_dir / "a", runs_dir / "c"}
        await pilot.press("D")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert pilot.app.screen.question == "Delete 2 marked runs?"
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: ids(screen) == ["b"])
        assert {path.name for path in (runs_dir / ".trash").iterdir()} == {"a", "c"}


def ids(screen: RunsScreen) -> list[str]:
    return [run.id for run in screen.table.runs]


async def test_a_key_sorts_by_the_next_column_and_another_turns_it(
    make_run, open_app, wait_for, screen_text
):
    make_run("b", steps=10)
    make_run("a", steps=30)
    make_run("c", steps=20, nan_at=5)
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        await wait_for(pilot, lambda: ids(screen) == ["c", "a", "b"])
        assert "When ▼" in screen_text(pilot.app)
        await pilot.press("down")
        await pilot.press("s")  # by status: completed ones first
        await wait_for(pilot, lambda: ids(screen) == ["a", "b", "c"])
        await pilot.press("s")
        await wait_for(pilot, lambda: "Run ▲" in screen_text(pilot.app))
        assert ids(screen) == ["a", "b", "c"]
        assert screen.selected.id == "a"  # the cursor stays on its run
        await pilot.press("S")
        await wait_for(pilot, lambda: ids(screen) == ["c", "b", "a"])
        assert "Run ▼" in screen_text(pilot.app)
        assert screen.selected.id == "a"


async def test_a_click_on_a_header_sorts_and_a_second_one_turns(
    make_run, open_app, wait_for, screen_text
):
    make_run("few", steps=10)
    make_run("many", steps=30)
    async with open_app(charset="ascii") as pilot:
        screen = await runs_screen(pilot, wait_for)
        header = screen_text(pilot.app).split("\n")[1]
        assert "When v" in header
        await pilot.click("#table", offset=(header.index("Step"), 0))
        await wait_for(pilot, lambda: "Step v" in screen_text(pilot.app))
        assert ids(screen) == ["many", "few"]
        await pilot.click("#table", offset=(header.index("Step"), 0))
        await wait_for(pilot, lambda: "Step ^" in screen_text(pilot.app))
        assert ids(screen) == ["few", "many"]


async def test_the_cursor_goes_to_a_run_that_was_started(make_run, open_app, wait_for):
    make_run("old")
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        screen.want(screen.runs[0].path.parent / "new")
        assert screen.selected.id == "old"
        make_run("new")
        make_run("newer")
        screen.refresh_runs()
        await wait_for(pilot, lambda: len(ids(screen)) == 3)
        assert screen.selected.id == "new"


async def test_a_filter_without_a_match_says_so(make_run, open_app, wait_for, screen_text):
    make_run()
    async with open_app() as pilot:
        await runs_screen(pilot, wait_for)
        await pilot.press("slash", *"[xyz")
        await wait_for(pilot, lambda: "No run contains '[xyz'" in screen_text(pilot.app))
        await pilot.press("escape")
        await wait_for(pilot, lambda: "run-a" in screen_text(pilot.app))


async def test_a_start_that_failed_unseen_is_told_once(make_run, open_app, wait_for, runs_dir):
    make_run()
    (runs_dir / ".starting").mkdir()
    (runs_dir / ".starting" / "poems-1.log").write_text("Loading\nerror: no such model\n")
    async with open_app() as pilot:
        await wait_for(pilot, lambda: list(pilot.app._notifications))
        note = next(iter(pilot.app._notifications))
        assert note.title == "poems-1 did not start"
        assert note.message.startswith("error: no such model\n")
        assert note.message.endswith("poems-1.seen")
    # Seen, it is not told again.
    assert sweep(runs_dir, 0.0) == []
    assert [path.name for path in (runs_dir / ".starting").iterdir()] == ["poems-1.seen"]


@pytest.mark.parametrize("width", [80, 120])
async def test_a_long_name_leaves_room_for_the_numbers(
    make_run, open_app, wait_for, screen_text, width
):
    started = summarise(make_run("日本語のとても長い名前" * 6)).started
    async with open_app((width, 24)) as pilot:
        await runs_screen(pilot, wait_for)
        lines = screen_text(pilot.app).split("\n")
        assert "When ▼" in lines[1]
        assert "…" in lines[2]
        assert "40/40" in lines[2]
        assert when_text(started, pilot.app.clock()) in lines[2]


async def test_a_name_that_has_room_beside_its_status_and_the_numbers_stays_whole(
    make_run, open_app, wait_for, screen_text
):
    name = "20260102-1530-a-good-name-a1b2"
    cut_short(run := make_run(name))
    async with open_app((80, 24)) as pilot:
        await runs_screen(pilot, wait_for)
        lines = screen_text(pilot.app).split("\n")
        assert "When ▼" in lines[1]
        assert f"{name} crashed" in lines[2]
        assert lines[2].endswith(when_text(summarise(run).started, pilot.app.clock()))


def cut_short(run):
    """Leave of a run what a trainer leaves that dies at step 20."""
    lines = run.events_file.read_text().splitlines(keepends=True)
    run.events_file.write_text("".join(lines[:20]))


async def test_resume_is_offered_only_where_the_selected_run_can_go_on(
    make_run, open_app, wait_for, screen_text
):
    make_run("a-done")
    cut_short(make_run("b-crashed"))
    async with open_app() as pilot:
        screen = await runs_screen(pilot, wait_for)
        for run in screen.table.runs:
            screen.want(run.path)
            offered = run.status == "crashed"
            await wait_for(pilot, lambda: screen.selected.path == run.path)  # noqa: B023
            await wait_for(pilot, lambda: ("R Resume" in screen_text(pilot.app)) == offered)  # noqa: B023


async def test_the_log_odds_ratio_has_a_column_where_there_is_room(make_run, open_app, wait_for):
    run = make_run("a")
    async with open_app(size=(120, 30)) as pilot:
        screen = await runs_screen(pilot, wait_for)
        value = summarise(run).metrics["log_odds_ratio"]
        assert str(screen.table.get_cell_at(Coordinate(0, 6))) == f"{value:+.2f}"
        await pilot.resize_terminal(80, 24)
        await wait_for(pilot, lambda: "Log-odds" not in screen.table.columns)
