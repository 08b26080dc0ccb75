"""Whole screens as text, at four sizes: what a change moves can be seen in its diff.

    UPDATE_GOLDENS=1 python -m pytest tests/tui/test_goldens.py

writes `tests/tui/goldens/` anew; read the diff before you keep it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import read_events
from tui.chat.screen import ChatScreen
from tui.compare.group_screen import GroupScreen
from tui.compare.screen import CompareScreen
from tui.export import form
from tui.export.jobs import Job
from tui.export.screen import ExportScreen
from tui.home.run_summary import RunSummaryPanel
from tui.judge.screen import JudgeScreen
from tui.live import run_view
from tui.live.screen import LiveScreen
from tui.new_run.data.dataset_table import DatasetTable
from tui.new_run.draft import Draft
from tui.new_run.models.step import ModelStep
from tui.new_run.screen import NewRunScreen
from tui.new_run.steps import DATA, FORM, MODEL, REVIEW
from tui.playground.screen import PlaygroundScreen
from tui.processes.trainer_log import log_of
from tui.result.screen import ResultScreen
from tui.screens.doctor import DoctorScreen
from tui.serve.screen import ServeScreen
from tui.shell.machine import Machine

FOLDER = Path(__file__).parent / "goldens"
FAKES = Path(__file__).parents[1] / "fakes"
SIZES = ((60, 16), (80, 24), (100, 30), (160, 48))
STARTED = 1_700_000_000.0 - 3600
FACTS = [
    {"group": "machine", "name": "chip", "text": "Apple M3 Pro", "level": "ok", "what_to_do": ""},
    {"group": "machine", "name": "memory", "text": "18 GB", "level": "ok", "what_to_do": ""},
    {"group": "power", "name": "source", "text": "battery", "level": "warning",
     "what_to_do": "Plug it in: on battery the GPU is slower, and a long run empties it."},
]  # fmt: skip


@pytest.fixture(autouse=True)
def same_machine(monkeypatch, tmp_path):
    """The same memory, disk and folders wherever the tests run."""
    machine = Machine(
        18_000_000_000, 9_000_000_000, 0, 12.0, on_battery=False, pressure="normal",
        gpu_limit_bytes=13_500_000_000,
    )  # fmt: skip
    monkeypatch.setattr("tui.live.screen.read_machine", lambda: machine)
    monkeypatch.setattr("tui.home.screen.read_machine", lambda: machine)
    monkeypatch.setattr(run_view, "memory_limit_bytes", lambda: 13_500_000_000)
    monkeypatch.setattr("tui.screens.settings.config_folder", lambda: Path("/home/me"))
    monkeypatch.setattr(form, "free_space", lambda folder: "112 GB free")
    home = Path(os.environ["ORPO_MLX_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "app.toml").write_text('export_folder = "/models"\n')


@pytest.fixture
def old_run(make_run, share):
    """Return `old_run(name, seed, ends_at, lost_at)`: a finished run, its clock the tests' own.

    With `ends_at` its trainer died at that step, with `lost_at` one of its two processes did.
    """

    def make(name: str, seed: int = 0, ends_at: int = 0, lost_at: int = 0) -> RunDirectory:
        run = make_run(name, seed=seed, steps=200)
        lines = []
        for count, record in enumerate(read_events(run.events_file)):
            raw = {**record.raw, "time": STARTED + count * 1.5 + 100 * seed}
            lines.append(json.dumps(raw) + "\n")
            if ends_at and raw.get("step") == ends_at:
                break
        run.events_file.write_text("".join(lines))
        return share(run, "mac", "mac", lost_at=lost_at) if lost_at else run

    return make


async def show_welcome(pilot, old_run, wait_for):
    await wait_for(pilot, lambda: pilot.app.screen.machine and pilot.app.screen._listed)


async def show_runs(pilot, old_run, wait_for):
    screen = pilot.app.screen
    await wait_for(pilot, lambda: screen.machine)
    await wait_for(pilot, lambda: screen.query_one(RunSummaryPanel).state.ended)


async def show_live(pilot, old_run, wait_for):
    screen = LiveScreen(old_run("run-c").path)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.caught_up and screen.status == "completed")
    await wait_for(pilot, lambda: screen.machine)
    screen._draw()


async def show_crash(pilot, old_run, wait_for):
    run = old_run("run-d", ends_at=120)
    log_of(run).write_text(
        "step 119/200\nlibc++abi: terminating due to uncaught exception\n"
        "[METAL] Command buffer execution failed: Insufficient Memory (OutOfMemory)\n"
    )
    screen = LiveScreen(run.path)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.caught_up and screen.status == "crashed")
    await wait_for(pilot, lambda: screen.machine)
    screen._draw()


async def show_lost_peer(pilot, old_run, wait_for):
    screen = LiveScreen(old_run("run-e", lost_at=120).path)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.caught_up and screen.status == "failed")
    await wait_for(pilot, lambda: screen.machine)
    screen._draw()


async def show_compare(pilot, old_run, wait_for):
    screen = CompareScreen([old_run(f"run-{n}", seed=n).path for n in range(3)])
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: {run.status for run in screen.runs} == {"completed"})
    await wait_for(pilot, lambda: screen.caught_up)
    screen._draw()


async def show_group(pilot, old_run, wait_for):
    runs = [old_run(f"run-{n}", seed=n) for n in range(5)]
    for run, value in zip(runs[:4], (0.61, 0.72, 0.55, 0.68), strict=True):
        content = evaluation()
        side = {"value": value, "low": value - 0.07, "high": value + 0.06}
        content["metrics"]["preference_accuracy"]["adapter"] = side
        run.evaluation_file.write_text(json.dumps(content))
    screen = GroupScreen([run.path for run in runs], "sweep-20260102-1530-1a2b")
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: len(screen.rows) == 5 and screen.selected)


def exported_jobs():
    check = {"name": "delta", "value": 2.5e-7, "limit": 1e-6, "text": "of all layers", "advice": ""}
    good, bad = Job("mlx", Path("/models/run-c-mlx")), Job("fused", Path("/models/run-c-fused"))
    for message in (
        {"event": "verified", "checks": [{**check, "passed": True}]},
        {"event": "finished", "path": "/models/run-c-mlx", "seconds": 0.4, "notes": ["Mind this."],
         "files": [{"name": "a", "bytes": 38_000_000}], "command": "use /models/run-c-mlx"},
    ):  # fmt: skip
        good.apply(message)
    full = {"kind": "disk", "message": "/models: is full.", "what_to_do": "Free some space."}
    bad.apply({"event": "failed", **full})
    return [good, bad, Job("hub", None, state="writing", done=3, total=4, what="uploading")]


async def show_export(pilot, old_run, wait_for):
    run = old_run("run-c")
    run.adapter_folder.mkdir()
    screen = ExportScreen(run.path, pilot.app.exports)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.is_mounted and screen.form.free_text)
    await pilot.press("up", "space")
    await wait_for(pilot, lambda: "gguf" in screen.chosen)


async def show_exported(pilot, old_run, wait_for):
    run = old_run("run-c")
    writer = pilot.app.exports.writer(run.path)
    pilot.app.push_screen(ExportScreen(run.path, pilot.app.exports))
    await wait_for(pilot, lambda: writer.on_change)
    writer.jobs = exported_jobs()
    writer.say("1 written, 1 failed.")


async def show_judge(pilot, old_run, wait_for):
    screen = JudgeScreen([old_run("run-c").path])
    screen.words = [str(FAKES / "fake_judge.py")]
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.state.duel)


async def show_serve(pilot, old_run, wait_for):
    server = pilot.app.server
    server.words = [str(FAKES / "fake_serve.py")]
    pilot.app.push_screen(ServeScreen([old_run("run-c").path], server))
    await wait_for(pilot, lambda: len(server.state.lines) == 3)


async def show_playground(pilot, old_run, wait_for):
    screen = PlaygroundScreen(old_run("run-c").path)
    screen.words = [str(FAKES / "fake_playground.py")]
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.state.ready)
    await pilot.press("ctrl+n")
    await wait_for(pilot, lambda: screen.state.pairs)
    await pilot.press("enter")
    await wait_for(pilot, lambda: screen.state.done)
    await pilot.press("ctrl+r")
    await wait_for(pilot, lambda: screen.state.scores)


async def show_chat(pilot, old_run, wait_for):
    screen = ChatScreen(old_run("run-c").path)
    screen.words = [str(FAKES / "fake_chat.py")]
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.session.ready)
    for text in ("Why is it so?", "And now?"):
        screen.query_one("#line").value = text
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.session.talk.exchanges[-1].done)
    screen.session.talk.exchanges[-1].preferred = "adapter"
    screen.session.talk.exchanges[-1].opinion = "The right answer is better"
    screen._show()


def evaluation():
    """What a run keeps whose adapter is better for certain."""

    def measured(value, low, high):
        return {"value": value, "low": low, "high": high}

    return {
        "verdict": {
            "text": "prefers the chosen answer in 71 % -> 83 % of 200 held-out pairs: +12 points, "
            "interval +6 to +18",
            "is_shown": True,
        },
        "counts": {"pairs": 200, "available": 240},
        "metrics": {
            "preference_accuracy": {
                "base": measured(0.71, 0.645, 0.77), "adapter": measured(0.83, 0.775, 0.88),
                "difference": measured(0.12, 0.06, 0.175),
            },
            "log_odds_ratio": {
                "base": measured(0.2, 0.1, 0.3), "adapter": measured(0.9, 0.7, 1.1),
                "difference": measured(0.7, 0.5, 0.9),
            },
            "chosen_nll": {
                "base": measured(1.5, 1.4, 1.6), "adapter": measured(1.2, 1.1, 1.3),
                "difference": measured(-0.3, -0.4, -0.2),
            },
        },
        "drift": {
            "kl_per_token": {"adapter": measured(0.195, 0.156, 0.233)},
            "answers": [
                {"prompt": "Name a river.", "base": "The Rhine.", "kl_per_token": 0.9,
                 "adapter": "The Rhine is a river. Thank you for asking! " * 8},
                {"prompt": "Say hello.", "base": "Hello.", "adapter": "", "kl_per_token": 0.4},
            ],
        },
        "notes": ["200 of 240 held-out pairs were drawn"],
    }  # fmt: skip


async def show_result(pilot, old_run, wait_for):
    run = old_run("run-c")
    run.evaluation_file.write_text(json.dumps(evaluation()))
    screen = ResultScreen(run.path)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.facts)


async def show_no_result(pilot, old_run, wait_for):
    screen = ResultScreen(old_run("run-c").path)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.facts)


async def show_doctor(pilot, old_run, wait_for):
    screen = DoctorScreen()
    screen._look = lambda more: None  # type: ignore[method-assign,assignment]
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.is_mounted)
    screen.facts, screen.status = FACTS, "0 errors, 1 warning: see the lines with ✗ and !."
    screen._show()


async def show_settings(pilot, old_run, wait_for):
    await pilot.press("comma")
    await wait_for(pilot, lambda: pilot.app.screen.query_one("#theme").has_focus)


async def open_step(pilot, wait_for, step, **chosen):
    """A planned run of the built-in model and pairs, with made-up answers, at a step."""
    screen = NewRunScreen()
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.query_one(ModelStep).shown)
    screen.change(Draft(chosen))
    screen.go_to(step)
    return screen


def has_answers(screen):
    """Whether fit and check have answered, and the fit of all rows is known."""
    planning = screen.planning
    rows = [screen.draft.fit_words(row.name) for row in planning.models.in_view]
    fits = screen.step or all(planning.card.answers.kept_for(words) for words in rows)
    checked = planning.data.answer or not screen.draft.data or not screen.step
    return fits and checked and planning.card.answer and not planning.card.note


async def show_model_step(pilot, old_run, wait_for):
    screen = await open_step(pilot, wait_for, MODEL)
    await wait_for(pilot, lambda: has_answers(screen))
    await wait_for(pilot, lambda: screen.planning.models.facts)


async def show_data_step(pilot, old_run, wait_for):
    screen = await open_step(pilot, wait_for, DATA, model="org/small", data="pairs.jsonl")
    await wait_for(pilot, lambda: has_answers(screen))
    screen.query_one("#data-findings").focus()
    await pilot.press("v")


async def show_hub_step(pilot, old_run, wait_for):
    """The list that is there without the Hub: the tests are offline."""
    screen = await open_step(pilot, wait_for, DATA, model="org/small")
    await wait_for(pilot, lambda: screen.query_one("#data-offers").has_focus)
    await pilot.press("f2")
    await wait_for(pilot, lambda: "not searched" in screen.query_one(DatasetTable).note)
    await wait_for(pilot, lambda: has_answers(screen))
    await wait_for(pilot, lambda: screen.query_one("#data-text").has_focus)
    await pilot.press("down", "down")
    await wait_for(pilot, lambda: screen.query_one("#hub-data").has_focus)


async def show_settings_step(pilot, old_run, wait_for):
    chosen = {"model": "org/small", "data": "pairs.jsonl", "rank": "16", "lam": "x"}
    screen = await open_step(pilot, wait_for, FORM, **chosen)
    await wait_for(pilot, lambda: "not estimated" in screen.planning.card.note)


async def show_review_step(pilot, old_run, wait_for):
    screen = await open_step(pilot, wait_for, REVIEW, model="org/huge", data="pairs.jsonl")
    await wait_for(pilot, lambda: has_answers(screen))


SCREENS = {
    "new-model": show_model_step,
    "new-data": show_data_step,
    "new-hub": show_hub_step,
    "new-settings": show_settings_step,
    "new-review": show_review_step,
    "welcome": show_welcome,
    "runs": show_runs,
    "live": show_live,
    "lost-peer": show_lost_peer,
    "crashed": show_crash,
    "compare": show_compare,
    "group": show_group,
    "export": show_export,
    "exported": show_exported,
    "playground": show_playground,
    "chat": show_chat,
    "judge": show_judge,
    "serve": show_serve,
    "doctor": show_doctor,
    "settings": show_settings,
    "result": show_result,
    "result-none": show_no_result,
}


@pytest.mark.parametrize(
    "size",
    [pytest.param(s, marks=pytest.mark.slow) if s == (100, 30) else s for s in SIZES],
    ids=[f"{width}x{height}" for width, height in SIZES],
)
@pytest.mark.parametrize("name", SCREENS)
async def test_a_screen_looks_as_it_did(
    name, size, open_app, old_run, wait_for, screen_text, made_up
):
    if name == "runs":
        old_run("run-a")
        old_run("run-b", seed=1)
    async with open_app(size) as pilot:
        await SCREENS[name](pilot, old_run, wait_for)
        await pilot.pause()
        golden = FOLDER / f"{name}-{size[0]}x{size[1]}.txt"
        if os.environ.get("UPDATE_GOLDENS"):
            await pilot.pause(0.5)
            FOLDER.mkdir(exist_ok=True)
            golden.write_text(screen_text(pilot.app) + "\n", encoding="utf-8")
        wanted = golden.read_text(encoding="utf-8").rstrip("\n")
        text = ""
        for _ in range(20):
            text = screen_text(pilot.app).rstrip("\n")
            if text == wanted:
                break
            await pilot.pause(0.1)  # a message still on its way may draw once more
        assert text == wanted, golden.name


SHOWN = {
    "new-model": ("built-in demo model", "org/huge", "has a chat template"),
    "new-data": ("[red]Why[/red]", "200 of 201 rows"),
    "new-hub": ("mlabonne/orpo-dpo-mix-40k", "44,245"),
    "new-settings": ("Learning rate", "5e-05"),
    "new-review": ("org/huge", "180 pairs train, 20 validate"),
    "welcome": ("Try the demo",),
    "runs": ("run-a", "run-b", "200/200"),
    "live": ("step 200", "completed after step 200", "│v"),
    "lost-peer": ("A process was lost at step 120",),
    "crashed": ("The GPU ran out of memory.",),
    "compare": ("A run-0", "B run-1", "C run-2", "200/200"),
    "group": ("run-4", "72.0 % (65.0 to 78.0)"),
    "export": ("chat in LM Studio", "112 GB free"),
    "exported": ("written: 1 file", "/models: is full."),
    "judge": ("Why is it so, 0?", "Because it is.", "Nobody knows"),
    "serve": ("http://127.0.0.1:8080/v1", "tiny (the base)"),
    "doctor": ("Apple M3 Pro", "on battery the GPU is slower"),
    "settings": ("Theme", "auto", "0.9"),
    "result": ("71 % -> 83 %", "71.0 % (64.5 to 77.0)"),
    "result-none": ("What is the capital of France?", "it may be Paris"),
}
"""What each screen has to show as it opens: models, pairs, numbers, answers of what is there."""
AFTER_KEYS = {"playground", "chat"}
"""Screens whose pictures are taken after a few keys; how they open is tested below."""


def test_no_screen_opens_with_an_empty_main_pane():
    assert SHOWN.keys() | AFTER_KEYS == SCREENS.keys()
    for name, parts in SHOWN.items():
        lines = (FOLDER / f"{name}-80x24.txt").read_text(encoding="utf-8").splitlines()
        main = "\n".join(lines[1:-1])  # neither the title nor the keys
        assert [part for part in parts if part not in main] == [], name


async def test_a_test_opens_with_an_answer_and_a_chat_with_what_to_do(
    open_app, old_run, wait_for, screen_text
):
    run = old_run("run-c").path
    async with open_app((80, 24)) as pilot:
        screen = PlaygroundScreen(run)
        screen.words = [str(FAKES / "fake_playground.py")]
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: "adapter on pair 0" in screen_text(pilot.app))
        assert "Why is it so?" in screen_text(pilot.app)
        chat = ChatScreen(run)
        chat.words = [str(FAKES / "fake_chat.py")]
        pilot.app.push_screen(chat)
        await wait_for(pilot, lambda: "your adapter on the right" in screen_text(pilot.app))
