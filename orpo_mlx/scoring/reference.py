"""Log-probs of the model that an objective compares with: once a pair, before the first step.

No second model is loaded: the reference is the model at hand, with the adapter off or as it was at
the start. Its values are kept on disk by all that they follow from, so that a resumed run and the
next one on the same rows find them there.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import mlx.core as mx
import numpy as np

from orpo_mlx.data.types import TokenPair, add_tokens
from orpo_mlx.distributed.peers import ALONE, Peers
from orpo_mlx.models.modes import evaluating
from orpo_mlx.scoring.base import Scoring, own_arrays
from orpo_mlx.storage.atomic import write_unsynced
from orpo_mlx.storage.cache import cache_folder, forget_old
from orpo_mlx.storage.regular import read_regular

MOST_KEPT = 256 << 20
"""Bytes of all values on disk: 30 million pairs."""


class ReferencedPairs(Sequence[TokenPair]):
    """Pairs that know their reference.

    Args:
        pairs: [N].
        sums: [N, 2] nats, summed over the chosen and the rejected response; or margins and 0.
    """

    def __init__(self, pairs: Sequence[TokenPair], sums: np.ndarray) -> None:
        self._pairs = pairs
        self._sums = sums

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> TokenPair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TokenPair]: ...
    def __getitem__(self, index: int | slice) -> TokenPair | Sequence[TokenPair]:
        if isinstance(index, slice):
            return ReferencedPairs(self._pairs[index], self._sums[index])
        chosen, rejected = self._sums[index].tolist()
        return replace(self._pairs[index], reference=(chosen, rejected))


def reference_sums(
    model: Any,
    pairs: Sequence[TokenPair],
    parts: Sequence[Sequence[int]],
    scoring: Scoring,
    tell: Callable[[int], None],
    peers: Peers = ALONE,
) -> np.ndarray:
    """Score pairs with the model as it is.

    Args:
        model: mlx-lm's; dropout is off while it scores.
        pairs: [N].
        parts: their places, in micro-batches; together each once.
        scoring: how pairs become log-probs.
        tell: called with the pairs done so far.
        peers: other processes, each of which scores some of the micro-batches.

    Returns:
        [N, 2] float32 nats, summed over the chosen and the rejected response.
    """
    sums = np.zeros((len(pairs), 2), np.float32)
    done = 0
    own = peers.own([sum(pairs[i].size for i in part) for part in parts])
    with evaluating(model):
        for part in (parts[place] for place in own):
            scores = scoring.score(model, own_arrays(scoring.lay_out(pairs, part)))
            for side, found in enumerate((scores.chosen_sum, scores.rejected_sum)):
                sums[list(part), side] = np.array(found)
            done += len(part)
            peers.watch.mark("scoring the reference")
            tell(done)
    return _summed(sums, peers)


def _summed(sums: np.ndarray, peers: Peers) -> np.ndarray:
    """Return the sums over all processes; each place is 0 in all but one."""
    peers.sum_numbers([])
    return np.array(peers.sum_arrays({"sums": mx.array(sums)})["sums"])


def kept_sums(
    content: Any,
    pairs: Sequence[TokenPair],
    find: Callable[[], np.ndarray],
    peers: Peers = ALONE,
) -> np.ndarray:
    """Return the values of these pairs: as kept on disk, or as `find` finds them now.

    Args:
        content: all else that they follow from, as JSON: model, adapter, way of scoring, versions.
        pairs: [N]; their tokens count.
        find: computes them, [N, 2].
        peers: other processes; what process 0 has kept is what all take.
    """
    path = cache_folder("reference") / f"{_key(content, pairs)}.npy"
    kept = _read(path, len(pairs)) if peers.is_lead else None
    if peers.share(kept is not None):
        return _summed(np.zeros((len(pairs), 2), np.float32) if kept is None else kept, peers)
    sums = find()
    if peers.is_lead:
        _keep(path, sums)
    return sums


def _read(path: Path, pairs: int) -> np.ndarray | None:
    """Return kept values of so many pairs, None if they are not there or damaged: to find anew."""
    with suppress(OSError, ValueError, EOFError):
        sums = np.load(io.BytesIO(read_regular(path)), allow_pickle=False)
        if sums.shape == (pairs, 2) and sums.dtype == np.float32 and np.isfinite(sums).all():
            return sums
    return None


def _keep(path: Path, sums: np.ndarray) -> None:
    with suppress(OSError):  # without it they are computed again
        path.parent.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        np.save(data, sums, allow_pickle=False)
        write_unsynced(path, data.getvalue())
        forget_old(path.parent, ".npy", MOST_KEPT, path)


def _key(content: Any, pairs: Sequence[TokenPair]) -> str:
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    add_tokens(key, pairs)
    return key.hexdigest()
