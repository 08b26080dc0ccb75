"""Attention with mask="causal" and with an array as mask: the same numbers, in what memory?

Metal has fused kernels for some of these calls only; what is not fused keeps all scores. The string
mask is aligned at the last query and the last key, so it also does for answers over their prompt.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.bench.process import Row
from orpo_mlx.models.precision import EXACT_PRODUCT, product_error

HEADS, KEY_HEADS = 8, 4
_COMPARED_IN_FLOAT64 = 512
"""Queries up to which NumPy computes the same in float64."""
_SCORES_ALIVE = 6
"""Arrays as large as all scores that an array mask may need at a time, at most, and a mask's."""
LIMITS = {"float32": 1e-5, "bfloat16": 5e-2}
"""Largest relative difference by norm. The 8 bits of bfloat16 make up to 1e-2 of it by themselves;
a token seen that should not be, or not seen, makes 0.1 and more."""

Arrays = tuple[mx.array, mx.array, mx.array]


def iter_attention(task: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Yield a row for each shape.

    Args:
        task: "shapes", a list of [dtype, queries, keys, width of a head].
        tell: told what is computed.
    """
    limit = float(mx.device_info().get("max_recommended_working_set_size", math.inf))
    for dtype, queries, keys, width in task["shapes"]:
        tell(f"attention of {queries} queries over {keys} keys, {dtype}")
        row = {"dtype": dtype, "queries": queries, "keys": keys, "width": width}
        needed = _SCORES_ALIVE * HEADS * queries * keys * 4
        if needed > 0.7 * limit:
            yield {**row, "passed": None, "text": f"skipped: may need {needed / 1e9:.0f} GB"}
            continue
        yield {**row, **_compare(dtype, queries, keys, width)}


def _compare(dtype: str, queries: int, keys: int, width: int) -> Row:
    inputs = _draw(getattr(mx, dtype), queries, keys, width)
    mask = _mask(queries, keys)
    outs: dict[str, list[mx.array]] = {}
    row: Row = {"limit": _limit(dtype)}
    for name, value in (("causal", "causal"), ("array", mask)):
        both = partial(_both, inputs, value)
        outs[name] = both()
        row[name] = _cost(both)
    row["forward_apart"], *gradients = map(_apart, outs["causal"], outs["array"])
    row["gradient_apart"] = max(gradients)
    apart = [row["forward_apart"], row["gradient_apart"]]
    if queries <= _COMPARED_IN_FLOAT64:
        truth = _in_float64(inputs, np.array(mask))
        for name, found in outs.items():
            row[f"{name}_error"] = max(map(_apart, found, truth))
            apart.append(row[f"{name}_error"])
    row["passed"] = max(apart) <= row["limit"]
    return row


def _limit(dtype: str) -> float:
    """Return the bound; on a device whose float32 products are rounded, theirs."""
    error = product_error()
    if dtype == "float32" and not error <= EXACT_PRODUCT:
        return 20 * error
    return LIMITS[dtype]


def _draw(dtype: mx.Dtype, queries: int, keys: int, width: int) -> Arrays:
    shapes = ((HEADS, queries), (KEY_HEADS, keys), (KEY_HEADS, keys))
    drawn = (
        mx.random.normal((1, *shape, width), key=mx.random.key(i)).astype(dtype)
        for i, shape in enumerate(shapes)
    )
    q, k, v = drawn
    mx.eval(q, k, v)
    return q, k, v


def _mask(queries: int, keys: int) -> mx.array:
    """Return [queries, keys], true where a query may look; the last one stands at the last key."""
    places = mx.arange(keys - queries, keys)
    return places[:, None] >= mx.arange(keys)[None]


def _weights(out: mx.array) -> mx.array:
    return mx.random.normal(out.shape, key=mx.random.key(9)).astype(out.dtype)


def _both(inputs: Arrays, mask: Any) -> list[mx.array]:
    """Return the output, and the gradients of its weighted sum by queries, keys and values."""

    def weighted(q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)
        return (out * _weights(out)).sum(), out

    (_, out), gradients = mx.value_and_grad(weighted, argnums=(0, 1, 2))(*inputs)
    mx.eval(out, gradients)
    return [out, *gradients]


def _cost(compute: Callable[[], Any]) -> Row:
    """Return the median seconds of three calls, and the bytes one needs beside its inputs."""
    mx.clear_cache()
    mx.reset_peak_memory()
    before, seconds = mx.get_active_memory(), []
    for _ in range(3):
        began = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds), "bytes": mx.get_peak_memory() - before}


def _apart(found: Any, wanted: Any) -> float:
    """Return the relative difference by norm."""
    found, wanted = (
        np.array(x.astype(mx.float32) if isinstance(x, mx.array) else x, np.float64)
        for x in (found, wanted)
    )
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def _in_float64(inputs: Arrays, mask: np.ndarray) -> list[np.ndarray]:
    """Compute in NumPy what `_both` returns, derivatives written out."""
    q, k, v = (np.array(x.astype(mx.float32), np.float64)[0] for x in inputs)
    groups, scale = q.shape[0] // k.shape[0], q.shape[-1] ** -0.5
    keys, values = (np.repeat(x, groups, axis=0) for x in (k, v))
    scores = np.where(mask, scale * q @ keys.swapaxes(1, 2), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = weights @ values
    slope = np.array(_weights(mx.zeros((1, *out.shape), inputs[0].dtype)).astype(mx.float32))[0]
    of_weights = slope @ values.swapaxes(1, 2)
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdims=True))
    of_keys, of_values = of_scores.swapaxes(1, 2) @ q * scale, weights.swapaxes(1, 2) @ slope
    summed = [x.reshape(-1, groups, *x.shape[1:]).sum(1) for x in (of_keys, of_values)]
    return [x[None] for x in (out, of_scores @ keys * scale, *summed)]
