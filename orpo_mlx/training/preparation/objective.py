"""The objective that the settings describe, and the metric that judges it."""

from __future__ import annotations

from collections.abc import Sequence

from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import ConfigError
from orpo_mlx.objectives import build_objective
from orpo_mlx.objectives.base import Objective
from orpo_mlx.runs.metrics import metric


def objective(config: TrainConfig) -> Objective:
    """Return the objective the settings describe.

    Raises:
        ConfigError: there is none of this name, or it cannot tell which evaluation is best.
    """
    found = build_objective(config.objective, config.model_dump())
    judging = [name for name in found.metrics if metric(name).better]
    if best_metric(config, found.metrics) not in judging:
        raise ConfigError(
            f"--best-metric: found {config.best_metric!r}, needs one of {', '.join(judging)} "
            f"(what --objective {config.objective} measures and one wants high or low)",
            "Correct it and start again; --help lists all settings.",
        )
    return found


def best_metric(config: TrainConfig, measured: Sequence[str]) -> str:
    """Return the metric by which evaluations are judged: as set, or that of the responses."""
    if config.best_metric != "auto":
        return config.best_metric
    return "response_nll" if "response_nll" in measured else "loss"
