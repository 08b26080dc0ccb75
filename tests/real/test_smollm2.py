"""A real model, not a tiny random one: SmolLM2-135M-Instruct. `make test-real` sets it up."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from real.smollm2 import KINDS, model_folders

from orpo_mlx.adapters.files import save_adapter
from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.cli.commands.export import main as export
from orpo_mlx.config import TrainConfig, build_config
from orpo_mlx.generation.greedy import answer
from orpo_mlx.models.load import load_model, load_tokenizer, resolve_model
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import EvalCompleted, RunFinished, RunStarted, StepCompleted, read_events
from orpo_mlx.training.train import resume, train

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
TRICKY = ["3.14159 and 2026", "naïve café ☕ 漢字", "  two  spaces\n\n\ttab", "<b>x</b> don't I'll"]


@pytest.fixture(scope="session")
def models() -> dict[str, Path]:
    folder = os.environ.get("ORPO_MLX_REAL", Path(__file__).parents[2] / ".real")
    return model_folders(Path(folder))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty questions with a good and a bad answer; what the model knows, but not in this tone."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {
            "prompt": [{"role": "user", "content": f"How much is {n} plus {n + 1}?"}],
            "chosen": [{"role": "assistant", "content": f"It is {2 * n + 1}."}],
            "rejected": [{"role": "assistant", "content": f"Perhaps {2 * n + 3}, or not."}],
        }
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(model: Path, pairs: Path, run: Path, **more) -> TrainConfig:
    own = {"model": str(model), "data": str(pairs), "run_dir": str(run), "steps": 4}
    few = {"num_layers": 4, "learning_rate": 2e-4, "sample_prompts": 0, "valid_fraction": 0.2,
           "evaluate": False}  # fmt: skip
    return build_config({**own, **few, **more})


def events_of(run: Path, kind: type) -> list:
    records = read_events(RunDirectory(run).events_file)
    return [record.event for record in records if isinstance(record.event, kind)]


def adapter_bytes(run: Path) -> str:
    return hashlib.sha256((run / "adapter" / "adapters.safetensors").read_bytes()).hexdigest()


def test_the_tokenizer_gives_back_every_text_and_splits_digits(models):
    tokenizer = load_tokenizer(resolve_model(str(models["float32"])))
    for text in TRICKY:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [tokenizer.decode([token]) for token in tokenizer.encode("2026")] == list("2026")


def test_it_knows_the_capital_of_france(models):
    loaded = load_model(resolve_model(str(models["float32"])))
    talk = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = loaded.tokenizer.apply_chat_template(talk, add_generation_prompt=True)
    assert answer(loaded.model, loaded.tokenizer, prompt, 12) == "The capital of France is Paris."


def test_a_run_learns_resumes_to_the_same_bytes_and_keeps_to_its_estimate(models, pairs, tmp_path):
    whole = tmp_path / "whole"
    train(settings(models["float32"], pairs, whole))
    (started,), (finished,) = events_of(whole, RunStarted), events_of(whole, RunFinished)
    assert started.scoring == "packed"
    assert finished.peak_memory_bytes <= started.estimated_peak_bytes
    evaluations = events_of(whole, EvalCompleted)
    assert evaluations[-1].value("loss") < evaluations[0].value("loss")
    assert [event.step for event in events_of(whole, StepCompleted)] == [1, 2, 3, 4]

    part = tmp_path / "part"
    stopped = train(settings(models["float32"], pairs, part), report=_StopAfter(2, part))
    assert (stopped.reason, stopped.step) == ("stopped", 2)
    resume(RunDirectory(part))
    assert adapter_bytes(part) == adapter_bytes(whole)


class _StopAfter:
    """Asks the run to stop once it has taken so many steps."""

    def __init__(self, step: int, run: Path) -> None:
        self.step, self.run = step, run

    def handle(self, event, line=""):
        if isinstance(event, StepCompleted) and event.step == self.step:
            send_request(RunDirectory(self.run), "stop")

    def catch_up(self, events): ...

    def progress(self, done, total, label, unit): ...

    def close(self): ...


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_step_in_half_precision_and_in_four_bits(models, pairs, tmp_path, kind):
    run = tmp_path / "run"
    train(settings(models[kind], pairs, run, steps=1, num_layers=1, valid_fraction=0.0))
    (step,) = events_of(run, StepCompleted)
    assert 0 < step.value("loss") < 10
    assert (run / "adapter" / "adapters.safetensors").exists()


def test_written_as_a_gguf_it_is_the_one_that_llama_cpps_converter_made(models, tmp_path):
    """The folder was made from that file: every key and tensor must come back."""
    loaded, spec = load_model(resolve_model(str(models["float32"]))), AdapterSpec(rank=2, scale=1.0)
    attach_adapter(loaded.model, spec, seed=1)  # B is zero: it changes nothing
    save_adapter(loaded.model, spec, tmp_path / "adapter", str(models["float32"]))
    out = tmp_path / "out.gguf"
    words = [str(tmp_path / "adapter"), "--to", "gguf", "--weights-dtype", "float32"]
    assert export([*words, "--out", str(out)]) == 0

    ours, theirs = GGUFReader(out), GGUFReader(models["gguf"])
    said = {name: field.contents() for name, field in ours.fields.items()}
    for name, field in theirs.fields.items():
        if name.startswith(("llama.", "tokenizer.")) and name != "tokenizer.ggml.unknown_token_id":
            assert said[name] == field.contents(), name
    found = {tensor.name: tensor for tensor in ours.tensors}
    assert found.keys() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        exact = dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(found[tensor.name].data, exact), tensor.name
