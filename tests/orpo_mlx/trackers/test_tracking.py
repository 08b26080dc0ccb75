"""A run in TensorBoard's files: read back by their format, and without any harm to the run."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from orpo_mlx.__main__ import main as program
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory, create_run
from orpo_mlx.runs.events import (
    EvalCompleted,
    EventWriter,
    NoteLogged,
    Resumed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
    read_events,
)
from orpo_mlx.trackers import processes, table
from orpo_mlx.trackers.tracking import Tracking, without_places
from orpo_mlx.training.train import resume, train

Curves = dict[str, dict[int, float]]


def records(file: Path) -> Iterator[Any]:
    """The events of a file: length, checksum, bytes of a protobuf, checksum."""
    data = file.read_bytes()
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        yield event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
        at += 12 + size + 4
    assert at == len(data)


def read_back(folder: Path) -> tuple[Curves, dict[str, dict[int, str]]]:
    """Numbers and texts as TensorBoard shows them: a START makes void what is from its step on."""
    numbers: Curves = {}
    texts: dict[str, dict[int, str]] = {}
    for file in sorted(folder.iterdir(), key=lambda path: int(path.name.rsplit(".", 1)[1])):
        for event in records(file):
            if event.HasField("session_log"):
                for curve in [*numbers.values(), *texts.values()]:
                    for step in [step for step in curve if step >= event.step]:
                        del curve[step]  # type: ignore[arg-type]
            for value in event.summary.value:
                if value.HasField("tensor"):
                    text = value.tensor.string_val[0].decode()
                    texts.setdefault(value.tag, {})[event.step] = text
                else:
                    curve = numbers.setdefault(value.tag, {})
                    assert event.step not in curve, "logged twice"
                    curve[event.step] = value.simple_value
    return numbers, texts


def board(run: RunDirectory, name: str = "") -> tuple[Curves, dict[str, dict[int, str]]]:
    return read_back(run.path / "trackers" / "tensorboard" / (name or run.id))


def started(run: RunDirectory, resumed_from: int = 0) -> RunStarted:
    return RunStarted(
        run.id, "/home/me/models/tiny", "/home/me/a.jsonl", 6, 9, 1, 10, 100,
        {"model": "/home/me/models/tiny", "lam": 0.5, "steps": None}, {"mlx": "1"}, "orpo",
        ["loss"], resumed_from,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that has done three steps, and then two that a resume will make void."""
    run = create_run(TrainConfig(model="m", data="d", run_dir=str(tmp_path / "run")))
    write(run, started(run), EvalCompleted({"loss": 3.0}, 0), *steps(1, 2, 3))
    write(run, SampleGenerated(3, "Why?\n# no heading", "So.", 0), *steps(4, 5, add=100))
    return run


def steps(*numbers: int, add: float = 0) -> list[StepCompleted]:
    return [StepCompleted({"loss": n + add, "margin": n / 4}, n) for n in numbers]


def write(run: RunDirectory, *events: Any) -> None:
    writer = EventWriter(run.events_file)
    for event in events:
        writer.write(event)
    writer.close()


def go_on(run: RunDirectory) -> None:
    write(run, started(run, 3), Resumed(3, new_process=True), *steps(4, 5, 6),
          RunFinished("completed", 6, 1.0, None))  # fmt: skip


def sync(run: RunDirectory, **more: Any) -> int:
    tracking = Tracking(run, "tensorboard", **more)
    count = tracking.sync()
    tracking.close()
    return count


def test_numbers_samples_and_settings_are_read_back(run: RunDirectory):
    assert sync(run) == 8
    numbers, texts = board(run)
    assert numbers["train/loss"] == {1: 1, 2: 2, 3: 3, 4: 104, 5: 105}
    assert numbers["train/margin"] == {n: n / 4 for n in range(1, 6)}
    assert numbers["valid/loss"] == {0: 3}
    assert texts["sample 1/text_summary"] == {3: "    Why?\n    # no heading\n\n    So."}
    settings = json.loads(texts["settings/text_summary"][0])
    assert settings["lam"] == 0.5
    assert settings["model"] == "tiny"
    assert "/home/me" not in json.dumps(settings)


def test_what_was_logged_is_not_logged_again(run: RunDirectory):
    sync(run)
    assert sync(run) == 0
    write(run, *steps(6))
    assert sync(run) == 1
    assert board(run)[0]["train/loss"] == {1: 1, 2: 2, 3: 3, 4: 104, 5: 105, 6: 6}


@pytest.mark.parametrize("when", ["afterwards", "between", "while it is followed"])
def test_a_resumed_run_goes_on_without_the_steps_that_are_void(run: RunDirectory, when: str):
    tracking = Tracking(run, "tensorboard")
    if when != "afterwards":
        tracking.sync()
    if when == "between":
        tracking.close()
        tracking = Tracking(run, "tensorboard")
    go_on(run)
    tracking.sync()
    tracking.close()
    numbers, texts = board(run)
    assert numbers["train/loss"] == {n: n for n in range(1, 7)}
    assert numbers["valid/loss"] == {0: 3}
    assert list(texts["sample 1/text_summary"]) == [3]


def test_all_of_it_can_be_logged_again_under_another_name(run: RunDirectory):
    sync(run)
    assert sync(run, anew=True) == 8
    assert board(run, f"{run.id}-2") == board(run)
    assert sync(run) == 0


def test_files_that_were_damaged_or_made_by_hand_do_no_harm(run: RunDirectory):
    (run.path / "trackers").mkdir()
    (run.path / "trackers" / "tensorboard.json").write_text('{"records": "many"}')
    with run.events_file.open("a") as file:
        file.write('{"event": "StepCompleted", "v": 2, "tim\n{"event": "Unknown", "v": 2}\n')
    assert sync(run) == 8


def test_of_places_on_this_machine_only_names_are_told():
    assert without_places("/home/me/a.jsonl:2,/data/b.jsonl") == "a.jsonl:2,b.jsonl"
    assert without_places("~/models/x") == "x"
    assert without_places("mlx-community/x") == "mlx-community/x"
    assert without_places(["/a/b", "c"]) == ["b", "c"]


# Beside a trainer


@pytest.fixture
def settings(model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(model_folder), "data": str(pairs_file(8)), "steps": 3, "rank": 2,
        "valid_fraction": 0.25, "sample_prompts": 1, "sample_tokens": 4, "evaluate": False,
        "run_dir": str(tmp_path / "tracked"),
    }  # fmt: skip


def measured(run: RunDirectory) -> dict[int, dict[str, float]]:
    events = [record.event for record in read_events(run.events_file)]
    return {event.step: event.metrics for event in events if isinstance(event, StepCompleted)}


def warnings(run: RunDirectory) -> list[str]:
    events = [record.event for record in read_events(run.events_file)]
    return [e.text for e in events if isinstance(e, NoteLogged) and "tracker" in e.text]


def test_a_tracker_follows_a_trainer_to_its_last_event(settings: dict[str, Any]):
    result = train(TrainConfig(**settings, report_to=["tensorboard"]))
    run = RunDirectory(Path(settings["run_dir"]))
    assert result.exit_code == 0
    assert warnings(run) == []
    losses = {step: metrics["loss"] for step, metrics in measured(run).items()}
    assert board(run)[0]["train/loss"] == pytest.approx(losses)
    assert sync(run) == 0


FAKES = {
    "fails": ("raise RuntimeError('no such disk')", "no such disk"),
    "crashes": ("import os; os.abort()", "took too long or was killed"),
    "hangs": ("import time; time.sleep(1000)", "took too long or was killed"),
}


@pytest.mark.parametrize("kind", FAKES)
def test_a_tracker_that_fails_crashes_or_hangs_is_a_note_and_the_run_is_done(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    code, said = FAKES[kind]
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "tensorboardX.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    if kind == "hangs":
        monkeypatch.setattr(processes, "PATIENCE_SECONDS", 0.01)
    result = train(TrainConfig(**settings, report_to=["tensorboard"]))
    assert result.exit_code == 0
    run = RunDirectory(Path(settings["run_dir"]))
    assert run.last_status() == "completed"
    (note,) = warnings(run)
    assert said in note
    assert re.search(r"[^.]\. What is missing there: ", note)
    monkeypatch.delenv("PYTHONPATH")
    words = re.sub(r".*orpo-mlx log ", "", note).split()  # the advice works
    assert program(["log", *words]) == 0
    losses = {step: metrics["loss"] for step, metrics in measured(run).items()}
    assert board(run)[0]["train/loss"] == pytest.approx(losses)


class Aborts:
    """Ends a run without saving when it has done a step."""

    def handle(self, event: Any, line: str = "") -> None:
        if isinstance(event, RunStarted):
            self.run = RunDirectory(Path(event.run_path))
        if isinstance(event, StepCompleted) and event.step == 2:
            send_request(self.run, "abort")

    def catch_up(self, events: Any) -> None: ...
    def progress(self, *args: Any) -> None: ...
    def close(self) -> None: ...


def test_a_resumed_run_goes_on_in_its_tracker(settings: dict[str, Any]):
    config = TrainConfig(**{**settings, "steps": 5, "save_every": 0}, report_to=["tensorboard"])
    train(config, report=Aborts())
    run = RunDirectory(Path(settings["run_dir"]))
    assert board(run)[0]["train/loss"].keys() == {1, 2}
    resume(run)
    files = list((run.path / "trackers" / "tensorboard" / run.id).iterdir())
    assert len(files) == 2  # the steps that are void stand in the first one
    losses = {step: metrics["loss"] for step, metrics in measured(run).items()}
    assert board(run)[0]["train/loss"] == pytest.approx(losses)
    assert losses.keys() == {1, 2, 3, 4, 5}


def test_what_is_not_installed_is_said_before_anything_is_done(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(table, "_PACKAGES", {"tensorboard": "a-package-that-is-not-there"})
    with pytest.raises(ConfigError) as refused:
        train(TrainConfig(**settings, report_to=["tensorboard"]))
    assert "-m pip install a-package-that-is-not-there" in refused.value.what_to_do
    assert not Path(settings["run_dir"]).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["log"], "which run?"),
        (["log", "RUN"], "to which tracker?"),
        (["log", "RUN", "--to", "tensorbord"], "Did you mean tensorboard?"),
        (["log", "nothing", "--to", "tensorboard"], "no run"),
        (["train", "--demo", "--report-to", "tensorbord"], "needs tensorboard, wandb, trackio"),
    ],
)
def test_bad_words_are_refused(
    run: RunDirectory, words: list[str], said: str, capfd: pytest.CaptureFixture[str]
):
    words = [str(run.path) if word == "RUN" else word for word in words]
    assert program(words) == 2
    found = capfd.readouterr()
    assert found.out == ""
    assert said in found.err


@pytest.mark.slow
def test_tensorboard_itself_reads_the_files(run: RunDirectory, tmp_path: Path):
    """In an environment of its own; skipped where the package index has nothing to give."""
    sync(run)
    go_on(run)
    sync(run)
    home = tmp_path / "tensorboard"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = str(home / "bin" / "python")
    words = [python, "-m", "pip", "install", "--quiet", "tensorboard", "setuptools<81"]
    if subprocess.run(words, check=False).returncode:
        pytest.skip("tensorboard cannot be installed here")
    folder = run.path / "trackers" / "tensorboard" / run.id
    done = subprocess.run(
        [python, "-c", _READ, str(folder)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [[n, n] for n in range(1, 7)]


_READ = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
read = EventAccumulator(sys.argv[1])
read.Reload()
print(json.dumps([[event.step, event.value] for event in read.Scalars("train/loss")]))
"""
