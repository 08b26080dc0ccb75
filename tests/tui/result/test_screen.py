"""The result screen: opens when a run ends, makes an evaluation, leads on."""

from __future__ import annotations

import json

from orpo_mlx.runs.events import RunEvaluated
from tui.live.screen import LiveScreen
from tui.new_run.screen import NewRunScreen
from tui.new_run.steps import FORM
from tui.result.screen import ResultScreen
from tui.shell.messages import StatusChanged

_NUMBER = {"value": 0.5, "low": 0.25, "high": 0.75}
KEPT = {
    "verdict": {"text": "no difference could be shown"},
    "counts": {"pairs": 20, "available": 20},
    "metrics": {"preference_accuracy": {"base": _NUMBER, "adapter": _NUMBER}},
}
WRITES = """
import json, pathlib, sys
pathlib.Path({file!r}).write_text({content!r})
event = {{"event": "progress", "done": 1, "total": 2, "label": "scoring"}}
print(json.dumps(event), file=sys.stderr)
print("{{}}")
"""
FAILS = 'print(\'{"event": "failed", "message": "no pairs", "what_to_do": "Give some."}\')'


async def opened(pilot, wait_for, run) -> ResultScreen:
    screen = ResultScreen(run.path)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.facts)
    return screen


async def test_it_opens_when_the_run_that_is_shown_ends(make_run, open_app, wait_for):
    run = make_run()
    async with open_app() as pilot:
        pilot.app.open_run(run.path)
        await wait_for(pilot, lambda: getattr(pilot.app.screen, "caught_up", False))
        live = pilot.app.screen
        assert isinstance(live, LiveScreen)
        live.on_status_changed(StatusChanged(run.path, "running"))
        live.on_status_changed(StatusChanged(run.path, "completed"))
        await pilot.pause()
        assert pilot.app.screen is live  # nothing was said of whether it helped
        live.state.evaluated = RunEvaluated(40, "it helped", 20, 20, 1.0, "", "")
        live.on_status_changed(StatusChanged(run.path, "running"))
        live.on_status_changed(StatusChanged(run.path, "completed"))
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ResultScreen))
        await pilot.press("escape")
        assert pilot.app.screen is live
        await pilot.press("r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ResultScreen))


async def test_an_evaluation_is_made_by_a_child_and_shown(
    make_run, open_app, wait_for, screen_text, tmp_path
):
    run = make_run()
    async with open_app() as pilot:
        screen = await opened(pilot, wait_for, run)
        assert "--save" in screen.words
        assert str(run.path) in screen.words
        script = tmp_path / "evaluates.py"
        screen.words = [str(script)]
        script.write_text(FAILS)
        await pilot.press("v")
        await wait_for(pilot, lambda: "no pairs" in screen_text(pilot.app))
        assert "Give some." in screen_text(pilot.app)
        made = WRITES.format(file=str(run.evaluation_file), content=json.dumps(KEPT))
        script.write_text(made)
        await pilot.press("v")
        await wait_for(pilot, lambda: "No difference could be shown." in screen_text(pilot.app))


async def test_a_run_with_too_few_pairs_has_no_key_that_compares(
    make_run, open_app, wait_for, screen_text, monkeypatch
):
    monkeypatch.setattr("tui.result.facts._FEWEST", 10_000)
    async with open_app((160, 48)) as pilot:
        screen = await opened(pilot, wait_for, make_run())
        await wait_for(pilot, lambda: "are needed" in screen_text(pilot.app))
        assert "Evaluate" not in screen_text(pilot.app)
        await pilot.press("v")
        assert not screen.is_asking


async def test_a_damaged_evaluation_is_told(make_run, open_app, wait_for, screen_text):
    run = make_run()
    run.evaluation_file.write_text('{"verdict": 7}')
    async with open_app((160, 48)) as pilot:
        await opened(pilot, wait_for, run)
        await wait_for(pilot, lambda: "cannot be read" in screen_text(pilot.app))
        said = " ".join(screen_text(pilot.app).split())
        assert "(verdict is no object). Make it again: orpo-mlx evaluate" in said


async def test_a_new_run_begins_with_the_settings_of_this_one(
    make_run, open_app, wait_for, made_up
):
    run = make_run()
    config = run.read_config()
    async with open_app((160, 48)) as pilot:
        await opened(pilot, wait_for, run)
        await pilot.press("n")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, NewRunScreen))
        plan = pilot.app.screen
        assert isinstance(plan, NewRunScreen)
        await wait_for(pilot, lambda: plan.step == FORM)
        for name in ("model", "data", "lam", "learning_rate", "rank", "seed"):
            assert str(plan.draft.get(name)) == str(getattr(config, name)), name
        assert "run_dir" not in plan.draft.own
