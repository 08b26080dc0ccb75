"""Two padded passes: prompts, then answers over the prompts' keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.data.batching.buckets import Bucket
from orpo_mlx.data.batching.packed import rectangle
from orpo_mlx.data.batching.shape import BatchShape, Lengths, count_tokens, grouped_shape
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.patches import SharedCache, has_grouped_queries, run_body
from orpo_mlx.objectives.base import PairScores
from orpo_mlx.scoring.base import Way, score_arrays, score_rows


@dataclass(frozen=True)
class Shared(Way):
    """Prompts once, in a rectangle; the cache of a layer keeps their keys and values."""

    name = "shared"
    passes = 2

    def arrays(
        self, pairs: Sequence[TokenPair], nll_scope: str, bucket: Bucket | None = None
    ) -> Sequence[np.ndarray]:
        """Return prompts [B, P], answers [2B, A], then what `score_rows` needs."""
        answers = [
            (pair.prompt[-1:], getattr(pair, side))
            for side in ("chosen", "rejected")
            for pair in pairs
        ]
        prompts, _ = rectangle([pair.prompt[:-1] for pair in pairs], at_least=1)
        inputs, _ = rectangle([[*last, *response[:-1]] for last, response in answers])
        scores = score_arrays(pairs, nll_scope, prompts.shape[1], inputs.shape[1])
        return [prompts, inputs, *scores]

    def hidden(self, model: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Return the hidden states of prompts [B, P, hidden] and answers [2B, A, hidden]."""
        prompts, answers, _, _, lengths, *_ = arrays
        grouped = has_grouped_queries(model)
        cache = [SharedCache(lengths, prompts.shape[1], grouped) for _ in model.layers]
        before = run_body(model, prompts, cache)
        for layer_cache in cache:
            layer_cache.begin_answers()
        return [before, run_body(model, answers, cache)]

    def score(
        self, model: Any, arrays: Sequence[mx.array], nll_scope: str, chunk: int
    ) -> PairScores:
        """Score the pairs."""
        return score_rows(model, self.hidden(model, arrays), arrays[2:], nll_scope, chunk)

    def cost(self, pairs: Sequence[Lengths]) -> int:
        """Return the tokens of both rectangles."""
        prompt, answer = max(pair.prompt for pair in pairs), max(pair.answer for pair in pairs)
        return len(pairs) * (prompt + 2 * answer)

    def batch_shape(self, pairs: Sequence[Lengths], nll_scope: str) -> BatchShape:
        """Return what one forward pass computes."""
        slots = [pair.slot for pair in pairs]
        shape = grouped_shape(slots, [range(len(pairs))], *count_tokens(pairs, nll_scope))
        return replace(shape, rows=shape.cells)

    def worst_of(self, pairs: Sequence[Lengths], members: int) -> Sequence[Lengths]:
        """One pair may have the longest prompt and another the longest answer."""
        prompt, answer = max(pair.prompt for pair in pairs), max(pair.answer for pair in pairs)
        return [Lengths(prompt, answer, answer)] * min(len(pairs), members)
