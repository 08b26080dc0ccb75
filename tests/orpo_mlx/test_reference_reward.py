"""Reward models equal TRL's: evaluation, gradients, and runs by command alone."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from orpo_mlx.adapters import files, lora
from orpo_mlx.adapters.reward_head import HEAD_FILE, HEAD_WEIGHT, attach_head
from orpo_mlx.cli.commands.train import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.types import TokenPair
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import EvalCompleted, StepCompleted, read_events
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.head import REWARD
from orpo_mlx.scoring.reference import ReferencedPairs
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training.optimizer import build_optimizer
from orpo_mlx.training.step import TrainStep, evaluate

CASE = Path(__file__).parents[1] / "data" / "llama"
EXPECTED = json.loads((CASE / "methods_expected.json").read_text())
METHODS = EXPECTED["methods"]
OPTIONS = {
    "reward": [],
    "reward_margin": ["--use-margin"],
    "reward_center": ["--center", "0.01"],
}
OBJECTIVES = {"reward": Reward(), "reward_margin": Reward(), "reward_center": Reward(center=0.01)}


def arrays_of(method, kind):
    """Return the reference's arrays under our names and in our orientation."""
    found = {}
    for file in ("methods_arrays.npz", "methods_arrays_more.npz"):
        with np.load(CASE / file) as arrays:
            own = [name for name in arrays.files if name.startswith(f"{method}/{kind}/")]
            found |= {name.split("/", 2)[2]: arrays[name] for name in own}
    assert len(found) == 43
    head = found.pop(next(name for name in found if "lora" not in name))
    ours = {name.replace("lora_A", "lora_a").replace("lora_B", "lora_b"): array.T
            for name, array in found.items()}  # fmt: skip
    return ours | {HEAD_WEIGHT: head}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The case's adapter with the head that the reference began with."""
    folder = tmp_path_factory.mktemp("start") / "adapter"
    shutil.copytree(CASE / "adapter_mlx", folder)
    with np.load(CASE / "methods_arrays.npz") as arrays:
        head = mx.array(arrays["reward_head_init"])
    mx.save_safetensors(str(folder / HEAD_FILE), {HEAD_WEIGHT: head})
    return folder


@pytest.fixture
def model(start):
    model, _ = load_model(CASE / "model")
    lora.attach_adapter(model, files.read_adapter_spec(start), seed=0)
    attach_head(model, seed=0)
    files.load_adapter_into(model, start)
    return model


def pairs_of(split, method="reward"):
    """Return TRL's tokens, which it cuts otherwise than we do where a row is too long."""
    rows = json.loads((CASE / "tokenized.json").read_text())["rows"]["chat"][split]
    pairs = [
        TokenPair(
            row["chosen_input_ids"][: row["chosen_prompt_len"]],
            row["chosen_input_ids"][row["chosen_prompt_len"] :],
            row["rejected_input_ids"][row["rejected_prompt_len"] :],
        )
        for row in rows
    ]
    margins = np.array(EXPECTED["margins"][split], np.float32)
    margins *= method == "reward_margin"
    return ReferencedPairs(pairs, np.stack([margins, np.zeros_like(margins)], axis=1))


def assert_equal(value, theirs, **near):
    """Compare what both measure; TRL's means of both sides follow from ours."""
    near = near or {"rel": 5e-5, "abs": 5e-5}
    assert value("loss") == pytest.approx(theirs["loss"], **near)
    assert value("preference_accuracy") == theirs["accuracy"]
    assert value("reward_margin") == pytest.approx(theirs["margin"], **near)
    mean = (value("chosen_rewards") + value("rejected_rewards")) / 2
    assert mean == pytest.approx(theirs["mean_reward"], **near)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", OPTIONS)
def test_evaluation_by_every_way_of_scoring_equals_trl(model, method, way):
    scoring, pairs = Scoring(WAYS[way], REWARD), pairs_of("valid", method)
    batches = [scoring.build(pairs, part) for part in (range(3), range(3, 8))]
    found = evaluate(model, batches, OBJECTIVES[method], scoring)
    values = dict(zip(Reward().metrics, found, strict=True))
    assert_equal(values.__getitem__, METHODS[method]["eval"], abs=5e-6)


@pytest.mark.parametrize("way", WAYS)
def test_the_reward_of_each_answer_equals_trl(model, way):
    scoring, pairs = Scoring(WAYS[way], REWARD), pairs_of("valid")
    scores = scoring.score(model, scoring.build(pairs, range(8)).arrays)
    theirs = METHODS["reward"]["eval"]["per_row"]
    assert scores.chosen_sum.tolist() == pytest.approx(theirs["chosen_reward"], abs=5e-6)
    assert scores.rejected_sum.tolist() == pytest.approx(theirs["rejected_reward"], abs=5e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", OPTIONS)
def test_the_first_gradient_of_adapter_and_head_equals_trl(model, method, way):
    scoring, pairs = Scoring(WAYS[way], REWARD), pairs_of("train", method)
    optimizer = build_optimizer(TrainConfig())
    step = TrainStep(model, optimizer, OBJECTIVES[method], scoring, compiled=False)
    batches = [scoring.build(pairs, part) for part in (range(1), range(1, 4))]
    found = dict(tree_flatten(step.gradient(batches, mx.random.key(0))))
    for name, theirs in arrays_of(method, "grad").items():
        np.testing.assert_allclose(np.array(found[name]), theirs, atol=2e-6, err_msg=name)


@pytest.fixture
def train(tmp_path, monkeypatch, start):
    """Return `train(name, *words) -> RunDirectory`: the case's run with options of its own."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "home"))
    lines = (CASE / "data/chat/train.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), "margin": margin}
            for line, margin in zip(lines, EXPECTED["margins"]["train"], strict=True)]  # fmt: skip
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name, *words):
        command = [
            "--model", CASE / "model", "--data", data, "--objective", "reward",
            "--init-adapter", start, "--run-dir", tmp_path / name,
            "--steps", "30", "--order", "file", "--batching", "fixed", "--micro-batch-size", "4",
            "--learning-rate", "0.0005", "--schedule", "constant", "--warmup", "0",
            "--max-grad-norm", "0", "--weight-decay", "0", "--valid-fraction", "0",
            "--report-every", "1", "--max-seq-length", "128", "--sample-prompts", "0", "--quiet",
            *words,
        ]  # fmt: skip
        assert main([str(word) for word in command]) == 0
        return RunDirectory(tmp_path / name)

    return run


@pytest.mark.parametrize(
    "method",
    ["reward_margin", *(pytest.param(m, marks=pytest.mark.slow) for m in OPTIONS if "_m" not in m)],
)
def test_thirty_steps_equal_trl(train, method):
    run = train(method, *OPTIONS[method])
    found = [record.event for record in read_events(run.events_file)]
    steps = [event for event in found if isinstance(event, StepCompleted)]
    for ours, theirs in zip(steps, METHODS[method]["train"]["steps"], strict=True):
        assert_equal(ours.value, theirs)
        assert ours.grad_norm == pytest.approx(theirs["grad_norm"], rel=5e-5, abs=5e-5)
    trained = {
        name: array
        for file in ("adapters.safetensors", HEAD_FILE)
        for name, array in mx.load(str(run.adapter_folder / file)).items()
    }
    apart = [np.array(trained[name]) - end for name, end in arrays_of(method, "final30").items()]
    assert np.sqrt(np.mean(np.concatenate([part.ravel() for part in apart]) ** 2)) < 2e-5


@pytest.mark.parametrize("method", OPTIONS)
def test_rows_of_token_ids_are_evaluated_as_trl_does(train, tmp_path, method):
    rows = [
        {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected,
         "margin": pair.reference[0]}
        for pair in pairs_of("valid", "reward_margin")
    ]  # fmt: skip
    valid = tmp_path / "valid.jsonl"
    valid.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--valid-data", valid, "--steps", "1", "--no-evaluate", *OPTIONS[method]]
    run = train(method, *map(str, words))
    found = [record.event for record in read_events(run.events_file)]
    before = next(event for event in found if isinstance(event, EvalCompleted))
    assert_equal(before.value, METHODS[method]["eval"])


def test_its_adapter_begins_another_run_with_the_same_head(train):
    first = train("first", "--steps", "1")
    second = train("second", "--steps", "1", "--init-adapter", str(first.adapter_folder))
    saved = [second.checkpoints_folder / "0000000" / HEAD_FILE, first.adapter_folder / HEAD_FILE]
    assert saved[0].read_bytes() == saved[1].read_bytes()
