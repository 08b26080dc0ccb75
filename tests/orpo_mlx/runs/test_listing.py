"""A damaged or hostile run folder costs itself only: the list, and whoever shows a run, go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.measured import measured

from orpo_mlx.cli.main import main
from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.event_text import plain_lines
from orpo_mlx.runs.events import (
    CheckpointSaved,
    DataPrepared,
    RunStarted,
    StepCompleted,
    encode,
    read_events,
)
from orpo_mlx.runs.history import RunHistory
from orpo_mlx.runs.listing import find_run, list_runs
from tui.home.run_list import RunList, row_of
from tui.run.state import RunState

STARTED = RunStarted(
    "run", "model", "data", 5, 8, 2, 10, 100, {"rank": 4}, {}, "orpo", ["loss"], cadence={}
)
PREPARED = DataPrepared(8, 8, {}, {}, "pairs", {}, {})
STEP = StepCompleted(measured(1.0, 0.5, 0.6, 0.1, -1.0, -1.2, 0.75, 0.2), step=1)
SAVED = CheckpointSaved(1, "checkpoints/0000001", 0.1, 1000)
DEEP = "[" * 100_000
HUGE = "1" + "0" * 400


def line(event: object, **changes: str) -> str:
    """An event with fields replaced by these JSON texts."""
    raw = json.loads(encode(event, now=1000.0))  # type: ignore[arg-type]
    parts = {name: json.dumps(value) for name, value in raw.items()} | changes
    return "{" + ", ".join(f'"{name}": {text}' for name, text in parts.items()) + "}\n"


ODD_LINES = {
    "time 1e300": (line(STEP, time="1e300"), "time"),
    "time 10^400": (line(STEP, time=HUGE), "time"),
    "time as text": (line(STEP, time='"noon"'), "time"),
    "time Infinity": (line(STARTED, time="Infinity"), "time"),
    "brackets": (f'{{"event": "StepCompleted", "step": {DEEP}\n', "line"),
    "5000 digits": (f'{{"event": "Paused", "step": {"9" * 5000}}}\n', "line"),
    "loss as text": (line(STEP, metrics='{"loss": "low"}'), "metrics"),
    "loss infinite": (line(STEP, metrics='{"loss": Infinity}'), "metrics"),
    "metrics as list": (line(STEP, metrics="[1]"), "metrics"),
    "step Infinity": (line(STEP, step="Infinity"), "step"),
    "step 10^400": (line(STEP, step=HUGE), "step"),
    "step missing": ('{"event": "StepCompleted", "metrics": {}}\n', "step"),
    "dropped 5": (line(PREPARED, dropped="5"), "dropped"),
    "steps as text": (line(STARTED, total_steps='"many"'), "total_steps"),
    "names of metrics": (line(STARTED, metrics="[1, 2]"), "metrics"),
    "model as list": (line(STARTED, model="[]"), "model"),
    "bytes as text": (line(SAVED, bytes='"lots"'), "bytes"),
}


def write(folder: Path, lines: str, config: str = 'model = "m"\n') -> RunDirectory:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(config)
    (folder / "events.jsonl").write_text(lines)
    return RunDirectory(folder)


@pytest.mark.parametrize("name", ODD_LINES)
def test_an_odd_event_is_named_and_everything_else_is_shown(name, tmp_path, capsys):
    odd, field = ODD_LINES[name]
    write(tmp_path / "good", line(STARTED) + line(STEP))
    run = write(tmp_path / "odd", line(STARTED) + odd + line(STEP) + line(SAVED))
    found = {one.id: one for one in list_runs(tmp_path)}
    assert (found["good"].status, found["good"].damage) == ("crashed", "")
    assert found["odd"].status == "damaged"
    assert field in found["odd"].damage
    assert found["odd"].step == 1
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "good" in printed
    assert "odd: damaged: " in printed
    for summary in RunList(tmp_path).read():
        row_of(summary, 2000.0)
    state = RunState().apply_all(read_events(run.events_file))
    assert state.lines[-1].kind == "saved"
    assert [entry.kind for entry in state.lines].count("error") == 1
    history = RunHistory()
    for record in read_events(run.events_file):
        if record.event is not None:
            history.apply(record.event)
            plain_lines(record.event)
    assert main(["plot", str(run.path), "--out", str(tmp_path / "chart.svg")]) == 0
    assert main(["watch", str(run.path), "--plain"]) == 1  # crashed


def test_settings_of_odd_kinds_are_shown_as_unknown(tmp_path):
    odd = '{"rank": "x", "run_dir": 5, "epochs": [], "lam": {}, "learning_rate": 1e999}'
    run = write(tmp_path / "odd", line(STARTED, config=odd))
    (record,) = read_events(run.events_file)
    state = RunState().apply(record)
    assert state.setting("rank", -1.0) == -1.0
    history = RunHistory()
    history.apply(record.event)
    assert history.run_path == Path("5").absolute()


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 100_000, "a = 'x", "a = " + "{b=" * 50_000, "model = 3\x00"]
)
def test_settings_that_are_no_toml_are_damage(text, tmp_path, capsys):
    run = write(tmp_path / "odd", "", config=text)
    (found,) = list_runs(tmp_path)
    assert found.status == "damaged"
    assert found.damage.startswith("config.toml: ")
    assert main(["resume", str(run.path)]) == 2
    assert main(["train", "--config", str(run.config_file)]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["events.jsonl", "config.toml", "state.json", "run.lock"])
@pytest.mark.timeout(60)
def test_a_pipe_in_a_run_is_never_waited_for(name, tmp_path, capsys):
    run = write(tmp_path / "odd", line(STARTED) + line(STEP))
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    write(tmp_path / "good", line(STARTED))
    assert {one.id for one in list_runs(tmp_path)} == {"good", "odd"}
    assert main(["resume", str(run.path)]) == 2
    main(["watch", str(run.path), "--plain"])
    main(["stop", str(run.path)])
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "Infinity"}, {"heartbeat": "1e300"}, {"pid": HUGE}, {"status": '"merry"'},
        {"status": "[]"}, {"total_steps": '"5"'}, {"step": DEEP},
    ],
)  # fmt: skip
def test_a_state_of_odd_values_is_none(changes, tmp_path):
    run = write(tmp_path / "odd", line(STARTED))
    sound = {
        "status": '"running"', "step": "1", "total_steps": "5", "pid": "7", "heartbeat": "5.5"
    }  # fmt: skip
    for values, is_read in ((sound, True), (sound | changes, False)):
        text = ", ".join(f'"{name}": {value}' for name, value in values.items())
        run.state_file.write_text(f"{{{text}}}")
        assert (run.read_state() is not None) == is_read
    assert list_runs(tmp_path)[0].id == "odd"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have_is_no_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="there is no run"):
        find_run(name, tmp_path)
