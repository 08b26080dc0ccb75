"""Activations computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from orpo_mlx.models.patches import two_pass_parts

Parameters = dict[str, Any]


def checkpoint_layers(layers: Sequence[nn.Module], every: int = 1) -> None:
    """Recompute layers' activations in the backward pass instead of keeping them.

    Layers below the first adapted one have no backward pass and are left as they are; of the others
    the first of every `every` is recomputed.

    Works on these layers alone: a patched class would reach every model in the process. The
    adapter's parameters are arguments of the recomputed function, so they keep their gradient.
    """
    wrapped: dict[type, type] = {}
    is_frozen = [not tree_flatten(layer.trainable_parameters()) for layer in layers]
    first = is_frozen.index(False) if False in is_frozen else len(is_frozen)
    for layer in layers[first::every]:
        cls = type(layer)
        if cls not in wrapped:
            call = _checkpointed(cls.__call__)
            wrapped[cls] = type(cls.__name__, (cls,), {"__call__": call})
        layer.__class__ = wrapped[cls]


@contextmanager
def recomputing(layers: Sequence[nn.Module], every: int = 1) -> Iterator[None]:
    """Checkpoint layers inside, and put them back as they were afterwards; 0 = none."""
    classes = [type(layer) for layer in layers]
    if every:
        checkpoint_layers(layers, every)
    try:
        yield
    finally:
        for layer, cls in zip(layers, classes, strict=True):
            layer.__class__ = cls


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return forward(layer, *args, **kwargs)

        # What a cache keeps goes in and comes out as other arrays do, or its gradient would be
        # lost; all else of it is put back, or the second computation would not be the first one.
        caches = two_pass_parts([*args, *kwargs.values()])
        before = [dict(vars(cache)) for cache in caches]
        # By the second computation another pass may have another key for its dropout.
        keyed = [(part, part["_key"]) for part in layer.modules() if "_key" in part]

        def inner(params: Parameters, kept: list[Any], *args: Any, **kwargs: Any) -> Any:
            layer.update(params)
            for part, key in keyed:
                part["_key"] = key
            for cache, state, own in zip(caches, before, kept, strict=True):
                vars(cache).update(state, kept=own)
            return forward(layer, *args, **kwargs), [cache.kept for cache in caches]

        kept = [cache.kept for cache in caches]
        out, kept = mx.checkpoint(inner)(layer.trainable_parameters(), kept, *args, **kwargs)
        for cache, own in zip(caches, kept, strict=True):
            cache.kept = own
        return out

    return call
