"""Pairs by the reward their objective implies: what the metrics of DPO and its relatives share."""

from __future__ import annotations

import mlx.core as mx

from orpo_mlx.objectives.base import PairScores, StepTotals
from orpo_mlx.objectives.nll import Reduction, nll_share
from orpo_mlx.objectives.numerics import masked_sum

METRICS = (
    "loss", "nll_loss", "chosen_logps", "rejected_logps", "chosen_rewards", "rejected_rewards",
    "preference_accuracy", "reward_margin",
)  # fmt: skip
"""What `loss_and_metrics` measures, in order."""


def loss_and_metrics(
    terms: mx.array,
    logps: tuple[mx.array, mx.array],
    rewards: tuple[mx.array, mx.array],
    scores: PairScores,
    totals: StepTotals,
    nll_weight: float,
    nll_reduction: Reduction,
) -> tuple[mx.array, mx.array]:
    """Return the shares of mean(terms) + nll_weight * NLL, and of `METRICS`; float32.

    Args:
        terms: the objective's loss of each pair, [B].
        logps: chosen and rejected [B], sums or means as the objective has them.
        rewards: chosen and rejected [B], without unit; a pair is right if the former is higher.
        scores: of the policy; pairs that only fill a bucket up count no token.
        totals: of the whole step.
        nll_weight: of the NLL, which is measured in any case.
        nll_reduction: as in `nll_share`.
    """
    chosen, rejected = rewards
    margin = chosen - rejected
    columns = [terms, *logps, chosen, rejected, (margin > 0).astype(mx.float32), margin]
    loss, *means = masked_sum(mx.stack(columns), scores.nll_tokens > 0) / totals.pairs
    nll = nll_share(scores, totals, nll_reduction)
    if nll_weight:
        loss = loss + nll_weight * nll
    return loss, mx.stack([loss, nll, *means])
