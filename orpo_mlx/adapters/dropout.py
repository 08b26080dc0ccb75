"""Dropout whose mask takes its randomness from a key that is handed in.

A mask drawn from global state would be another one when a checkpointed block is computed again in
the backward pass, and a resumed run could not be the same run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.adapters.targets import in_model_order


class KeyedDropout(nn.Module):
    """Dropout whose mask follows from a key alone; see `set_dropout_key`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self._keep = 1 - p
        self._key: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """Zero a share of x while training and scale the rest up; elsewhere return x."""
        if not self.training:
            return x
        if self._key is None:
            raise RuntimeError("set_dropout_key was not called before a training forward pass")
        mask = mx.random.bernoulli(self._keep, x.shape, key=self._key)
        return (mask * x) * (1 / self._keep)


def set_dropout_key(model: nn.Module, key: mx.array | None) -> None:
    """Give every dropout layer its own key, all from one.

    Call it before each forward pass in training mode, inside the compiled function with the key as
    an argument, and with None afterwards, so that no layer keeps an array of the compiled graph.
    Passes with the same key and shapes have the same masks: use one key per pass.

    Args:
        model: with an adapter; nothing happens when its dropout is 0.
        key: as from `mx.random.key`, or None to take the keys away.
    """
    found = {n: layer for n, layer in model.named_modules() if isinstance(layer, KeyedDropout)}
    layers = [found[name] for name in in_model_order(found)]
    if not layers:
        return
    keys = [None] * len(layers) if key is None else mx.random.split(key, len(layers))
    for layer, own_key in zip(layers, keys, strict=True):
        layer._key = own_key


def renew_dropout_keys(model: nn.Module) -> None:
    """Give every dropout layer another key that follows from its own: one more pass of a step."""
    for layer in model.modules():
        if isinstance(layer, KeyedDropout) and layer._key is not None:
            layer._key = mx.random.split(layer._key, 1)[0]


@contextmanager
def dropout_off(model: nn.Module) -> Iterator[None]:
    """Leave dropout out inside, in a model that else stays as it is, in training or not."""
    found = [m for m in model.modules() if isinstance(m, KeyedDropout) and m.training]
    for layer in found:
        layer.eval()
    try:
        yield
    finally:
        for layer in found:
            layer.train()
