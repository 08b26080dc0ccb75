"""Logits to log-probs in float32; V vocabulary."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from orpo_mlx.models.activations import exp, is_on_gpu


def token_logps(logits: mx.array, targets: mx.array) -> mx.array:
    """Return the log-prob of each target under its logits.

    Args:
        logits: [..., V] any float type; cast to float32 before the log-softmax, because half
            precision sums lose 1e-3 to 3e-2 nats per token.
        targets: [...] token ids, already shifted: targets[t] is what logits[t] predicts.

    Returns:
        [...] float32 nats.
    """
    logits = logits.astype(mx.float32)
    # Only differences matter, and large logits lose them to rounding: 2e-6 nats at 30.
    logits = logits - mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    picked = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return picked - _logsumexp(logits)


def logps_and_slopes(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Return what `token_logps` does, and the gradient of each log-prob by its logits.

    That gradient is 1 at the target less the probabilities, float32 and as large as the logits; it
    can be made in the buffer of the powers.
    """
    logits = logits.astype(mx.float32)
    top = logits.max(axis=-1, keepdims=True)
    picked = mx.take_along_axis(logits, targets[..., None], axis=-1) - top
    if is_on_gpu():
        logits = logits - top
        total = mx.logsumexp(logits, axis=-1, keepdims=True)
        slopes = -mx.exp(logits - total)
    else:
        powers = exp(logits - top)
        sums = _sum_in_blocks(powers)[..., None]
        total, slopes = mx.log(sums), powers * (-1 / sums)
    logps = picked - total
    slopes = mx.put_along_axis(slopes, targets[..., None], -mx.expm1(logps), axis=-1)
    return logps.squeeze(-1), slopes


def _logsumexp(logits: mx.array) -> mx.array:
    """Return log(sum(exp(logits))) over the last axis, for logits of at most 0.

    On a CPU MLX adds a row up one after the other in float32, and the smallest entries get lost:
    4e-5 nats of 32,000 entries, 3e-4 of 152,000. Adding blocks first keeps them (2e-6) and is
    faster there, for one more buffer. A GPU adds in a tree already.
    """
    if is_on_gpu():
        return mx.logsumexp(logits, axis=-1)
    powers: Any = _powers(logits)
    return mx.log(_sum_in_blocks(powers))


def _sum_in_blocks(powers: mx.array) -> mx.array:
    size = powers.shape[-1]
    block = next((width for width in range(512, 31, -1) if size % width == 0), 256)
    whole = size // block * block
    sums = powers[..., :whole].reshape(*powers.shape[:-1], -1, block).sum(axis=-1).sum(axis=-1)
    if whole < size:
        sums = sums + powers[..., whole:].sum(axis=-1)
    return sums


@mx.custom_function
def _powers(x: mx.array) -> mx.array:
    return exp(x)


@_powers.vjp
def _powers_vjp(_: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output
