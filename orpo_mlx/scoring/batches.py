"""Which pairs each forward pass of a run sees: settings, lengths and a seed decide it alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Literal

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.buckets import BucketTable, build_buckets
from orpo_mlx.data.batching.order import (
    Part,
    Step,
    cut_by_tokens,
    cut_evenly,
    epoch_order,
    locate,
    plan_epoch,
    split_by_tokens,
    steps_in_epoch,
)
from orpo_mlx.data.types import TokenPair
from orpo_mlx.data.unpaired import step_rows
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.head import REWARD

LOOKED_AT = 20_000
"""Steps whose batches decide on the shapes of a run; more of them would bring no other shapes."""


def scored_of(config: TrainConfig) -> str:
    """Return what is scored of a pair: the scope of a `Scoring`."""
    return REWARD if config.objective == Reward.name else config.nll_scope


def step_parts(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair], step: int
) -> Sequence[Part]:
    """Return the pairs of each micro-batch of a step; the same for every process that asks.

    Args:
        step: 1-based.
    """
    parts = config.micro_batch_parts
    epoch, index = locate(step, steps_in_epoch(config, len(pairs)))
    plan = _epoch_plan(
        len(pairs),
        config.seed,
        epoch,
        config.order,
        config.micro_batch_size,
        config.grad_accumulation_steps,
        step_rows(config) if config.objective == "kto" else 1,
    )
    if config.batching == "fixed":
        return [piece for part in plan[index] for piece in cut_evenly(part, parts)]
    whole = _regroup(config, scoring, pairs, plan[index])
    if parts == 1:
        return whole
    return [piece for part in whole for piece in cut_by_tokens(part, pairs, scoring.cost, parts)]


@functools.lru_cache(maxsize=2)
def _epoch_plan(
    n: int,
    seed: int,
    epoch: int,
    order: Literal["shuffled", "file"],
    micro_batch_size: int,
    grad_accumulation_steps: int,
    block: int,
) -> list[Step]:
    """Plan an epoch once, not once per step: at 60,000 pairs it takes longer than a small step."""
    positions = epoch_order(n, seed, epoch, order, block)
    return plan_epoch(positions, micro_batch_size, grad_accumulation_steps)


def valid_parts(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair]
) -> Sequence[Part]:
    """Return validation pairs in micro-batches."""
    if not pairs:
        return []
    (whole,) = plan_epoch(range(len(pairs)), config.micro_batch_size, len(pairs))
    return _regroup(config, scoring, pairs, whole)


def _regroup(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair], step: Step
) -> Sequence[Part]:
    """Divide the pairs of a step by tokens instead of by number, if the settings say so."""
    if config.batching == "fixed":
        return step
    members = [index for part in step for index in part]
    return split_by_tokens(members, pairs, scoring.cost, config.tokens_per_batch)


def buckets_of_run(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair], total_steps: int
) -> BucketTable:
    """Return a few shapes that hold the batches of a whole run."""
    parts = iter_parts(config, scoring, pairs, min(total_steps, LOOKED_AT))
    batches = (scoring.laid([pairs[i] for i in part]) for part in parts)
    return build_buckets(batches, scoring.way.bucket_cost)


def iter_parts(
    config: TrainConfig, scoring: Scoring, pairs: Sequence[TokenPair], steps: int
) -> Iterator[Part]:
    """Yield the pairs of each micro-batch of the first steps of a run."""
    for step in range(1, steps + 1):
        yield from step_parts(config, scoring, pairs, step)
