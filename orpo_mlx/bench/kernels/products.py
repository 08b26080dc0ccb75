"""Products of matrices: how many operations a second, and how exact those of float32 are."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx

from orpo_mlx.bench.process import Row
from orpo_mlx.models.precision import EXACT_PRODUCT, ROUNDED_PRODUCT, VARIABLE, product_error

DTYPES = ("float32", "bfloat16", "float16")
BITS, GROUP = 4, 64
_LEAST_SECONDS, _LEAST_TIMES = 1.0, 3


def iter_products(task: Row, tell: Callable[[str], None]) -> Iterator[Row]:
    """Yield how exact float32 is in this process, then a rate for each kind of product.

    Args:
        task: "size" of the square matrices; "rates": which are measured.
        tell: told what is computed.
    """
    said = os.environ.get(VARIABLE, "not set")
    error = product_error()
    is_exact = error <= EXACT_PRODUCT
    yield {
        "kind": "exactness", "variable": said, "error": error, "is_exact": is_exact,
        # Exact ones must be exact; where they may be rounded, not worse than that.
        "passed": is_exact if said == "0" else error <= ROUNDED_PRODUCT,
    }  # fmt: skip
    for name in task["rates"]:
        tell(f"rate of {name} products")
        yield {"kind": "rate", "of": name, "variable": said, **_rate(name, task["size"])}


def _rate(name: str, size: int) -> Row:
    """Return operations a second: the most by the clock, the mean by CPU time of all threads."""
    multiply = _product(name, size)
    mx.eval(multiply())
    wall, cpu = [], []
    while len(wall) < _LEAST_TIMES or sum(wall) < _LEAST_SECONDS:
        marks = time.perf_counter(), _cpu_seconds()
        mx.eval(multiply())
        wall.append(time.perf_counter() - marks[0])
        cpu.append(_cpu_seconds() - marks[1])
    work = 4 * size**3
    # Single CPU times are coarser than the products they belong to.
    per_cpu_second = work * len(cpu) / sum(cpu) if sum(cpu) > 0.05 else 0.0
    return {
        "size": size, "times": len(wall),
        "flop_per_second": work / min(wall),
        "flop_per_cpu_second": per_cpu_second,
    }  # fmt: skip


def _product(name: str, size: int) -> Callable[[], list[mx.array]]:
    """Return what a step does with a frozen layer: a product forward, and one backward by its
    transpose, which for packed weights is another kernel."""

    def draw(dtype: Any) -> mx.array:
        return mx.random.normal((size, size)).astype(dtype)

    if name in DTYPES:
        a, b = (draw(getattr(mx, name)) for _ in range(2))
        mx.eval(a, b)
        return lambda: [a @ b.T, a @ b]
    x, packed = draw(mx.bfloat16), mx.quantize(draw(mx.bfloat16), GROUP, BITS)
    mx.eval(x, packed)
    return lambda: [mx.quantized_matmul(x, *packed, way, GROUP, BITS) for way in (True, False)]


def _cpu_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime
