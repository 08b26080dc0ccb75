"""How fast this machine multiplies matrices of one type: one line of JSON.

python benchmarks/rate.py bfloat16
"""

from __future__ import annotations

import json
import resource
import sys
import time

import mlx.core as mx


def main() -> None:
    """Multiply, count, print."""
    dtype = getattr(mx, sys.argv[1] if len(sys.argv) > 1 else "float32")
    is_gpu = mx.default_device().type == mx.DeviceType.gpu
    size, times = (4096, 50) if is_gpu else (1024, 10)
    a, b = (mx.random.normal((size, size)).astype(dtype) for _ in range(2))
    mx.eval(a @ b)
    cpu, wall = resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.perf_counter()
    for _ in range(times):
        mx.eval(a @ b)
    work = times * 2 * size**3
    wall = time.perf_counter() - wall
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu
    # A GPU leaves the CPU idle: there the clock is what counts.
    print(json.dumps({"flop_per_second": work / (wall if is_gpu else cpu), "wall_seconds": wall}))


if __name__ == "__main__":
    main()
