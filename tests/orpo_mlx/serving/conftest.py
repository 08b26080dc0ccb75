"""Adapters of the demo's model that answer otherwise than it and than each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orpo_mlx.demo import model_path


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders in mlx-lm's format, "one" and "two", of other ranks and layers."""
    import mlx.core as mx

    from orpo_mlx.adapters.files import save_adapter
    from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers, attach_adapter
    from orpo_mlx.models.load import load_model

    place = tmp_path_factory.mktemp("adapters")
    specs = {
        "one": AdapterSpec(rank=4, num_layers=-1),
        "two": AdapterSpec(rank=2, target_modules=("v_proj", "down_proj")),
    }
    for seed, (name, spec) in enumerate(specs.items()):
        loaded = load_model(model_path())
        attach_adapter(loaded.model, spec, seed=seed)
        for number, (_, layer) in enumerate(adapter_layers(loaded.model)):
            key = mx.random.key(100 * seed + number)
            layer.lora_b = (0.2 + 0.4 * seed) * mx.random.normal(layer.lora_b.shape, key=key)
        save_adapter(loaded.model, spec, place / name, str(model_path()), loaded.fingerprint)
    return [place / name for name in specs]


@pytest.fixture(scope="session")
def greedy(adapters: list[Path]) -> Callable[[str, str], str]:
    """Return `greedy(name, prompt)`: what the samples of a training would show; "demo": the base.

    Each model is one of its own here, with at most one adapter, as everything but a server has it.
    """
    from orpo_mlx.adapters.files import load_adapter_into, read_adapter_spec
    from orpo_mlx.adapters.lora import attach_adapter
    from orpo_mlx.data.tokens.encoder import Encoder
    from orpo_mlx.generation.greedy import answer
    from orpo_mlx.models.load import load_model

    models = {"demo": load_model(model_path())}
    for folder in adapters:
        loaded = models[folder.name] = load_model(model_path())
        attach_adapter(loaded.model, read_adapter_spec(folder), seed=0)
        load_adapter_into(loaded.model, folder)

    def ask(name: str, prompt: str) -> str:
        loaded = models[name]
        encoder = Encoder(loaded.tokenizer)
        ids = encoder.encode(encoder.render([{"role": "user", "content": prompt}], True))
        return answer(loaded.model, loaded.tokenizer, ids, 48)

    return ask
