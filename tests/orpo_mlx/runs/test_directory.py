"""Run directories: never two trainers, never overwritten, alive or dead known for sure."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.measured import NAMES, measured

from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import (
    Heartbeat,
    RunDirectory,
    TrainerState,
    check_run_folder,
    create_run,
    default_runs_dir,
)
from orpo_mlx.runs.events import (
    EventWriter,
    NoteLogged,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    StepCompleted,
)
from orpo_mlx.runs.listing import find_run, list_runs, summarise
from orpo_mlx.runs.lock import RunLock, is_locked


def started(total: int = 20, resumed: int = 0) -> RunStarted:
    return RunStarted(
        "id", "model", "pairs.jsonl", total, 9, 1, 10, 100, {}, {}, "orpo", [*NAMES], resumed
    )


def step(number: int, loss: float = 1.5) -> StepCompleted:
    metrics = measured(loss, 0.5, 0.6, 0.1, -1.0, -1.2, 0.75, 0.2)
    return StepCompleted(metrics, step=number)


def write(run: RunDirectory, *events: object) -> None:
    writer = EventWriter(run.events_file)
    for event in events:
        writer.write(event)  # type: ignore[arg-type]
    writer.close()


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    return tmp_path / "runs"


@pytest.fixture
def run(runs_dir: Path) -> RunDirectory:
    return create_run(TrainConfig(model="m", data="pairs.jsonl"))


TRAINER = """
import sys, time
from pathlib import Path
from orpo_mlx.runs.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print("locked", flush=True)
time.sleep(60)
"""


@contextmanager
def trainer(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    """A real process that holds the run's lock."""
    child = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(run.lock_file)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        try:
            assert child.stdout.readline() == "locked\n"
            yield child
        finally:
            child.kill()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Creation


def test_a_new_run_has_a_readable_unique_name_and_its_settings(runs_dir: Path) -> None:
    config = TrainConfig(model="m", data="My Pairs (v2).jsonl", rank=16)
    runs = [create_run(config) for _ in range(5)]
    assert len({run.id for run in runs}) == 5
    assert all(run.path.parent == runs_dir for run in runs)
    assert runs[0].id.startswith(f"my-pairs-v2-{time.strftime('%Y')}")
    assert runs[0].read_config() == config
    assert runs[0].control_folder.is_dir()


@pytest.mark.parametrize(
    ("data", "name"),
    [("a/ultra/train.jsonl", "ultra-"), ("日本.jsonl", "run-"), (None, "run-"), ("/", "run-")],
)
def test_a_run_is_named_after_its_data(runs_dir: Path, data: str | None, name: str) -> None:
    assert create_run(TrainConfig(model="m", data=data)).id.startswith(name)


def test_the_settings_of_a_run_can_start_another_one(tmp_path: Path) -> None:
    run = create_run(TrainConfig(model="m", data="d", run_dir=str(tmp_path / "one")))
    assert run.path == tmp_path / "one"
    assert run.read_config().run_dir is None


@pytest.mark.parametrize(
    ("events", "status", "advice"),
    [
        ([RunFinished("completed", 20, 1.0, None)], "completed", "--init-adapter {}/adapter"),
        ([step(3)], "crashed", "--resume {}"),
    ],
)
def test_a_place_with_a_run_is_refused_and_left_alone(
    run: RunDirectory, events: list[object], status: str, advice: str
) -> None:
    write(run, started(), *events)
    (run.checkpoints_folder / "0000003").mkdir(parents=True)
    before = contents(run.path)
    with pytest.raises(RunError) as caught:
        create_run(TrainConfig(model="m", data="d", run_dir=str(run.path)))
    assert str(run.path) in caught.value.message
    assert status in caught.value.message
    assert "nothing was changed" in caught.value.message
    assert advice.format(run.path) in caught.value.what_to_do
    assert contents(run.path) == before


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below", file / "far" / "below"):
        with pytest.raises(RunError, match=r"file|Not a directory") as caught:
            create_run(TrainConfig(model="m", data="d", run_dir=str(place)))
        assert str(place) in caught.value.message
    with pytest.raises(RunError, match=r"File exists|Not a directory"):
        create_run(TrainConfig(model="m", data="d", runs_dir=str(file)))
    assert file.read_text() == "mine"


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"not a run \(found thesis\.tex\)"):
        check_run_folder(tmp_path)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert create_run(TrainConfig(run_dir=str(tmp_path))).is_run()


def test_a_place_that_cannot_be_written_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"run: cannot be written \(Permission denied\)"):
        create_run(TrainConfig(model="m", data="d", run_dir=str(tmp_path / "run")))


def test_the_default_place_is_the_user_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORPO_MLX_HOME", raising=False)
    assert default_runs_dir().parts[-2:] == ("orpo-mlx", "runs")


# The lock


def test_a_second_trainer_is_told_the_pid_of_the_first(run: RunDirectory) -> None:
    with trainer(run) as child:
        assert run.is_locked()
        assert run.pid == child.pid
        with pytest.raises(RunError, match=f"process {child.pid} is training this run"):
            run.lock().acquire(patience_seconds=0.05)
        with pytest.raises(RunError, match=f"process {child.pid} is training it"):
            create_run(TrainConfig(model="m", data="d", run_dir=str(run.path)))
        assert run.is_locked(), "looking and failing took nothing away"


def test_a_killed_trainer_frees_the_lock_at_once(run: RunDirectory) -> None:
    write(run, started(), step(1))
    with trainer(run) as child:
        run.write_state(TrainerState("running", 1, 20, child.pid, time.time()))
        assert run.read_status() == "running"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not run.is_locked()
        assert run.read_status() == "crashed"
    assert run.lock_file.exists(), "the lock file is never deleted"
    with run.lock():
        assert run.pid == os.getpid()


def test_many_readers_never_keep_a_trainer_out(run: RunDirectory) -> None:
    run.lock_file.touch()
    looking = "import sys\nfrom pathlib import Path\nfrom orpo_mlx.runs.lock import is_locked\n"
    looking += "print('go', flush=True)\nwhile True: is_locked(Path(sys.argv[1]))"
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", looking, str(run.lock_file)], stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        for _ in range(50):
            lock = run.lock()
            lock.acquire(patience_seconds=20)
            lock.release()
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def test_the_holder_can_look_without_letting_go(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run.lock():
        # Closing any handle of the file would drop the lock where flock is emulated.
        monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("asked the system"))
        assert is_locked(run.lock_file)
    monkeypatch.undo()
    assert not is_locked(run.lock_file)


def test_a_disk_without_locks_is_refused(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match="cannot lock files"):
        run.lock().acquire()
    assert not run.is_locked()


def test_a_lock_can_be_released_twice_and_taken_again(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "run.lock")
    for _ in range(2):
        lock.acquire()
        lock.release()
        lock.release()


# Status


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "crashed"),
        ([started(), step(2)], "crashed"),
        ([started(), RunFinished("completed", 20, 1.0, None)], "completed"),
        ([started(), RunFinished("early_stop", 9, 1.0, None)], "completed"),
        ([started(), RunFinished("stopped", 9, 1.0, None)], "stopped"),
        ([started(), RunFinished("aborted", 9, 1.0, None), NoteLogged("info", "x")], "stopped"),
        ([started(), RunFailed("E", "m", "w", 3, None)], "failed"),
        ([started(), RunFinished("stopped", 9, 1.0, None), started(resumed=9)], "crashed"),
        ([RunFailed("E", "m", "w", 3, None), started(), Resumed(2, True), step(3)], "crashed"),
    ],
)
def test_without_a_trainer_the_last_event_tells_the_status(
    run: RunDirectory, events: list[object], status: str
) -> None:
    write(run, *events)
    assert run.read_status() == status
    assert run.last_status() == status


NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (None, "preparing"),
        (TrainerState("running", 1, 9, 0, NOW - 59), "running"),
        (TrainerState("running", 1, 9, 0, NOW - 61), "stalled"),
        (TrainerState("running", 1, 9, 0, NOW - 61, step_seconds=30), "running"),
        (TrainerState("running", 1, 9, 0, NOW - 601, step_seconds=30), "stalled"),
        (TrainerState("stopping", 1, 9, 0, NOW - 61), "stalled"),
        (TrainerState("paused", 1, 9, 0, NOW - 9999), "paused"),
        (TrainerState("preparing", 0, 9, 0, NOW - 9999), "preparing"),
        (TrainerState("completed", 9, 9, 0, NOW), "completed"),
        (TrainerState("running", 1, 9, 1, NOW), "preparing"),
    ],
)
def test_with_a_trainer_its_own_word_counts(
    run: RunDirectory, state: TrainerState | None, status: str
) -> None:
    with run.lock():
        if state:
            pid = os.getpid() if state.pid == 0 else state.pid + os.getpid()
            run.write_state(TrainerState(**{**vars(state), "pid": pid}))
        assert run.read_status(now=NOW) == status


def test_the_heartbeat_writes_at_once_on_change_and_rarely_else(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [NOW]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    heart = Heartbeat(run, total_steps=9, every_seconds=2.0)
    seen = []
    for seconds, status, number in (
        (0, "running", 1), (1, "running", 2), (2, "running", 3), (2.1, "stopping", 3),
        (1, "stopping", 4),
    ):  # fmt: skip
        clock[0] = NOW + seconds
        heart.beat(status, number)
        state = run.read_state()
        assert state is not None
        seen.append((state.status, state.step))
    assert seen == [
        ("running", 1),
        ("running", 1),
        ("running", 3),
        ("stopping", 3),
        ("stopping", 4),
    ]  # fmt: skip  (a clock set back must not silence it)


def test_a_full_disk_does_not_end_the_training_by_its_heartbeat(run: RunDirectory) -> None:
    run.state_file.mkdir()  # replacing a folder by a file fails
    Heartbeat(run).beat("running", 1)


@given(cut=st.integers(0, 200))
@settings(max_examples=50)
def test_a_damaged_state_file_is_no_state(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = RunDirectory(tmp_path_factory.getbasetemp())
    whole = json.dumps(vars(TrainerState("running", 3, 9, 77, NOW)))
    run.state_file.write_text(whole[:cut])
    assert (run.read_state() is None) == (cut < len(whole))


# Lists


def test_a_summary_tells_how_far_and_how_good(run: RunDirectory) -> None:
    write(run, started(), step(10, 2.0), step(20, 1.25), RunFinished("completed", 20, 9.0, "a"))
    summary = summarise(run)
    assert (summary.status, summary.step, summary.total_steps) == ("completed", 20, 20)
    assert summary.metrics == measured(1.25, 0.5, 0.6, 0.1, -1.0, -1.2, 0.75, 0.2)
    assert (summary.model, summary.data) == ("model", "pairs.jsonl")
    assert summary.started == pytest.approx(time.time(), abs=60)


def test_steps_made_void_by_a_resume_are_not_shown(run: RunDirectory) -> None:
    write(run, started(), step(10, 2.0), step(20, 1.25), started(resumed=10), Resumed(10, True))
    assert summarise(run).metrics["loss"] == 2.0
    write(run, step(11, 1.9))
    assert summarise(run).metrics["loss"] == 1.9


def test_a_summary_reads_little_of_a_long_run(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orpo_mlx.runs import events

    write(run, started(9000), *(step(n) for n in range(1, 9001)))
    assert run.events_file.stat().st_size > 3_000_000
    decoded = []
    real = events.decode
    monkeypatch.setattr(events, "decode", lambda line: decoded.append(1) or real(line))
    assert summarise(run).step == 9000
    assert len(decoded) < 3000


def test_half_written_runs_are_listed_and_other_folders_are_not(runs_dir: Path) -> None:
    for name in ("empty", "other", "torn", "binary", "folderish"):
        (runs_dir / name).mkdir(parents=True)
    (runs_dir / "file").write_text("")
    (runs_dir / "other" / "note.txt").write_text("")
    (runs_dir / "torn" / "config.toml").write_text('model = "m"\ndata = ')
    (runs_dir / "torn" / "events.jsonl").write_text('{"event": "RunSta')
    (runs_dir / "torn" / "state.json").write_text('{"status": ')
    (runs_dir / "binary" / "config.toml").write_bytes(b"\xff\xfe\x00")
    (runs_dir / "binary" / "events.jsonl").write_bytes(b"\xff\xfe\x00\n\n[]\n{}\n")
    (runs_dir / "folderish" / "run.lock").write_text("")
    (runs_dir / "folderish" / "events.jsonl").mkdir()
    (runs_dir / "folderish" / "config.toml").mkdir()
    summaries = {summary.id: summary for summary in list_runs()}
    assert set(summaries) == {"torn", "binary", "folderish"}
    assert all(summary.status == "damaged" for summary in summaries.values())
    assert all(summary.metrics == {} for summary in summaries.values())


def test_the_newest_run_comes_first(runs_dir: Path) -> None:
    names = ["a", "b", "c"]
    for age, name in zip([5, 1, 9], names, strict=True):
        run = create_run(TrainConfig(run_dir=str(runs_dir / name)))
        os.utime(run.config_file, (NOW - age, NOW - age))
    assert [summary.id for summary in list_runs(runs_dir)] == ["b", "a", "c"]


def test_no_folder_means_no_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []


def test_a_run_is_found_by_id_beginning_or_path(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (create_run(TrainConfig(run_dir=str(runs_dir / n))) for n in ("pairs-1", "pairs-2"))
    elsewhere = create_run(TrainConfig(run_dir=str(tmp_path / "else" / "where")))
    assert find_run("pairs-1") == one
    assert find_run(str(two.path)) == two
    monkeypatch.chdir(elsewhere.path.parent)
    assert find_run("where") == elsewhere
    assert find_run("pairs-2", runs_dir) == two
    with pytest.raises(RunError, match="beginning of 2 runs: pairs-1, pairs-2"):
        find_run("pairs")


@pytest.mark.parametrize(
    ("text", "message"),
    [("pears-1", "near: pairs-1"), ("", "there is no run ''"), ("zzz", "there is no run 'zzz'")],
)
def test_a_run_that_is_not_there_is_refused_with_near_names(
    runs_dir: Path, text: str, message: str
) -> None:
    create_run(TrainConfig(run_dir=str(runs_dir / "pairs-1")))
    with pytest.raises(RunError) as caught:
        find_run(text)
    assert message in caught.value.message


def test_a_folder_that_is_no_run_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"looked for config\.toml, events\.jsonl, run\.lock"):
        find_run(str(tmp_path))
