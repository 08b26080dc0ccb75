"""What a run needs of memory, told before its weights are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orpo_mlx.adapters.lora import AdapterSpec
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.buckets import Bucket
from orpo_mlx.data.batching.order import draw_some
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.data.prepare import PreparedData
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import ModelError
from orpo_mlx.models.shape import ModelShape, folder_shape
from orpo_mlx.planning.fit import require_fit
from orpo_mlx.planning.memory import (
    NOTHING,
    Savings,
    available_bytes,
    cache_bytes,
    count_costs,
    own_savings,
)
from orpo_mlx.planning.plan import Plan, Question, lengths_of
from orpo_mlx.planning.search import without_recomputing
from orpo_mlx.runs.checkpoints import FoundCheckpoint
from orpo_mlx.scoring.base import Way
from orpo_mlx.scoring.batches import scored_of
from orpo_mlx.scoring.head import REWARD
from orpo_mlx.training.speed.plan import StepPlan


@dataclass(frozen=True)
class MemoryNeeds:
    """What a run needs, by how it scores pairs.

    Attributes:
        config: the settings, those of the adapter as it is attached.
        shape: of the model, None if its sizes cannot be told.
        train, valid: lengths of the pairs.
        available: bytes a run may use here.
        recorded: what a resumed run saved on: it may decide the last bits of a number.
        was_compiled: a resumed run's step was, and stays so.
        problem: why there is no shape, "" if there is one.
    """

    config: TrainConfig
    shape: ModelShape | None
    train: Sequence[Lengths]
    valid: Sequence[Lengths]
    available: int
    recorded: Savings | None = None
    was_compiled: bool = False
    problem: str = ""

    def as_decided(self, decided: Mapping[str, Any]) -> MemoryNeeds:
        """Return these needs of a run that saves on what was decided elsewhere."""
        savings, compiled = Savings(**decided["savings"]), bool(decided["compiled"])
        return replace(self, recorded=savings, was_compiled=compiled)

    def require(self, way: Way) -> Plan:
        """Return what is saved on, and what the run needs then.

        Raises:
            ConfigError: there is less memory, and overcommitting it is not allowed.
        """
        if self.shape is None:
            return Plan(self.recorded or own_savings(self.config), NOTHING)
        return require_fit(self._question(self.shape, way), self.recorded)

    def notes_on(self, plan: Plan, way: Way) -> tuple[str, ...]:
        """Say that sizes are unknown, or that blocks are recomputed for want of memory and what
        would do without."""
        if self.shape is None:
            return (self.problem,)
        every = plan.savings.recompute_every
        if self.config.grad_checkpoint != "auto" or not every:
            return ()
        of = "all adapted blocks are" if every == 1 else f"one of {every} adapted blocks is"
        note = f"{of} computed again in the backward pass, so that the memory suffices"
        better = None if self.recorded else without_recomputing(self._question(self.shape, way))
        return (f"{note}; {better.flags} would do without" if better else note,)

    def with_buckets(self, plan: Plan, speed: StepPlan) -> tuple[Plan, StepPlan]:
        """Count what batches are filled up with; shapes for which there is no room are given up.

        Raises:
            ConfigError: there is no room, and a resumed run must keep them.
        """
        way, table = speed.train.way, speed.train.bucket_table
        if self.shape is None or table is None:
            return plan, speed
        filled = tuple(way.bucket_shape(bucket, self.config.nll_scope) for bucket in table.buckets)
        question = replace(self._question(self.shape, way), buckets=filled)
        if self.was_compiled:
            return require_fit(question, plan.savings), speed
        larger = question.plan(plan.savings)
        if larger.estimate.total <= self.available or plan.estimate.total > self.available:
            return larger, speed
        note = "the step is not compiled: for batches of a few shapes there is too little memory"
        tight = replace(speed.train, bucket_table=None)
        return plan, replace(speed, compiled=False, train=tight, notes=(*speed.notes, note))

    def has_room(self, plan: Plan, way: Way, bucket: Bucket) -> bool:
        """Tell whether a step over a full bucket needs no more than the run without any."""
        if self.shape is None:
            return True
        filled = way.bucket_shape(bucket, self.config.nll_scope)
        costs = count_costs(self.shape, self.config, filled)
        return costs.with_savings(plan.savings).total <= plan.estimate.total

    def _question(self, shape: ModelShape, way: Way) -> Question:
        config = self.config
        evaluated = draw_some(self.valid, config.eval_pairs, config.seed)
        # As `scoring.input_tokens` counts: the prompt once, no response's last token.
        sizes = [sum(lengths) - 1 for lengths in (*self.train, *evaluated)]
        beside = cache_bytes(config, sizes, shape.hidden, shape.float_bytes)
        return Question(shape, config, way, self.train, self.valid, self.available, beside)


def find_needs(
    config: TrainConfig,
    spec: AdapterSpec,
    path: Path,
    data: PreparedData,
    resumed: FoundCheckpoint | None,
) -> MemoryNeeds:
    """Return what a run needs of memory.

    Args:
        config: the settings.
        spec: how the adapter is attached.
        path: folder of the model.
        data: the pairs.
        resumed: the checkpoint to go on from.
    """
    names = ("rank", "dropout", "num_layers", "dora")
    own: dict[str, Any] = {name: getattr(spec, name) for name in names}
    own["target_modules"] = list(spec.target_modules)
    manifest = resumed.manifest if resumed else {}
    savings, shape, problem = manifest.get("savings"), None, ""
    try:
        shape = folder_shape(path)
    except ModelError as error:
        problem = error.message
    return MemoryNeeds(
        config=config.model_copy(update=own),
        shape=shape,
        train=_laid_lengths(config, data.train),
        valid=_laid_lengths(config, data.valid),
        available=available_bytes(),
        recorded=Savings(**savings) if savings else None,
        was_compiled=bool(manifest.get("compiled")),
        problem=problem,
    )


def _laid_lengths(config: TrainConfig, pairs: Sequence[TokenPair]) -> list[Lengths]:
    """Return the lengths of pairs as `Scoring.laid` lays them out."""
    added = int(scored_of(config) == REWARD)
    return [Lengths(p, c + added, r + added) for p, c, r in lengths_of(pairs)]
