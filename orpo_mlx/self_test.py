"""Train the built-in model on this machine: the same twice, and the same when interrupted."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from orpo_mlx.machine import Fact
from orpo_mlx.runs.directory import RunDirectory

STEPS = 20
_LIMIT_SECONDS = 600.0


def iter_checks(steps: int = STEPS) -> Iterator[Fact]:
    """Train the demo three times in a temporary folder; yield what each proves, as it is known."""
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-self-test-") as place:
        folder = Path(place)
        first, said = _train(folder / "first", steps)
        yield _fact("a training", said is None, f"{steps} steps of the built-in model", said)
        if first is None:
            return
        second, said = _train(folder / "second", steps)
        yield _same("the same twice", first, second, said, "gives the same adapter, bit for bit")
        third, said = _train_interrupted(folder / "third", steps)
        yield _same(
            "interrupted and resumed", first, third, said, "equals the uninterrupted training"
        )


def _fact(name: str, passed: bool, text: str, said: str | None) -> Fact:
    advice = "Report this with the output of `orpo-mlx doctor --json`."
    return Fact(
        "self-test", name, said or text, "ok" if passed else "error", "" if passed else advice
    )


def _same(name: str, first: str, other: str | None, said: str | None, text: str) -> Fact:
    if other is not None and other != first:
        said = "the adapters differ"
    return _fact(name, other == first, text, said)


def _command(run: Path, steps: int) -> list[str]:
    options = ["--steps", str(steps), "--save-every", "5", "--sample-prompts", "0"]
    words = ["--demo", "--run-dir", str(run), "--eval-pairs", "4", "--quiet", *options]
    return [sys.executable, "-m", "orpo_mlx.train", *words]


def _train(run: Path, steps: int) -> tuple[str | None, str | None]:
    """Return (hash of the adapter, None) or (None, what went wrong)."""
    return _finish(_start(_command(run, steps)), run)


def _train_interrupted(run: Path, steps: int) -> tuple[str | None, str | None]:
    process = _start(_command(run, steps))
    try:
        _wait_for_step(RunDirectory(run), steps // 3, process)
    finally:
        process.kill()
        process.communicate()
    if process.returncode == 0:
        return None, "the training ended before it could be interrupted"
    return _finish(_start([sys.executable, "-m", "orpo_mlx.train", "--resume", str(run)]), run)


def _wait_for_step(run: RunDirectory, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until the run has come that far, or its process has ended."""
    while process.poll() is None:
        state = run.read_state()
        if state is not None and state.step >= step and run.is_locked():
            return
        time.sleep(0.02)


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def _finish(process: subprocess.Popen[str], run: Path) -> tuple[str | None, str | None]:
    try:
        _, said = process.communicate(timeout=_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None, f"not done after {_LIMIT_SECONDS:.0f} s"
    finally:  # an interrupted self-test leaves no trainer behind
        process.kill()
        process.communicate()
    if process.returncode != 0:
        return None, f"exit code {process.returncode}: {said.strip()[-300:]}"
    weights = run / "adapter" / "adapters.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest(), None
