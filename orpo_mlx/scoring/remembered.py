"""The way of scoring that fitted a model, kept on disk: trying it again would find the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.storage.atomic import write_unsynced
from orpo_mlx.storage.cache import cache_folder


def remembered_scoring(content: Any, nll_scope: str, choose: Callable[[], Scoring]) -> Scoring:
    """Return how a model is scored: as found earlier for this content, or as `choose` finds now.

    Args:
        content: all that decides which way fits, as JSON: model, adapter, versions, device.
        nll_scope: of the objective.
        choose: tries the ways on the model.
    """
    key = hashlib.sha256(json.dumps([content, nll_scope], sort_keys=True).encode()).hexdigest()
    path = cache_folder("ways") / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged: found anew
        found = json.loads(path.read_text(encoding="utf-8"))
        return Scoring(WAYS[found["way"]], nll_scope, str(found["why"]))
    chosen = choose()
    with suppress(OSError):  # without it the ways are tried again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_unsynced(path, json.dumps({"way": chosen.way.name, "why": chosen.why}).encode())
    return chosen
