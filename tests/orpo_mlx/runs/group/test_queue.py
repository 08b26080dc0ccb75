"""The queue: files only; one worker, one trainer; killed anywhere it goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_mlx.cli.main import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group import worker
from orpo_mlx.runs.group.queue import Queue, QueueEntry
from orpo_mlx.runs.group.worker import QueueWorker, start_worker, work_here
from orpo_mlx.runs.label import RunLabel, read_label

FAKE = str(Path(__file__).parents[3] / "fakes" / "fake_trainer.py")
Add = Callable[..., list[QueueEntry]]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """An empty queue where all runs are; no poll takes long."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))
    monkeypatch.setattr("orpo_mlx.runs.group.worker.POLL_SECONDS", 0.01)
    return Queue()


@pytest.fixture
def add(queue: Queue) -> Add:
    """Return `add(*lams)`: a group of runs, one for each value."""

    def add(*lams: float) -> list[QueueEntry]:
        configs = [TrainConfig(model="m", data="d", lam=lam) for lam in lams]
        return queue.add(configs, [{"lam": f"{lam:g}"} for lam in lams])

    return add


def fake(*words: str) -> list[str]:
    return [sys.executable, FAKE, *words]


def work(queue: Queue) -> list[str]:
    said: list[str] = []
    with queue.lock():
        QueueWorker(queue, said.append, fake).work()
    return said


def statuses(queue: Queue) -> list[str]:
    return [entry.status for entry in queue.read()]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


def starts(entry: QueueEntry) -> list[str]:
    return (entry.run.path / "starts").read_text().split()


def test_what_waits_comes_back_in_order(queue: Queue, add: Add) -> None:
    first, second = add(0.1, 0.2), add(0.1)
    found = queue.read()
    assert found == [*first, *second]
    assert [entry.waiting.number for entry in found] == [1, 2, 3]
    assert len({entry.waiting.group for entry in found}) == 2
    assert statuses(queue) == ["waiting"] * 3
    assert not any(entry.run.path.exists() for entry in found)


def test_one_that_fails_is_noted_and_the_next_goes_on(queue: Queue, add: Add) -> None:
    entries = add(0.2, 0.3, 0.1)
    said = work(queue)
    assert statuses(queue) == ["failed", "failed", "completed"]
    assert queue.read()[1].waiting.words == "error: there is no such model"
    assert said[-2:] == [f"{entries[2].run.id}: begins", f"{entries[2].run.id}: completed"]
    group = entries[0].waiting.group
    assert read_label(entries[2].run.path) == RunLabel("lam 0.1", (group,))
    assert entries[2].run.log_file.exists()
    assert work(queue) == [], "nothing is tried again"


def test_stopped_it_goes_on_with_the_half_done_one(queue: Queue, add: Add) -> None:
    held, last = add(0.4, 0.1)
    thread = threading.Thread(target=work, args=(queue,))
    thread.start()
    until(held.run.is_locked)
    queue.ask_to_stop()
    thread.join()
    assert statuses(queue) == ["stopped", "waiting"]
    assert queue.read()[0].is_open
    assert not queue.stop_file.exists()
    work(queue)
    assert statuses(queue) == ["completed", "completed"]
    assert (starts(held), starts(last)) == (["--config", "--resume"], ["--config"])


def test_a_run_that_a_person_stops_is_ended_and_the_next_begins(queue: Queue, add: Add) -> None:
    held, last = add(0.4, 0.1)
    thread = threading.Thread(target=work, args=(queue,))
    thread.start()
    until(held.run.is_locked)
    assert main(["stop", held.run.id]) == 0
    thread.join()
    assert statuses(queue) == ["stopped", "completed"]
    assert not queue.read()[0].is_open
    assert starts(last) == ["--config"]


WORKER = """
import sys
from orpo_mlx.runs.group.queue import Queue
from orpo_mlx.runs.group.worker import QueueWorker
queue = Queue()
with queue.lock():
    QueueWorker(queue, print, lambda *words: [sys.executable, sys.argv[1], *words]).work()
"""


def test_the_trainer_outlives_a_killed_worker_and_is_not_started_twice(
    queue: Queue, add: Add
) -> None:
    held, last = add(0.4, 0.1)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, FAKE])
    until(held.run.is_locked)
    worker.kill()
    worker.wait()
    assert held.run.is_locked()
    assert not queue.is_worked_at()
    thread = threading.Thread(target=work, args=(queue,))
    thread.start()
    until(queue.is_worked_at)
    assert main(["stop", held.run.id]) == 0
    thread.join()
    assert statuses(queue) == ["stopped", "completed"], "it was waited for"
    assert starts(held) == ["--config"]
    assert starts(last) == ["--config"]


def test_all_killed_at_once_as_by_a_reboot_the_half_done_one_is_resumed(
    queue: Queue, add: Add
) -> None:
    held, _ = add(0.4, 0.1)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, FAKE])
    until(held.run.is_locked)
    worker.kill()
    worker.wait()
    (held.run.checkpoints_folder / "0000002").mkdir()
    pid = held.run.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not held.run.is_locked())
    assert statuses(queue) == ["crashed", "waiting"]
    work(queue)
    assert statuses(queue) == ["completed", "completed"]
    assert starts(held) == ["--config", "--resume"]


def test_it_waits_for_a_training_of_somebody_else(
    queue: Queue, add: Add, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    looks: list[list[RunDirectory]] = []
    look = worker.trainings_besides

    def count(queue: Queue, entry: QueueEntry) -> list[RunDirectory]:
        looks.append(look(queue, entry))
        return looks[-1]

    monkeypatch.setattr(worker, "trainings_besides", count)
    (other,) = add(0.4)
    queue.remove(other)
    trainer = subprocess.Popen(
        fake("--config", _settings(queue, other), "--run-dir", str(other.run.path))
    )
    until(other.run.is_locked)
    (entry,) = add(0.1)
    thread = threading.Thread(target=work, args=(queue,))
    thread.start()
    until(lambda: len(looks) > 2)
    assert looks[:3] == [[other.run]] * 3
    assert not entry.run.is_run()
    assert main(["queue"]) == 0
    assert f"; it waits for {other.run.id}, which is trained besides" in capsys.readouterr().out
    assert main(["stop", other.run.id]) == 0
    trainer.wait()
    thread.join()
    assert statuses(queue) == ["completed"]


def _settings(queue: Queue, entry: QueueEntry) -> str:
    file = queue.folder / "own.toml"
    file.write_text(entry.waiting.settings)
    return str(file)


def test_there_is_one_worker(queue: Queue, add: Add, capsys) -> None:
    add(0.1)
    queue.folder.mkdir(exist_ok=True)
    with queue.lock():
        with pytest.raises(RunError, match=f"process {os.getpid()} works at the queue"):
            start_worker(queue)
        assert main(["queue", "go", "--here"]) == 2
        assert main(["queue"]) == 0
    assert f"process {os.getpid()} works at the queue; 1 run left" in capsys.readouterr().out


def test_of_two_that_begin_at_once_one_works_and_the_other_says_who(
    queue: Queue, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(0.1)
    answers = iter([False])  # nobody yet, when the second one looks
    is_worked_at = Queue.is_worked_at
    monkeypatch.setattr(
        Queue, "is_worked_at", lambda self: next(answers, None) is None and is_worked_at(self)
    )
    with queue.lock():
        assert start_worker(queue) == os.getpid()


def test_one_added_after_the_last_look_is_not_left_lying(
    queue: Queue, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def look(self: QueueWorker) -> None:
        looked.append(len(queue.read()))
        if len(looked) == 1:
            add(0.1)  # while the lock is still held
        else:
            queue.close(queue.read()[0], "completed")

    monkeypatch.setattr(QueueWorker, "work", look)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    work_here(queue, print)
    assert (looked, statuses(queue)) == ([0, 1], ["completed"])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, "{}", '{"group": 1}', "\x00", "7", "x" * 300_000,
        '{"group":"g","number":1,"changes":{},"settings":"","added":1e300}',
        '{"group":"g","number":1,"changes":{"a":1},"settings":"","added":1}',
        '{"group":"g","number":1,"changes":{},"settings":"","added":1,"outcome":"?"}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_no_entry(queue: Queue, add: Add, text: str) -> None:
    entries = add(0.1)
    (queue.folder / "odd.json").write_text(text)
    assert queue.read() == entries
    assert main(["queue"]) == 0


def test_a_name_that_leads_elsewhere_is_no_entry(queue: Queue, add: Add) -> None:
    (entry,) = add(0.1)
    sound = (queue.folder / f"{entry.run.id}.json").read_text()
    (queue.folder / "...json").write_text(sound)
    assert queue.read() == [entry]


def test_the_command_lists_and_removes(queue: Queue, add: Add, capsys) -> None:
    assert main(["queue"]) == 0
    assert "The queue is empty" in capsys.readouterr().out
    entries = add(0.1, 0.5, 0.9)
    assert main(["queue", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["status"], row["changes"]) for row in rows][:1] == [("waiting", {"lam": "0.1"})]
    assert main(["queue"]) == 0
    out = capsys.readouterr().out
    assert "3 runs left, and nobody works: `orpo-mlx queue go` goes on" in out
    assert "lam 0.9" in out
    assert main(["queue", "remove", entries[0].run.id]) == 0
    assert len(queue.read()) == 2
    assert main(["queue", "remove", "nope"]) == 2
    assert main(["queue", "remove"]) == 2
    assert main(["queue", "remove", entries[0].waiting.group]) == 0
    assert queue.read() == []


@pytest.mark.parametrize("words", [["og"], ["stop", "x"], ["stop"], ["stop", "--here"]])
def test_what_makes_no_sense_is_refused(queue: Queue, words: list[str]) -> None:
    assert main(["queue", *words]) == 2


def test_nothing_to_do_starts_nothing(queue: Queue, capsys) -> None:
    assert main(["queue", "go"]) == 0
    assert capsys.readouterr().out == "Nothing waits in the queue.\n"
    assert not queue.folder.exists()


@pytest.mark.slow
def test_a_real_sweep_of_the_demo(queue: Queue, capsys) -> None:
    words = ["train", "--demo", "--steps", "2", "--no-evaluate", "--sweep", "lam=0.1,0.5"]
    assert main([*words, "--quiet"]) == 0
    assert len(capsys.readouterr().out.split()) == 2
    deadline = time.monotonic() + 300
    while statuses(queue) != ["completed", "completed"]:
        assert time.monotonic() < deadline, queue.log_file.read_text()
        time.sleep(0.2)
    assert [entry.run.read_config().lam for entry in queue.read()] == [0.1, 0.5]
