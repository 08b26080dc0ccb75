"""Log-probs of target tokens without ever holding the logits of more than one chunk.

ORPO's weight of a token is only known once all means are, so the forward pass keeps for each scored
token the gradient of its log-prob with respect to its hidden state, [N, hidden], and the backward
pass only scales it: one more head product, no recomputation, peak memory of one chunk [C, V].
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from orpo_mlx.adapters.reward_head import rewards
from orpo_mlx.data.batching.packed import HEAD_CHUNK
from orpo_mlx.models.activations import is_on_gpu
from orpo_mlx.models.patches import run_head
from orpo_mlx.scoring.logprobs import logps_and_slopes, token_logps

REWARD = "reward"
"""The scope of what is scored under which it is the reward at each answer's last token."""
RUN_AHEAD = 60
"""Empty operations between chunks on a CPU. MLX's scheduler there allocates up to 100 dispatches
(10 tasks of 10) ahead of the computation, `mx.depends` or not: logits of four chunks were alive.
These fill that distance instead, in some microseconds each."""


def head_logps(
    model: nn.Module, hidden: mx.array, targets: mx.array, chunk: int = HEAD_CHUNK
) -> mx.array:
    """Return the log-prob [N] of each target, float32, differentiable in `hidden`.

    Args:
        model: an mlx-lm model.
        hidden: [N, hidden] what its body made.
        targets: [N] token ids.
        chunk: positions whose logits are held at a time.
    """
    bounds = range(chunk, hidden.shape[0], chunk)
    if not model.training:
        return _one_by_one(model, hidden, targets, list(bounds))
    if has_trainable_head(model):
        return _recomputed(model, hidden, targets, list(bounds))
    return _with_unit_gradients(model, hidden, targets, list(bounds))


def read_out(
    model: Any, hidden: mx.array, targets: mx.array, scope: str, chunk: int = HEAD_CHUNK
) -> mx.array:
    """Return what is scored of each state, [N] float32: its target's log-prob, or its reward."""
    if scope == REWARD:
        return rewards(model, hidden)
    return head_logps(model, hidden, targets, chunk)


def has_trainable_head(model: Any) -> bool:
    """Tell whether an adapter sits outside the blocks: on the head, or on a tied embedding."""
    return bool(_outside_blocks(model))


def _outside_blocks(model: Any) -> list[tuple[str, mx.array]]:
    inside = {
        id(array)
        for layer in model.layers
        for _, array in tree_flatten(layer.trainable_parameters())
    }
    named: Any = tree_flatten(model.trainable_parameters())
    return [(name, array) for name, array in named if id(array) not in inside]


def _logps(model: Any, hidden: mx.array, targets: mx.array) -> mx.array:
    return token_logps(run_head(model, hidden[None]).squeeze(0), targets)


def _one_by_one(model: Any, hidden: mx.array, targets: mx.array, bounds: list[int]) -> mx.array:
    """Without any gradient, as an evaluation needs it."""
    logps: list[mx.array] = []
    for part, wanted in zip(mx.split(hidden, bounds), mx.split(targets, bounds), strict=True):
        if logps:
            part = _after(part, logps[-1])
        logps.append(_logps(model, part, wanted))
    return mx.concatenate(logps)


def _after(part: mx.array, *done: mx.array) -> mx.array:
    """Return a chunk's states, to be used only when other arrays are there."""
    if is_on_gpu():
        return mx.depends([part], list(done))[0]
    tick = mx.depends([mx.zeros(1)], list(done))[0]
    for _ in range(RUN_AHEAD):
        tick = -tick
    return mx.depends([part], [tick])[0]


def _with_unit_gradients(
    model: nn.Module, hidden: mx.array, targets: mx.array, bounds: list[int]
) -> mx.array:
    @mx.custom_function
    def chunk_by_chunk(hidden: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
        logps, slopes = [], []
        for part, wanted in zip(mx.split(hidden, bounds), mx.split(targets, bounds), strict=True):
            if slopes:
                # One chunk after the other, slope and log-prob, or all their logits would be alive.
                part = _after(part, slopes[-1], logps[-1])
            value, slope = _unit_gradients(model, part, wanted)
            logps.append(value)
            slopes.append(slope)
        return mx.concatenate(logps), mx.concatenate(slopes)

    @chunk_by_chunk.vjp
    def scale(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
        slopes = outputs[1]
        weights = cotangents[0][:, None]
        return (weights * slopes).astype(slopes.dtype), mx.zeros_like(primals[1])

    outputs: Any = chunk_by_chunk(hidden, targets)
    return outputs[0]


def _unit_gradients(
    model: nn.Module, hidden: mx.array, targets: mx.array
) -> tuple[mx.array, mx.array]:
    """Return the log-probs [C] and the gradient [C, hidden] of each by its own state."""
    values: list[mx.array] = []

    def head(hidden: mx.array) -> mx.array:
        logits = run_head(model, hidden[None]).squeeze(0)  # [0] copies
        logps, slopes = logps_and_slopes(mx.stop_gradient(logits), targets)
        values.append(logps)
        value: Any = _with_gradient(logits, slopes.astype(logits.dtype))
        return value

    _, (gradient,) = mx.vjp(head, [hidden], [mx.zeros(())])
    return values[0], gradient


@mx.custom_function
def _with_gradient(_logits: mx.array, _slopes: mx.array) -> mx.array:
    """Stand for a function of the logits whose gradient is known already; its value is not used."""
    return mx.zeros(())


@_with_gradient.vjp
def _known_gradient(primals: Any, _cotangent: mx.array, _output: mx.array) -> Any:
    return primals[1], mx.zeros_like(primals[1])


def _recomputed(
    model: nn.Module, hidden: mx.array, targets: mx.array, bounds: list[int]
) -> mx.array:
    """For a head that is trained itself: the backward pass makes each chunk's logits again."""
    own: Any = tree_unflatten(_outside_blocks(model))

    def inner(own: Any, hidden: mx.array, targets: mx.array) -> mx.array:
        model.update(own)
        # A checkpointed function is differentiated by all its arguments; token ids cannot be.
        return _logps(model, hidden, mx.stop_gradient(targets))

    logps: list[mx.array] = []
    for part, wanted in zip(mx.split(hidden, bounds), mx.split(targets, bounds), strict=True):
        if logps:
            part = _after(part, logps[-1])
        logps.append(mx.checkpoint(inner)(own, part, wanted))
    return mx.concatenate(logps)
