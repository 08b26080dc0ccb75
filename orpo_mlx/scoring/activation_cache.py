"""Outputs of the blocks below the adapter, computed once and kept: they never change in a run.

A pair's outputs are always computed with that pair alone, in a batch of its own, and put together
for each batch afterwards. So their bits depend neither on who shares a batch with the pair, nor on
whether they were kept or had to be computed again: a resumed run, whose cache begins empty, and one
whose cache is full are bit for bit the runs they would have been.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from safetensors import SafetensorError
from safetensors.numpy import load, save

from orpo_mlx.adapters.dropout import dropout_off
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import ConfigError, reason_of
from orpo_mlx.models.patches import caught_below
from orpo_mlx.scoring.base import MicroBatch, Scoring, Way
from orpo_mlx.storage.atomic import remove_temporaries, write_unsynced
from orpo_mlx.storage.disk import LITTLE, free_bytes
from orpo_mlx.text.formatting import format_bytes

SUFFIX = ".safetensors"


# Where a model may be cut


def find_cut(model: Any, way: Way) -> int:
    """Return how many blocks lie below everything that is trained.

    Args:
        model: with an adapter attached.
        way: of scoring.

    Raises:
        ConfigError: there is nothing to keep, or it would not stay the same.
    """
    if not way.can_keep:
        raise _refused(
            f"{way} scoring hands each prompt's states on to its answers, which cannot be cut"
        )
    is_trained = [bool(tree_flatten(block.trainable_parameters())) for block in model.layers]
    cut = is_trained.index(True) if True in is_trained else len(is_trained)
    if cut == 0:
        raise _refused(
            "the adapter begins at the first block, so nothing lies below it",
            "Adapt the last blocks only (--num-layers N), or leave --trunk-cache off.",
        )
    below = _parts_below(model, cut)
    if any("lora_a" in part and "embedding" in part for part in below):
        raise _refused(
            "the embedding is adapted, so the outputs of all blocks change in every step",
            "Adapt blocks only (--target-modules), or leave --trunk-cache off.",
        )
    if any(_drops(part) for part in below):
        raise _refused("there is dropout below the first adapted block, which changes its outputs")
    return cut


def _parts_below(model: Any, cut: int) -> list[Any]:
    above = {id(part) for block in model.layers[cut:] for part in block.modules()}
    return [part for part in model.modules() if id(part) not in above]


def _drops(part: Any) -> bool:
    # An adapted head has dropout too, behind all blocks.
    return isinstance(part, nn.Dropout) and part._p_1 < 1


def _refused(why: str, what_to_do: str = "Leave --trunk-cache off.") -> ConfigError:
    return ConfigError(f"--trunk-cache: cannot be used here: {why}.", what_to_do)


# Where outputs are kept


class Store:
    """Outputs kept by key, up to a size.

    Attributes:
        is_full: something had no room; nothing is added from then on.
        problems: what went wrong, in words; whoever reports it takes it away.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.is_full = limit, False
        self.problems: list[str] = []
        self._sizes: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        """What is kept, in bytes."""
        return sum(self._sizes.values())

    def get(self, key: str) -> mx.array | None:
        """Return what was kept under a key, None if nothing was."""
        raise NotImplementedError

    def put(self, key: str, states: mx.array) -> None:
        """Keep an array if there is room; the first one without ends it."""
        raise NotImplementedError

    def _has_room(self, key: str, size: int) -> bool:
        if self.is_full or key in self._sizes:
            return False
        if self.bytes + size > self.limit:
            self._end(f"it is full ({format_bytes(self.bytes)}); --trunk-cache-size allows more")
        return not self.is_full

    def _end(self, why: str) -> None:
        self.is_full = True
        self.problems.append(
            f"the trunk cache keeps no more: {why}; outputs of further pairs are computed each time"
        )


class MemoryStore(Store):
    """Outputs kept in memory."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._kept: dict[str, mx.array] = {}

    def get(self, key: str) -> mx.array | None:
        """Return what was kept under a key, None if nothing was."""
        return self._kept.get(key)

    def put(self, key: str, states: mx.array) -> None:
        """Keep an array if there is room; the first one without ends it."""
        if self._has_room(key, states.nbytes):
            self._kept[key], self._sizes[key] = states, states.nbytes


class DiskStore(Store):
    """Outputs kept in files of a folder, one for each pair; what an earlier process left is used.

    Files are not synced: one that a power cut damaged is found by its checksum, and its content is
    computed again.

    Args:
        folder: made when there is something to keep.
        limit: most bytes of the files.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        super().__init__(limit)
        self.folder = folder
        if folder.is_dir():
            remove_temporaries(folder)
        self._sizes |= {path.stem: path.stat().st_size for path in folder.glob(f"*{SUFFIX}")}

    def get(self, key: str) -> mx.array | None:
        """Return what was kept under a key, None if nothing was or it is damaged."""
        if key not in self._sizes:
            return None
        path = self._path(key)
        try:
            return _unpacked(path.read_bytes(), key)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            self.problems.append(f"{path.name} of the trunk cache is not used: {reason_of(error)}")
            del self._sizes[key]
            return None

    def put(self, key: str, states: mx.array) -> None:
        """Keep an array if there is room; the first one without, or a full disk, ends it."""
        data = _packed(states, key)
        if not self._has_room(key, len(data)):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The rest is for the run's checkpoints, which matter more.
            if free_bytes(self.folder) - len(data) < LITTLE:
                self._end(f"the disk of {self.folder} is nearly full")
                return
            write_unsynced(self._path(key), data)
        except OSError as error:
            self._end(f"{self.folder}: {reason_of(error)}")
            return
        self._sizes[key] = len(data)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"


_BITS = {mx.float32: mx.uint32, mx.float16: mx.uint16, mx.bfloat16: mx.uint16}
"""What stands for a number in a file: NumPy has no bfloat16."""


def _packed(states: mx.array, key: str) -> bytes:
    """Write an array as a safetensors file that names its key, number format and checksum."""
    bits = np.array(states.view(_BITS[states.dtype]))
    about = {"key": key, "dtype": str(states.dtype), "crc32": str(zlib.crc32(bits.tobytes()))}
    return save({"states": bits}, about)


def _unpacked(data: bytes, key: str) -> mx.array:
    """Read such a file back.

    Raises:
        ValueError, KeyError, SafetensorError: it is not what was written.
    """
    bits = load(data)["states"]
    about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    if about["key"] != key or about["crc32"] != str(zlib.crc32(bits.tobytes())):
        raise ValueError("its content is not what was written")
    dtypes = {str(dtype): dtype for dtype in _BITS}
    return mx.array(bits).view(dtypes[about["dtype"]])


# The cache


class ActivationCache:
    """Hands each batch the outputs of the blocks below the adapter.

    Args:
        model: with an adapter attached.
        scoring: with its cut.
        store: where outputs are kept.
        content: what the outputs depend on besides model code and tokens, such as the model's
            fingerprint and the versions of libraries.

    Attributes:
        hits: look-ups answered by what was kept.
        misses: outputs computed.
    """

    def __init__(self, model: Any, scoring: Scoring, store: Store, content: str = "") -> None:
        self.model, self.cut, self.store = model, scoring.cut, store
        self.hits = self.misses = 0
        # Alone and as tight as it comes, so that nothing but the pair decides its bits.
        self._alone = Scoring(scoring.way, "response")
        self._content = f"{content} {scoring.way} {scoring.cut} {mx.default_device()}"

    def feed(self, batch: MicroBatch) -> Sequence[mx.array]:
        """Return the arrays of a batch followed by what its blocks above the cut begin with."""
        batch = batch.placed()
        states = mx.concatenate([self.states(pair) for pair in batch.members])
        # What padding reads does not matter.
        parts = [mx.take(states, mx.array(np.maximum(part, 0)), axis=0) for part in batch.places]
        # One row is a batch of one.
        return [*batch.arrays, *(part if part.ndim == 3 else part[None] for part in parts)]

    def take_problems(self) -> list[str]:
        """Return what went wrong since the last call, in words."""
        found, self.store.problems = self.store.problems, []
        return found

    def states(self, pair: TokenPair) -> mx.array:
        """Return the outputs of a pair, [tokens, hidden], in the order of `Scoring.places`."""
        key = self._key(pair)
        kept = self.store.get(key)
        if kept is not None:
            self.hits += 1
            return kept
        self.misses += 1
        states = self._computed(pair)
        # At once: what is kept must not hold on to what it was computed from.
        mx.eval(states)
        self.store.put(key, states)
        return states

    def _computed(self, pair: TokenPair) -> mx.array:
        batch = self._alone.build([pair], [0])
        # An adapted head is called too, though never computed, and its dropout has no key here.
        with dropout_off(self.model), caught_below(self.model, self.cut) as caught:
            self._alone.way.hidden(self.model, batch.arrays)
        states = mx.concatenate([part.reshape(-1, part.shape[-1]) for part in caught])
        return mx.take(states, self._own_places(pair), axis=0)

    def _own_places(self, pair: TokenPair) -> mx.array:
        """Return the cell of each state when the pair is alone: `Scoring.places` the other way."""
        places = np.concatenate([part.ravel() for part in self._alone.places([pair])])
        found, cells = np.unique(places, return_index=True)
        return mx.array(cells[found >= 0])

    def _key(self, pair: TokenPair) -> str:
        ids = [np.asarray(part, np.int64) for part in (pair.prompt, pair.chosen, pair.rejected)]
        digest = hashlib.sha256(f"{self._content} {[len(part) for part in ids]}".encode())
        for part in ids:
            digest.update(part.tobytes())
        return digest.hexdigest()[:40]
