"""What can be trained on: log-probs in, a loss and metrics out; arrays only.

A new one is a file here, its class in `OBJECTIVES`, and its settings in `config/objective.py`; a
metric of its own is a row in `runs/metrics.py`. All that shows runs follows from its `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from orpo_mlx.errors import ConfigError
from orpo_mlx.objectives.base import Objective
from orpo_mlx.objectives.cpo import Cpo, Simpo
from orpo_mlx.objectives.dpo import Dpo
from orpo_mlx.objectives.kto import Kto
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.objectives.sft import Sft

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    Orpo.name: Orpo,
    Sft.name: Sft,
    Dpo.name: Dpo,
    Cpo.name: Cpo,
    Simpo.name: Simpo,
    Reward.name: Reward,
    Kto.name: Kto,
}
"""A dataclass for each name; its fields are filled with the settings of their names."""


def build_objective(name: str, settings: Mapping[str, Any]) -> Objective:
    """Return the objective of this name as the settings describe it.

    Args:
        name: a key of `OBJECTIVES`.
        settings: values by name; those that are no fields of the objective are not its concern,
            and for None it has a default of its own.

    Raises:
        ConfigError: there is no such objective.
    """
    if name not in OBJECTIVES:
        raise ConfigError(
            f"--objective: found {name!r}, needs one of {', '.join(OBJECTIVES)}",
            "Correct it and start again; --help lists all settings.",
        )
    own = OBJECTIVES[name]
    names = [field.name for field in fields(own)]  # type: ignore[arg-type]
    return own(**{name: settings[name] for name in names if settings.get(name) is not None})
