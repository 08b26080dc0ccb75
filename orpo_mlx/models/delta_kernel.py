"""MLX's kernel of the gated delta rule, where there is one and its gradient is right."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx

from orpo_mlx.models.activations import is_on_gpu

Scanned = tuple[mx.array, mx.array]
"""Outputs [B, T, H, Dv] and the last state [B, H, Dv, Dk]."""
Rule = Callable[..., Scanned]
"""Called with q, k, v, log_g, beta and state; see `recurrence.delta_rule`."""

TOKENS = 131
"""Tokens of a trial: no multiple of a kernel's chunk, and more than two of the usual 64."""
TOLERANCE = {mx.float32: 1e-3, mx.bfloat16: 0.02, mx.float16: 0.02}
"""Relative difference of a gradient that is rounding: of what a layer gets and gives."""
SLOWEST = 1e-3
"""Decay of the trial's slowest head in a token, as a logarithm. MLX 0.32.4 rounds decays to the
type of the queries; in bfloat16 one so slow is none, and outputs are off by a sixth after 400."""


def by_kernel(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_g: mx.array,
    beta: mx.array,
    state: mx.array | None,
) -> Scanned:
    """Apply the rule by MLX's own function; padding must be neutral, as it has a mask nowhere."""
    y, state = mx.fast.gated_delta_update(q, k, v, mx.exp(log_g), beta, state)
    return y, state


def has_right_kernel(q: mx.array, v: mx.array, rule: Rule) -> bool:
    """Tell whether there is a kernel for layers of these sizes, with the gradient of a rule and the
    same bits each time.

    It is tried once. Without a kernel, as on a CPU or with heads of other widths than it was
    written for, MLX computes token by token and keeps a state of each.
    """
    if not is_on_gpu():
        return False
    return is_right((*q.shape[2:], *v.shape[2:]), q.dtype, rule)


@cache
def is_right(sizes: tuple[int, int, int, int], dtype: mx.Dtype, rule: Rule) -> bool:
    """Try the kernel on random arrays.

    Args:
        sizes: key heads, their width, value heads and their width.
        dtype: of queries, keys and values.
        rule: whose gradient is right.
    """
    arrays = _random(sizes, dtype)
    try:
        graph = io.StringIO()
        mx.export_to_dot(graph, *by_kernel(*arrays))
        if "GatedDelta" not in graph.getvalue():
            return False
        found, again, wanted = (_gradient(x, arrays) for x in (by_kernel, by_kernel, rule))
        # Its Metal kernels add gradients up atomically, in any order; a run must be repeatable.
        same = all(mx.array_equal(x, y) for x, y in zip(found, again, strict=True))
        pairs = zip(found, wanted, strict=True)
        return same and all(_apart(x, y) < TOLERANCE[dtype] for x, y in pairs)
    except (RuntimeError, ValueError):  # MLX says in ways of its own that it cannot
        return False


def _random(sizes: tuple[int, int, int, int], dtype: mx.Dtype) -> tuple[mx.array, ...]:
    groups, key_width, heads, width = sizes
    rows = 2
    shapes = [(groups, key_width)] * 2 + [(heads, width), (heads,), (heads,)]
    q, k, v, g, b = (
        mx.random.normal((rows, TOKENS, *shape), key=mx.random.key(i))
        for i, shape in enumerate(shapes)
    )
    q, k, v = ((x * x.shape[-1] ** -0.5).astype(dtype) for x in (q, k, v))
    state = mx.random.normal((rows, heads, width, key_width), key=mx.random.key(5))
    speed = mx.exp(mx.linspace(0, math.log(SLOWEST), heads))
    return q, k, v, -mx.abs(g) * speed, mx.sigmoid(b), state


def _gradient(rule: Rule, arrays: tuple[mx.array, ...]) -> Any:
    def total(*arrays: mx.array) -> mx.array:
        y, state = rule(*arrays)
        return (y.astype(mx.float32) ** 2).sum() + (state.astype(mx.float32) ** 2).sum()

    return mx.grad(total, argnums=tuple(range(len(arrays))))(*arrays)


def _apart(found: mx.array, wanted: mx.array) -> float:
    found, wanted = found.astype(mx.float32), wanted.astype(mx.float32)
    gap: Any = mx.linalg.norm((found - wanted).flatten()) / mx.linalg.norm(wanted.flatten())
    return gap.item()
