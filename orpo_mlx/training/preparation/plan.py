"""How a run is computed: memory, way of scoring, speed; decided once for all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import mlx.core as mx

from orpo_mlx.adapters.dropout import dropout_off
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.batching.order import draw_some
from orpo_mlx.data.prepare import PreparedData
from orpo_mlx.data.types import TokenPair
from orpo_mlx.distributed.peers import Peers
from orpo_mlx.errors import ConfigError
from orpo_mlx.models.precision import has_exact_products
from orpo_mlx.models.recompute import recomputing
from orpo_mlx.planning.fit import likely_way
from orpo_mlx.planning.plan import Plan
from orpo_mlx.runs.checkpoints import FoundCheckpoint, versions
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.batches import scored_of
from orpo_mlx.scoring.remembered import remembered_scoring
from orpo_mlx.scoring.select import choose_scoring
from orpo_mlx.training.preparation.adapted import AdaptedModel
from orpo_mlx.training.speed.plan import StepPlan, plan_steps
from orpo_mlx.training.speed.trial import Candidate, may_pay


@dataclass(frozen=True)
class RunPlan:
    """How a run is computed.

    Attributes:
        memory: what is saved on, and the estimated peak; 0 if the model's sizes could not be told.
        scoring: how pairs are scored.
        speed: how steps and evaluations are computed.
        notes: what the user should know of it.
    """

    memory: Plan
    scoring: Scoring
    speed: StepPlan
    notes: tuple[str, ...]


def plan_together(
    config: TrainConfig,
    adapted: AdaptedModel,
    data: PreparedData,
    total_steps: int,
    resumed: FoundCheckpoint | None,
    peers: Peers,
    try_compiling: Callable[[Candidate], tuple[Plan, StepPlan]],
) -> RunPlan:
    """Have the run computed in the same way by all processes: as process 0 has decided."""
    decided = resumed.manifest if resumed else {}
    if not peers.is_lead:
        decided = peers.share(None)
        adapted = replace(adapted, needs=adapted.needs.as_decided(decided))
    plan = _plan_run(config, adapted, data, total_steps, decided, peers.size, try_compiling)
    if peers.is_lead:
        peers.share(recorded(plan))
    return plan


def _plan_run(
    config: TrainConfig,
    adapted: AdaptedModel,
    data: PreparedData,
    total_steps: int,
    decided: Mapping[str, Any],
    processes: int,
    try_compiling: Callable[[Candidate], tuple[Plan, StepPlan]],
) -> RunPlan:
    """Decide how the run is computed; the model is tried on a few pairs and left as it was.

    Args:
        decided: what a resumed run, or process 0, has decided before: as `recorded` returns it.
        processes: that share the run.
        try_compiling: finds out whether compiling pays.
    """
    model, needs = adapted.loaded.model, adapted.needs
    scoring, memory = _choose_way(config, adapted, data, decided.get("scoring", config.scoring))
    with _being_tried(model), recomputing(model.layers, memory.savings.recompute_every):
        speed = plan_steps(
            config, model, scoring, data.train, evaluated(config, data), total_steps,
            decided.get("compiled"),
        )  # fmt: skip
        memory, speed = needs.with_buckets(memory, speed)
        if not decided and may_pay(config, scoring, total_steps):
            memory, speed = try_compiling(
                Candidate(config, model, needs, memory, speed, data.train, total_steps, processes)
            )
    notes = (*needs.notes_on(memory, scoring.way), *speed.notes)
    if scoring.why:
        notes = (*notes, f"pairs are scored the {scoring.way} way ({scoring.why})")
    return RunPlan(memory, scoring, speed, notes)


def _choose_way(
    config: TrainConfig, adapted: AdaptedModel, data: PreparedData, wanted: str
) -> tuple[Scoring, Plan]:
    """Choose how pairs are scored and what is saved on.

    The probe may find that this model needs another, larger way than was assumed.
    """
    needs = adapted.needs
    scope = scored_of(config)
    scoring = _probe(adapted, wanted, scope, data, adapted.savings.recompute_every)
    try:
        plan = needs.require(scoring.way)
    except ConfigError:
        if wanted != "auto" or config.grad_checkpoint != "auto" or scoring.way.can_recompute:
            raise
        # Ways that cannot recompute do not fit; those that can may.
        scoring = _probe(adapted, wanted, scope, data, 1)
        plan = needs.require(scoring.way)
    return replace(scoring, chunk=plan.savings.head_chunk), plan


def _probe(
    adapted: AdaptedModel, wanted: str, nll_scope: str, data: PreparedData, every: int
) -> Scoring:
    """Try the ways of scoring on a few pairs, with one of `every` blocks recomputed."""
    model = adapted.loaded.model
    pairs = sorted(data.train[:64], key=lambda pair: pair.longest)[:3]
    needs = adapted.needs
    row = likely_way(needs.config, needs.train).name

    def choose() -> Scoring:
        with _being_tried(model), recomputing(model.layers, every):
            return choose_scoring(model, wanted, nll_scope, pairs, every > 0, row)

    if wanted != "auto":
        return choose()
    device = str(mx.default_device())
    spec = asdict(replace(adapted.spec, read_from=None))
    content = [adapted.loaded.fingerprint, spec, versions(), device, every > 0]
    content += [has_exact_products(), row]
    return remembered_scoring(content, nll_scope, choose)


def recorded(plan: RunPlan) -> dict[str, Any]:
    """Return what a checkpoint keeps of a plan, so that a resumed run has the same."""
    return {
        "scoring": plan.scoring.way.name,
        "savings": asdict(plan.memory.savings),
        "compiled": plan.speed.compiled,
    }


def evaluated(config: TrainConfig, data: PreparedData) -> Sequence[TokenPair]:
    """Return the validation pairs that an evaluation looks at."""
    return draw_some(data.valid, config.eval_pairs, config.seed)


@contextmanager
def _being_tried(model: Any) -> Iterator[None]:
    """Have the model as it is in a step, but without dropout: its masks follow the shape of a
    batch, so that no two ways of scoring would have the same gradient."""
    model.train()
    try:
        with dropout_off(model):
            yield
    finally:
        model.eval()
