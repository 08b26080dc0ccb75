"""Requests arrive once and in order; signals become flags."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import RunError
from orpo_mlx.runs.control import (
    REQUEST_NAMES,
    Inbox,
    SignalFlags,
    is_acknowledged,
    send_request,
)
from orpo_mlx.runs.directory import RunDirectory, create_run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run whose trainer is this process."""
    run = create_run(TrainConfig(model="m", data="d", run_dir=str(tmp_path / "run")))
    with run.lock():
        yield run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_requests_come_in_order_of_arrival_and_only_once(run: RunDirectory) -> None:
    inbox = Inbox(run.control_folder)
    sent = [*REQUEST_NAMES, "stop", "pause", "stop"]
    paths = [send_request(run, name) for name in sent]
    assert not is_acknowledged(paths[0])
    assert [request.name for request in inbox.poll()] == sent
    assert inbox.poll() == []
    assert all(is_acknowledged(path) for path in paths)
    assert inbox.take_notes() == []


def test_a_request_dropped_by_hand_takes_its_place_by_time(run: RunDirectory) -> None:
    inbox = Inbox(run.control_folder)
    for age, name in ((1, "stop"), (3, "pause"), (2, "sample")):
        path = run.control_folder / f"{name}.json"
        path.write_text(json.dumps({"request": name}))
        os.utime(path, (1000 - age, 1000 - age))
    assert [request.name for request in inbox.poll()] == ["pause", "sample", "stop"]
    assert names(run.control_folder) == ["pause.ack", "sample.ack", "stop.ack"]


def test_requests_to_an_earlier_trainer_are_put_aside(run: RunDirectory) -> None:
    old = send_request(run, "stop")
    inbox = Inbox(run.control_folder)
    assert inbox.poll() == []
    assert not is_acknowledged(old)
    assert names(run.control_folder) == [old.with_suffix(".stale").name]
    send_request(run, "pause")
    assert [request.name for request in inbox.poll()] == ["pause"]


def test_what_is_not_understood_is_put_aside_with_a_note(run: RunDirectory) -> None:
    inbox = Inbox(run.control_folder)
    folder = run.control_folder
    (folder / "a.json").write_text('{"request": "fly"}')
    (folder / "b.json").write_text('{"request": ')
    (folder / "c.json").write_bytes(b"\xff\xfe")
    (folder / "d.json").write_text('["stop"]')
    (folder / "e.json").write_text('{"request": ["stop"]}')
    (folder / "f.json").write_text("[" * 60_000)
    (folder / "g.json").mkdir()
    (folder / "h.json").symlink_to(run.config_file)
    os.mkfifo(folder / "i.json")
    assert inbox.poll() == []
    notes = inbox.take_notes()
    assert len(notes) == 9
    assert "no such request: 'fly'" in "\n".join(notes)
    assert all(name.endswith(".bad") for name in names(folder))
    assert run.config_file.is_file()
    assert inbox.poll() == [] == inbox.take_notes()


def test_unfinished_and_foreign_files_are_left_alone(run: RunDirectory) -> None:
    inbox = Inbox(run.control_folder)
    for name in (".x.json.tmp", ".hidden.json", "notes.txt", "old.ack"):
        (run.control_folder / name).write_text("{}")
    assert inbox.poll() == []
    assert len(names(run.control_folder)) == 4


def test_a_request_is_taken_once_even_where_renaming_fails(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(run.control_folder)
    send_request(run, "sample")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert [request.name for request in inbox.poll()] == ["sample"]
    assert inbox.poll() == []


def test_a_missing_folder_holds_no_requests(tmp_path: Path) -> None:
    assert Inbox(tmp_path / "none").poll() == []


def test_nothing_can_be_asked_of_a_run_without_a_trainer(tmp_path: Path) -> None:
    run = create_run(TrainConfig(model="m", data="d", run_dir=str(tmp_path / "run")))
    with pytest.raises(RunError, match=r"not running \(it is crashed\): nothing to pause"):
        send_request(run, "pause")
    assert names(run.control_folder) == []


def handlers() -> list[object]:
    return [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_after_the_step(number: signal.Signals) -> None:
    with SignalFlags() as flags:
        assert not flags.stop
        signal.raise_signal(number)
        assert flags.stop
        assert not flags.abort
        assert flags.signal_name == number.name


def test_a_second_interrupt_aborts_and_a_third_one_raises() -> None:
    with SignalFlags() as flags:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert not flags.abort
        signal.raise_signal(signal.SIGINT)
        assert flags.abort
        assert flags.signal_name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_closed_terminal_ends_nothing() -> None:
    with SignalFlags() as flags:
        signal.raise_signal(signal.SIGHUP)
        assert not flags.stop


def test_the_handlers_before_are_restored_even_after_an_error() -> None:
    before = handlers()

    def fail() -> None:
        with SignalFlags():
            assert handlers() != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert handlers() == before


def test_in_another_thread_signals_are_left_alone() -> None:
    before = handlers()
    seen: list[object] = []

    def work() -> None:
        with SignalFlags() as flags:
            seen.extend([handlers() == before, flags.stop])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, False]


PREPARING = """
import os, signal, sys, time
from orpo_mlx.cli.exit_codes import run_command
from orpo_mlx.runs.control import ended_by_signals

def prepare():
    with ended_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        print("still here", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

sys.exit(run_command(prepare))
"""


def test_while_preparing_sighup_ends_nothing_and_sigterm_says_so():
    done = subprocess.run([sys.executable, "-c", PREPARING], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "still here\n")
    assert done.stderr == "ended by SIGTERM; what was saved before is kept\n"
