"""Random adapters of a tiny Llama, and commands that must be refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.adapters.files import save_adapter
from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers, attach_adapter
from orpo_mlx.models.load import load_model


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


@pytest.fixture(scope="module")
def make_random_adapter(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> Callable[..., Path]:
    """Return `make(model=..., **spec) -> folder`: a random adapter, B not zero; to be read only."""

    import mlx.core as mx

    @functools.cache
    def make(model: Path = model_folder, **options: Any) -> Path:
        loaded = load_model(model)
        spec = AdapterSpec(**{"rank": 4, "scale": 3.7, **options})
        attach_adapter(loaded.model, spec, seed=1)
        for i, (_, layer) in enumerate(adapter_layers(loaded.model)):
            layer.lora_b = mx.random.normal(layer.lora_b.shape, key=mx.random.key(i)) * 0.1
            if "m" in layer:
                layer.m = layer.m * 1.25
        folder = tmp_path_factory.mktemp("adapters") / "adapter"
        save_adapter(loaded.model, spec, folder, str(model), loaded.fingerprint)
        return folder

    return make
