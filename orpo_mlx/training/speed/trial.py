"""Whether compiling the step pays: before a run a real one is tried each way, and none is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import mlx.core as mx

from orpo_mlx.adapters.dropout import dropout_off
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.buckets import BucketTable
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import describe
from orpo_mlx.models.activations import is_on_gpu
from orpo_mlx.objectives import build_objective
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.planning.plan import Plan
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.batches import LOOKED_AT, buckets_of_run, iter_parts
from orpo_mlx.scoring.select import compile_problem
from orpo_mlx.text.formatting import counted, format_duration, format_moment
from orpo_mlx.training.device_memory import choose_limits, limited_memory
from orpo_mlx.training.memory import MemoryNeeds
from orpo_mlx.training.optimizer import build_optimizer
from orpo_mlx.training.speed.plan import StepPlan, shortest
from orpo_mlx.training.step import TrainStep, step_key

Clock = Callable[[], float]

STEPS = 3
"""Steps tried each way; the first fills caches, or compiles, the faster of the others counts."""
MOST_SHARE, MOST_SECONDS = 0.02, 60.0
"""Of the run's foretold time, and in all, that trying may take."""
LEAD = 0.05
"""Share of its time that a run must gain by compiling: less could be noise."""
COMPILING = {"cpu": 30.0, "gpu": 3.0}
"""Seconds that compiling is thought to take before it was tried: it cannot be cut short. On a CPU
it took 27 CPU seconds for a Llama whose kernels had never been compiled there; a GPU is judged."""


@dataclass(frozen=True)
class Trial:
    """What steps took, in seconds, and what a run would.

    Attributes:
        table: the shapes of the run.
        passes: forward passes of the run.
        plain: one over the usual batch, as tight as it comes.
        compiled: the same filled up and compiled.
        compiling: what the first compiled one of a shape takes more.
    """

    table: BucketTable
    passes: float
    plain: float
    compiled: float
    compiling: float

    @property
    def plain_total(self) -> float:
        """Seconds of the run as it is."""
        return self.passes * self.plain * self.table.usual.mean

    @property
    def compiled_total(self) -> float:
        """Seconds of the run compiled."""
        steps = self.passes * self.compiled * self.table.usual.mean_filled
        return steps + self.compiling * len(self.table.buckets)

    @property
    def pays(self) -> bool:
        """Whether compiling gains enough to be believed."""
        return self.compiled_total <= (1 - LEAD) * self.plain_total

    def __str__(self) -> str:
        how = "is" if self.pays else "is not"
        shapes = counted(len(self.table.buckets), "shape")
        return (
            f"the step {how} compiled: tried, one took {format_moment(self.compiled)} compiled, "
            f"{format_moment(self.plain)} as it is, and {format_moment(self.compiling)} to compile "
            f"once for each of {shapes}; that makes {format_duration(self.compiled_total)} for the "
            f"run instead of {format_duration(self.plain_total)}. Another start may find otherwise "
            "and differ in the last bits: --compile on or off settles it"
        )


def can_compile() -> bool:
    """Tell whether MLX can compile here: on a CPU it calls a C++ compiler by this name."""
    return is_on_gpu() or shutil.which("g++") is not None


def may_pay(config: TrainConfig, scoring: Scoring, total_steps: int) -> bool:
    """Tell whether compiling is worth a try: asked for, possible, and a small part of the run."""
    is_long = _is_long(total_steps * config.grad_accumulation_steps)
    return config.compile == "auto" and scoring.way.can_bucket and is_long and can_compile()


def _is_long(passes: float) -> bool:
    """Tell whether so many forward passes leave room for steps tried each way."""
    return passes * MOST_SHARE >= 2 * STEPS


class Begun(NamedTuple):
    """What is known once the step was tried as it is.

    Attributes:
        scoring: of the run, batches as tight as they come.
        table: the shapes of the run.
        part: the usual batch, as places of its pairs.
        passes: forward passes of the run, in this process.
        step: seconds of one.
        left: seconds that may yet be spent.
    """

    scoring: Scoring
    table: BucketTable
    part: Sequence[int]
    passes: float
    step: float
    left: float


@dataclass(frozen=True)
class Candidate:
    """A run whose step may be compiled.

    Attributes:
        config: the settings.
        model: with an adapter attached, in training mode.
        needs: of memory.
        memory, speed: what is planned, without compiling.
        pairs: to train on.
        total_steps: of the run.
        processes: that share it.
    """

    config: TrainConfig
    model: Any
    needs: MemoryNeeds
    memory: Plan
    speed: StepPlan
    pairs: Sequence[TokenPair]
    total_steps: int
    processes: int = 1

    def tried(self, clock: Clock = time.perf_counter) -> tuple[Plan, StepPlan]:
        """Return how the run is computed: as planned, or compiled if that pays.

        The adapter is as it was, and no more memory is used than the run was said to need.
        """
        try:
            with limited_memory(choose_limits(self.memory.estimate, self.needs.available)):
                begun = self._begin(clock)
                return self._go_on(begun, clock) if begun else (self.memory, self.speed)
        except RuntimeError as error:  # of MLX: whatever is wrong, the run can do without compiling
            return self._uncompiled(f"trying it failed: {describe(error)[:100]}")
        finally:
            mx.clear_cache()

    def _begin(self, clock: Clock) -> Begun | None:
        """Try the step as it is; None if trying it compiled, too, would take too long."""
        # In a first epoch there are no outputs of lower blocks yet; they are the same both ways.
        tight = replace(self.speed.train, cut=0)
        table = buckets_of_run(self.config, tight, self.pairs, self.total_steps)
        passes = table.batches * max(1, self.total_steps / LOOKED_AT) / self.processes
        # By tokens a step may be fewer forward passes than its settings say.
        if not _is_long(passes * table.usual.mean):
            return None
        parts = iter_parts(self.config, tight, self.pairs, self.total_steps)
        part = next(islice(parts, table.usual.place, None))
        expected = COMPILING[mx.default_device().type.name]
        taken = self._timed(tight, part, clock, (MOST_SECONDS - expected) / 2)
        if not taken:
            return None
        step = min(taken[1:])
        left = min(MOST_SECONDS, MOST_SHARE * passes * step * table.usual.mean) - sum(taken)
        is_short = left < expected + STEPS * step
        return None if is_short else Begun(tight, table, part, passes, step, left)

    def _go_on(self, begun: Begun, clock: Clock) -> tuple[Plan, StepPlan]:
        train = replace(self.speed.train, bucket_table=begun.table)
        filled = replace(self.speed, train=train, compiled=True)
        larger, speed = self.needs.with_buckets(self.memory, filled)
        if not speed.compiled:
            return larger, speed
        found = self._compile(begun, clock)
        if isinstance(found, str):
            return self._uncompiled(found)
        plan, speed = (larger, speed) if found.pays else (self.memory, self.speed)
        return plan, replace(speed, facts=(*speed.facts, str(found)))

    def _compile(self, begun: Begun, clock: Clock) -> Trial | str:
        """Try the step compiled; a text says why that could not be."""
        table, part = begun.table, begun.part
        bucket = table.bucket_for(begun.scoring.laid([self.pairs[i] for i in part]))
        if bucket and not self.needs.has_room(self.memory, begun.scoring.way, bucket):
            return "trying it would need more memory than the run"
        scoring, began = replace(begun.scoring, bucket_table=table), clock()
        with dropout_off(self.model):  # a step has switched it on
            if problem := compile_problem(self.model, scoring, shortest(self.pairs)):
                return problem
        left = begun.left - (clock() - began)
        taken = self._timed(scoring, part, clock, left, compiled=True)
        if not taken:
            return "trying it takes too long here"
        step = min(taken[1:])
        return Trial(table, begun.passes, begun.step, step, max(0.0, taken[0] - step))

    def _uncompiled(self, why: str) -> tuple[Plan, StepPlan]:
        note = f"the step is not compiled: {why}"
        return self.memory, replace(self.speed, notes=(*self.speed.notes, note))

    def _timed(
        self,
        scoring: Scoring,
        part: Sequence[int],
        clock: Clock,
        limit: float,
        compiled: bool = False,
    ) -> list[float]:
        """Return the seconds of gradients of these pairs; none if they take longer than `limit`."""
        goal = build_objective(self.config.objective, self.config.model_dump())
        if goal.needs_reference and self.pairs[part[0]].reference is None:
            goal = Orpo(lam=1.0)  # the reference is scored later; the model's work is the same
        step = TrainStep(self.model, build_optimizer(self.config), goal, scoring, compiled=compiled)
        batch, key = scoring.build(self.pairs, part), step_key(self.config.seed, 1)
        taken: list[float] = []
        while len(taken) < STEPS:
            if sum(taken) > limit:
                return []
            began = clock()
            step.gradient([batch], key)
            taken.append(clock() - began)
        return taken
