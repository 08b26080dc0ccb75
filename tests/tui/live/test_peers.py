"""What is said of a run of several processes, by hand; nothing of a run of one."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from orpo_mlx.runs.directory import RunDirectory
from tui.charts.line_chart import LineChart
from tui.live.peers import peer_rows, peers_line
from tui.live.screen import LiveScreen
from tui.live.texts import live_sentence
from tui.parts.ask import AskScreen
from tui.processes import launcher
from tui.run.state import RunState

STEP = {"step": 1, "peer_tokens": [300, 100], "wait_seconds": 0.5, "exchange_seconds": 0.02}
HOSTS = ["mac-studio.local", "macbook.local"]


def test_of_a_run_of_one_process_nothing_is_said(make_state):
    state = make_state({"step": 1})
    assert (peers_line(state, 80), peer_rows(state, 27)) == ("", [])
    assert "process" not in live_sentence("r", "running", state)
    assert peers_line(RunState(), 80) == ""


def test_who_shares_the_steps_and_what_the_newest_waited_for(make_state):
    state = make_state(STEP, {**STEP, "step": 2, "peer_tokens": [100, 300]}, hosts=["mac", "mac"])
    # 400 of 800 tokens each; a step takes 2 s.
    assert peers_line(state, 100) == (
        "2 processes on mac  tokens 50 % and 50 %  wait 500 ms (25 %)  network 20 ms (1 %)"
    )
    assert "2 processes on mac, tokens 50 % and 50 %," in live_sentence("r", "running", state)
    assert peer_rows(state, 27)[1:] == [
        "2 processes, tokens", "0 mac                  50 %", "1 mac                  50 %",
    ]  # fmt: skip


def test_before_the_first_step_the_hosts_alone_are_said(make_state):
    state = make_state(hosts=HOSTS)
    assert peers_line(state, 100) == "2 processes: 1 on mac-studio.local, 1 on macbook.local"
    assert [row.rstrip() for row in peer_rows(state, 27)[2:]] == [
        "0 mac-studio.local", "1 macbook.local",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [58, 78, 94])
@pytest.mark.parametrize("count", [2, 5, 64])
def test_the_line_fits_and_keeps_the_waits(make_state, width, count):
    tokens = [300, *[100] * (count - 1)]
    state = make_state({**STEP, "peer_tokens": tokens}, hosts=[f"mac-{n}" for n in range(count)])
    line = peers_line(state, width)
    assert cell_len(line) <= width
    assert "wait 500 ms" in line
    assert "network 20 ms" in line
    assert len(peer_rows(state, 27)) <= 11


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (160, 48)])
async def test_it_has_a_line_in_every_window(
    make_run, share, open_app, wait_for, screen_text, size
):
    run = share(make_run(), "mac", "mac")
    async with open_app(size) as pilot:
        pilot.app.push_screen(screen := LiveScreen(run.path))
        await wait_for(pilot, lambda: screen.caught_up and "2 processes" in screen_text(pilot.app))
        lines = screen_text(pilot.app).splitlines()
        assert any("wait 100 ms" in line and "network 20 ms" in line for line in lines)
        assert screen.query(LineChart).first().size.height > (2 if size[1] > 16 else 0)
        assert lines[-1].strip()  # the footer is still there
        on_a_row = [line for line in lines if "0 mac" in line and "60 %" in line]
        assert bool(on_a_row) == (size[0] > 96)


async def test_the_log_has_what_the_others_printed_above_the_trainers_own(
    make_run, share, open_app, wait_for
):
    run = share(make_run(), "mac", *["mac"] * 10)
    (run.path / "peers").mkdir()
    for rank in (1, 2, 10):
        (run.path / "peers" / f"process-{rank}.log").write_text(f"said by {rank}\n")
    run.log_file.write_text("said by the trainer\n")
    async with open_app((80, 24)) as pilot:
        pilot.app.push_screen(screen := LiveScreen(run.path))
        await wait_for(pilot, lambda: screen.caught_up and screen.state.ended)
        await pilot.press("4")
        view = screen.course.tabs.lines
        await wait_for(pilot, lambda: any("trainer" in text for ((_, text),) in view.shown))
        said = [text for ((_, text),) in view.shown if text.startswith(("said", "---"))]
        assert said == [
            "--- peers/process-1.log", "said by 1", "--- peers/process-2.log", "said by 2",
            "--- peers/process-10.log", "said by 10", "said by the trainer",
        ]  # fmt: skip


async def test_its_waiting_is_among_the_charts(make_run, share, open_app, wait_for, screen_text):
    alone, shared = make_run("run-a"), share(make_run("run-b"), "mac", "mac")
    for run, is_offered in ((alone, False), (shared, True)):
        async with open_app((80, 24)) as pilot:
            pilot.app.push_screen(screen := LiveScreen(run.path))
            await wait_for(pilot, lambda screen=screen: screen.caught_up and screen.state.ended)
            await pilot.press("v")
            await wait_for(pilot, lambda: "Space chooses" in screen_text(pilot.app))
            assert ("for the slowest process" in screen_text(pilot.app)) == is_offered


@pytest.fixture
def spawned(monkeypatch):
    """Commands that would have been started."""
    found = []

    def note(argv, log, environment):
        found.append(argv[3:])

    monkeypatch.setattr(launcher, "start_in_background", note)
    monkeypatch.setattr(launcher, "start_trainer", lambda run, argv, environment: note(argv, 0, 0))
    monkeypatch.setattr(launcher.Start, "is_started", lambda self: False)
    monkeypatch.setattr(launcher.ResumeStart, "is_started", lambda self: False)
    return found


def with_checkpoint(run: RunDirectory) -> RunDirectory:
    (run.checkpoints_folder / "0000010").mkdir(parents=True, exist_ok=True)
    return run


async def test_the_card_goes_on_with_as_many_processes(
    make_run, share, open_app, wait_for, spawned, screen_text, monkeypatch
):
    monkeypatch.setattr("tui.live.starting.StartingScreen._wait", lambda self: None)
    run = with_checkpoint(share(make_run(), "mac", "mac", "mac", lost_at=20))
    async with open_app((80, 24)) as pilot:
        pilot.app.push_screen(screen := LiveScreen(run.path))
        await wait_for(pilot, lambda: screen.status == "failed")
        await wait_for(pilot, lambda: "with the same 3 processes" in screen_text(pilot.app))
        await pilot.press("R")
        await wait_for(pilot, lambda: spawned)
        assert spawned == [["--resume", str(run.path), "--processes", "3"]]


async def test_a_run_on_several_machines_is_not_resumed_on_one_unasked(
    make_run, share, open_app, wait_for, spawned, screen_text, monkeypatch
):
    monkeypatch.setattr("tui.live.starting.StartingScreen._wait", lambda self: None)
    run = with_checkpoint(share(make_run(), "a", "b", lost_at=20))
    async with open_app((80, 24)) as pilot:
        copied = []
        monkeypatch.setattr(pilot.app, "copy", copied.append)
        pilot.app.push_screen(screen := LiveScreen(run.path))
        await wait_for(pilot, lambda: screen.status == "failed")
        await wait_for(pilot, lambda: "--hosts HOSTFILE" in screen_text(pilot.app))
        for answer in (["enter"], ["right", "enter"]):
            await pilot.press("R")
            await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
            await pilot.press(*answer)
            await wait_for(pilot, lambda: not isinstance(pilot.app.screen, AskScreen))
            assert copied == [f"orpo-mlx resume {run.argument} --hosts HOSTFILE"]
            if not spawned:
                pilot.app.push_screen(LiveScreen(run.path))
                await wait_for(pilot, lambda: getattr(pilot.app.screen, "status", "") == "failed")
        await wait_for(pilot, lambda: spawned)
        assert spawned == [["--resume", str(run.path)]]
