"""Loss and log-probs a second time, in float64 NumPy from the definition.

Nothing here uses losses.py or scoring.py: what is wrong there must not be wrong here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.pairs import TokenPair


@dataclass(frozen=True)
class Reference:
    """What the second computation found.

    Attributes:
        scores: [4, B] mean chosen and rejected log-prob, NLL sum, and how many tokens it counts.
        loss: of all pairs together.
    """

    scores: np.ndarray
    loss: float


def compute_reference(
    model: Any, pairs: Sequence[TokenPair], config: TrainConfig, widths: Sequence[int]
) -> Reference:
    """Compute log-probs and loss in float64, pair by pair, from the definition.

    Args:
        model: in evaluation mode.
        pairs: to look at.
        config: the objective's settings.
        widths: to which each pair's two rows are padded. The same as in the computation that is
            checked, because half precision gives other logits for other shapes.
    """
    columns = []
    for pair, width in zip(pairs, widths, strict=True):
        rows = [[*pair.prompt, *side] for side in (pair.chosen, pair.rejected)]
        inputs = [(row[:-1] + [0] * width)[:width] for row in rows]
        logits = model(mx.array(inputs, mx.int32))
        chosen, rejected = (_row_logps(*each) for each in zip(logits, rows, strict=True))
        first = len(pair.prompt) - 1
        counted = chosen if config.nll_scope == "full" else chosen[first:]
        means = chosen[first:].mean(), rejected[first:].mean()
        columns.append((*means, -counted.sum(), len(counted)))
    scores = np.array(columns).T
    return Reference(scores, reference_loss(scores, config))


def _row_logps(logits: mx.array, row: list[int]) -> np.ndarray:
    """Return log P(row[t] | row[:t]) for t = 1, 2, ... from logits [T, V]."""
    found = []
    for t in range(1, len(row)):
        at = np.array(logits[t - 1].astype(mx.float32)).astype(np.float64)
        at -= at.max()
        found.append(at[row[t]] - np.log(np.exp(at).sum()))
    return np.array(found)


def reference_loss(scores: np.ndarray, config: TrainConfig) -> float:
    """Return the loss of all pairs from [4, B] scores, in float64."""
    chosen, rejected, nll_sums, tokens = scores
    by_token = config.nll_reduction == "token"
    nll = nll_sums.sum() / tokens.sum() if by_token else (nll_sums / tokens).mean()
    if config.preference == "odds_ratio":
        # odds = p / (1 - p), and 1 - p = -expm1(log p)
        ratio = (chosen - np.log(-np.expm1(chosen))) - (rejected - np.log(-np.expm1(rejected)))
    else:
        ratio = chosen - rejected
    preference = np.logaddexp(0.0, -ratio).mean()  # -log sigmoid(ratio)
    weight = 0.0 if config.preference == "none" else config.lam
    return float(config.nll_weight * nll + weight * preference)
