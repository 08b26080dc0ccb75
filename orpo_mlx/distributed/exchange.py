"""Arrays between processes, by `mx.distributed` alone, on the CPU stream.

A GPU that waits for a slow peer longer than some seconds is ended by its watchdog, so arrays are
made before, and added up after, and never in one graph with the exchange.
"""

from __future__ import annotations

import faulthandler
import os
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from orpo_mlx.distributed.world import World
from orpo_mlx.errors import PeerRefusedError, reason_of

Tree = dict[str, Any]

_ADVICE = {
    "ring": "Another run may use their ports: wait for its end, or give mlx.launch another "
    "--starting-port.",
    "jaccl": "JACCL needs RDMA, switched on in each Mac, and a cable to each other one; with "
    "--backend ring mlx.launch needs neither.",
}


def connect(world: World, seconds: float) -> mx.distributed.Group:
    """Have MLX connect all processes; they must have met.

    Where one dies just then MLX would wait for ever and let no thread run: this process ends
    after `seconds`, with exit status 1.

    Raises:
        PeerRefusedError: a port is taken, or there is no such engine.
    """
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            return mx.distributed.init(strict=True, backend=world.backend)
        except RuntimeError as error:
            raise PeerRefusedError(
                f"MLX could not connect the {world.size} processes ({reason_of(error)})",
                _ADVICE[world.backend],
            ) from error
        finally:
            faulthandler.cancel_dump_traceback_later()


def sum_tree(tree: Tree, group: mx.distributed.Group) -> Tree:
    """Return the sums over all processes of a tree of arrays, as float32 in the given types.

    They travel as one vector, in the order of their names: one grouping, so that the same number
    of processes gives the same bytes.
    """
    flat: list[tuple[str, mx.array]] = sorted(tree_flatten(tree))  # pyright: ignore
    parts = [array.reshape(-1).astype(mx.float32) for _, array in flat]
    own = mx.concatenate(parts)
    mx.eval(own)
    total = mx.distributed.all_sum(own, group=group, stream=mx.cpu)
    mx.eval(total)
    ends, end = [], 0
    for part in parts[:-1]:
        end += part.size
        ends.append(end)
    pieces = mx.split(total, ends) if ends else [total]
    both = zip(flat, pieces, strict=True)
    return tree_unflatten([(n, p.reshape(a.shape).astype(a.dtype)) for (n, a), p in both])


def copy_tree(tree: Tree, group: mx.distributed.Group) -> Tree:
    """Return process 0's arrays in all processes, bit for bit.

    Args:
        tree: the same names, shapes and types everywhere; values of others than 0 are not used.
        group: of all processes.
    """
    flat: list[tuple[str, mx.array]] = sorted(tree_flatten(tree))  # pyright: ignore
    pieces = []
    for name, array in flat:
        own = array.reshape(-1).view(mx.uint8)
        own = own if group.rank() == 0 else mx.zeros_like(own)
        mx.eval(own)
        found = mx.distributed.all_sum(own, group=group, stream=mx.cpu)
        mx.eval(found)
        pieces.append((name, found.view(array.dtype).reshape(array.shape)))
    mx.eval(pieces)
    return tree_unflatten(pieces)
