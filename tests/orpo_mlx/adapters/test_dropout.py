"""Masks that follow from a key alone, compiled, checkpointed or neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support.tiny_adapter import TOKENS, load, logits, shake

from orpo_mlx.adapters.dropout import KeyedDropout, renew_dropout_keys, set_dropout_key
from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers, adapter_parameters, attach_adapter


def dropout_loss(model: Any, key: mx.array) -> mx.array:
    set_dropout_key(model, key)
    return nn.losses.cross_entropy(model(TOKENS[:, :-1]), TOKENS[:, 1:], reduction="mean")


def dropout_gradients(model: Any, key: mx.array) -> dict[str, np.ndarray]:
    value_and_grad = nn.value_and_grad(model, lambda: dropout_loss(model, key))
    return {name: np.array(grad) for name, grad in tree_flatten(value_and_grad()[1])}


def dropout_model(folder: Path) -> Any:
    model = load(folder)
    attach_adapter(model, AdapterSpec(rank=4, dropout=0.3), seed=0)
    shake(model)
    return model.train()


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    layer = KeyedDropout(0.3)
    layer._key = mx.random.key(3)
    out = np.array(layer(mx.ones((100, 1000))))
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 0.01
    layer.eval()
    assert np.array_equal(layer(mx.ones((2, 2))), mx.ones((2, 2)))


def test_dropout_depends_on_the_key_and_on_nothing_else(model_folder: Path) -> None:
    model = dropout_model(model_folder)
    losses = []
    for noise, key in ((1, 5), (2, 5), (2, 6)):
        mx.random.seed(noise)
        losses.append(dropout_loss(model, mx.random.key(key)).item())
    assert losses[0] == losses[1] != losses[2]


def test_every_layer_has_its_own_mask(model_folder: Path) -> None:
    model = dropout_model(model_folder)
    set_dropout_key(model, mx.random.key(5))
    keys = {tuple(layer.dropout._key.tolist()) for _, layer in adapter_layers(model)}
    assert len(keys) == 14
    set_dropout_key(model, None)
    with pytest.raises(RuntimeError, match="set_dropout_key"):
        model(TOKENS)


def test_renewed_keys_are_others_and_follow_from_the_old_ones(model_folder: Path) -> None:
    model = dropout_model(model_folder)

    def keys() -> list[tuple[int, ...]]:
        return [tuple(layer.dropout._key.tolist()) for _, layer in adapter_layers(model)]

    seen = []
    for _ in range(2):
        set_dropout_key(model, mx.random.key(5))
        seen.append(keys())
        renew_dropout_keys(model)
        seen.append(keys())
    assert seen[:2] == seen[2:]
    assert len({*seen[0], *seen[1]}) == 28
    set_dropout_key(model, None)
    renew_dropout_keys(model)


def test_dropout_is_off_in_evaluation_and_its_key_is_no_parameter(model_folder: Path) -> None:
    model = dropout_model(model_folder)
    names = set(adapter_parameters(model))
    set_dropout_key(model, mx.random.key(5))
    assert set(adapter_parameters(model)) == names
    model.eval()
    plain = logits(model)
    set_dropout_key(model, mx.random.key(6))
    assert np.array_equal(logits(model), plain)


def checkpoint_blocks(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Recompute each block in the backward pass, as mlx-lm's --grad-checkpoint does."""
    calls: list[int] = []
    plain = type(model.layers[0]).__call__

    def checkpointed(self: Any, *args: Any, **kwargs: Any) -> Any:
        def inner(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            self.update(parameters)
            return plain(self, *args, **kwargs)

        return mx.checkpoint(inner)(self.trainable_parameters(), *args, **kwargs)

    monkeypatch.setattr(type(model.layers[0]), "__call__", checkpointed)
    return calls


def test_checkpointing_with_dropout_gives_identical_gradients(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, key = dropout_model(base_folder), mx.random.key(11)
    plain = dropout_gradients(model, key)
    calls = checkpoint_blocks(model, monkeypatch)
    checkpointed = dropout_gradients(model, key)
    assert calls
    assert plain.keys() == checkpointed.keys()
    for name in plain:
        assert np.array_equal(plain[name], checkpointed[name]), name


def test_gradients_under_dropout_agree_with_finite_differences(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, key = dropout_model(model_folder), mx.random.key(11)
    checkpoint_blocks(model, monkeypatch)
    gradients = dropout_gradients(model, key)
    start = model.trainable_parameters()
    rng = np.random.default_rng(0)
    for name, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape).astype(np.float32)
        values = {}
        for sign in (1, -1):
            moved = dict(tree_flatten(start))
            moved[name] = moved[name] + sign * 5e-3 * mx.array(direction)
            model.load_weights(list(moved.items()), strict=False)
            values[sign] = dropout_loss(model, key).item()
        model.update(start)
        slope = (values[1] - values[-1]) / 1e-2
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.05, abs=3e-4), name


def test_a_compiled_step_takes_the_key_as_an_argument(model_folder: Path) -> None:
    model = dropout_model(model_folder)

    @mx.compile
    def compiled(key: mx.array) -> mx.array:
        loss = dropout_loss(model, key)
        set_dropout_key(model, None)
        return loss

    for seed in (1, 2, 1):
        key = mx.random.key(seed)
        assert compiled(key).item() == pytest.approx(dropout_loss(model, key).item(), rel=1e-6)
    assert compiled(mx.random.key(1)).item() != compiled(mx.random.key(2)).item()
