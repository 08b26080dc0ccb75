"""Who computes which micro-batch: the heaviest first, each to whom has least so far."""

from __future__ import annotations

from collections.abc import Sequence


def allot(costs: Sequence[int], size: int) -> list[int]:
    """Return the process of each micro-batch, by longest processing time first.

    Graham 1969: the most loaded has at most 4/3 - 1/(3 size) of the least that is possible. Equal
    costs go in their order, so all processes find the same.

    Args:
        costs: of each micro-batch, in tokens.
        size: number of processes.
    """
    loads, owners = [0] * size, [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        owner = min(range(size), key=lambda rank: (loads[rank], rank))
        owners[index] = owner
        loads[owner] += costs[index]
    return owners


def loads_of(costs: Sequence[int], size: int) -> list[int]:
    """Return what each of `size` processes has to do then, in tokens."""
    loads = [0] * size
    for cost, owner in zip(costs, allot(costs, size), strict=True):
        loads[owner] += cost
    return loads
