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
    GROUP_COST,
    ROW_MULTIPLE,
    WIDTH_MULTIPLE,
    Group,
    Packed,
    pack,
    round_up,
    split_exactly,
    split_into_groups,
)
from orpo_mlx.data.batching.shape import (
    BatchShape,
    Lengths,
    count_tokens,
    grouped_shape,
    in_blocks,
    rectangles,
)
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.activations import is_on_gpu
from orpo_mlx.models.patches import packed_attention, packed_cache, run_body
from orpo_mlx.objectives.base import PairScores
from orpo_mlx.scoring.attention import build_attend, largest_block, permuted
from orpo_mlx.scoring.base import Way, score_group
from orpo_mlx.scoring.head import read_out
from orpo_mlx.scoring.mixing import PackedMixer


@dataclass(frozen=True)
class PackedRow(Way):
    """Linear layers see one row; attention, convolutions and recurrences see rectangles of pairs
    of like length.

    Attributes:
        exact: prompts of a rectangle have one length.
    """

    name = "packed"
    can_bucket = True
    exact = False

    def arrays(
        self, pairs: Sequence[TokenPair], nll_scope: str, bucket: Bucket | None = None
    ) -> Sequence[np.ndarray]:
        """Return the fields of `Packed`, those of its groups last."""
        packed = pack(pairs, score_prompts=nll_scope == "full", bucket=bucket, exact=self.exact)
        *rest, groups, order = packed
        return [*rest, order, *(array for group in groups for array in group)]

    def hidden(self, model: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Return the hidden states of the row, [1, T, hidden]."""
        packed: Any = unflatten(arrays)
        with packed_attention(model):
            attend, mixer = build_attend(packed, self.exact), PackedMixer(packed)
            cache = packed_cache(model, packed.positions, attend, mixer)
            return [run_body(model, packed.ids[None], cache)]

    def score(
        self, model: Any, arrays: Sequence[mx.array], nll_scope: str, chunk: int
    ) -> PairScores:
        """Score the pairs, group by group, and put them into their own order."""
        packed: Any = unflatten(arrays)
        hidden = self.hidden(model, arrays)[0].squeeze(0)
        if nll_scope != "full":
            places = mx.maximum(packed.places, 0)
            hidden = permuted(packed.scored, places, packed.places >= 0)(hidden)
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
        return self._shape([pair.slot for pair in pairs], *count_tokens(pairs, nll_scope))

    def _shape(self, slots: Sequence[tuple[int, int]], tokens: int, scored: int) -> BatchShape:
        groups = split_exactly(slots) if self.exact else split_into_groups(slots)
        multiple = 1 if self.exact else WIDTH_MULTIPLE
        area, block = in_blocks(slots, groups, multiple, largest_block(self.exact))
        shape = grouped_shape(slots, groups, tokens, scored, multiple)
        return replace(shape, area=area, block=block)

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
        return self._shape(bucket.slots, bucket.tokens, scored)

    def bucket_cost(self, bucket: Bucket) -> float:
        """Return what a full bucket takes, in tokens of the linear layers."""
        return packed_cost(bucket)


@dataclass(frozen=True)
class CausalRow(PackedRow):
    """Rectangles of prompts of one length, and no mask but "causal": for long rows."""

    name = "causal"
    can_bucket = False
    exact = True


LONG = 1024
"""Tokens of a pair's longer row, on average, from which rows are long. Below, a GPU gains more from
a few shapes that it compiles a step for; attention is a small part of the work there."""
MASKED = 2
"""Times that cells under a mask array count on a GPU, whose backward pass writes and reads their
scores; those of a causal mask stay in the kernel. Judged, not measured; on a CPU they are alike."""


def wants_causal(batches: Sequence[Sequence[Lengths]]) -> bool:
    """Tell whether these forward passes, at least one, are worth the calls of a `CausalRow`: they
    have more of them, and fewer cells of attention."""
    pairs = [pair for batch in batches for pair in batch]
    if sum(pair.longest for pair in pairs) < LONG * len(pairs):
        return False
    on_gpu = is_on_gpu()
    padded, exact = 0, 0
    for slots in ([pair.slot for pair in batch] for batch in batches):
        for group in split_into_groups(slots):
            own = [slots[i] for i in group]
            area = rectangles(own)[2]
            under_arrays = area - len(own) * round_up(max(own)[0], WIDTH_MULTIPLE) ** 2
            padded += GROUP_COST + area + (MASKED - 1) * under_arrays * on_gpu
        for group in split_exactly(slots):
            exact += GROUP_COST + rectangles([slots[i] for i in group], 1)[2]
    return exact < padded


def unflatten(arrays: Sequence[mx.array]) -> Packed:
    """Return the arrays of a packed row by name."""
    fixed, each = len(Packed._fields) - 1, len(Group._fields)
    *rest, order = arrays[:fixed]
    groups = tuple(
        Group(*arrays[start : start + each])  # type: ignore[arg-type]
        for start in range(fixed, len(arrays), each)
    )
    return Packed(*rest, groups, order)  # type: ignore[arg-type]
