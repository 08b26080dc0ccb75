"""What a run does to be fast: blocks computed once, few shapes, a compiled step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.file import expanded
from orpo_mlx.data.batching.order import steps_in_epoch
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import ConfigError
from orpo_mlx.planning.memory import limit_bytes
from orpo_mlx.scoring.activation_cache import ActivationCache, DiskStore, MemoryStore, find_cut
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.batches import buckets_of_run
from orpo_mlx.scoring.select import cut_problem


@dataclass(frozen=True)
class StepPlan:
    """How steps and evaluations are computed.

    Attributes:
        train, valid: how pairs are scored, with cut and shapes.
        compiled: whether the step is compiled.
        notes: what the user should know of it.
        facts: what was found out on the way, nothing to worry about.
    """

    train: Scoring
    valid: Scoring
    compiled: bool
    notes: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def cut(self) -> int:
        """Blocks whose outputs are computed once, 0 if none."""
        return max(self.train.cut, self.valid.cut)


def plan_steps(
    config: TrainConfig,
    model: Any,
    scoring: Scoring,
    train: Sequence[TokenPair],
    valid: Sequence[TokenPair],
    total_steps: int,
    was_compiled: bool | None = None,
) -> StepPlan:
    """Decide how to be fast, and try the trunk cache on the shortest of the pairs.

    Whether compiling pays with `--compile auto` is tried later: see trial.py.

    Args:
        config: the settings.
        model: with an adapter attached, in training mode, dropout off.
        scoring: as `choose_scoring` found it.
        train, valid: pairs.
        total_steps: of the run.
        was_compiled: of a resumed run, which keeps to it; None: as set, `auto` not compiled.

    Raises:
        ConfigError: the trunk cache is asked for and cannot be used.
    """
    train_cut, valid_cut, notes = 0, 0, []
    if config.trunk_cache != "off":
        cut = find_cut(model, scoring.way)
        if problem := cut_problem(model, replace(scoring, cut=cut), shortest(train)):
            raise ConfigError(
                f"--trunk-cache: cannot be used with this model: {problem}",
                "Leave --trunk-cache off.",
            )
        is_repeated = total_steps > steps_in_epoch(config, len(train))
        train_cut, valid_cut = cut * is_repeated, cut * bool(valid)
        if not is_repeated:
            used = "serves evaluations only" if valid else "is not used"
            notes.append(f"the trunk cache {used}: the run sees each pair once")
    compiled = config.compile == "on" if was_compiled is None else was_compiled
    table = None
    if compiled and scoring.way.can_bucket:
        table = buckets_of_run(config, scoring, train, total_steps)
    return StepPlan(
        train=replace(scoring, cut=train_cut, bucket_table=table),
        valid=replace(scoring, cut=valid_cut),
        compiled=compiled,
        notes=tuple(notes),
    )


def shortest(pairs: Sequence[TokenPair]) -> list[TokenPair]:
    """Return a few short pairs to try something on."""
    return sorted(pairs[:64], key=lambda pair: pair.longest)[:3]


def build_trunk(
    config: TrainConfig, plan: StepPlan, model: Any, content: str, run_folder: Path
) -> ActivationCache | None:
    """Return the cache of a run, None if it has none.

    Args:
        config: the settings.
        plan: of the run.
        model: with an adapter attached.
        content: what outputs depend on besides tokens: model and versions.
        run_folder: where the files of a cache on disk lie unless the settings name a folder.
    """
    if not plan.cut:
        return None
    limit = limit_bytes(config)
    store = MemoryStore(limit)
    if config.trunk_cache == "disk":
        own = config.trunk_cache_dir
        store = DiskStore(expanded(own) if own else run_folder, limit)
    return ActivationCache(model, replace(plan.valid, cut=plan.cut), store, content)
