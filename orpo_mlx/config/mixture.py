"""Several sources in one word, with shares: `a.jsonl:2,b.parquet:1`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orpo_mlx.errors import ConfigError

_WEIGHT = re.compile(r"(.*):([^:/\\]*)")


@dataclass(frozen=True)
class Named:
    """One source of a mixture as it was named; `weight` is None if none was given."""

    name: str
    weight: float | None = None


def parse_mixture(text: str) -> list[Named]:
    """Read what `--data` names. A path that exists is one source, whatever its name.

    Raises:
        ConfigError: an empty name, or a weight that is no number above 0.
    """
    if ("," not in text and ":" not in text) or exists(text):
        return [Named(text)]
    found = [_named(part.strip(), text) for part in text.split(",")]
    if any(named.weight is not None for named in found):
        found = [Named(named.name, named.weight or 1.0) for named in found]
    return [Named(found[0].name)] if len(found) == 1 else found


def exists(name: str) -> bool:
    """Whether there is a file or folder of this name."""
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _named(part: str, text: str) -> Named:
    match = None if exists(part) else _WEIGHT.fullmatch(part)
    name, weight = (match[1].strip(), match[2].strip()) if match else (part, None)
    if not name:
        raise ConfigError(
            f"--data {text}: a name is missing between the commas",
            "Write --data a.jsonl,b.jsonl, or with shares --data a.jsonl:2,b.jsonl:1.",
        )
    return Named(name, None if weight is None else _weight(weight, part))


def _weight(text: str, part: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ConfigError(
            f"--data {part}: the weight is {text!r}, needs a number above 0",
            "Write --data a.jsonl:2,b.jsonl:1 for two rows of a.jsonl to each row of b.jsonl.",
        )
    return weight


def write_mixture(named: Sequence[Named]) -> str:
    """Return the text that `parse_mixture` reads back."""
    return ",".join(n.name if n.weight is None else f"{n.name}:{n.weight:g}" for n in named)
