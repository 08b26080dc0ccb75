"""What is told of runs unasked: once, and not what a card says already."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from orpo_mlx.runs.listing import RunSummary
from tui.home import run_news
from tui.home.run_news import RunNews
from tui.processes.auto_resume import Attempt


@pytest.fixture
def app(runs_dir):
    """As much of an app as news needs; `told` has (text, severity), `rung` what was rung for."""
    told, rung = [], []

    def notify(text, *, markup, severity="information", **how):
        assert not markup  # "[Errno 28]" is a log's own words
        told.append((text, severity))

    return SimpleNamespace(
        told=told, rung=rung, screen=SimpleNamespace(shown_run=None), runs_dir=runs_dir,
        notify=notify, ring=rung.append, exit_code=lambda path: None, clock=lambda: 0.0,
    )  # fmt: skip


def summary(name: str, status: str, folder: Path = Path()) -> RunSummary:
    return RunSummary(name, folder / name, status, None, None, 7, 9, {}, None)


def test_only_runs_that_were_seen_alive_have_ended(app):
    news = RunNews(app, {})
    old = [summary("old", "crashed"), summary("a", "running"), summary("b", "stalled")]
    assert news.ended(old) == []
    new = [summary("old", "crashed"), summary("a", "completed"), summary("b", "paused")]
    assert [run.id for run in news.ended(new)] == ["a"]
    assert news.ended(new) == []


@pytest.mark.parametrize(
    ("status", "severity"),
    [("completed", "information"), ("stopped", "information"), ("failed", "error")],
)
async def test_an_end_rings_and_is_shown_unless_its_card_is(app, tmp_path, status, severity):
    run = summary("poems", status, tmp_path)
    run.path.mkdir()
    app.exit_code = lambda path: 1
    await RunNews(app, {}).tell_end(run)
    text = f"poems {status} at step 7"
    assert (app.told, app.rung) == ([(text, severity)], [text])
    app.screen.shown_run = run.path
    await RunNews(app, {}).tell_end(run)
    assert (len(app.told), len(app.rung)) == (1, 2)
    assert list(run.path.iterdir()) == []  # only of a crash is the code noted


@pytest.mark.parametrize(
    ("goes_on", "log", "told"),
    [
        (True, "", []),
        (False, "x\nerror: no memory\n", [("poems could not go on. error: no memory", "error")]),
        (False, "", [("poems could not go on. It said nothing.", "error")]),
    ],
)
async def test_a_crash_is_noted_in_its_log_and_what_became_of_it_is_told(
    app, make_run, monkeypatch, goes_on, log, told
):
    run, causes = make_run("poems", steps=1), []

    async def wait() -> bool:
        return goes_on

    def go_on(run, step, cause, settings):
        causes.append((run.id, step, cause))
        return Attempt(start, "it goes on")

    start = SimpleNamespace(wait=wait, read_log=lambda size: log)
    monkeypatch.setattr(run_news.auto_resume, "go_on", go_on)
    app.settings, app.exit_code, starts = None, lambda path: -9, {}
    await RunNews(app, starts).tell_end(summary("poems", "crashed", run.path.parent))
    assert causes[0][:2] == ("poems", 7)
    assert causes[0][2].startswith("ended by signal 9 (SIGKILL)")
    assert app.told == [
        ("poems crashed at step 7", "error"), ("it goes on", "information"), *told
    ]  # fmt: skip
    assert starts == {run.path: start}
    assert "the trainer ended with code -9" in run.log_file.read_text()


@pytest.mark.parametrize(
    ("log", "said"),
    [("one\nerror: no such model\n", "error: no such model\n"), ("\n", "It said nothing.\n")],
)
def test_a_start_that_failed_unseen_is_told_once_with_its_last_words(app, runs_dir, log, said):
    (runs_dir / ".starting").mkdir()
    (runs_dir / ".starting" / "poems.log").write_text(log)
    for _ in range(2):
        RunNews(app, {}).tell_failed_starts()
    ((text, severity),) = app.told
    assert (text.startswith(said), severity) == (True, "warning")
    assert Path(text.split("All it said: ")[1]).read_text() == log
