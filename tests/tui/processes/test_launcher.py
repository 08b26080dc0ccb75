"""Starting trainers: detached, with a log, and with what was refused told."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from orpo_mlx.cli.commands.train import parse_train
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import RunError
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.group import launch
from tui.processes import launcher
from tui.processes.trainer_log import log_of, sweep
from tui.shell.settings import Settings


async def test_a_refused_training_leaves_no_run_and_its_words(runs_dir: Path):
    config = TrainConfig(model=str(runs_dir / "none"), data=str(runs_dir / "none.jsonl"))
    start = launcher.start_training(config, runs_dir, Settings())
    assert os.getsid(start.process.pid) != os.getsid(0)
    assert await asyncio.wait_for(start.wait(), 60) is False
    assert "none" in start.read_log()
    assert "error: " in start.read_log()
    assert not start.run.path.exists()
    assert launcher.running_runs(runs_dir) == []


async def test_a_started_run_owns_its_log(runs_dir: Path, monkeypatch):
    """With the simulated trainer in place of the real one: what starts is the same."""
    words = ["-m", "orpo_mlx", "simulate", "--steps", "3", "--speed", "0"]
    popen = launcher.subprocess.Popen

    def simulated(argv, **given):
        place = argv[argv.index("--run-dir") + 1]
        return popen([sys.executable, *words, "--run-dir", place], **given)

    monkeypatch.setattr(launcher.subprocess, "Popen", simulated)
    start = launcher.start_demo(runs_dir, Settings())
    assert await asyncio.wait_for(start.wait(), 60) is True
    start.process.wait()
    assert start.run.read_status() == "completed"
    assert log_of(start.run).parent in (start.run.path, runs_dir / ".starting")
    assert start.exit_code == 0


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        ("/x/My Pairs (2).jsonl", "my-pairs-2-2"),
        ("/my-set/train.jsonl", "my-set-2"),  # as the command names it
        ("org/" + "a" * 40, "a" * 24 + "-2"),
        ("/x/" + "a" * 23 + "-b.jsonl", "a" * 23 + "-2"),
        ("/x/\u8a69.jsonl", "run-2"),
        ("/x/d\xe4t\xe4 file.jsonl", "data-file-2"),
    ],
)
def test_a_run_is_named_after_its_data_and_the_time(runs_dir, monkeypatch, data, begins):
    monkeypatch.setattr(launch, "start_in_background", lambda *given: None)
    start = launcher.start_training(TrainConfig(model="m", data=data), runs_dir, Settings())
    assert start.run.path.parent == runs_dir
    assert re.fullmatch(begins + r"\d{7}-\d{4}-[0-9a-f]{4}", start.run.id), start.run.id


def test_a_log_is_locked_before_another_app_can_find_it(runs_dir: Path, monkeypatch):
    seen = []

    def look(*_):
        seen.append(sweep(runs_dir, 0.0))

    def look_first(file, how):
        look()
        fcntl.flock(file, how)

    own = SimpleNamespace(LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB, flock=look_first)
    monkeypatch.setattr(launch, "fcntl", own)
    monkeypatch.setattr(launch, "start_in_background", look)
    start = launcher.start_demo(runs_dir, Settings())
    assert seen == [[], []]
    assert start.log_file.exists()


def test_a_run_under_training_is_not_resumed(make_run):
    run = make_run()
    with run.lock(), pytest.raises(RunError, match="is training this run"):
        launcher.resume_training(run, Settings())


def test_settings_to_resume_with_are_words_of_the_trainer(make_run, monkeypatch):
    monkeypatch.setattr(launcher, "start_in_background", lambda *given: None)
    monkeypatch.setattr(launch, "start_in_background", lambda *given: None)
    changes = {"command_buffers": "short", "micro_batch_parts": 2}

    start = launcher.resume_training(make_run(), Settings(), changes=changes)

    command = parse_train(start.argv[3:])
    assert command.resume_overrides == changes
    again = launcher.start_again(start.run, changes, Settings())
    saved = parse_train(again.argv[3:]).config
    assert (saved.command_buffers, saved.micro_batch_parts) == ("short", 2)


@pytest.mark.parametrize(("given", "parts"), [({}, None), ({"micro_batch_parts": 4}, 4)])
def test_each_of_several_processes_gets_a_part_of_a_step(runs_dir, monkeypatch, given, parts):
    monkeypatch.setattr(launch, "start_in_background", lambda *given: None)
    config = TrainConfig(model="m", data="d", **given)
    start = launcher.start_training(config, runs_dir, Settings(), processes=3)
    command = parse_train(start.argv[3:])
    assert command.processes == 3
    # What is not said in the file is the trainer's to choose.
    assert ("micro_batch_parts" in command.origins) == (parts is not None)
    assert command.config.micro_batch_parts == (parts or 1)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        launcher.start_demo(tmp_path / "file", Settings())


def test_the_watchdog_setting_can_be_switched_off():
    name = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"
    assert launcher.trainer_environment(Settings())[name] == "1"
    assert name not in launcher.trainer_environment(Settings(relax_gpu_watchdog=False))


def test_the_log_of_a_refused_resume_is_found_before_the_older_one(make_run, runs_dir):
    run: RunDirectory = make_run()
    run.log_file.write_text("old")
    assert log_of(run) == run.log_file
    (runs_dir / ".starting").mkdir()
    newer = runs_dir / ".starting" / f"{run.id}.log"
    newer.write_text("new")
    os.utime(run.log_file, (1, 1))
    assert log_of(run) == newer
