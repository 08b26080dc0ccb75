"""Adapters of tiny models of every architecture; no base weights, since no export needs them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orpo_mlx.__main__ import main as program


def _load_architectures() -> Any:
    path = Path(__file__).parents[2] / "fakes" / "architectures.py"
    spec = importlib.util.spec_from_file_location("fakes_architectures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ARCHITECTURES = _load_architectures()


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
        from orpo_mlx.adapter import AdapterSpec
        from orpo_mlx.adapter_files import save_adapter

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

    from orpo_mlx.adapter import attach_adapter

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


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return `refused(*words, code=2) -> text on stderr`: the real command, which must fail."""

    def run(*words: object, code: int = 2) -> str:
        capfd.readouterr()
        assert program([str(word) for word in words]) == code
        said = capfd.readouterr().err
        assert said.startswith("error: ")
        assert "Traceback" not in said
        return said

    return run
