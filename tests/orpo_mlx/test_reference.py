"""The llama case of tests/data: our numbers against TRL's, on the same weights and rows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from orpo_mlx.adapters import files, lora
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.types import Batch
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.scoring.base import MicroBatch, Scoring, shift_batch
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training.optimizer import build_optimizer
from orpo_mlx.training.step import TrainStep, evaluate

CASE = Path(__file__).parents[1] / "data" / "llama"
EXPECTED = json.loads((CASE / "expected.json").read_text())
ARRAYS = np.load(CASE / "arrays.npz")
SETTINGS = EXPECTED["settings"]
PLAIN = Scoring(WAYS["plain"], "full")
OBJECTIVE = Orpo(lam=SETTINGS["lam"], nll_scope="full")
TRL_NAMES = {
    "loss": "loss",
    "nll_loss": "nll_loss",
    "logps/chosen": "chosen_logps",
    "logps/rejected": "rejected_logps",
    "log_odds_chosen": "log_odds_ratio",
    "rewards/accuracies": "preference_accuracy",
}


def reference_batch(name):
    """TRL's padded arrays of one batch, both sides padded to one width."""
    sides = []
    for side in ("chosen", "rejected"):
        arrays = {
            k: ARRAYS[f"{name}/{side}_{k}"] for k in ("input_ids", "attention_mask", "labels")
        }
        sides.append(arrays)
    width = max(s["input_ids"].shape[1] for s in sides)

    def joined(key, fill):
        return np.concatenate(
            [np.pad(s[key], ((0, 0), (0, width - s[key].shape[1])), constant_values=fill)
             for s in sides]
        )  # fmt: skip

    labels = joined("labels", -100)
    batch = Batch(
        input_ids=joined("input_ids", 0).astype(np.int32),
        response_mask=labels != -100,
        token_mask=joined("attention_mask", 0).astype(bool),
        indices=tuple(range(len(sides[0]["input_ids"]))),
    )
    return MicroBatch(
        arrays=tuple(mx.array(array) for array in shift_batch(batch, "full")),
        pairs=batch.pairs,
        tokens=batch.tokens,
        nll_tokens=int(batch.token_mask[: batch.pairs, 1:].sum()),
        response_tokens=int(batch.response_mask[: batch.pairs, 1:].sum()),
        indices=batch.indices,
    )


@pytest.fixture
def lora_model():
    from mlx_lm.utils import load_model

    model, _ = load_model(CASE / "model")
    lora.attach_adapter(model, files.read_adapter_spec(CASE / "adapter_mlx"), seed=0)
    files.load_adapter_into(model, CASE / "adapter_mlx")
    return model


def ours_by_peft_name(tree, prefix):
    """Our arrays and the reference's of the same parameter, in PEFT's orientation."""
    flat = dict(tree_flatten(tree))
    names = [n for n in ARRAYS.files if n.startswith(f"{prefix}/")]
    assert len(names) == len(flat) == 42
    for name in names:
        ours = name.split("/", 1)[1].replace(".lora_A", ".lora_a").replace(".lora_B", ".lora_b")
        yield np.array(flat[ours]).T, ARRAYS[name]


def assert_metrics(metrics, expected, atol):
    got = dict(zip(OBJECTIVE.metrics, metrics, strict=True))
    for theirs, ours in TRL_NAMES.items():
        assert got[ours] == pytest.approx(expected[theirs], abs=atol), ours
    assert got["odds_ratio_loss"] == pytest.approx(-expected["log_odds_ratio"], abs=atol)
    assert got["logps_margin"] == pytest.approx(
        expected["rewards/margins"] / SETTINGS["lam"], abs=4 * atol
    )


def test_evaluation_with_the_adapter_equals_trl(lora_model):
    metrics = evaluate(lora_model, [reference_batch("eval")], OBJECTIVE, PLAIN)

    assert_metrics(metrics, EXPECTED["eval"]["lora"], atol=5e-6)


def test_evaluation_with_the_adapter_off_equals_trl_without_one(lora_model):
    with lora.adapter_switched_off(lora_model):
        metrics = evaluate(lora_model, [reference_batch("eval")], OBJECTIVE, PLAIN)

    assert_metrics(metrics, EXPECTED["eval"]["base"], atol=5e-6)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_first_batch_gradient_of_every_lora_parameter_equals_trl(
    lora_model, compiled, has_compiler
):
    if compiled and not has_compiler:
        pytest.skip("mx.compile needs a C++ compiler on a CPU")
    step = TrainStep(
        lora_model,
        build_optimizer(TrainConfig()),
        OBJECTIVE,
        PLAIN,
        compiled=compiled,
    )

    gradient = step.gradient([reference_batch("train00")], mx.random.key(0))

    for ours, theirs in ours_by_peft_name(gradient, "grad"):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    total = np.sqrt(sum(float((np.array(g) ** 2).sum()) for _, g in tree_flatten(gradient)))
    assert total == pytest.approx(EXPECTED["grad_first_batch"]["total_norm"], rel=1e-5)


@pytest.mark.parametrize(
    ("start", "scoring"),
    [
        ("adapter_mlx", "auto"),
        pytest.param("adapter_mlx", "plain", marks=pytest.mark.slow),
        pytest.param("adapter_peft", "auto", marks=pytest.mark.slow),
    ],
)
def test_thirty_steps_from_the_command_line_equal_trl(tmp_path, start, scoring):
    run = tmp_path / "run"
    command = [
        "--model", CASE / "model", "--data", CASE / "data/chat/train.jsonl",
        "--init-adapter", CASE / start, "--run-dir", run,
        "--steps", "30", "--order", "file", "--batching", "fixed", "--micro-batch-size", "4",
        "--scoring", scoring,
        "--learning-rate", str(SETTINGS["learning_rate"]), "--schedule", "constant",
        "--warmup", "0", "--max-grad-norm", "0", "--weight-decay", "0",
        "--lam", str(SETTINGS["lam"]), "--nll-scope", "full", "--valid-fraction", "0",
        "--report-every", "1", "--max-seq-length", str(SETTINGS["max_length"]),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "orpo_mlx.train", *map(str, command)],
        capture_output=True, text=True, env=os.environ, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (run / "events.jsonl").read_text().splitlines()
    steps = [e for e in map(json.loads, lines) if e["event"] == "StepCompleted"]
    assert [s["step"] for s in steps] == list(range(1, 31))
    for ours, theirs in zip(steps, EXPECTED["train"]["steps"], strict=True):
        assert_metrics([ours["metrics"][name] for name in OBJECTIVE.metrics], theirs, atol=5e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], abs=5e-5)
    trained = mx.load(str(run / "adapter" / "adapters.safetensors"))
    for ours, theirs in ours_by_peft_name(trained, "final30"):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
