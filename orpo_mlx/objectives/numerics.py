"""Logarithms of odds that keep their digits, and sums under a mask; float32, B pairs, T tokens.

Source: ORPO, Hong et al. 2024, https://arxiv.org/abs/2403.07691."""

from __future__ import annotations

import math

import mlx.core as mx

LARGEST_LOGP = -1e-10
"""Log-probs above this are taken as this: at exactly 0 the odds are infinite."""


_LOG_HALF = -math.log(2.0)


def log1mexp(x: mx.array) -> mx.array:
    """Return log(1 - exp(x)) for x < 0, exact at both ends, with finite gradients.

    Two forms, each where it keeps its digits: log(-expm1(x)) near 0 and log1p(-exp(x)) below
    -log 2. MLX differentiates both branches of a `where`, so each gets an input it can bear; the
    guards are `where` too, because `minimum` and `maximum` halve the gradient at a tie.
    """
    is_near = x > _LOG_HALF
    near = mx.where(is_near, x, _LOG_HALF)
    far = mx.where(is_near, _LOG_HALF, x)
    return mx.where(is_near, mx.log(-mx.expm1(near)), mx.log1p(-mx.exp(far)))


def log_odds(logps: mx.array) -> mx.array:
    """Return log(p / (1 - p)) for p = exp(logps).

    Args:
        logps: any shape, nats, below 0. Values above `LARGEST_LOGP` count as that value.

    Returns:
        float32, the same shape.

    Numerics:
        1 - p is never formed: in float32 it is 0 from -3e-8 on, and in bfloat16 from -2e-3.

    Example:
        p = 0.5 has odds 1 and log-odds 0; p = 0.2 has odds 1/4 and log-odds -1.3863.

    Source:
        ORPO, equation 4.
    """
    x = logps.astype(mx.float32)
    x = mx.where(x > LARGEST_LOGP, LARGEST_LOGP, x)
    return x - log1mexp(x)


def masked_sum(values: mx.array, mask: mx.array) -> mx.array:
    """Sum the last axis where the mask is true; what stands elsewhere cannot leak in."""
    return mx.where(mask, values, 0.0).sum(axis=-1)
