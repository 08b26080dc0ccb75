"""Settings with several values each, and the runs these make: every combination, small numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from orpo_mlx.config.declaration import Setting
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import near_hint

MOST_RUNS = 24
_FIXED = ("run_dir", "runs_dir", "data", "valid_data")
"""Places are not swept; names of data have commas of their own."""


def parse_sweeps(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each setting in texts such as "lam=0.1,0.25,0.5".

    Raises:
        ConfigError: no such setting, one that cannot be swept, no value, or one given twice.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        setting = swept_setting(name)
        if not sign or not all(parts := [part.strip() for part in values.split(",")]):
            raise ConfigError(
                f"--sweep {text}: a value is missing", "Write --sweep lam=0.1,0.25,0.5."
            )
        if setting.name in found:
            raise ConfigError(
                f"--sweep {setting.name}: given twice",
                f"Give all values at once: --sweep {name}={','.join(found[setting.name] + parts)}",
            )
        if len(set(parts)) < len(parts):
            twice = next(part for part in parts if parts.count(part) > 1)
            raise ConfigError(f"--sweep {text}: has {twice} twice", "Leave one out.")
        found[setting.name] = parts
    require_few(found)
    return found


def swept_setting(text: str) -> Setting:
    """Return the setting a name means, written with - or _.

    Raises:
        ConfigError: there is none, or it has no single values.
    """
    name = text.strip().lstrip("-").replace("-", "_")
    known = {one.name: one for one in iter_settings()}
    if name not in known:
        raise ConfigError(
            f"--sweep {text[:80]}: there is no such setting{near_hint(name, list(known))}",
            "Write --sweep lam=0.1,0.25,0.5; `orpo-mlx train --help` lists the settings.",
        )
    if name in _FIXED or known[name].kind in ("list", "map"):
        raise ConfigError(
            f"--sweep {name}: cannot be swept", "Sweep a number, a switch or a choice."
        )
    return known[name]


def require_few(sweeps: Mapping[str, Sequence[str]]) -> None:
    """Refuse more runs than a small sweep has.

    Raises:
        ConfigError: with their number.
    """
    count = 1
    for values in sweeps.values():
        count *= len(values)
    if count > MOST_RUNS:
        raise ConfigError(
            f"--sweep: makes {count:,} runs, needs at most {MOST_RUNS}", "Leave out some values."
        )


def combinations(sweeps: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return the settings of each run, the last setting changing fastest."""
    return [
        dict(zip(sweeps, values, strict=True)) for values in itertools.product(*sweeps.values())
    ]


def changes_text(changes: Mapping[str, str]) -> str:
    """Return what is a run's own in a line: "lam 0.1, rank 8"."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changes.items())
