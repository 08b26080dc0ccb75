"""W&B in its offline mode and trackio in its database, read back; in a folder of their own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.runs.directory import RunDirectory, create_run
from orpo_mlx.runs.events import (
    EvalCompleted,
    EventWriter,
    Resumed,
    RunFinished,
    RunStarted,
    SampleGenerated,
    StepCompleted,
)

pytestmark = pytest.mark.slow
Curve = list[tuple[int, float]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages beside the project's own; ORPO_MLX_TRACKERS names a folder that has them."""
    if found := os.environ.get("ORPO_MLX_TRACKERS"):
        return Path(found)
    folder = tmp_path_factory.mktemp("packages")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    if subprocess.run([*words, "wandb", "trackio"], check=False).returncode:
        pytest.skip("wandb and trackio cannot be installed here")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run of three steps, and then one that a resume will make void."""
    run = create_run(TrainConfig(model="m", data="d", run_dir=str(tmp_path / "the-run")))
    write(run, started(run, 0), EvalCompleted({"loss": 3.0}, 0), *steps(1, 2, 3))
    write(run, SampleGenerated(3, "Why?", "So it is.", 0), *steps(4, add=100))
    return run


def started(run: RunDirectory, resumed_from: int) -> RunStarted:
    config = {"model": "/home/me/models/tiny", "lam": 0.5}
    return RunStarted(
        run.id, "tiny", "a", 5, 9, 1, 10, 100, config, {"mlx": "1"}, "orpo", ["loss"], resumed_from
    )


def steps(*numbers: int, add: float = 0) -> list[StepCompleted]:
    return [StepCompleted({"loss": n + add}, n) for n in numbers]


def write(run: RunDirectory, *events: Any) -> None:
    writer = EventWriter(run.events_file)
    for event in events:
        writer.write(event)
    writer.close()


@pytest.fixture
def log(run: RunDirectory, packages: Path, tmp_path: Path) -> Callable[[str], str]:
    """Return `log(tracker) -> what was printed`."""

    def log(tracker: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "orpo_mlx", "log", str(run.path), "--to", tracker],
            capture_output=True, text=True, check=False, timeout=200,
            env={
                **os.environ, "PYTHONPATH": str(packages), "WANDB_MODE": "offline",
                "TRACKIO_DIR": str(tmp_path / "trackio"), "TRACKIO_SPACE_ID": "me/elsewhere",
                "HF_TOKEN": "hf_a-secret-of-mine", "HOME": str(tmp_path),
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return log


def from_trackio(folder: Path) -> dict[str, Curve]:
    """Losses of training by run, in the order in which they were logged."""
    found: dict[str, Curve] = {}
    with sqlite3.connect(folder / "orpo-mlx.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by id").fetchall()
    base.close()
    for name, step, metrics in rows:
        values = json.loads(metrics)
        if "train/loss" in values:
            found.setdefault(name, []).append((step, values["train/loss"]))
    return found


def test_trackio_has_the_run_on_this_machine_and_goes_on_with_it(
    run: RunDirectory, log: Callable[[str], str], tmp_path: Path
):
    folder = tmp_path / "trackio"
    assert log("trackio") == "trackio: 7 events logged as the-run\n"
    first = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 104.0)]
    assert from_trackio(folder) == {"the-run": first}
    assert "is there already" in log("trackio")
    write(run, *steps(5))
    log("trackio")
    assert from_trackio(folder) == {"the-run": [*first, (5, 5.0)]}
    content = (folder / "orpo-mlx.db").read_bytes()
    for said in (b"Why?", b"So it is.", b"valid/loss", b'"lam":0.5'):
        assert said in content
    assert b"/home/me" not in content
    assert b"hf_a-secret" not in content


@pytest.mark.parametrize("tracker", ["trackio", "wandb"])
def test_after_a_resume_that_makes_steps_void_the_run_is_logged_anew(
    run: RunDirectory, log: Callable[[str], str], tmp_path: Path, packages: Path, tracker: str
):
    log(tracker)
    write(run, started(run, 3), Resumed(3, new_process=True), *steps(4, 5),
          RunFinished("completed", 5, 1.0, None))  # fmt: skip
    assert "logged as the-run-2" in log(tracker)
    if tracker == "trackio":
        found = from_trackio(tmp_path / "trackio")["the-run-2"]
    else:
        found = from_wandb(run, "the-run-2", packages)["losses"]
    assert found == [(n, float(n)) for n in range(1, 6)]


READ = """
import json, struct, sys
from wandb.proto import wandb_internal_pb2 as proto
data = open(sys.argv[1], "rb").read()
at, held, losses, config = 7, b"", [], {}
while at + 7 <= len(data):
    size, kind = struct.unpack_from("<HB", data, at + 4)  # behind a checksum
    left = 32768 - at % 32768
    if left < 7 or kind == 0:
        at += left
        continue
    held += data[at + 7 : at + 7 + size]
    at += 7 + size
    if kind in (1, 4):  # whole, or the last piece
        record = proto.Record.FromString(held)
        held = b""
        items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
        if "train/loss" in items:
            losses.append([json.loads(items["step"]), json.loads(items["train/loss"])])
        for item in [*record.run.config.update, *record.config.update]:
            config[item.key or "/".join(item.nested_key)] = item.value_json
print(json.dumps({"losses": losses, "config": config}))
"""


def from_wandb(run: RunDirectory, name: str, packages: Path) -> dict[str, Any]:
    """Losses and settings of the offline files of a run: records in blocks of 32 kB."""
    found: dict[str, Any] = {"losses": [], "config": {}}
    for file in sorted((run.path / "trackers" / "wandb").glob(f"offline-run-*/run-{name}.wandb")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", READ, str(file)], capture_output=True, text=True,
            check=True, env={**os.environ, "PYTHONPATH": str(packages)},
        )  # fmt: skip
        read = json.loads(done.stdout)
        found["losses"] += [tuple(one) for one in read["losses"]]
        found["config"] |= read["config"]
    return found


def test_wandb_has_the_run_offline_and_goes_on_with_it(
    run: RunDirectory, log: Callable[[str], str], packages: Path
):
    assert log("wandb") == "wandb: 7 events logged as the-run\n"
    found = from_wandb(run, run.id, packages)
    first = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 104.0)]
    assert found["losses"] == first
    assert found["config"]["lam"] == "0.5"
    assert found["config"]["model"] == '"tiny"'
    assert "is there already" in log("wandb")
    write(run, *steps(5))
    log("wandb")
    assert from_wandb(run, run.id, packages)["losses"] == [*first, (5, 5.0)]
    for file in (run.path / "trackers").rglob("*"):
        if file.is_file():
            assert b"hf_a-secret" not in file.read_bytes()
            assert b"/home/me" not in file.read_bytes()
    tables = list((run.path / "trackers" / "wandb").rglob("*.table.json"))
    assert any("So it is." in table.read_text() for table in tables)
