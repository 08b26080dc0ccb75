"""What a new run takes over from an earlier one: its settings, on request its adapter too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orpo_mlx.config.adapter import OF_THE_ADAPTER
from orpo_mlx.config.file import PATH_SETTINGS, expanded, read_settings
from orpo_mlx.config.mixture import parse_mixture
from orpo_mlx.config.objective import RATES, foreign_settings
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.errors import ConfigError, RunError
from orpo_mlx.runs.checkpoints import iter_checkpoints
from orpo_mlx.runs.directory import RunDirectory

_PLACES = ("run_dir", "runs_dir")
_OF = {
    "model": ("revision",),
    "data": ("valid_data", "data_subset", "data_split", "data_revision", "map"),
    "init_adapter": OF_THE_ADAPTER,
}
"""Settings that say something about another one, and mean nothing where that one is replaced."""


def settings_like(run: RunDirectory, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that another one begins with, defaults left out.

    Where a run lies, what it is called and how far it came is its own. With another model, other
    data, another adapter or objective, what was said of the old one is left out too.

    Args:
        run: the earlier run.
        given: settings the new run has of its own; they win.

    Raises:
        ConfigError: the settings cannot be read, or a file they name is gone.
    """
    values = read_settings(run.config_file)
    objective = str(given.get("objective", values.get("objective", "orpo")))
    own = str(values.get("objective", "orpo"))
    defaults = {one.name: one.default for one in iter_settings()}
    defaults["learning_rate"] = RATES.get(own, defaults["learning_rate"])
    left = {*_PLACES, *given, *(name for key in _OF if key in given for name in _OF[key])}
    if objective != own:
        left |= foreign_settings(objective)
    kept = {
        name: value
        for name, value in values.items()
        if name not in left and value != defaults[name]
    }
    _require_there(run, kept)
    return kept


def _require_there(run: RunDirectory, values: Mapping[str, Any]) -> None:
    """Refuse paths that led somewhere when the run was started; they are absolute in its file."""
    gone = [
        (f"--{name.replace('_', '-')}", path)
        for name in PATH_SETTINGS
        if isinstance(text := values.get(name), str)
        for path in _paths(name, text)
        if not expanded(path).exists()
    ]
    if gone:
        lines = "\n".join(
            f"run {run.id}: {flag} {path}: is not there any more" for flag, path in gone
        )
        flags = ", ".join(dict.fromkeys(flag for flag, _ in gone))
        raise ConfigError(lines, f"Bring it back, or give another one with {flags}.")


def _paths(name: str, text: str) -> list[str]:
    parts = parse_mixture(text) if name in ("data", "valid_data") else []
    return [part for part in ([one.name for one in parts] or [text]) if part.startswith("/")]


def adapter_of(run: RunDirectory, which: str) -> Path:
    """Return the folder of a run's adapter for a new run to begin with.

    Args:
        run: the earlier run.
        which: "adapter" (the result), "last" (the newest checkpoint) or the step of a checkpoint.

    Raises:
        ConfigError: it is none of these.
        RunError: the run has no such adapter; what it has is named.
    """
    if which != "adapter" and which != "last" and not (which.isascii() and which.isdigit()):
        raise ConfigError(
            f"--from: found {which!r}, needs adapter, last, or the step of a checkpoint",
            f"Run {run.id} has: {', '.join(starts_of(run)) or 'nothing to begin with'}.",
        )
    there = starts_of(run)
    if which == "last":
        which = next((name for name in there if name != "adapter"), which)
    name = which if which in ("adapter", "last") else str(int(which))
    if name not in there:
        what = "no adapter" if which == "adapter" else "no checkpoint of this step"
        raise RunError(
            f"--from {which}: run {run.id} has {'no checkpoint' if which == 'last' else what}",
            f"It has: {', '.join(there)}." if there else "Leave out --from to begin afresh.",
        )
    return there[name]


def starts_of(run: RunDirectory) -> dict[str, Path]:
    """Return what of a run another one may begin with, by the word for `adapter_of`: the adapter,
    then the checkpoints by step, newest first."""
    found = {str(int(path.name)): path for path in iter_checkpoints(run.checkpoints_folder)}
    found = {"adapter": run.adapter_folder, **found}
    return {name: path for name, path in found.items() if (path / "adapter_config.json").is_file()}
