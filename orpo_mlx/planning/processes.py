"""What a run over several processes needs, sends and takes, told before it is started."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.division import divided
from orpo_mlx.data.batching.order import cut_evenly, steps_in_epoch
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.data.types import TokenPair
from orpo_mlx.distributed.allotment import loads_of
from orpo_mlx.distributed.traffic import (
    NUMBER_BYTES,
    exchange_memory,
    ring_bytes,
    ring_seconds,
    step_seconds,
)
from orpo_mlx.models.shape import ModelShape
from orpo_mlx.planning.memory import adapted_linears, count_adapter
from orpo_mlx.planning.plan import clipped

if TYPE_CHECKING:
    from orpo_mlx.scoring.base import Way

LOOKED_AT = 200
"""Steps whose micro-batches are counted; more of them would hardly change the averages."""

LINK_GBIT = 1.0
"""Of plain Ethernet, the slowest link that two Macs usually have."""


@dataclass(frozen=True)
class Shares:
    """How the work of a step is divided among processes; means over the steps looked at.

    Attributes:
        micro_batches: of a step.
        idle: processes that have none.
        busiest: what the process with most tokens has of those of the step, 1/N at best.
    """

    micro_batches: float
    idle: float
    busiest: float


@dataclass(frozen=True)
class ProcessPlan:
    """What N processes need, send and take, besides what one would.

    Attributes:
        processes: N.
        adapter_numbers: of the adapter; they are exchanged as float32.
        process_bytes: peak memory of each process.
        shares: None where the micro-batches follow from pairs that are not known.
        micro_batch_parts: into how many each forward pass is divided for it.
        link_gbit: what each process can send and receive at a time, in 1e9 bits per second.
        alone_seconds: of a step in one process; None where it is not known.
    """

    processes: int
    adapter_numbers: int
    process_bytes: int
    shares: Shares | None = None
    micro_batch_parts: int = 1
    link_gbit: float = LINK_GBIT
    alone_seconds: float | None = None

    @property
    def payload_bytes(self) -> int:
        """Of the vector that is added up in a step."""
        return self.adapter_numbers * NUMBER_BYTES

    @property
    def sent_bytes(self) -> int:
        """By each process in a step; as many are received."""
        return ring_bytes(self.payload_bytes, self.processes)

    @property
    def exchange_seconds(self) -> float:
        """Of a step, at the speed of the link."""
        return ring_seconds(self.payload_bytes, self.processes, self.link_gbit)

    @property
    def seconds_per_step(self) -> float | None:
        """If each process is as fast as the one measured; None where that is not known."""
        if self.alone_seconds is None or self.shares is None:
            return None
        return step_seconds(self.alone_seconds, self.shares.busiest, self.exchange_seconds)


def plan_processes(
    config: TrainConfig,
    size: int,
    shape: ModelShape,
    way: Way,
    train: Sequence[Lengths],
    peak_bytes: int,
) -> ProcessPlan:
    """Return what `size` processes need.

    Args:
        config: the settings of the run, not divided yet.
        size: number of processes.
        shape: of the model, all of which each process holds.
        way: of scoring.
        train: lengths of the pairs it trains on, uncut; () where they are not known.
        peak_bytes: of one process that computes alone.
    """
    numbers = count_adapter(adapted_linears(shape, config), config)
    own = divided(config, size)
    peak_bytes += exchange_memory(numbers, size)
    shares = share_out(own, way, clipped(train, own.max_seq_length), size)
    return ProcessPlan(size, numbers, peak_bytes, shares, own.micro_batch_parts)


def share_out(config: TrainConfig, way: Way, train: Sequence[Lengths], size: int) -> Shares | None:
    """Return how steps are shared out, None where micro-batches follow from unknown lengths."""
    if not train:
        return _by_number(config, size)
    from orpo_mlx.scoring.base import Scoring
    from orpo_mlx.scoring.batches import scored_of, step_parts

    pairs = _stand_ins(train)
    scoring, found = Scoring(way, scored_of(config)), []
    for step in range(1, min(LOOKED_AT, steps_in_epoch(config, len(pairs))) + 1):
        parts = step_parts(config, scoring, pairs, step)
        costs = [sum(pairs[i].size for i in part) for part in parts]
        loads = loads_of(costs, size)
        found.append((len(parts), loads.count(0), max(loads) / sum(loads)))
    return Shares(*map(statistics.fmean, zip(*found, strict=True)))


def _by_number(config: TrainConfig, size: int) -> Shares | None:
    if config.batching == "tokens":
        return None
    pieces = len(cut_evenly(tuple(range(config.micro_batch_size)), config.micro_batch_parts))
    count = config.grad_accumulation_steps * pieces
    return Shares(count, max(0, size - count), -(-count // size) / count)


def _stand_ins(lengths: Sequence[Lengths]) -> list[TokenPair]:
    """Return pairs of these lengths without content, which take no memory of their own."""

    @functools.cache
    def ids(count: int) -> list[int]:
        return [0] * count

    return [TokenPair(ids(p), ids(c), ids(r)) for p, c, r in lengths]
