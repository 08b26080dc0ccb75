"""Runs of KTO, by command alone, equal TRL's: evaluations, curves and final weights."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from orpo_mlx.cli.commands.train import main, parse_train
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import EvalCompleted, StepCompleted, read_events
from orpo_mlx.training.optimizer import build_optimizer
from orpo_mlx.training.preparation.objective import objective
from orpo_mlx.training.prepare import prepare, step_batches
from orpo_mlx.training.step import TrainStep

CASE = Path(__file__).parents[1] / "data" / "llama"
EXPECTED = json.loads((CASE / "methods_expected.json").read_text())
ROWS = json.loads((CASE / "tokenized.json").read_text())["rows"]["chat"]
TRL_NAMES = {
    "loss": "loss", "kl": "kl", "logps/chosen": "chosen_logps", "logps/rejected": "rejected_logps",
    "rewards/chosen": "chosen_rewards", "rewards/rejected": "rejected_rewards",
    "rewards/margins": "reward_margin",
}  # fmt: skip
OPTIONS = {
    "kto": "",
    "kto_weighted": "--undesirable-weight 1.33",
    "kto_open": "",
    "apo_zero_unpaired": "--kto-loss apo_zero_unpaired",
}
USUAL = ("kto_open", "apo_zero_unpaired")
"""The first has a KL above 0, the second none."""


def arrays_of(method, kind):
    """Return {parameter: array} of one method, by the names of the adapter's file."""
    found = {}
    for name in ("methods_arrays.npz", "methods_arrays_more.npz"):
        with np.load(CASE / name) as file:
            own = [key for key in file.files if key.startswith(f"{method}/{kind}/")]
            for key in own:
                name = key.removeprefix(f"{method}/{kind}/")
                found[name.replace("lora_A", "lora_a").replace("lora_B", "lora_b")] = file[key].T
    assert len(found) in (0, 42)
    return found


def write_rows(path, split):
    """Write the case's labelled answers as token ids."""
    with path.open("w") as file:
        for place, side in EXPECTED["kto_rows"][split]:
            row = ROWS[split][place]
            ids, start = row[f"{side}_input_ids"], row[f"{side}_prompt_len"]
            own = {"prompt_ids": ids[:start], "completion_ids": ids[start:]}
            file.write(json.dumps({**own, "label": side == "chosen"}) + "\n")
    return path


@pytest.fixture
def adapter_of(tmp_path):
    """Return `adapter_of(method)`: the folder of the adapter that the case begins with."""

    def folder(method):
        start = arrays_of(method, "start")
        if not start:
            return CASE / "adapter_mlx"
        own = tmp_path / "start"
        own.mkdir()
        (own / "adapter_config.json").write_bytes(
            (CASE / "adapter_mlx/adapter_config.json").read_bytes()
        )
        arrays = {name: mx.array(array) for name, array in start.items()}
        mx.save_safetensors(str(own / "adapters.safetensors"), arrays)
        return own

    return folder


@pytest.fixture
def command_of(tmp_path, monkeypatch, adapter_of):
    """Return `command_of(method, *words)`: the command of the case's run, with options."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "home"))

    def command(method, *words):
        command = [
            "--objective", "kto", "--model", CASE / "model",
            "--data", write_rows(tmp_path / "train.jsonl", "train"),
            "--valid-data", write_rows(tmp_path / "valid.jsonl", "valid"),
            "--init-adapter", adapter_of(method), "--run-dir", tmp_path / "run",
            "--steps", "30", "--order", "file", "--batching", "fixed", "--micro-batch-size", "4",
            "--learning-rate", "0.002", "--schedule", "constant", "--warmup", "0",
            "--max-grad-norm", "0", "--weight-decay", "0", "--report-every", "1",
            "--eval-every", "0", "--max-seq-length", "128", "--sample-prompts", "0",
            "--no-evaluate", "--quiet", *OPTIONS[method].split(), *words,
        ]  # fmt: skip
        return [str(word) for word in command]

    return command


def events_of(run, kind):
    found = [record.event for record in read_events(run.events_file)]
    return [event for event in found if isinstance(event, kind)]


def assert_equal(ours, theirs):
    for name, own in TRL_NAMES.items():
        # TRL logs a KL of 0 where there is none.
        if name in theirs and not (name == "kl" and own not in ours.metrics and not theirs[name]):
            assert ours.value(own) == pytest.approx(theirs[name], rel=5e-5, abs=5e-5), name
        elif name not in theirs:
            assert own not in ours.metrics


@pytest.mark.parametrize(
    "method",
    [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in OPTIONS],
)
def test_thirty_steps_and_both_evaluations_equal_trl(command_of, tmp_path, method):
    expected = EXPECTED["methods"][method]
    assert main(command_of(method)) == 0
    run = RunDirectory(tmp_path / "run")
    steps = events_of(run, StepCompleted)
    assert [event.step for event in steps] == list(range(1, 31))
    for ours, theirs in zip(steps, expected["train"]["steps"], strict=True):
        assert_equal(ours, theirs)
        assert ours.grad_norm == pytest.approx(theirs["grad_norm"], rel=5e-5, abs=5e-5)
    before, after = events_of(run, EvalCompleted)
    assert_equal(before, expected["eval"])
    assert_equal(after, expected["eval_after_train"])
    trained = mx.load(str(run.path / "adapter" / "adapters.safetensors"))
    wanted = arrays_of(method, "final30")
    apart = [(np.array(trained[name]) - array).ravel() for name, array in wanted.items()]
    assert np.sqrt(np.mean(np.concatenate(apart) ** 2)) < 2e-5


@pytest.mark.parametrize(
    ("method", "rows", "way"),
    [("kto_open", 4, "packed"), ("kto_open", 2, "packed"), ("kto_open", 1, "plain"),
     ("kto_weighted", 2, "fork"), ("apo_zero_unpaired", 4, "shared"),
     ("apo_zero_unpaired", 2, "fork"), ("apo_zero_unpaired", 4, "plain")],
)  # fmt: skip
def test_the_first_gradient_equals_trl_however_a_step_is_divided_and_scored(
    command_of, method, rows, way
):
    words = ("--micro-batch-size", rows, "--grad-accumulation-steps", 4 // rows, "--scoring", way)
    config = parse_train(command_of(method, *words)).config
    prepared = prepare(config)
    step = TrainStep(
        prepared.model, build_optimizer(config), objective(config), prepared.scoring, compiled=False
    )
    batches = step_batches(prepared, 1)
    assert len(batches) == 4 // rows
    found = dict(tree_flatten(step.gradient(batches, mx.random.key(0))))
    for name, wanted in arrays_of(method, "grad").items():
        np.testing.assert_allclose(np.array(found[name]), wanted, rtol=0, atol=2e-6)
