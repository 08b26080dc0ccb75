"""Float32 products: exact unless a run asks otherwise, and measured instead of believed.

No GPU that rounds them is at hand. It is played by a product whose factors are rounded to the ten
bits of TF32 first; that its error is the 2.9e-4 which was measured on real ones is checked, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from orpo_mlx.__main__ import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.diagnostics.machine import iter_facts
from orpo_mlx.errors import CheckpointError
from orpo_mlx.evaluation.subject import Asked, adapter_of, open_subject
from orpo_mlx.models.precision import VARIABLE, choose_float32, has_exact_products, product_error
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import RunStarted, read_events
from orpo_mlx.serving.place import open_playground
from orpo_mlx.storage.safe_path import child_environment
from orpo_mlx.training.identity import require_same, settings_identity
from orpo_mlx.training.train import train
from orpo_mlx.verify import gradients, suite
from orpo_mlx.verify.check import FULL_PRECISION, HALF_PRECISION, limits_of

product: Any = mx.array.__matmul__


def to_ten_bits(factor: mx.array) -> mx.array:
    bits = mx.view(mx.stop_gradient(factor), mx.uint32)
    kept = mx.bitwise_and(bits + 0x1000, mx.array(0xFFFFE000, mx.uint32))
    return factor + mx.stop_gradient(mx.view(kept, mx.float32) - factor)


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round the factors of large products; small ones stay exact, as such GPUs have it."""

    def rounded(one: mx.array, other: mx.array) -> mx.array:
        if one.shape[-2] <= 40:
            return product(one, other)
        return product(to_ten_bits(one), to_ten_bits(other))

    monkeypatch.setattr(mx.array, "__matmul__", rounded)


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that it is put back as it was
    monkeypatch.delenv(VARIABLE)


def test_products_here_are_exact():
    assert 1e-8 < product_error() < 1e-6
    assert has_exact_products()


@pytest.mark.usefixtures("tf32")
def test_rounded_products_have_the_error_of_real_ones():
    assert product_error() == pytest.approx(2.9e-4, rel=0.1)
    assert not has_exact_products()


@pytest.mark.parametrize(
    ("found", "wanted", "then", "says"),
    [
        (None, "exact", "0", False), (None, "fast", "1", False), ("0", "exact", "0", False),
        ("1", "fast", "1", False), ("1", "exact", "0", True), ("0", "fast", "1", True),
    ],
)  # fmt: skip
def test_the_setting_wins_over_the_environment_which_is_said(
    found: str | None, wanted: str, then: str, says: bool, monkeypatch: pytest.MonkeyPatch
):
    if found is not None:
        monkeypatch.setenv(VARIABLE, found)

    note = choose_float32(wanted)

    assert os.environ[VARIABLE] == then
    assert bool(note) == says
    assert f"{VARIABLE}={found}" in note or not says


CHILD = """\
import ctypes, sys
from orpo_mlx.__main__ import main
code = main(sys.argv[1:])
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print("MLX would read", getenv(b"MLX_ENABLE_TF32"), code)
"""


def test_a_trainer_sets_what_native_code_reads(tmp_path: Path):
    words = ["train", "--demo", "--dry-run", "--float32", "exact"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, *words],
        env=child_environment(**{VARIABLE: "1"}), cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip

    assert "MLX would read b'0' 0" in done.stdout
    assert "the environment has MLX_ENABLE_TF32=1; --float32 exact decides: 0" in done.stdout


@pytest.fixture
def fast_run(model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path) -> Path:
    config = TrainConfig(
        model=str(model_folder), data=str(pairs_file(24)), steps=1, valid_fraction=0.5, rank=2,
        sample_prompts=0, float32="fast", evaluate=False, eval_pairs=1,
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    train(config)
    return tmp_path / "run"


def test_a_run_records_its_error_what_loads_it_follows_it_and_a_model_alone_is_exact(
    fast_run: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    run = RunDirectory(fast_run)
    started = next(read_events(run.events_file)).event
    assert isinstance(started, RunStarted)
    assert 0 < started.float32_error < 1e-6
    asked = Asked(run.read_config(), adapter_of(run))
    for load, wanted in (
        (lambda: open_subject(asked), "1"),
        (lambda: open_playground({"run": str(fast_run)}), "1"),
        (lambda: open_playground({"model": str(model_folder)}), "0"),
    ):
        monkeypatch.delenv(VARIABLE, raising=False)
        load()
        assert os.environ[VARIABLE] == wanted


def test_a_resume_demands_the_same_and_older_runs_were_exact():
    exact, fast = (settings_identity(TrainConfig(float32=word)) for word in ("exact", "fast"))
    older = json.loads(json.dumps(exact))
    del older["settings"]["float32"]

    require_same(exact, exact)
    require_same(exact, older)
    for manifest in (exact, older):
        with pytest.raises(CheckpointError, match="--float32: was 'exact', is now 'fast'"):
            require_same(fast, manifest)


@pytest.mark.usefixtures("tf32")
def test_exact_is_refused_where_it_cannot_be_had(
    pairs_file: Callable[..., Path], model_folder: Path, tmp_path: Path, capsys: Any
):
    run = tmp_path / "run"
    words = ["--model", str(model_folder), "--data", str(pairs_file(8)), "--run-dir", str(run)]

    code = main(["train", *words])

    assert code == 2
    assert "products have a relative error of 3e-04 here" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.usefixtures("tf32")
def test_the_doctor_says_that_this_gpu_rounds():
    (fact,) = [fact for fact in iter_facts() if fact.name == "float32 products"]
    assert fact.text.startswith("rounded to TF32, relative error 3e-04")


def test_the_limits_of_verify_follow_the_measurement():
    assert limits_of(3e-7, True) == FULL_PRECISION
    assert limits_of(3e-7, False) == limits_of(5e-4, False) == HALF_PRECISION
    limits = limits_of(7.7e-4, True)  # as reported of an M5 Max
    assert FULL_PRECISION.scores < limits.scores < HALF_PRECISION.scores
    assert FULL_PRECISION.gradient < limits.gradient < HALF_PRECISION.gradient


@pytest.mark.usefixtures("tf32")
@pytest.mark.slow
def test_verify_passes_where_products_are_rounded(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(gradients, "can_compile", lambda: False)
    monkeypatch.setattr(suite, "check_trainings", lambda *_: iter(()))

    code = main(["verify", "--demo", "--float32", "fast", "--json", "--pairs", "2"])

    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert code == 0, [name for name, check in checks.items() if not check["passed"]]
    assert checks["float32 products, fast"]["value"] == pytest.approx(2.9e-4, rel=0.1)
    # Exact limits would have failed it, for no fault of the trainer's.
    assert checks["fork scoring: gradient"]["value"] > FULL_PRECISION.gradient
