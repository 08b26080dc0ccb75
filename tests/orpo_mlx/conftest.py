"""What the core's tests share beyond the tiny models."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.runs.directory import RunDirectory


@pytest.fixture(scope="session")
def has_compiler():
    """Whether MLX can compile on this machine's CPU: it calls a C++ compiler."""
    return shutil.which("g++") is not None


@pytest.fixture(params=["plain", "quantized"])
def base_folder(request: pytest.FixtureRequest) -> Path:
    """A tiny model, once with plain and once with packed weights."""
    name = "model_folder" if request.param == "plain" else "quantized_model_folder"
    return request.getfixturevalue(name)


@pytest.fixture(scope="session")
def moe_folder(
    make_model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny model whose blocks hold experts."""
    return make_model_folder(
        tmp_path_factory.mktemp("moe") / "model",
        model_type="qwen3_moe",
        num_experts=4,
        num_experts_per_tok=2,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        moe_intermediate_size=32,
        head_dim=16,
        norm_topk_prob=True,
    )


@pytest.fixture
def folder(model_folder: Path, copy_folder: Callable[..., Path]) -> Path:
    """A sound model that a test may damage."""
    return copy_folder(model_folder)


def _load_architectures() -> Any:
    path = Path(__file__).parents[1] / "fakes" / "architectures.py"
    spec = importlib.util.spec_from_file_location("fakes_architectures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ARCHITECTURES = _load_architectures()


@pytest.fixture(scope="session")
def architectures() -> Any:
    """The tiny models of every architecture: `build_config(name, vocab_size)`."""
    return ARCHITECTURES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `architecture` once for each model."""
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", ARCHITECTURES.MODELS)


@dataclass
class Made:
    """An adapter on disk, and what mlx-lm says it adds to each weight.

    Attributes:
        folder: the adapter.
        base: a folder with nothing but config.json.
        config: its content, the part on the language model.
        deltas: layer to [O, I] (experts in front), by mlx-lm's own `fuse` of a weight of zeros.
        blocks: number of blocks.
    """

    folder: Path
    base: Path
    config: dict[str, Any]
    deltas: dict[str, np.ndarray]
    blocks: int


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Made]:
    """Return `make(architecture, quantized=False, keys=(), **spec) -> Made`, A and B random."""

    def make(name: str, quantized: bool = False, keys: tuple[str, ...] = (), **spec: Any) -> Made:
        from orpo_mlx.adapters.files import save_adapter
        from orpo_mlx.adapters.lora import AdapterSpec

        config = ARCHITECTURES.build_config(name, 160)
        base, folder = tmp_path / "base", tmp_path / "adapter"
        base.mkdir()
        settings = AdapterSpec(**{"rank": 3, "scale": 3.7, **spec})
        model = _adapted(config, settings, quantized, keys)
        if quantized:
            config["quantization"] = {"group_size": 32, "bits": 4}
        (base / "config.json").write_text(json.dumps(config))
        save_adapter(model, settings, folder, base_model=str(base))
        return Made(
            folder,
            base,
            {**config, **config.get("text_config", {})},
            {} if quantized else _deltas(model),
            len(model.layers),
        )

    return make


def _adapted(config: dict[str, Any], spec: Any, quantized: bool, keys: tuple[str, ...]) -> Any:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import _get_classes

    from orpo_mlx.adapters.lora import attach_adapter

    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    if quantized:
        nn.quantize(model, group_size=32, bits=4)
    mx.random.seed(1)
    if keys:  # layers that orpo-mlx does not train, but mlx-lm does
        model.freeze()
        settings = {"rank": spec.rank, "scale": spec.scale, "dropout": 0.0, "keys": keys}
        linear_to_lora_layers(model, len(model.layers), settings)
    else:
        attach_adapter(model, spec, seed=0)
    drawn = [
        (name, mx.random.normal(array.shape))
        for name, array in tree_flatten(model.trainable_parameters())
        if not name.endswith(".m")
    ]
    model.load_weights(drawn, strict=False)
    return model


def _deltas(model: Any) -> dict[str, np.ndarray]:
    import mlx.core as mx

    found = {}
    for name, layer in model.named_modules():
        if "lora_a" in layer and "m" not in layer:
            inner = layer.embedding if "embedding" in layer else layer.linear
            inner.weight = mx.zeros_like(inner.weight)
            found[name] = np.array(layer.fuse().weight)
    return found


@pytest.fixture
def export(capfd: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """Return `export(*words) -> events`: the real command with --json; it must succeed."""

    def run(*words: object) -> list[dict[str, Any]]:
        capfd.readouterr()
        code = program(["export", *map(str, words), "--json"])
        said = capfd.readouterr()
        assert (code, said.err) == (0, "")
        return [json.loads(line) for line in said.out.splitlines()]

    return run


# Runs to be judged


@dataclass(frozen=True)
class TrainedRuns:
    """Runs on the same data: ORPO, and the same without the preference term and of another rank.

    Attributes:
        valid: 24 held-out rows of 12 prompts, with scores.
        before, after: what the training of `orpo` said of them, by metric.
    """

    orpo: RunDirectory
    sft: RunDirectory
    model: Path
    valid: Path
    rows: list[dict[str, Any]]
    before: dict[str, float]
    after: dict[str, float]


def _talk(start: int, count: int) -> list[dict[str, Any]]:
    names = ("cat", "sea", "moon", "mat", "poem", "week", "day", "France", "Paris", "blue")
    return [
        {
            "prompt": f"Tell me of the {names[i % 10]} and of number {i}, please.",
            "chosen": f"The {names[i % 10]} is fine." + " It is." * (j + i % 3),
            "rejected": f"I like {i}, the sea." if j else "No, and again no, and no.",
            "score_chosen": 5 + i % 4,
            "score_rejected": 2,
        }
        for i in range(start, start + count)
        for j in range(2)
    ]


@pytest.fixture(scope="session")
def trained(
    make_model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> TrainedRuns:
    """Two short trainings on a tiny model, of rows with scores and with prompts that come twice."""
    from orpo_mlx.config import TrainConfig
    from orpo_mlx.training.train import train

    folder = tmp_path_factory.mktemp("trained")
    model = make_model_folder(folder / "model")
    rows = {"train": _talk(0, 20), "valid": _talk(100, 12)}
    for name, content in rows.items():
        lines = [json.dumps(row) + "\n" for row in content]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    shared: dict[str, Any] = {
        "model": str(model), "data": str(folder / "train.jsonl"),
        "valid_data": str(folder / "valid.jsonl"), "steps": 6, "learning_rate": 5e-3, "lam": 1.0,
        "nll_scope": "response", "sample_prompts": 0, "micro_batch_size": 2, "evaluate": False,
    }  # fmt: skip
    orpo = train(TrainConfig(**shared, rank=4, run_dir=str(folder / "runs" / "orpo")))
    sft = train(
        TrainConfig(**shared, rank=2, preference="none", run_dir=str(folder / "runs" / "sft"))
    )
    assert orpo.before is not None
    assert orpo.after is not None
    return TrainedRuns(
        RunDirectory(orpo.run_dir), RunDirectory(sft.run_dir), model, folder / "valid.jsonl",
        rows["valid"], dict(orpo.before.metrics), dict(orpo.after.metrics),
    )  # fmt: skip
