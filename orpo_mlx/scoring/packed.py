"""One row of real tokens: prompts once, no padding outside attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.data.batching.buckets import Bucket, packed_cost
from orpo_mlx.data.batching.packed import (
    ROW_MULTIPLE,
    Group,
    Packed,
    pack,
    round_up,
    split_into_groups,
)
from orpo_mlx.data.batching.shape import BatchShape, Lengths, count_tokens, grouped_shape
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.patches import packed_attention, packed_cache, run_body
from orpo_mlx.objectives.base import PairScores
from orpo_mlx.scoring.attention import build_attend
from orpo_mlx.scoring.base import Way, score_group
from orpo_mlx.scoring.head import read_out
from orpo_mlx.scoring.mixing import PackedMixer


@dataclass(frozen=True)
class PackedRow(Way):
    """Linear layers see one row; attention, convolutions and recurrences see rectangles of pairs
    of like length."""

    name = "packed"
    can_bucket = True

    def arrays(
        self, pairs: Sequence[TokenPair], nll_scope: str, bucket: Bucket | None = None
    ) -> Sequence[np.ndarray]:
        """Return the fields of `Packed`, those of its groups last."""
        packed = pack(pairs, score_prompts=nll_scope == "full", bucket=bucket)
        *rest, groups, order = packed
        return [*rest, order, *(array for group in groups for array in group)]

    def hidden(self, model: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Return the hidden states of the row, [1, T, hidden]."""
        packed: Any = unflatten(arrays)
        with packed_attention(model):
            mixer = PackedMixer(packed)
            cache = packed_cache(model, packed.positions, build_attend(packed), mixer)
            return [run_body(model, packed.ids[None], cache)]

    def score(
        self, model: Any, arrays: Sequence[mx.array], nll_scope: str, chunk: int
    ) -> PairScores:
        """Score the pairs, group by group, and put them into their own order."""
        packed: Any = unflatten(arrays)
        hidden = self.hidden(model, arrays)[0][0]
        if nll_scope != "full":
            hidden = hidden[packed.scored]
        values = read_out(model, hidden, packed.targets, nll_scope, chunk)
        scores = [score_group(values, group, nll_scope) for group in packed.groups]
        joined = (mx.concatenate(list(part)) for part in zip(*scores, strict=True))
        return PairScores(*(part[packed.order] for part in joined))

    def patched(self, model: Any) -> AbstractContextManager[None]:
        """Let the model attend by rectangles while gradients are taken, too."""
        return packed_attention(model)

    def cost(self, pairs: Sequence[Lengths]) -> int:
        """Return the tokens of the pairs, prompts once."""
        return sum(map(sum, pairs))

    def batch_shape(self, pairs: Sequence[Lengths], nll_scope: str) -> BatchShape:
        """Return what one forward pass computes."""
        slots = [pair.slot for pair in pairs]
        return grouped_shape(slots, split_into_groups(slots), *count_tokens(pairs, nll_scope))

    def allow_for(self, shape: BatchShape, tokens: int) -> BatchShape:
        """Return a shape with rows for so many tokens, and as much more of all else but area."""
        rows = max(round_up(tokens, ROW_MULTIPLE), shape.rows)
        share = rows / shape.rows
        names = ("scored", "cells", "keys")
        return replace(
            shape, rows=rows, **{name: math.ceil(getattr(shape, name) * share) for name in names}
        )

    def bucket_shape(self, bucket: Bucket, nll_scope: str) -> BatchShape:
        """Return what a forward pass over a full bucket computes."""
        scored = bucket.tokens if nll_scope == "full" else bucket.scored
        return grouped_shape(bucket.slots, split_into_groups(bucket.slots), bucket.tokens, scored)

    def bucket_cost(self, bucket: Bucket) -> float:
        """Return what a full bucket takes, in tokens of the linear layers."""
        return packed_cost(bucket)


def unflatten(arrays: Sequence[mx.array]) -> Packed:
    """Return the arrays of a packed row by name."""
    fixed, each = len(Packed._fields) - 1, len(Group._fields)
    *rest, order = arrays[:fixed]
    groups = tuple(
        Group(*arrays[start : start + each])  # type: ignore[arg-type]
        for start in range(fixed, len(arrays), each)
    )
    return Packed(*rest, groups, order)  # type: ignore[arg-type]
