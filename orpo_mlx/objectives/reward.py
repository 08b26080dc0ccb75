"""A reward model: one number for an answer, learned from which of two answers is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.objectives.base import PairScores, ReferenceScores, StepTotals
from orpo_mlx.objectives.numerics import masked_sum

METRICS = ("loss", "chosen_rewards", "rejected_rewards", "preference_accuracy", "reward_margin")
"""What is measured, in order; all but the loss are means over pairs."""


@dataclass(frozen=True)
class Reward:
    """-log sigmoid(c - r - m) + center (c + r)^2; c, r: the head's rewards, m: the pair's margin.

    Margins come as a reference does: m for the chosen side and 0 for the rejected one. Its field is
    the setting of the same name.

    Example:
        c = 1.5, r = 0.5: -log sigmoid(1) = 0.3133; with a margin of 1: log 2 = 0.6931.

    Source:
        Bradley-Terry as in Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, section 3.4;
        margins: Llama 2, Touvron et al. 2023, https://arxiv.org/abs/2307.09288, equation 2;
        centring: Eisenstein et al. 2023, https://arxiv.org/abs/2312.09244, section 2.
    """

    center: float = 0.0

    name: ClassVar[str] = "reward"
    needs_reference: ClassVar[bool] = True

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured."""
        return METRICS

    def __call__(
        self, scores: PairScores, reference: ReferenceScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics.

        Without a reference all margins are 0.
        """
        chosen, rejected = scores.chosen_sum, scores.rejected_sum
        margin = ahead = chosen - rejected
        if reference is not None:
            ahead = margin - (reference.chosen_sum - reference.rejected_sum)
        terms = -nn.log_sigmoid(ahead)
        if self.center:
            terms = terms + self.center * mx.square(chosen + rejected)
        columns = [terms, chosen, rejected, (margin > 0).astype(mx.float32), margin]
        means = masked_sum(mx.stack(columns), scores.nll_tokens > 0) / totals.pairs
        return means[0], means
