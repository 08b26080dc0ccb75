"""What makes a run this run: settings that matter, and fingerprints of content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.data.prepare import PreparedData
from orpo_mlx.data.types import add_tokens
from orpo_mlx.errors import CheckpointError
from orpo_mlx.planning.memory import Savings
from orpo_mlx.runs.checkpoints import versions
from orpo_mlx.runs.typed import problem
from orpo_mlx.scoring.select import WAYS

FINGERPRINTED = (
    "model", "revision", "data", "data_split", "data_subset", "data_revision", "valid_data",
    "init_adapter", "chat_template",
)  # fmt: skip
"""Settings that name content; a resumed run must find the same content, not the same name."""


PLACES = ("run_dir", "runs_dir")
"""Settings that say where a run lies, not what it is."""


def settings_identity(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that a resumed run must share."""
    return {
        "settings": {
            setting.name: _recorded(getattr(config, setting.name))
            for setting in iter_settings()
            if not setting.may_change and setting.name not in (*FINGERPRINTED, *PLACES)
        }
    }


def _recorded(value: Any) -> Any:
    """Return a table as one text: a name that is in one of two tables only is a difference."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def identity(
    config: TrainConfig, fingerprint: str, hashes: dict[str, str], revisions: dict[str, str]
) -> dict[str, Any]:
    """Return what makes this run this run: settings that matter, and fingerprints of content."""
    content = {"model": fingerprint, **hashes, "data_revision": revisions}
    return {**settings_identity(config), "content": content}


OWN = (
    "model", "data", "valid_data", "init_adapter", "trunk_cache_dir", "report_to",
    "allow_overcommit", *PLACES,
)  # fmt: skip
"""Settings that may differ between the processes of a run: places on their machines, and what
process 0 alone does."""


def settings_facts(config: TrainConfig) -> dict[str, Any]:
    """Return the settings and versions that all processes of a run must have, by name."""
    settings = ((s, _recorded(getattr(config, s.name))) for s in iter_settings())
    return {
        **{setting.flag: value for setting, value in settings if setting.name not in OWN},
        **{f"version of {name}": value for name, value in versions().items()},
    }


def content_facts(identity: dict[str, Any], data: PreparedData) -> dict[str, Any]:
    """Return what model and data are, of which all processes of a run must have the same."""
    tokens = hashlib.sha256()
    add_tokens(tokens, (*data.train, *data.valid))
    named = {_option(f"content.{name}"): v for name, v in _flatten(identity["content"]).items()}
    return {**named, "tokens of the pairs": tokens.hexdigest()}


def require_same(identity: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Refuse to resume what would become another run.

    Raises:
        CheckpointError: naming every difference with its old and new value.
    """
    differences = []
    # A setting that came after the run began was as its default is.
    defaults = {f"settings.{s.name}": s.default for s in iter_settings()}
    recorded = {**defaults, **_flatten(manifest)}
    for key, new in _flatten(identity).items():
        old = recorded.get(key, "(not recorded)")
        if old != new:
            differences.append(f"  {_option(key)}: was {_shown(old)}, is now {_shown(new)}")
    if differences:
        raise CheckpointError(
            "the run cannot be resumed, because it would not be the same run:\n"
            + "\n".join(differences),
            "Put the old values back, or start a new run from this adapter: --init-adapter.",
        )


def require_known_plan(manifest: dict[str, Any]) -> None:
    """Refuse a checkpoint that does not say, in words of this version, how its run is computed.

    Raises:
        CheckpointError: naming what it says.
    """
    scoring, savings = manifest.get("scoring"), manifest.get("savings")
    wrong = ""
    if scoring is not None and (not isinstance(scoring, str) or scoring not in WAYS):
        wrong = f"scoring is {scoring!r:.40}"
    elif savings is not None and not isinstance(savings, dict):
        wrong = f"savings are {savings!r:.40}"
    elif savings:
        unknown = savings.keys() - {field.name for field in fields(Savings)}
        wrong = f"{min(unknown)!r:.40} is unknown" if unknown else problem(Savings, savings)
        if not wrong and (
            savings.get("head_chunk", 1) < 1 or savings.get("recompute_every", 0) < 0
        ):
            wrong = f"savings are {savings!r:.60}"
    if wrong:
        raise CheckpointError(
            f"the run cannot be resumed: its checkpoint says how it was computed in a way that is "
            f"not known here ({wrong})",
            "Use the version it was made with, or start a new run from this adapter: "
            "--init-adapter.",
        )


def _option(key: str) -> str:
    """Name an entry of the manifest as the option it comes from."""
    group, _, name = key.partition(".")
    if name.startswith("data_revision."):
        return f"--data-revision of {name.partition('.')[2]}"
    return f"--{name.replace('_', '-')}" + (" (its content)" if group == "content" else "")


def _shown(value: Any) -> str:
    is_hash = isinstance(value, str) and len(value) == 64 and value.isalnum()
    return value[:12] if is_hash else repr(value)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat
