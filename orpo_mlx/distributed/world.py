"""Which process of how many this one is, as `mlx.launch` or our own start has told it.

What `mlx.launch` sets is read: MLX_RANK, and MLX_HOSTFILE (ring) or MLX_JACCL_COORDINATOR with
MLX_IBV_DEVICES (JACCL). Messages travel beside the tensors, on the port after the last of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ConfigError, describe

SECRET = "ORPO_MLX_PEERS_SECRET"
"""Environment variable: what a peer must know to be let in."""

MOST_PROCESSES = 64
"""Of a run."""

_AGAIN = "Start all processes anew: orpo-mlx train ... --processes 2, or mlx.launch."


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: of this process, 0-based; 0 owns the run.
        size: how many there are.
        address: host and port at which process 0 takes messages.
        names: where each process was said to be, for messages about one that did not come.
        secret: what all of them know, "" where the starter could not tell them.
        backend: of `mx.distributed`.
    """

    rank: int
    size: int
    address: tuple[str, int]
    names: tuple[str, ...]
    secret: str = ""
    backend: str = "ring"


def read_world(environment: Mapping[str, str]) -> World | None:
    """Return the world an environment describes, None for a process of its own.

    Raises:
        ConfigError: it contradicts itself.
    """
    if "MLX_RANK" not in environment:
        return None
    try:
        nodes, backend = _nodes(environment)
        rank = int(environment["MLX_RANK"])
        if len(nodes) < 2:
            return None
        if not 0 <= rank < len(nodes):
            raise ValueError(f"process {rank} of {len(nodes)}")
        host = nodes[0][0].rpartition(":")[0]
        port = 1 + max(int(place.rpartition(":")[2]) for node in nodes for place in node)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"MLX_RANK is set, and what goes with it cannot be read ({describe(error)})",
            f"Unset MLX_RANK for a run of one process. {_AGAIN}",
        ) from error
    names = tuple(node[0].rpartition(":")[0] for node in nodes)
    return World(rank, len(nodes), (host, port), names, environment.get(SECRET, ""), backend)


def _nodes(environment: Mapping[str, str]) -> tuple[list[list[str]], str]:
    """Return "host:port" of each process, several where it has several connections."""
    if file := environment.get("MLX_HOSTFILE"):
        text = Path(file).read_text(encoding="utf-8")
        nodes: Any = json.loads(text) if text.strip() else []
        return [[node] if isinstance(node, str) else node for node in nodes], "ring"
    # mlx.launch names the other hosts by their RDMA devices alone.
    devices = json.loads(Path(environment["MLX_IBV_DEVICES"]).read_text(encoding="utf-8"))
    first = environment["MLX_JACCL_COORDINATOR"]
    others = [f"{_peer_name(rank)}:0" for rank in range(1, len(devices))]
    return [[place] for place in (first, *others)], "jaccl"


def _peer_name(rank: int) -> str:
    return f"process {rank}"
