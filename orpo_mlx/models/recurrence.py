"""The recurrences of hybrid models, a chunk of tokens at a time.

mlx-lm computes a gated delta rule token by token whenever a gradient is wanted: one small operation
after the other, and a state kept for each token. Within a chunk the same numbers follow from a few
matrix products, as Yang, Kautz and Hatamizadeh (Gated Delta Networks, arXiv:2412.06464) and Dao and
Gu (Mamba 2, arXiv:2405.21060) found; only from chunk to chunk a state is handed on. Both functions
take the arguments of mlx-lm's own and stand in for them in packed rows (`models/patches.py`).

B rows, T tokens, G groups of R heads that share keys and queries, H = G * R heads, Dk and Dv widths
of keys and values; n chunks of C tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.models.delta_kernel import Scanned, by_kernel, has_right_kernel

CHUNK = 32
"""Tokens of a chunk at most: its squares are kept for the backward pass, its states saved."""
BLOCK = 8
"""Tokens whose triangle is inverted by powers; of more of them powers would grow too large."""

NOTHING_LEFT = -40.0
"""Logarithm of a decay that is as good as none."""


def delta_rule(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    a: mx.array,
    b: mx.array,
    A_log: mx.array,
    dt_bias: mx.array,
    state: mx.array | None = None,
    mask: mx.array | None = None,
    allow_neg_eigval: bool = False,
) -> Scanned:
    """Apply the gated delta rule: S = g S + beta (v - g S k) k', y = S q, token after token.

    Args:
        q, k: [B, T, G, Dk] normalized queries and keys.
        v: [B, T, H, Dv].
        a, b: [B, T, H] what decay g and step size beta are made of.
        A_log, dt_bias: [H].
        state: [B, H, Dv, Dk] before the first token; None: zeros.
        mask: [B, T] false on padding, which leaves the state alone; its outputs mean nothing.
        allow_neg_eigval: step sizes up to 2 instead of 1.

    Returns:
        [B, T, H, Dv] in the type of q, and the last state, float32.
    """
    log_g = -mx.exp(A_log.astype(mx.float32)) * nn.softplus(a + dt_bias)
    beta = mx.sigmoid(b) * (2.0 if allow_neg_eigval else 1.0)
    if mask is not None:
        # No decay and no step: a kernel or a chunk needs no mask then.
        log_g, beta = (mx.where(mask[..., None], x, 0) for x in (log_g, beta))
    if has_right_kernel(q, v, _in_chunks):
        return by_kernel(q, k, v, log_g, beta, state)
    return _in_chunks(q, k, v, log_g, beta, state)


def _in_chunks(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_g: mx.array,
    beta: mx.array,
    state: mx.array | None,
) -> Scanned:
    into = partial(_chunks, groups=k.shape[2])
    keys, betas, log_g = into(k), into(beta[..., None]), into(log_g[..., None])
    decay, passed = _decay(log_g), _exp(mx.cumsum(log_g, axis=-2))
    at = mx.arange(keys.shape[-2])
    # What a token's step takes back of the steps before it, in its chunk.
    taken = mx.where(at[:, None] > at, betas * decay * (keys @ keys.swapaxes(-1, -2)), 0)
    steps = inverse_of_unit_triangle(taken)
    values, recalled = steps @ (betas * into(v)), steps @ (betas * passed * keys)
    y, state = _scan(into(q), keys, values, decay, passed, state, recalled)
    return _tokens(y, v.shape).astype(q.dtype), state


def state_space(
    x: mx.array,
    A_log: mx.array,
    B: mx.array,
    C: mx.array,
    D: mx.array,
    dt: mx.array,
    dt_bias: mx.array,
    state: mx.array | None = None,
    time_step_limit: tuple[float, float] = (0.001, 100.0),
    mask: mx.array | None = None,
) -> Scanned:
    """Apply Mamba 2's recurrence: S = exp(dt A) S + dt x B', y = S C + D x, token after token.

    Args:
        x: [B, T, H, Dv].
        A_log, D, dt_bias: [H].
        B, C: [B, T, G, Dk].
        dt: [B, T, H] before bias, softplus and limits.
        state: [B, H, Dv, Dk] before the first token; None: zeros.
        time_step_limit: smallest and largest dt.
        mask: [B, T] false on padding, which leaves the state alone; its outputs mean nothing.

    Returns:
        [B, T, H, Dv] in the type of x, and the last state, float32.
    """
    dt = mx.clip(nn.softplus(dt.astype(mx.float32) + dt_bias), *time_step_limit)
    if mask is not None:
        dt = mx.where(mask[..., None], dt, 0)
    into = partial(_chunks, groups=B.shape[2])
    log_g = into((dt * -mx.exp(A_log.astype(mx.float32)))[..., None])
    passed = _exp(mx.cumsum(log_g, axis=-2))
    values = into(dt[..., None] * x)
    y, state = _scan(into(C), into(B), values, _decay(log_g), passed, state)
    return _tokens(y, x.shape).astype(x.dtype) + x * D[:, None], state


def _scan(
    q: mx.array,
    k: mx.array,
    values: mx.array,
    decay: mx.array,
    passed: mx.array,
    state: mx.array | None,
    recalled: mx.array | None = None,
) -> Scanned:
    """Hand a state on from chunk to chunk.

    Args:
        q, k: [B, G, 1, n, C, Dk].
        values: [B, G, R, n, C, Dv] what tokens write, as far as it does not follow from the state.
        decay: [B, G, R, n, C, C] from an earlier token (last axis) to a later one; 0 above.
        passed: [B, G, R, n, C, 1] decay since the chunk began.
        state: as above.
        recalled: [B, G, R, n, C, Dk] what tokens take back of the state; None: nothing.

    Returns:
        [B, G, R, n, C, Dv] and the last state.
    """
    rows, groups, heads, count, _, width = values.shape
    shape = (rows, groups, heads, width, k.shape[-1])
    S = mx.zeros(shape, mx.float32) if state is None else state.reshape(shape).astype(mx.float32)
    weights = decay * (q @ k.swapaxes(-1, -2))
    q, left = q * passed, decay[..., -1:, :].swapaxes(-1, -2)
    # Split, not sliced: the transpose of a slice fills a whole array with zeros.
    parts = (values, weights, q, k, left, passed[..., -1:, :], recalled)
    pieces = [[None] * count if x is None else _split(x, count) for x in parts]
    done = []
    for u, weight, query, key, kept, whole, recall in zip(*pieces, strict=True):
        if recall is not None:
            u = u - recall @ S.swapaxes(-1, -2)
        done.append(query @ S.swapaxes(-1, -2) + weight @ u)
        S = whole * S + (u * kept).swapaxes(-1, -2) @ key
    return mx.stack(done, axis=3), S.reshape(rows, groups * heads, width, -1)


def _split(x: mx.array, count: int) -> list[mx.array]:
    return [part.squeeze(3) for part in mx.split(x, count, axis=3)]


def _chunks(x: mx.array, groups: int) -> mx.array:
    """[B, T, heads, D] to [B, G, heads / G, n, C, D] in float32, filled up with zeros."""
    rows, tokens, heads, width = x.shape
    count = -(-tokens // CHUNK)
    size = -(-tokens // count)
    x = mx.pad(x.astype(mx.float32), [(0, 0), (0, count * size - tokens), (0, 0), (0, 0)])
    x = x.reshape(rows, count, size, groups, heads // groups, width)
    return x.transpose(0, 3, 4, 1, 2, 5)


def _tokens(x: mx.array, shape: tuple[int, ...]) -> mx.array:
    """The other way: [B, G, R, n, C, D] to a shape [B, T, H, D]."""
    x = x.transpose(0, 3, 4, 1, 2, 5)
    return x.reshape(shape[0], -1, *shape[2:])[:, : shape[1]]


def _decay(log_g: mx.array) -> mx.array:
    """[..., C, 1] logarithms to [..., C, C]: what is left at a token (row) of an earlier one."""
    at = mx.arange(log_g.shape[-2])
    # Not a difference of sums from the first token on: of large ones too few digits would be left.
    total = mx.cumsum(mx.where(at[:, None] > at, log_g, 0), axis=-2)
    return mx.where((at[:, None] >= at) & (total > NOTHING_LEFT), mx.exp(total), 0)


def _exp(x: mx.array) -> mx.array:
    """exp, but 0 where nothing of float32 would be left: a CPU is slow at smaller numbers."""
    return mx.where(x > NOTHING_LEFT, mx.exp(x), 0)


def inverse_of_unit_triangle(below: mx.array) -> mx.array:
    """Return (1 + L)^-1 of strictly lower triangles L, [..., C, C]."""
    return cast(mx.array, _inverse_of_unit_triangle(below))


@mx.custom_function
def _inverse_of_unit_triangle(below: mx.array) -> mx.array:
    size = below.shape[-1]
    width = BLOCK
    while width < size:
        width *= 2
    lower = mx.pad(below, [(0, 0)] * (below.ndim - 2) + [(0, width - size)] * 2)
    done = _inverse(lower, width)
    return done[..., :size, :size]


@_inverse_of_unit_triangle.vjp
def _inverse_vjp(_: Any, cotangent: mx.array, inverse: mx.array) -> mx.array:
    turned = inverse.swapaxes(-1, -2)
    at = mx.arange(inverse.shape[-1])
    return mx.where(at[:, None] > at, -(turned @ cotangent @ turned), 0)


def _inverse(below: mx.array, width: int) -> mx.array:
    """By halves: the corner of an inverse follows from those of both blocks on the diagonal."""
    if width <= BLOCK:
        # 1 - L + L^2 - ...; the 8th power is zero.
        one, square = mx.eye(width), below @ below
        return (one - below) @ (one + square) @ (one + square @ square)
    half = width // 2
    first = _inverse(below[..., :half, :half], half)
    second = _inverse(below[..., half:, half:], half)
    corner = -(second @ below[..., half:, :half] @ first)
    above = mx.zeros_like(first)
    rows = [mx.concatenate([first, above], -1), mx.concatenate([corner, second], -1)]
    return mx.concatenate(rows, -2)
