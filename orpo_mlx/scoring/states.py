"""Two passes for each group of pairs of like length: prompts, then answers from their states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.dropout import renew_dropout_keys
from orpo_mlx.data.batching.buckets import Bucket
from orpo_mlx.data.batching.packed import Group, Packed, pack, pass_cost, split_into_groups
from orpo_mlx.data.batching.shape import BatchShape, Lengths, count_tokens, grouped_shape
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.patches import chunked_recurrence, run_body, two_pass_cache, two_pass_parts
from orpo_mlx.scoring.attention import permuted
from orpo_mlx.scoring.packed import PackedRow, flatten, unflatten


@dataclass(frozen=True)
class States(PackedRow):
    """Layers of any kind see rectangles; what a layer keeps of a prompt, both answers begin with.

    Laid out and scored as a packed row, whose cells are the places of the rectangles.
    """

    name = "states"
    passes = 0
    can_keep = False

    def arrays(
        self, pairs: Sequence[TokenPair], nll_scope: str, bucket: Bucket | None = None
    ) -> Sequence[np.ndarray]:
        """Return the fields of `Packed`, those of its groups last."""
        return flatten(pack(pairs, nll_scope == "full", bucket, cost=pass_cost))

    def hidden(self, model: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Return the hidden states of the row, [1, T, hidden]."""
        packed: Any = unflatten(arrays)
        with chunked_recurrence(model):
            done = [
                states.reshape(-1, states.shape[-1])
                for group, prompts, answers in _rectangles(packed)
                for states in _run(model, group, prompts, answers)
            ]
        to_row = permuted(packed.rows, packed.cells, packed.is_cell)
        return [to_row(mx.concatenate(done))[None]]

    def patched(self, model: Any) -> AbstractContextManager[None]:
        """Let the model compute in chunks while gradients are taken, too."""
        return chunked_recurrence(model)

    def cost(self, pairs: Sequence[Lengths]) -> int:
        """Return the tokens of all rectangles."""
        return self.batch_shape(pairs, "response").rows

    def batch_shape(self, pairs: Sequence[Lengths], nll_scope: str) -> BatchShape:
        """Return what one forward pass computes."""
        return _shape([pair.slot for pair in pairs], *count_tokens(pairs, nll_scope))

    def bucket_shape(self, bucket: Bucket, nll_scope: str) -> BatchShape:
        """Return what a forward pass over a full bucket computes."""
        return _shape(bucket.slots, bucket.tokens, bucket.tokens)

    def bucket_cost(self, bucket: Bucket) -> float:
        """Return what a full bucket takes, in tokens of the linear layers."""
        return _shape(bucket.slots, 0, 0).rows


def _rectangles(packed: Packed) -> Iterator[tuple[Group, mx.array, mx.array]]:
    """Yield each group with its tokens: prompts [B, P] and answers [2B, A]."""
    ids, start = packed.ids[packed.cells], 0
    for group in packed.groups:
        found = []
        for places in (group.prompt_scores, group.answer_scores):
            found.append(ids[start : start + places.size].reshape(places.shape))
            start += places.size
        yield group, *found


def _run(model: Any, group: Group, prompts: mx.array, answers: mx.array) -> list[mx.array]:
    """Return the hidden states of prompts [B, P, hidden] and answers [2B, A, hidden]."""
    if not prompts.size:  # prompts of one token, which begins the answers
        return [_body(model, answers)]
    cache = two_pass_cache(model, group.prompt_lengths, prompts.shape[1])
    before = _body(model, prompts, cache)
    for part in two_pass_parts(cache):
        part.begin_answers()
    return [before, _body(model, answers, cache)]


def _body(model: Any, inputs: mx.array, cache: Any = None) -> mx.array:
    """Run one pass, with dropout of its own."""
    hidden = run_body(model, inputs, cache)
    renew_dropout_keys(model)
    return hidden


def _shape(slots: Sequence[tuple[int, int]], tokens: int, scored: int) -> BatchShape:
    shape = grouped_shape(slots, split_into_groups(slots, pass_cost), tokens, scored)
    return replace(shape, rows=shape.cells)
