"""Recurrent layers of hybrid models: do the fast kernels give what plain operations give?

mlx-lm takes plain operations in a training, because its Metal kernels were made for generation.
What a kernel says of gradients on this device decides whether a training could use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.bench.process import Row
from orpo_mlx.errors import describe
from orpo_mlx.models.delta_kernel import TOLERANCE

WIDTH, KEY_HEADS, VALUE_HEADS = 128, 16, 16
"""Of this width and these heads MLX 0.32.4 has a kernel; of most others it computes token by
token in plain operations, and nothing would be learned."""
LIMIT = TOLERANCE[mx.float32]
"""Largest relative difference by norm, as where a training decides whether to take the kernel; the
order of additions makes 1e-6."""

Compute = Callable[..., mx.array]


def iter_recurrent(task: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Yield a row for each kernel there is.

    Args:
        task: "tokens" of the sequence.
        tell: told what is computed.
    """
    tell("gated delta rule")
    inputs = _gated_delta_inputs(task["tokens"])
    wanted = _measured(_gated_delta(use_kernel=False), inputs)
    yield {"name": "gated delta, plain operations", "passed": None, **_cost(wanted)}
    for name, compute in _gated_delta_kernels():
        yield {"name": name, **_compare(compute, inputs, wanted)}
    tell("state space model, one token")
    inputs = _ssm_inputs()
    wanted = _measured(_ssm("ssm_attn"), inputs)
    yield {"name": "ssm, plain operations, 1 token", "passed": None, **_cost(wanted)}
    name = "ssm, mlx-lm's way to generate, 1 token"
    yield {"name": name, **_compare(_ssm("ssm_update"), inputs, wanted)}


# The two layers


def _gated_delta_inputs(tokens: int) -> list[mx.array]:
    """Return queries, keys, values, and what decay and update rates are made of."""
    heads = [(KEY_HEADS, WIDTH), (KEY_HEADS, WIDTH), (VALUE_HEADS, WIDTH)]
    shapes = [*heads, (VALUE_HEADS,), (VALUE_HEADS,)]
    drawn = [
        mx.random.normal((1, tokens, *shape), key=mx.random.key(i))
        for i, shape in enumerate(shapes)
    ]
    # Normalized as models do it, or the state would grow without bound.
    drawn[:2] = [x / mx.linalg.norm(x, axis=-1, keepdims=True) for x in drawn[:2]]
    mx.eval(drawn)
    return drawn


def _gated_delta(use_kernel: bool) -> Compute:
    from mlx_lm.models.gated_delta import gated_delta_update

    rate, bias = mx.zeros(VALUE_HEADS), mx.zeros(VALUE_HEADS)

    def compute(*inputs: mx.array) -> mx.array:
        update: Any = gated_delta_update
        return update(*inputs, rate, bias, use_kernel=use_kernel)[0]

    return compute


def _gated_delta_kernels() -> Iterator[tuple[str, Compute]]:
    from mlx_lm.models.gated_delta import compute_g

    where = "Metal kernel" if _has_metal() else "no Metal here, so plain operations"
    yield f"gated delta, mlx-lm's way to generate ({where})", _gated_delta(use_kernel=True)
    fast: Any = getattr(mx.fast, "gated_delta_update", None)
    if fast is not None:
        rate, bias = mx.zeros(VALUE_HEADS), mx.zeros(VALUE_HEADS)

        def compute(q: mx.array, k: mx.array, v: mx.array, a: mx.array, b: mx.array) -> mx.array:
            return fast(q, k, v, compute_g(rate, a, bias), mx.sigmoid(b))[0]

        yield "gated delta, mx.fast.gated_delta_update", compute


def _has_metal() -> bool:
    return mx.metal.is_available() and mx.default_device() == mx.gpu


def _ssm_inputs() -> list[mx.array]:
    """Return inputs, input and output mixing, time deltas and a state, for one token."""
    shapes = [(1, 1, VALUE_HEADS, 64), (1, 1, 1, WIDTH), (1, 1, 1, WIDTH), (1, 1, VALUE_HEADS)]
    shapes.append((1, VALUE_HEADS, 64, WIDTH))
    drawn = [mx.random.normal(shape, key=mx.random.key(i)) for i, shape in enumerate(shapes)]
    mx.eval(drawn)
    return drawn


def _ssm(name: str) -> Compute:
    from mlx_lm.models import ssm

    update: Any = getattr(ssm, name)
    rate, skip, bias = (mx.zeros(VALUE_HEADS), mx.ones(VALUE_HEADS), mx.zeros(VALUE_HEADS))

    def compute(
        x: mx.array, mix_in: mx.array, mix_out: mx.array, dt: mx.array, state: mx.array
    ) -> mx.array:
        return update(x, rate, mix_in, mix_out, skip, dt, bias, state, (0.001, 100.0))[0]

    return compute


# Measuring


def _measured(compute: Compute, inputs: Sequence[mx.array]) -> Row:
    """Return the output, the gradients of its weighted sum, or why there are none, and the cost."""

    def weighted(*inputs: mx.array) -> mx.array:
        out = compute(*inputs)
        return (out * mx.random.normal(out.shape, key=mx.random.key(9))).sum()

    found: Row = {"out": compute(*inputs), "gradients": None, "problem": ""}
    mx.eval(found["out"])
    mx.clear_cache()
    mx.reset_peak_memory()
    before, began = mx.get_active_memory(), time.perf_counter()
    try:
        gradients = mx.grad(weighted, argnums=list(range(len(inputs))))(*inputs)
        mx.eval(gradients)
        found["gradients"] = gradients
    except Exception as error:  # a kernel without a derivative is what is looked for
        found["problem"] = describe(error)[:160]
    found |= {"seconds": time.perf_counter() - began, "bytes": mx.get_peak_memory() - before}
    return found


def _cost(found: Row) -> Row:
    return {"seconds": found["seconds"], "bytes": found["bytes"]}


def _compare(compute: Compute, inputs: Sequence[mx.array], wanted: Row) -> Row:
    """Return how far a kernel is from plain operations, forward and backward.

    A kernel without a gradient passes: nobody can train with it by mistake.
    """
    try:
        found = _measured(compute, inputs)
    except Exception as error:  # whatever the device objects to is the finding
        return {"passed": None, "text": f"cannot be computed here ({describe(error)[:160]})"}
    forward = _apart(found["out"], wanted["out"])
    row: Row = {"forward_apart": forward, "limit": LIMIT, "passed": forward <= LIMIT}
    if found["gradients"] is None:
        return {**row, "text": f"no gradient: {found['problem']}"}
    backward = max(map(_apart, found["gradients"], wanted["gradients"]))
    passed = max(forward, backward) <= LIMIT
    return {**row, "gradient_apart": backward, "passed": passed, **_cost(found)}


def _apart(found: mx.array, wanted: mx.array) -> float:
    """Return the relative difference by norm."""
    one, other = (np.array(x.astype(mx.float32), np.float64) for x in (found, wanted))
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))
