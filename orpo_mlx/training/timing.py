"""How long a run will take: three steps on its longest batch, which change nothing that is kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx

from orpo_mlx.config import TrainConfig
from orpo_mlx.planning.fit import MeasuredTime
from orpo_mlx.scoring.batches import iter_parts
from orpo_mlx.training.device_memory import choose_limits, limited_memory, process_bytes
from orpo_mlx.training.optimizer import build_optimizer
from orpo_mlx.training.preparation.objective import objective
from orpo_mlx.training.prepare import Prepared, prepare
from orpo_mlx.training.step import TrainStep, step_key

STEPS = 3
"""Steps that are tried; the first may compile or fill caches, so the middle time counts."""


def measure_time(config: TrainConfig) -> MeasuredTime:
    """Load the model and take a few steps on the longest batch of the run.

    Raises:
        OrpoError: model or data cannot be used, or the memory of this machine does not suffice.
    """
    # What a trunk cache saves comes later: its first epoch fills it.
    prepared = prepare(config.model_copy(update={"trunk_cache": "off"}))
    pairs, cost = prepared.data.train, prepared.scoring.cost
    in_epoch = min(prepared.total_steps, prepared.steps_per_epoch)
    parts = list(iter_parts(prepared.config, prepared.scoring, pairs, in_epoch))
    costs = [cost([pairs[i] for i in part]) for part in parts]
    longest = max(range(len(parts)), key=costs.__getitem__)
    with limited_memory(choose_limits(prepared.plan.estimate, prepared.available_bytes)):
        seconds = _middle_seconds(prepared, parts[longest])
    per_step = seconds / costs[longest] * sum(costs) / in_epoch
    return MeasuredTime(
        steps=prepared.total_steps,
        seconds_per_step=per_step,
        seconds_total=per_step * prepared.total_steps,
        peak_memory_bytes=mx.get_peak_memory(),
        estimated_bytes=prepared.plan.estimate.total,
        process_bytes=process_bytes(),
        batch_pairs=len(parts[longest]),
        batch_tokens=costs[longest],
        batch_seconds=seconds,
        tokens_per_second=costs[longest] / seconds,
        scoring=prepared.scoring.way.name,
    )


def _middle_seconds(prepared: Prepared, indices: Sequence[int]) -> float:
    """Return the median time of a step over these pairs, their layout included."""
    config = prepared.config
    # As in a first epoch: nothing is kept yet.
    scoring = replace(prepared.speed.train, cut=0)
    step = TrainStep(
        prepared.model,
        build_optimizer(config),
        objective(config),
        scoring,
        max_grad_norm=config.max_grad_norm,
        compiled=prepared.speed.compiled,
    )
    taken = []
    for number in range(1, STEPS + 1):
        started = time.perf_counter()
        batch = scoring.build(prepared.data.train, indices)
        step([batch], step_key(config.seed, number), config.learning_rate)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
