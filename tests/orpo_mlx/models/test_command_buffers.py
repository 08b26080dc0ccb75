"""Less work at a time for a GPU: what MLX reads is set before it is imported, and nothing else.

There is no Metal here: what the limits do on a Mac was not tried.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.models.command_buffers import SHORT, choose_command_buffers
from orpo_mlx.storage.safe_path import child_environment
from orpo_mlx.training import train as training

# Says, when mlx is looked for the first time, what it would read.
CHILD = """\
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "mlx.core":
            found = [os.environ.get(f"MLX_MAX_{what}_PER_BUFFER") for what in ("OPS", "MB")]
            print("as mlx is imported:", *found, flush=True)
            sys.meta_path.remove(self)
sys.meta_path.insert(0, Finder())
from orpo_mlx.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def output_of(*words: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, *words], env=child_environment(**more),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_trainer_sets_them_before_mlx_is_imported_and_keeps_the_users_own():
    words = ["train", "--demo", "--dry-run", "--command-buffers", "short"]
    assert "as mlx is imported: 9 4\n" in output_of(*words, MLX_MAX_OPS_PER_BUFFER="9")


def test_so_does_a_resumed_one_which_is_still_the_same_run(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    run = tmp_path / "run"
    config = TrainConfig(
        model=str(model_folder), data=str(pairs_file(8)), steps=2, rank=2, save_every=1,
        sample_prompts=0, evaluate=False, run_dir=str(run), valid_fraction=0.0,
    )  # fmt: skip
    monkeypatch.setattr(training, "_loop", lambda run: "stopped")
    training.train(config)
    words = ["--command-buffers", "short", "--micro-batch-parts", "2"]

    said = output_of("resume", str(run), *words)

    assert "as mlx is imported: 4 4\n" in said
    assert "each forward pass of a step is divided into 2" in said
    assert "step 2/2" in said


def test_auto_sets_nothing(monkeypatch: pytest.MonkeyPatch):
    for name in SHORT:
        monkeypatch.delenv(name, raising=False)
    choose_command_buffers("auto")
    assert not {*SHORT} & {*os.environ}
