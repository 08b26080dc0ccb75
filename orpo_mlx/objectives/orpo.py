"""ORPO and its relatives as pure functions of log-probabilities.

Nothing here knows a model, a tokenizer or a setting file. Shapes: B pairs, T tokens per row, V
vocabulary. Log-probs are in nats; everything from the log-softmax on is float32.

Source: ORPO, Hong et al. 2024, https://arxiv.org/abs/2403.07691.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.objectives.base import PairScores, ReferenceScores, StepTotals
from orpo_mlx.objectives.nll import PARTS, Reduction, nll_parts, nll_share
from orpo_mlx.objectives.numerics import log_odds, masked_sum


class OddsRatio(NamedTuple):
    """Per-pair results of `odds_ratio_loss`, float32, not averaged."""

    loss: mx.array
    """[B] nats, >= 0."""
    log_odds_ratio: mx.array
    """[B] nats, above 0 when the chosen response has the higher odds."""


def odds_ratio_loss(chosen_logps: mx.array, rejected_logps: mx.array) -> OddsRatio:
    """Charge each pair for how weakly the model prefers the chosen response.

    With p = exp(mean log-prob per response token) and odds(p) = p / (1 - p):

        log_odds_ratio = log odds(p_chosen) - log odds(p_rejected)
        loss           = -log sigmoid(log_odds_ratio)

    A pair the model already separates costs nearly nothing; a pair in the wrong order costs about
    as many nats as it is wrong by.

    Args:
        chosen_logps: [B] nats per response token, each below 0, as `PairScores.chosen_logps`.
        rejected_logps: [B] the same pairs in the same order.

    Raises:
        ValueError: the shapes differ; one side was filtered without the other.

    Example:
        p_chosen = 0.5 has odds 1 and p_rejected = 0.2 has odds 1/4: the ratio is 4, sigmoid(log 4)
        is 4/5, and the loss is -log(4/5) = 0.2231.

    Source:
        ORPO, equations 4 and 7.
    """
    _require_same_shape(chosen_logps, rejected_logps)
    ratio = log_odds(chosen_logps) - log_odds(rejected_logps)
    return OddsRatio(loss=-nn.log_sigmoid(ratio), log_odds_ratio=ratio)


def probability_ratio_loss(chosen_logps: mx.array, rejected_logps: mx.array) -> mx.array:
    """Return -log sigmoid(chosen - rejected) [B]: the paper's ablation without odds.

    Args:
        chosen_logps: [B] nats per response token.
        rejected_logps: [B] the same pairs in the same order.

    Raises:
        ValueError: the shapes differ.

    Example:
        p_chosen = 0.5 and p_rejected = 0.2: the ratio is 2.5, the loss -log(2.5/3.5) = 0.3365.

    Source:
        ORPO, section 7.1 and equation 9 (probability ratio).
    """
    _require_same_shape(chosen_logps, rejected_logps)
    difference = chosen_logps.astype(mx.float32) - rejected_logps.astype(mx.float32)
    return -nn.log_sigmoid(difference)


def _require_same_shape(chosen: mx.array, rejected: mx.array) -> None:
    if chosen.shape != rejected.shape:
        raise ValueError(
            f"{chosen.shape} chosen and {rejected.shape} rejected log-probs: they must be the same "
            "pairs in the same order; filter pairs, not responses"
        )


@dataclass(frozen=True)
class Orpo:
    """nll_weight * NLL + lam * mean preference term.

    Its fields are settings of the same names; `nll_scope` says which tokens the scores count.

    Source:
        ORPO, equation 6.
    """

    lam: float = 0.1
    nll_scope: Literal["full", "response"] = "response"
    nll_reduction: Reduction = "token"
    nll_weight: float = 1.0
    preference: Literal["odds_ratio", "probability_ratio", "none"] = "odds_ratio"

    name: ClassVar[str] = "orpo"
    needs_reference: ClassVar[bool] = False
    measured: ClassVar[tuple[str, ...]] = (
        "loss",
        "nll_loss",
        "odds_ratio_loss",
        "log_odds_ratio",
        "chosen_logps",
        "rejected_logps",
        "preference_accuracy",
        "logps_margin",
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured; where the NLL counts prompts, its two parts are told apart."""
        return (*self.measured, *(PARTS if self.nll_scope == "full" else ()))

    def __call__(
        self, scores: PairScores, reference: ReferenceScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics."""
        is_real = scores.nll_tokens > 0
        # Pairs that stand for nothing get log-probs from which odds can be computed.
        chosen = mx.where(is_real, scores.chosen_logps, -1.0)
        rejected = mx.where(is_real, scores.rejected_logps, -1.0)
        nll = nll_share(scores, totals, self.nll_reduction)
        odds = odds_ratio_loss(chosen, rejected)
        loss = self.nll_weight * nll
        if self.preference == "odds_ratio":
            loss = loss + self.lam * (masked_sum(odds.loss, is_real) / totals.pairs)
        elif self.preference == "probability_ratio":
            ratio = probability_ratio_loss(chosen, rejected)
            loss = loss + self.lam * (masked_sum(ratio, is_real) / totals.pairs)
        margin = chosen - rejected
        per_pair = mx.stack(
            [odds.loss, odds.log_odds_ratio, chosen, rejected,
             (margin > 0).astype(mx.float32), margin]
        )  # fmt: skip
        means = masked_sum(per_pair, is_real) / totals.pairs
        parts = [nll_parts(scores, totals)] if self.nll_scope == "full" else []
        return loss, mx.concatenate([mx.stack([loss, nll]), means, *parts])
