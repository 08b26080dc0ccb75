"""How a run will go: its steps, evaluations and checkpoints, told before it is started."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.order import steps_in_epoch
from orpo_mlx.planning.cadence import plan_cadence
from orpo_mlx.planning.disk import count_checkpoints
from orpo_mlx.planning.memory import MOMENTS


@dataclass(frozen=True)
class RunCourse:
    """What a run does, as far as it is known before.

    Attributes:
        pairs: it trains on.
        evaluations: those at its start and end included; 0 without held-out pairs.
        evaluated_pairs: of each.
        checkpoints: likewise; more where work is slow, as one is made every ten minutes.
        kept_checkpoints: of them that lie on the disk at a time, at most.
        checkpoint_bytes: of each.
    """

    steps: int
    pairs: int
    evaluations: int
    evaluated_pairs: int
    checkpoints: int
    kept_checkpoints: int
    checkpoint_bytes: int


def count_steps(config: TrainConfig, pairs: int) -> int:
    """Return the optimizer steps of the whole run: `steps`, or as many as `epochs` take."""
    if config.steps is not None:
        return config.steps
    return max(1, math.ceil(config.epochs * steps_in_epoch(config, pairs)))


def trained_pairs(config: TrainConfig, steps: int, pairs: int) -> int:
    """Return the pairs a run of so many steps trains on, each counted as often as it is seen."""
    return round(steps / steps_in_epoch(config, pairs) * pairs)


def plan_course(config: TrainConfig, read: int, held_out: int, adapter_bytes: int) -> RunCourse:
    """Return how a run on so many pairs will go.

    Args:
        config: the settings.
        read: pairs of the data, those included that will be held out of them.
        held_out: pairs of the validation data; 0 if there are none of their own.
        adapter_bytes: of the adapter with two sets of gradients and moments (`Estimate.adapter`).
    """
    apart = 0 if config.valid_data else round(read * config.valid_fraction)
    pairs = max(1, read - apart)
    steps = count_steps(config, pairs)
    evaluated = held_out or apart
    if config.eval_pairs:
        evaluated = min(evaluated, config.eval_pairs)
    cadence = plan_cadence(config, steps, trained_pairs(config, steps, pairs), evaluated)
    checkpoints = 1 + _times(steps, cadence.save)
    saved = 1 + MOMENTS[config.optimizer]
    return RunCourse(
        steps=steps,
        pairs=pairs,
        evaluations=1 + _times(steps, cadence.evaluate) if evaluated else 0,
        evaluated_pairs=evaluated,
        checkpoints=checkpoints,
        kept_checkpoints=count_checkpoints(config, checkpoints),
        checkpoint_bytes=adapter_bytes * saved // (2 + saved),
    )


def _times(steps: int, every: int) -> int:
    """Return how often something is done that is done every so many steps and at the end."""
    return math.ceil(steps / every) if every else 1
