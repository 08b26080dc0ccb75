"""Both rows of a pair in full: works for every causal model, and computes prompts twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.reward_head import rewards
from orpo_mlx.data.batching.buckets import Bucket, padded_cost
from orpo_mlx.data.batching.padded import build_batch
from orpo_mlx.data.batching.shape import BatchShape, Lengths, padded_shape
from orpo_mlx.data.types import TokenPair
from orpo_mlx.models.patches import run_body
from orpo_mlx.objectives.base import PairScores
from orpo_mlx.scoring.base import Shifted, Way, last_scores, score_logits, shift_batch
from orpo_mlx.scoring.head import REWARD


@dataclass(frozen=True)
class Plain(Way):
    """Padding is on the right and attention is causal, so no real token ever sees it."""

    name = "plain"
    can_bucket = True
    has_chunks = False

    def arrays(
        self, pairs: Sequence[TokenPair], nll_scope: str, bucket: Bucket | None = None
    ) -> Sequence[np.ndarray]:
        """Return the fields of `Shifted`."""
        width, filling = 0, 0
        if bucket is not None:
            width, filling = bucket.longest + 1, len(bucket.slots) - len(pairs)
        pairs = [*pairs, *[TokenPair([], [], [])] * filling]
        batch = build_batch(pairs, range(len(pairs)), pad_id=0, at_least=width)
        return shift_batch(batch, nll_scope)

    def hidden(self, model: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        """Return the hidden states of all rows, [2B, T-1, hidden]."""
        return [run_body(model, Shifted(*arrays).inputs)]

    def score(
        self, model: Any, arrays: Sequence[mx.array], nll_scope: str, chunk: int
    ) -> PairScores:
        """Score the pairs through the model's own call, which makes all logits."""
        shifted = Shifted(*arrays)
        if nll_scope == REWARD:
            return last_scores(rewards(model, self.hidden(model, arrays)[0]), shifted)
        return score_logits(model(shifted.inputs), shifted)

    def cost(self, pairs: Sequence[Lengths]) -> int:
        """Return the tokens of all rows, padding included."""
        return 2 * len(pairs) * max(pair.longest for pair in pairs)

    def batch_shape(self, pairs: Sequence[Lengths], nll_scope: str) -> BatchShape:
        """Return what one forward pass computes."""
        return padded_shape(len(pairs), max(pair.longest for pair in pairs) - 1)

    def bucket_shape(self, bucket: Bucket, nll_scope: str) -> BatchShape:
        """Return what a forward pass over a full bucket computes."""
        return padded_shape(len(bucket.slots), bucket.longest)

    def bucket_cost(self, bucket: Bucket) -> float:
        """Return what a full bucket takes, in tokens of the linear layers."""
        return padded_cost(bucket)
