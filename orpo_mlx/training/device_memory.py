"""What MLX may hold in memory during a run, and what the process holds in all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import psutil

from orpo_mlx.planning.memory import Estimate
from orpo_mlx.scoring.base import SMALLEST_CACHE


@dataclass(frozen=True)
class MemoryLimits:
    """Limits for MLX's allocator, in bytes; 0: as they are.

    Attributes:
        cache: freed buffers kept for later while a batch is computed. MLX's own limit is nearly all
            memory.
        active: above this MLX waits for work to finish before it allocates more.
    """

    cache: int = 0
    active: int = 0


def choose_limits(estimate: Estimate, available: int) -> MemoryLimits:
    """Return limits for a run of this estimate.

    The cache gets what can ever be freed, the weights and the adapter never being, if there is room
    for so much beside the estimated peak. Wired memory is left to the system: wired limits have
    brought down whole machines.

    Args:
        estimate: peak of the run; 0 if it is not known.
        available: bytes a run may use.
    """
    if not estimate.total:
        return MemoryLimits()
    freed = estimate.total - estimate.weights - estimate.adapter - estimate.cache
    cache = max(SMALLEST_CACHE, min(freed, available - estimate.total))
    return MemoryLimits(cache, available if estimate.total <= available else 0)


@contextmanager
def limited_memory(limits: MemoryLimits) -> Iterator[None]:
    """Set the limits inside, and put back afterwards what was set before."""
    cache = mx.set_cache_limit(limits.cache) if limits.cache else None
    active = mx.set_memory_limit(limits.active) if limits.active else None
    try:
        yield
    finally:
        if cache is not None:
            mx.set_cache_limit(cache)
        if active is not None:
            mx.set_memory_limit(active)


def process_bytes() -> int:
    """Return what this process holds in RAM, Python and all, as the system counts it.

    On a Mac memory that only the GPU has mapped may be missing in it.
    """
    return psutil.Process().memory_info().rss
