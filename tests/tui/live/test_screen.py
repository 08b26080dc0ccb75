"""The live screen: shows a run, asks things of its trainer, ends well."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import Resumed, RunFailed, encode, read_events
from tui.charts.line_chart import LineChart
from tui.home.screen import RunsScreen
from tui.live.ending_card import EndingCard
from tui.live.numbers import NumbersPanel
from tui.live.screen import LiveScreen
from tui.new_run.screen import NewRunScreen
from tui.new_run.steps import FORM
from tui.parts.ask import AskScreen


def toasts(app) -> str:
    """What was notified; tests show no toasts."""
    return "\n".join(note.message for note in app._notifications)


async def open_live(pilot, wait_for, path: Path) -> LiveScreen:
    pilot.app.open_run(path)
    await wait_for(pilot, lambda: getattr(pilot.app.screen, "caught_up", False))
    return pilot.app.screen


@pytest.fixture
def trainer(runs_dir: Path):
    """A simulated trainer in a process of its own, at about 50 steps a second."""
    path = runs_dir / "now"
    words = ["simulate", "--speed", "25", "--steps", "5000", "--run-dir", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "orpo_mlx", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield RunDirectory(path)
    process.kill()
    process.wait()


def names(run: RunDirectory) -> list[str]:
    return [record.name for record in read_events(run.events_file)]


@pytest.mark.parametrize(
    ("size", "charts", "has_panel"), [((80, 24), 2, False), ((160, 48), 4, True)]
)
async def test_what_is_shown_fits_the_window(make_run, open_app, wait_for, size, charts, has_panel):
    run = make_run()
    async with open_app(size=size) as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        visible = [c for c in screen.query(LineChart) if c.size.height > 3 and c.size.width > 30]
        assert len(visible) == charts
        assert bool(screen.query_one(NumbersPanel).size.width) == has_panel


async def test_below_the_least_size_the_numbers_are_said_in_words(
    make_run, open_app, wait_for, screen_text
):
    run = make_run()
    async with open_app() as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        await pilot.resize_terminal(40, 10)
        text = lambda: " ".join(screen_text(pilot.app).split())  # noqa: E731
        await wait_for(pilot, lambda: "needs at least 60x16, is 40x10" in text())
        assert "completed, step 40 of 40" in text()
        await pilot.resize_terminal(80, 24)
        await wait_for(pilot, lambda: "Log-odds ratio" in screen_text(pilot.app))
        assert screen.query(LineChart).first().size.height > 3


async def test_pause_checkpoint_sample_and_stop_are_answered_by_the_trainer(
    trainer, open_app, wait_for, screen_text
):
    async with open_app() as pilot:
        await wait_for(pilot, lambda: trainer.is_locked() and "StepCompleted" in names(trainer))
        screen = await open_live(pilot, wait_for, trainer.path)
        await pilot.press("p")
        await wait_for(pilot, lambda: screen.state.paused)
        await wait_for(pilot, lambda: "PAUSED" in screen_text(pilot.app))
        await pilot.press("p")
        await wait_for(pilot, lambda: not screen.state.paused)
        saved = len(screen.state.checkpoints)
        await pilot.press("c")
        await wait_for(pilot, lambda: len(screen.state.checkpoints) > saved)
        answers = len(screen.state.samples)
        await pilot.press("g")
        await wait_for(pilot, lambda: len(screen.state.samples) > answers)
        await pilot.press("s")
        await wait_for(pilot, lambda: screen.status == "stopped")
        await wait_for(pilot, lambda: screen.query_one(EndingCard).has_class("-shown"))
        assert "Stopped as asked" in screen_text(pilot.app)
        assert not trainer.is_locked()


async def test_stopping_without_saving_asks_and_names_what_is_lost(trainer, open_app, wait_for):
    async with open_app() as pilot:
        await wait_for(pilot, lambda: trainer.is_locked() and "StepCompleted" in names(trainer))
        screen = await open_live(pilot, wait_for, trainer.path)
        await pilot.press("X")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert "steps since are lost" in pilot.app.screen.text
        await pilot.press("enter")  # the safe answer has the focus
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert trainer.is_locked()
        await pilot.press("X")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: screen.status == "stopped")


async def test_leaving_the_app_while_training_asks_and_detaching_touches_nothing(
    trainer, open_app, wait_for
):
    async with open_app() as pilot:
        await wait_for(pilot, lambda: trainer.is_locked() and "StepCompleted" in names(trainer))
        await open_live(pilot, wait_for, trainer.path)
        await pilot.press("q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        assert "goes on without this window" in pilot.app.screen.question
        await pilot.press("enter")
        await wait_for(pilot, lambda: not pilot.app.is_running)
    assert trainer.is_locked()
    async with open_app() as pilot:
        screen = await open_live(pilot, wait_for, trainer.path)
        await wait_for(pilot, lambda: screen.status == "running")
        await pilot.press("d")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        assert trainer.is_locked()


async def test_a_stop_that_cannot_be_asked_for_keeps_the_app_open(trainer, open_app, wait_for):
    async with open_app() as pilot:
        await wait_for(pilot, lambda: trainer.is_locked() and "StepCompleted" in names(trainer))
        shutil.rmtree(trainer.control_folder)
        trainer.control_folder.write_text("")  # as a full disk: no request can be written
        said = []
        pilot.app.show_error = said.append
        await pilot.press("q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: said)
        assert "cannot be written" in said[0].message
        assert pilot.app.is_running
    assert trainer.is_locked()


async def test_how_a_process_ended_is_not_told_of_the_one_after_it(trainer, open_app, wait_for):
    async with open_app() as pilot:
        await wait_for(pilot, lambda: trainer.is_locked())
        ended = SimpleNamespace(process=SimpleNamespace(pid=trainer.pid), exit_code=-9)
        pilot.app.starts[trainer.path] = ended
        assert pilot.app.exit_code(trainer.path) == -9
        ended.process.pid += 1  # another app's trainer has gone on with the run
        assert pilot.app.exit_code(trainer.path) is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_killed_trainer_shows_a_crash_with_a_remedy(
    trainer, open_app, wait_for, screen_text, number
):
    async with open_app() as pilot:
        await wait_for(pilot, lambda: trainer.is_locked() and "StepCompleted" in names(trainer))
        runs = pilot.app.screen
        await wait_for(pilot, lambda: [run.status for run in runs.runs] == ["running"])
        screen = await open_live(pilot, wait_for, trainer.path)
        assert trainer.pid is not None
        rung = []
        pilot.app.ring = rung.append
        os.kill(trainer.pid, number)
        await wait_for(pilot, lambda: screen.status == "crashed")
        await wait_for(pilot, lambda: "Crashed at step" in screen_text(pilot.app))
        await wait_for(pilot, lambda: "R tries again" in screen_text(pilot.app))
        await wait_for(pilot, lambda: rung and "now crashed at step" in rung[0])
        assert "crashed at step" not in toasts(pilot.app)  # the card says it already


async def test_a_crash_of_metal_names_its_cause_the_checkpoint_and_the_key(
    runs_dir, open_app, wait_for, screen_text
):
    path = runs_dir / "now"
    words = ["simulate", "--steps", "40", "--speed", "0", "--crash-at", "23"]
    command = [sys.executable, "-m", "orpo_mlx", *words, "--run-dir", str(path)]
    assert subprocess.run(command, capture_output=True).returncode == 128 + signal.SIGABRT
    async with open_app(size=(120, 36)) as pilot:
        screen = await open_live(pilot, wait_for, path)
        await wait_for(pilot, lambda: screen.status == "crashed")
        await wait_for(pilot, lambda: "Crashed at step 22" in screen_text(pilot.app))
        text = screen_text(pilot.app)
        assert "R goes on from step 20" in text
        assert "memory" in text.lower()
        assert "OutOfMemory" in text


@pytest.mark.parametrize(("nan_at", "is_told"), [(30, True), (0, False)])
async def test_a_new_best_evaluation_is_told_unless_the_run_is_over(
    make_run, open_app, wait_for, make_eval, nan_at, is_told
):
    run = make_run(nan_at=nan_at)
    if nan_at:  # it goes on
        with run.events_file.open("a") as file:
            file.write(encode(Resumed(25, new_process=True)))
    async with open_app() as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        with run.events_file.open("a") as file:
            file.write(encode(make_eval(30, loss=0.25, is_best=True)))
        await wait_for(pilot, lambda: screen.state.best.value("loss") == 0.25)
        await pilot.pause()
        assert ("Best so far: 0.2500 at 30" in toasts(pilot.app)) == is_told


async def test_the_crosshair_the_zoom_and_the_smoothing_are_common_to_all_charts(
    make_run, open_app, wait_for
):
    run = make_run(steps=200)
    async with open_app(size=(160, 48)) as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        await pilot.press("left", "left")
        charts = screen.charts.charts
        await wait_for(pilot, lambda: len({chart.view.cursor for chart in charts}) == 1)
        await wait_for(pilot, lambda: charts[3].view.cursor not in (None, 200.0))
        await pilot.press("plus")
        await wait_for(pilot, lambda: all(chart.view.window for chart in charts))
        await pilot.press("left_square_bracket")
        await wait_for(pilot, lambda: {chart.view.smoothing for chart in charts} == {0.8})
        await pilot.press("0")
        await wait_for(pilot, lambda: not any(c.view.window or c.view.cursor for c in charts))


async def test_a_chart_can_be_shown_alone(make_run, open_app, wait_for):
    run = make_run()
    async with open_app(size=(120, 36)) as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        first = screen.charts.charts[0]
        before = first.size
        await pilot.press("enter")
        await wait_for(pilot, lambda: first.size.height > 1.5 * before.height)
        await pilot.press("enter")
        await wait_for(pilot, lambda: first.size == before)


async def test_tabs_show_events_samples_config_and_log(make_run, open_app, wait_for, screen_text):
    run = make_run()
    run.log_file.write_text("the trainer's own words\n")
    async with open_app(size=(120, 36)) as pilot:
        await open_live(pilot, wait_for, run.path)
        for key, words in (
            ("2", "Paris is the capital"), ("3", "model = "), ("4", "own words"),
            ("1", "completed after step 40"),
        ):  # fmt: skip
            await pilot.press(key)
            await wait_for(pilot, lambda words=words: words in screen_text(pilot.app), words)


async def test_other_charts_can_be_chosen_and_are_remembered(make_run, open_app, wait_for):
    run = make_run()
    async with open_app(size=(120, 36)) as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        await pilot.press("v")
        await pilot.press("space")  # the first one, loss, leaves
        await pilot.press("escape")
        await wait_for(pilot, lambda: screen.charts.kinds[0].id == "log_odds")
    async with open_app(size=(120, 36)) as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        assert [kind.id for kind in screen.charts.kinds] == ["log_odds", "logps", "accuracy"]


async def test_charts_are_saved_as_numbers_and_as_a_picture(make_run, open_app, wait_for):
    run = make_run()
    async with open_app() as pilot:
        await open_live(pilot, wait_for, run.path)
        await pilot.press("w")
        await wait_for(pilot, lambda: (run.path / "charts" / "charts.svg").exists())
    rows = (run.path / "charts" / "steps.csv").read_text().splitlines()
    assert rows[0].startswith("step,seconds,loss,")
    assert len(rows) == 41
    assert (run.path / "charts" / "charts.svg").read_text().count("<polyline") >= 5


async def test_charts_that_a_full_disk_refuses_are_told_with_their_folder(
    make_run, open_app, wait_for, monkeypatch
):
    def refuse(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tui.live.screen.save_charts", refuse)
    run = make_run()
    async with open_app() as pilot:
        await open_live(pilot, wait_for, run.path)
        await pilot.press("w")
        words = f"The charts were not saved. {run.path / 'charts'}: No space left on device"
        await wait_for(pilot, lambda: words in toasts(pilot.app))


async def test_only_growing_tabs_offer_to_follow(make_run, open_app, wait_for, screen_text):
    run = make_run()
    async with open_app(size=(120, 36)) as pilot:
        await open_live(pilot, wait_for, run.path)
        await pilot.press("f")
        await wait_for(pilot, lambda: "f follows" in screen_text(pilot.app))
        await pilot.press("3", "f")
        await wait_for(pilot, lambda: "model = " in screen_text(pilot.app))
        assert "f follows" not in screen_text(pilot.app)


async def test_the_screen_can_be_read_as_a_sentence(make_run, open_app, wait_for):
    run = make_run()
    async with open_app() as pilot:
        await open_live(pilot, wait_for, run.path)
        sentence = pilot.app.reading()
        assert sentence.startswith("Run run-a has completed, step 40 of 40, loss ")
        assert sentence.endswith("saved at step 40.")


async def test_a_torn_last_line_and_a_strange_one_do_no_harm(make_run, open_app, wait_for):
    run = make_run(nan_at=20)
    with run.events_file.open("ab") as file:
        file.write(b'{"event": "StepCompleted", "loss": \n\xff\xfe\n{"event": "Ste')
    async with open_app() as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        assert screen.state.step == 19
        assert screen.status == "failed"


async def test_opening_a_run_that_ended_long_ago_is_no_news(make_run, open_app, wait_for):
    run = make_run()
    async with open_app() as pilot:
        said = []
        pilot.app.ring = said.append
        screen = LiveScreen(run.path)
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: screen.caught_up and screen.status == "completed")
        assert said == []


async def test_what_can_be_done_with_a_run_is_in_the_footer_once_it_has_ended(
    make_run, open_app, wait_for, screen_text
):
    async with open_app() as pilot:
        screen = LiveScreen(make_run().path)
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: screen.status == "completed")
        footer = await wait_for(
            pilot, lambda: "Export" in (line := screen_text(pilot.app).split("\n")[-1]) and line
        )
        assert "Test" in footer
        assert "Pause" not in footer


async def test_in_a_low_window_a_text_to_read_takes_the_room_of_a_chart(
    make_run, open_app, wait_for
):
    async with open_app((80, 24)) as pilot:
        screen = LiveScreen(make_run().path)
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: screen.status == "completed")
        low = screen.course.tabs.size.height
        await pilot.press("3")
        await wait_for(pilot, lambda: screen.course.tabs.size.height > low + 4)
        await pilot.press("1")
        await wait_for(pilot, lambda: screen.course.tabs.size.height == low)


async def test_pause_and_free_memory_ends_the_trainer_with_a_promise_to_go_on(
    trainer, open_app, wait_for, screen_text
):
    async with open_app(size=(100, 30)) as pilot:
        await wait_for(pilot, lambda: trainer.is_locked() and "StepCompleted" in names(trainer))
        screen = await open_live(pilot, wait_for, trainer.path)
        await pilot.press("P")
        await wait_for(pilot, lambda: screen.status == "stopped")
        await wait_for(pilot, lambda: "its memory is free" in screen_text(pilot.app))
        assert "R loads the model again and goes on" in screen_text(pilot.app)
        assert "Resume" in screen_text(pilot.app).split("\n")[-1]
        assert "CheckpointSaved" in names(trainer)


async def test_the_first_frame_has_the_layout_of_the_window(make_run, open_app, wait_for):
    run = make_run()
    async with open_app() as pilot:
        frames = []
        show = pilot.app._display
        pilot.app._display = lambda screen, *rest: (
            frames.append(screen_sizes(screen)),
            show(screen, *rest),
        )
        await open_live(pilot, wait_for, run.path)
        shown = [sizes for sizes in frames if sizes]
        assert shown
        assert all(len([size for size in sizes if size.width]) == 2 for sizes in shown)


def screen_sizes(screen) -> list:
    return [chart.size for chart in screen.query(LineChart)]


async def test_a_key_pressed_again_says_its_thing_once(make_run, open_app, wait_for):
    run = make_run()
    async with open_app() as pilot:
        await open_live(pilot, wait_for, run.path)
        for _ in range(4):
            await pilot.press("w")
        await wait_for(pilot, lambda: "charts.svg" in toasts(pilot.app))
        assert toasts(pilot.app).count("charts.svg") == 1


async def test_a_run_folder_that_vanished_is_told_not_raised(
    trainer, open_app, wait_for, monkeypatch
):
    async with open_app() as pilot:
        await wait_for(pilot, lambda: trainer.is_locked() and "StepCompleted" in names(trainer))
        await open_live(pilot, wait_for, trainer.path)
        trainer.control_folder.rename(trainer.path / "elsewhere")
        trainer.control_folder.write_text("no folder")
        await pilot.press("p")
        await wait_for(pilot, lambda: "cannot be written" in toasts(pilot.app))


async def test_a_run_that_cannot_be_read_is_told_and_read_again_when_it_can(
    make_run, open_app, wait_for, screen_text
):
    run = make_run()
    async with open_app(size=(100, 30)) as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        away = run.path.parent.parent / "away"
        run.path.rename(away)
        card = lambda: screen.query_one(EndingCard).card.cause  # noqa: E731
        await wait_for(pilot, lambda: "the folder is gone" in card())
        assert "CANNOT BE READ" in screen_text(pilot.app)
        assert "Loss" in screen_text(pilot.app)  # what was read stays
        away.rename(run.path)
        await wait_for(pilot, lambda: "The run is complete" in screen_text(pilot.app))
        run.events_file.unlink()
        run.events_file.mkdir()
        await wait_for(pilot, lambda: "events.jsonl: Is a directory" in card())
        assert screen.state.step == 40


async def test_after_nan_a_key_plans_the_run_that_the_card_advises(
    make_run, open_app, wait_for, screen_text, made_up
):
    """As its command does: from the newest checkpoint that is there, at half the rate."""
    run = make_run(nan_at=20)  # checkpoints are told of after steps 5, 10 and 15
    kept = run.checkpoints_folder / "0000010"
    kept.mkdir(parents=True)
    async with open_app(size=(160, 48)) as pilot:
        await open_live(pilot, wait_for, run.path)
        await wait_for(pilot, lambda: "n plans that run here" in screen_text(pilot.app))
        await pilot.press("n")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen))
        plan = pilot.app.screen
        await wait_for(pilot, lambda: plan.step == FORM)
        before, draft = run.read_config(), plan.draft
        assert draft.own["init_adapter"] == str(kept)
        assert float(draft.own["learning_rate"]) == before.learning_rate / 2
        assert draft.data == before.data
        assert "rank" not in draft.own
        assert "run_dir" not in draft.own


async def test_without_a_checkpoint_it_begins_afresh_at_half_the_rate(
    make_run, open_app, wait_for, screen_text, made_up
):
    run = make_run(nan_at=3)
    async with open_app(size=(160, 48)) as pilot:
        await open_live(pilot, wait_for, run.path)
        await wait_for(pilot, lambda: "n plans that run here" in screen_text(pilot.app))
        await pilot.press("n")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen))
        own = pilot.app.screen.draft.own
        assert "init_adapter" not in own
        assert float(own["learning_rate"]) == run.read_config().learning_rate / 2


async def test_after_a_gpu_timeout_a_key_resumes_with_less_at_a_time(
    make_run, open_app, wait_for, screen_text, monkeypatch
):
    run = make_run()
    with run.events_file.open("a", encoding="utf-8") as file:
        file.write(encode(RunFailed("E", "too long", "Do.", 40, None, "gpu_timeout")))
    asked = []
    async with open_app(size=(80, 24)) as pilot:
        monkeypatch.setattr(pilot.app, "resume", lambda *given: asked.append(given))
        await open_live(pilot, wait_for, run.path)
        said = "L goes on with --command-buffers short"
        await wait_for(pilot, lambda: said in " ".join(screen_text(pilot.app).split()))
        await pilot.press("L")
        await wait_for(pilot, lambda: asked)
    assert [(given.path, changes) for given, changes in asked] == [
        (run.path, {"command_buffers": "short"})
    ]


async def test_after_any_other_end_the_key_plans_a_run_with_its_settings(
    make_run, open_app, wait_for, made_up
):
    run = make_run()
    async with open_app(size=(160, 48)) as pilot:
        screen = await open_live(pilot, wait_for, run.path)
        assert screen.trainer.allows("anew", "running", 0.0) is False, "not while it is trained"
        await wait_for(pilot, lambda: screen.status == "completed")
        assert screen.check_action("gentler", ()) is False
        await pilot.press("n")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen))
        plan = pilot.app.screen
        await wait_for(pilot, lambda: plan.step == FORM)
        assert plan.draft.data == run.read_config().data
        assert plan.draft.get("learning_rate") == run.read_config().learning_rate
