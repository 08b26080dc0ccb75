"""The benchmark scripts run and reckon right; how fast anything is, no test says."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
TINY = shlex.split(
    "--hidden 32 --layers 1 --heads 2 --vocab 64 --pairs 4 --prompt-tokens 4 --response-tokens 4 "
    "--micro-batch-size 2 --steps 2 --warmup-steps 1"
)
MEASURED = (
    "step_ms",
    "pairs_per_second",
    "tokens_per_second",
    "cpu_seconds_per_step",
    "peak_memory_bytes",
    "peak_rss_bytes",
)


def run_benchmark(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def read_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    """compare.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_compare", BENCHMARKS / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with this project's core in two commits; the real one is left alone."""
    if shutil.which("git") is None:
        pytest.skip("comparing revisions needs git")
    folder = tmp_path / "repository"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "orpo_mlx", folder / "orpo_mlx", ignore=ignore)
    git(folder, "init", "--quiet")
    commit(folder, "one")
    (folder / "note.txt").write_text("two")
    commit(folder, "two")
    return folder


def git(folder: Path, *arguments: str) -> str:
    # Run from a git hook, these variables would point at the repository of the hook.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all", "--force")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
    git(folder, *identity, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", message)


def test_step_time_measures_something_of_everything():
    measured = read_json(run_benchmark("step_time.py", *TINY, "--json"))
    for name in MEASURED:
        assert math.isfinite(measured[name]), name
        assert measured[name] > 0, name
    assert len(measured["step_seconds"]) == 2
    # 64 words, nothing learned yet: about log 64 nats per token, plus 0.1 * log 2.
    assert measured["loss"] == pytest.approx(math.log(64) + 0.1 * math.log(2), rel=0.2)
    assert measured["conditions"]["workload"]["hidden"] == 32


def test_step_time_reaches_every_option_of_the_trainer():
    options = ["--quantize", "4", "--grad-checkpoint", "--accumulation", "2", "--rank", "2"]
    options += ["--targets", "q_proj,v_proj", "--warmup-steps", "0", "--set", "lam=0.25"]
    measured = read_json(run_benchmark("step_time.py", *TINY, *options, "--json"))
    settings = measured["conditions"]["settings"]
    assert measured["conditions"]["workload"]["bits"] == 4
    assert settings["grad_checkpoint"] is True
    assert settings["grad_accumulation_steps"] == 2
    assert settings["rank"] == 2
    assert settings["target_modules"] == ["q_proj", "v_proj"]
    assert settings["lam"] == 0.25
    assert measured["cpu_seconds_per_step"] > 0


def test_step_time_refuses_a_setting_that_does_not_exist():
    done = run_benchmark("step_time.py", *TINY, "--set", "rnak=4")
    assert done.returncode == 2
    assert "Did you mean rank?" in done.stderr


def test_compare_measures_two_revisions_and_leaves_no_worktree(repository):
    revisions = ["--a-revision", "HEAD~1", "--b-revision", "HEAD", "--rounds", "1", "--json"]
    done = run_benchmark("compare.py", *revisions, "--repository", str(repository), "--", *TINY)
    report = read_json(done)
    commits = [git(repository, "rev-parse", name) for name in ("HEAD~1", "HEAD")]
    assert [side["revision"] for side in report["sides"]] == commits
    # The same trainer on the same pairs: equal loss, and one round never makes a difference real.
    assert report["same_loss"] is True
    assert len(report["comparisons"]) == 4
    for comparison in report["comparisons"]:
        assert comparison["ratio"] > 0
        assert math.isfinite(comparison["ratio"])
        assert comparison["is_real"] is False
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_compare_measures_two_settings_and_says_when_they_do_other_work():
    options = ["--a", "--rank 2 --set lam=0", "--b", "--grad-checkpoint", "--rounds", "1"]
    done = run_benchmark("compare.py", *options, "--", *TINY)
    assert done.returncode == 0, done.stderr
    assert "B: working tree" in done.stdout
    assert "--grad-checkpoint" in done.stdout
    assert "the work was not the same" in done.stdout
    assert "fewer than 6 rounds: no verdict" in done.stdout


def test_compare_names_a_revision_that_does_not_exist(repository):
    done = run_benchmark("compare.py", "--a-revision", "nope", "--repository", str(repository))
    assert done.returncode == 1
    assert "nope" in done.stderr or "rev-parse" in done.stderr


def test_sides_run_in_abba_order(compare, monkeypatch):
    order = []

    def run_once(side):
        order.append(side.name)
        return {"step_ms": 1.0}

    monkeypatch.setattr(compare, "run_once", run_once)
    a, b = (compare.Side(name, ROOT, "working tree", []) for name in "AB")
    compare.run_rounds(a, b, 4)
    assert "".join(order) == "ABBAABBA"


def test_twice_the_time_in_every_round_is_a_ratio_of_two(compare):
    # The machine slows down from round to round; within each round B takes twice as long.
    a = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    found = compare.compare("step_ms", a, [2 * x for x in a])
    assert (found.median_a, found.median_b) == pytest.approx((1.25, 2.5))
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.is_real


def test_no_difference_is_claimed_when_rounds_disagree(compare):
    found = compare.compare("step_ms", [1.0] * 8, [0.8, 1.3] * 4)
    assert found.ratio == pytest.approx(1.05)
    assert found.low < 1 < found.high
    assert not found.is_real


def test_no_difference_is_claimed_between_equal_numbers_or_from_five_rounds(compare):
    assert not compare.compare("peak_memory_bytes", [7.0] * 8, [7.0] * 8).is_real
    assert not compare.compare("peak_memory_bytes", [7.0] * 5, [9.0] * 5).is_real
    assert compare.compare("peak_memory_bytes", [7.0] * 6, [9.0] * 6).is_real


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(compare):
    import numpy as np

    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        shared = random.lognormal(0, 0.05, 12)  # what both runs of a round have in common
        a, b = (shared * random.lognormal(0, 0.02, 12) for _ in range(2))
        found = compare.compare("step_ms", list(a), list(1.2 * b))
        covered += found.low <= 1.2 <= found.high
    assert 0.88 <= covered / 200 <= 1


@pytest.mark.parametrize(
    ("words", "a", "b", "shared"),
    [
        (["--a", "--grad-checkpoint", "--b", ""], "--grad-checkpoint", "", []),
        (["--a=--rank 4", "--", "--json", "--a"], "--rank 4", "", ["--json", "--a"]),
        (["--b", "--rank 4 --steps 2", "--rounds", "3"], "", "--rank 4 --steps 2", []),
    ],
)
def test_options_of_a_side_may_begin_with_dashes(compare, words, a, b, shared):
    args, rest = compare.parse(words)
    assert (args.a, args.b, rest) == (a, b, shared)
