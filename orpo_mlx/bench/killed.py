"""A trainer that is killed in the middle of a step, and what it leaves for a resume."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from orpo_mlx.bench.process import Row, Say, WorkerFailed, run_job
from orpo_mlx.config import build_config
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import CheckpointSaved, Event, StepCompleted
from orpo_mlx.text.progress import Unit

STEPS, SAVE_EVERY, KILLED_AFTER = 8, 2, 5
_SHARE_OF_A_STEP = 0.4


def iter_killed(
    task: Row, seconds: Callable[[], float], say: Say, environment: dict[str, str]
) -> Iterator[Row]:
    """Yield a row: the adapter of a killed and resumed training beside that of a whole one.

    Args:
        task: "folder", "model" and "data".
        seconds: returns how many are left.
        say: told how far it is.
        environment: of the trainers.

    Raises:
        WorkerFailed: a trainer did something else than it was told.
    """

    def trained(name: str, **more: object) -> Row:
        own = {**task, "run": str(Path(task["folder"]) / name), **more}

        def label(text: str, passed: float) -> None:
            say(f"{name} training: {text}", passed)

        return list(run_job("trainer", own, seconds(), label, environment))[-1]

    whole = trained("uninterrupted")
    try:
        trained("killed", kill=True)
    except WorkerFailed as failed:
        if failed.code != -signal.SIGKILL or failed.is_late:
            raise
    else:
        raise WorkerFailed("the trainer ended before it was killed", 0, False)
    yield _judged(whole, trained("killed", resume=True))


def _judged(whole: Row, resumed: Row) -> Row:
    """Return a check: the same bytes, of which some steps were done before the kill."""
    is_same = whole["adapter"] == resumed["adapter"]
    return {
        "name": f"killed (SIGKILL) in step {KILLED_AFTER + 1} of {STEPS}, resumed",
        "passed": is_same and resumed["from_step"] > 0,
        "text": f"went on from step {resumed['from_step']}; adapter of {whole['bytes']:,} bytes, "
        f"sha256 {whole['adapter'][:12]} whole and {resumed['adapter'][:12]} resumed",
        "whole": whole["adapter"],
        "resumed": resumed["adapter"],
    }


# In the trainer's process


def iter_trainer(task: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Train or resume, and yield what the adapter is.

    Args:
        task: "model", "data", "run"; "kill": this process is to be killed; "resume".
        tell: told of each step.
    """
    from orpo_mlx.training.train import resume, train

    report = _Report(tell, bool(task.get("kill")))
    run = RunDirectory(Path(task["run"]))
    result = (
        resume(run, report=report)
        if task.get("resume")
        else train(build_config(_settings(task)), report=report)
    )
    content = b"".join(
        path.read_bytes() for path in sorted(Path(str(result.adapter_path)).glob("*.safetensors"))
    )
    digest = hashlib.sha256(content).hexdigest()
    yield {"adapter": digest, "bytes": len(content), "from_step": report.first_step - 1}


def _settings(task: Row) -> Row:
    return {
        "model": task["model"], "data": task["data"], "run_dir": task["run"],
        "steps": STEPS, "save_every": SAVE_EVERY, "micro_batch_size": 1,
        "grad_accumulation_steps": 2, "dropout": 0.1, "report_every": 1, "eval_every": 0,
        "valid_fraction": 0, "sample_prompts": 0, "evaluate": False, "rank": 4,
    }  # fmt: skip


class _Report:
    """Tells of steps, and has its own process killed some way into one."""

    def __init__(self, tell: Callable[[str], None], kills: bool) -> None:
        self.tell, self.kills, self.first_step = tell, kills, 0

    def handle(self, event: Event, line: str = "") -> None:
        """Note a step; after the chosen one let death come from outside the training."""
        if isinstance(event, CheckpointSaved):
            self.tell(f"checkpoint of step {event.step}")
        if not isinstance(event, StepCompleted):
            return
        self.first_step = self.first_step or event.step
        self.tell(f"step {event.step} of {STEPS}")
        if self.kills and event.step == KILLED_AFTER:
            pause = _SHARE_OF_A_STEP * event.step_seconds
            threading.Timer(pause, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def catch_up(self, events: Iterable[Event]) -> None:
        """Nothing to take in."""

    def progress(self, done: int, total: int, label: str, unit: Unit) -> None:
        """Pass on what is prepared."""
        self.tell(label)

    def close(self) -> None:
        """Nothing to close."""
