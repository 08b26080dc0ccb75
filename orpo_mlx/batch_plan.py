"""Which pairs each forward pass of a run sees: settings, lengths and a seed decide it alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Literal

from orpo_mlx.config import TrainConfig
from orpo_mlx.data import batches
from orpo_mlx.data.pairs import TokenPair
from orpo_mlx.data.shapes import ShapeLadder, build_ladder
from orpo_mlx.scoring import Scoring

LOOKED_AT = 20_000
"""Steps whose batches decide on the shapes of a run; more of them would bring no other shapes."""


def steps_per_epoch(config: TrainConfig, pairs: int) -> int:
    """Return the number of optimizer steps in one pass over `pairs` pairs."""
    return batches.steps_per_epoch(pairs, config.micro_batch_size, config.grad_accumulation_steps)


def step_parts(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair], step: int
) -> Sequence[batches.MicroBatch]:
    """Return the pairs of each micro-batch of a step; the same for every process that asks.

    Args:
        step: 1-based.
    """
    epoch, index = batches.locate(step, steps_per_epoch(config, len(pairs)))
    plan = _epoch_plan(
        len(pairs),
        config.seed,
        epoch,
        config.order,
        config.micro_batch_size,
        config.grad_accumulation_steps,
    )
    return _regroup(config, scoring, pairs, plan[index])


@functools.lru_cache(maxsize=2)
def _epoch_plan(
    n: int,
    seed: int,
    epoch: int,
    order: Literal["shuffled", "file"],
    micro_batch_size: int,
    grad_accumulation_steps: int,
) -> list[batches.Step]:
    """Plan an epoch once, not once per step: at 60,000 pairs it takes longer than a small step."""
    positions = batches.epoch_order(n, seed, epoch, order)
    return batches.plan_epoch(positions, micro_batch_size, grad_accumulation_steps)


def valid_parts(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair]
) -> Sequence[batches.MicroBatch]:
    """Return validation pairs in micro-batches."""
    if not pairs:
        return []
    (whole,) = batches.plan_epoch(range(len(pairs)), config.micro_batch_size, len(pairs))
    return _regroup(config, scoring, pairs, whole)


def _regroup(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair], step: batches.Step
) -> Sequence[batches.MicroBatch]:
    """Divide the pairs of a step by tokens instead of by number, if the settings say so."""
    if config.batching == "fixed":
        return step
    members = [index for part in step for index in part]
    return batches.split_by_tokens(members, pairs, scoring.cost, config.tokens_per_batch)


def ladder_of_run(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair], total_steps: int
) -> ShapeLadder:
    """Return a few shapes that hold the batches of a whole run."""
    return build_ladder(_iter_batches(config, scoring, pairs, min(total_steps, LOOKED_AT)))


def _iter_batches(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair], steps: int
) -> Iterator[Sequence[TokenPair]]:
    for step in range(1, steps + 1):
        for part in step_parts(config, scoring, pairs, step):
            yield [pairs[i] for i in part]
