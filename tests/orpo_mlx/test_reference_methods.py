"""Runs of the other objectives, by command alone, equal TRL's: curves and final weights."""

import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.cli.commands.train import main
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import StepCompleted, read_events

CASE = Path(__file__).parents[1] / "data" / "llama"
METHODS = json.loads((CASE / "methods_expected.json").read_text())["methods"]
TRL_NAMES = {
    "loss": "loss", "nll_loss": "nll_loss", "logps/chosen": "chosen_logps",
    "logps/rejected": "rejected_logps", "rewards/chosen": "chosen_rewards",
    "rewards/rejected": "rejected_rewards", "rewards/margins": "reward_margin",
    "rewards/accuracies": "preference_accuracy",
}  # fmt: skip
OPTIONS = {
    "dpo": "--objective dpo",
    "dpo_cdpo": "--objective dpo --label-smoothing 0.1",
    "dpo_robust": "--objective dpo --dpo-loss robust --label-smoothing 0.1",
    "dpo_ipo": "--objective dpo --dpo-loss ipo",
    "dpo_hinge": "--objective dpo --dpo-loss hinge",
    "dpo_rpo": "--objective dpo --nll-weight 1",
    "cpo": "--objective cpo",
    "simpo": "--objective simpo",
}
USUAL = ("dpo", "simpo")


def arrays_of(method):
    found = {}
    for name in ("methods_arrays.npz", "methods_arrays_more.npz"):
        with np.load(CASE / name) as file:
            own = [key for key in file.files if key.startswith(f"{method}/final30/")]
            found |= {key.rpartition("final30/")[2]: file[key] for key in own}
    return found


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return `train(name, *words) -> RunDirectory`: the case's run with options of its own."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "home"))

    def run(name, *words):
        command = [
            "--model", CASE / "model", "--data", CASE / "data/chat/train.jsonl",
            "--init-adapter", CASE / "adapter_mlx", "--run-dir", tmp_path / name,
            "--steps", "30", "--order", "file", "--batching", "fixed", "--micro-batch-size", "4",
            "--learning-rate", "0.002", "--schedule", "constant", "--warmup", "0",
            "--max-grad-norm", "0", "--weight-decay", "0", "--valid-fraction", "0",
            "--report-every", "1", "--max-seq-length", "128", "--sample-prompts", "0", "--quiet",
            *words,
        ]  # fmt: skip
        assert main([str(word) for word in command]) == 0
        return RunDirectory(tmp_path / name)

    return run


def steps_of(run):
    found = [record.event for record in read_events(run.events_file)]
    return [event for event in found if isinstance(event, StepCompleted)]


@pytest.mark.parametrize(
    "method",
    [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in OPTIONS],
)
def test_thirty_steps_equal_trl(train, method):
    run = train(method, *OPTIONS[method].split())
    steps = steps_of(run)
    assert [event.step for event in steps] == list(range(1, 31))
    for ours, theirs in zip(steps, METHODS[method]["train"]["steps"], strict=True):
        for name, own in TRL_NAMES.items():
            # TRL logs 0 for SimPO's NLL, which it does not compute.
            if name in theirs and (method, name) != ("simpo", "nll_loss"):
                assert ours.value(own) == pytest.approx(theirs[name], rel=5e-5, abs=5e-5), name
        assert ours.grad_norm == pytest.approx(theirs["grad_norm"], rel=5e-5, abs=5e-5)
    trained = mx.load(str(run.path / "adapter" / "adapters.safetensors"))
    apart = [
        np.array(trained[name.replace("lora_A", "lora_a").replace("lora_B", "lora_b")]).T - theirs
        for name, theirs in arrays_of(method).items()
    ]
    assert len(apart) == 42
    assert np.sqrt(np.mean(np.concatenate([part.ravel() for part in apart]) ** 2)) < 2e-5


def test_against_the_adapter_at_the_start_nothing_has_moved_yet(train):
    run = train("start", "--objective", "dpo", "--reference", "start", "--steps", "1")
    (step,) = steps_of(run)
    assert step.value("loss") == pytest.approx(math.log(2), abs=1e-6)
    assert step.value("chosen_rewards") == pytest.approx(0, abs=1e-5)
    # What the base would have said is another thing, by far.
    assert abs(METHODS["dpo"]["train"]["steps"][0]["rewards/chosen"]) > 1
