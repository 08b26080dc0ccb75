"""One pair at a time, through the model's own caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.data.batching.buckets import Bucket
from orpo_mlx.data.batching.shape import BatchShape, Lengths, count_tokens, grouped_shape
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.patches import fork_cache, run_body
from orpo_mlx.objectives.base import PairScores
from orpo_mlx.scoring.base import Way, score_arrays, score_rows


@dataclass(frozen=True)
class Fork(Way):
    """The prompt into the model's own cache, each answer from a copy of it."""

    name = "fork"
    passes = 0
    can_keep = False
    can_recompute = False

    def arrays(
        self, pairs: Sequence[TokenPair], nll_scope: str, bucket: Bucket | None = None
    ) -> Sequence[np.ndarray]:
        """Return what `score_rows` needs, then per pair its prompt, chosen and rejected inputs at
        their own length."""
        inputs = [
            np.array(ids, np.int32)
            for p in pairs
            for ids in (
                p.prompt[:-1],
                [p.prompt[-1], *p.chosen[:-1]],
                [p.prompt[-1], *p.rejected[:-1]],
            )
        ]
        width = max(len(array) for array in inputs)
        return [*score_arrays(pairs, nll_scope, width, width), *inputs]

    def hidden(self, model: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Return the hidden states of all prompts, chosen and rejected answers, each [W, hidden],
        W the longest of them."""
        from mlx_lm.models.cache import make_prompt_cache

        inputs = arrays[6:]
        width = max(array.size for array in inputs)
        prompts, chosen, rejected = [], [], []
        for i in range(0, len(inputs), 3):
            cache = make_prompt_cache(model)
            prompt = inputs[i]
            if prompt.size:
                prompts.append(_widened(run_body(model, prompt[None], cache).squeeze(0), width))
            for side, ids in ((chosen, inputs[i + 1]), (rejected, inputs[i + 2])):
                side.append(
                    _widened(run_body(model, ids[None], fork_cache(cache)).squeeze(0), width)
                )
            if not prompt.size:
                prompts.append(mx.zeros_like(chosen[-1]))
        return [*prompts, *chosen, *rejected]

    def score(
        self, model: Any, arrays: Sequence[mx.array], nll_scope: str, chunk: int
    ) -> PairScores:
        """Score the pairs."""
        return score_rows(model, self.hidden(model, arrays), arrays[:6], nll_scope, chunk)

    def cost(self, pairs: Sequence[Lengths]) -> int:
        """Return the tokens of the pairs, prompts once."""
        return sum(map(sum, pairs))

    def batch_shape(self, pairs: Sequence[Lengths], nll_scope: str) -> BatchShape:
        """Return what one forward pass computes."""
        slots = [pair.slot for pair in pairs]
        alone = [[i] for i in range(len(pairs))]
        return grouped_shape(slots, alone, *count_tokens(pairs, nll_scope))


def _widened(rows: mx.array, width: int) -> mx.array:
    return mx.pad(rows, [(0, width - rows.shape[0]), (0, 0)])
