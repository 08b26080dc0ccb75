"""The base model of an adapter: what it is, asked of the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from orpo_mlx.adapters.files import save_adapter
from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers
from orpo_mlx.export.base import BaseModel
from orpo_mlx.models.load import load_model

GEMMA_3: dict[str, Any] = {
    "model_type": "gemma3_text", "head_dim": 16, "sliding_window": 64,
    "sliding_window_pattern": 2, "query_pre_attn_scalar": 16,
    "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip


@pytest.fixture(scope="module")
def gemma(make_model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as Gemma 3 has them: no output layer, and a config.json that says nothing of it."""
    model = make_model_folder(tmp_path_factory.mktemp("gemma") / "model", **GEMMA_3)
    arrays: Any = mx.load(str(model / "model.safetensors"))
    assert "lm_head.weight" in arrays
    del arrays["lm_head.weight"]
    mx.save_safetensors(str(model / "model.safetensors"), arrays, metadata={"format": "mlx"})
    return model


def trained_by_mlx_lm(model: Path, folder: Path, keys: tuple[str, ...]) -> Path:
    """An adapter as mlx-lm's own trainer makes it: on a loaded model, by the names of layers."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    loaded = load_model(model)
    spec = AdapterSpec(rank=2, scale=3.0, target_modules=keys)
    settings = {"rank": 2, "scale": 3.0, "dropout": 0.0, "keys": list(keys)}
    loaded.model.freeze()
    linear_to_lora_layers(loaded.model, 2, settings)
    for _, layer in adapter_layers(loaded.model):
        layer.lora_b = mx.random.normal(layer.lora_b.shape, key=mx.random.key(1)) * 0.1
    save_adapter(loaded.model, spec, folder, str(model), loaded.fingerprint)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "lora_parameters": settings}))
    return folder


def test_a_model_that_drops_its_output_layer_on_loading_is_tied(
    gemma: Path, make_model_folder: Callable[..., Path], tmp_path: Path
):
    assert BaseModel(str(gemma)).is_tied
    whole = make_model_folder(tmp_path / "whole", **GEMMA_3)
    assert not BaseModel(str(whole)).is_tied


@pytest.mark.parametrize("to", ["peft", "gguf-lora"])
def test_an_adapter_on_its_embedding_is_refused(
    to: str, gemma: Path, refused: Callable[..., str], tmp_path: Path
):
    adapter = trained_by_mlx_lm(gemma, tmp_path / "adapter", ("model.embed_tokens",))
    said = refused("export", adapter, "--to", to, "--out", tmp_path / "out")
    assert "is also the output layer" in said
    assert "--to fused" in said


def test_an_adapter_that_lists_the_layer_it_has_not_goes_out(
    gemma: Path, export: Callable[..., list[dict[str, Any]]], tmp_path: Path
):
    adapter = trained_by_mlx_lm(gemma, tmp_path / "adapter", ("self_attn.v_proj", "lm_head"))
    export(adapter, "--to", "gguf-lora", "--out", tmp_path / "x.gguf")
    export(adapter, "--to", "mlx", "--out", tmp_path / "mlx")
