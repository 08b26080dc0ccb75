"""Model and batch to log-probs: the only place where tokens are shifted by one."""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from orpo_mlx.data.pairs import Batch
from orpo_mlx.losses import PairScores, masked_sum, mean_logps, token_logps


class Shifted(NamedTuple):
    """A batch with its one-token shift done: `targets[:, t]` is predicted from `inputs[:, t]`.

    Attributes:
        inputs, targets: [2B, T-1] token ids; rows 0..B-1 chosen, B..2B-1 rejected.
        response_mask: [2B, T-1] true where the target is a response token.
        nll_mask: [B, T-1] true where the chosen row's target counts in the NLL.
    """

    inputs: mx.array
    targets: mx.array
    response_mask: mx.array
    nll_mask: mx.array


def shift_batch(batch: Batch, nll_scope: str) -> Shifted:
    """Shift ids and masks together; the first token of a row is never predicted.

    Args:
        batch: unshifted arrays [2B, T].
        nll_scope: "full" counts prompt + response of the chosen row, "response" only the latter.

    Example:
        ids `1 7 | 8 2 0` (prompt 1 7, response 8 2, one padding) become inputs `1 7 8 2`, targets
        `7 8 2 0`, response mask `0 1 1 0`, and NLL mask `1 1 1 0` (full) or `0 1 1 0`.
    """
    nll_mask = batch.token_mask if nll_scope == "full" else batch.response_mask
    return Shifted(
        inputs=mx.array(batch.input_ids[:, :-1]),
        targets=mx.array(batch.input_ids[:, 1:]),
        response_mask=mx.array(batch.response_mask[:, 1:]),
        nll_mask=mx.array(nll_mask[: batch.pairs, 1:]),
    )


def count_nll_tokens(batch: Batch, nll_scope: str) -> int:
    """Return how many chosen tokens the NLL of this batch counts; equals `nll_mask.sum()`."""
    nll_mask = batch.token_mask if nll_scope == "full" else batch.response_mask
    return int(np.count_nonzero(nll_mask[: batch.pairs, 1:]))


def score_pairs(model: Any, shifted: Shifted) -> PairScores:
    """Run both responses of each pair through the model and average what counts.

    Padding is on the right and attention is causal, so no real token ever sees it.

    Args:
        model: maps token ids [2B, T] to logits [2B, T, V].
        shifted: from `shift_batch`.
    """
    return score_logits(model(shifted.inputs), shifted)


def score_logits(logits: mx.array, shifted: Shifted) -> PairScores:
    """Turn the logits [2B, T-1, V] of a shifted batch into what the objective needs."""
    logps = token_logps(logits, shifted.targets)
    pairs = shifted.nll_mask.shape[0]
    response = mean_logps(logps, shifted.response_mask)
    return PairScores(
        chosen_logps=response[:pairs],
        rejected_logps=response[pairs:],
        nll_sum=-masked_sum(logps[:pairs], shifted.nll_mask),
        nll_tokens=shifted.nll_mask.sum(axis=-1),
    )
