"""A reward model: one number for an answer, learned from which of two answers is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.objectives.base import PairScores, StepTotals
from orpo_mlx.objectives.numerics import masked_sum


@dataclass(frozen=True)
class Reward:
    """-log sigmoid(c - r - m) + center (c + r)^2; c, r: the head's rewards, m: the pair's margin.

    A reference's scores are what rewards are compared with: of a pair with a margin, the margin
    and 0. Its fields are settings of the same names.

    Example:
        c = 1.5, r = 0.5: -log sigmoid(1) = 0.3133; with a margin of 1: log 2 = 0.6931.

    Source:
        Bradley-Terry as in Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, section 3.4;
        margins: Llama 2, Touvron et al. 2023, https://arxiv.org/abs/2307.09288, equation 2;
        centring: Eisenstein et al. 2023, https://arxiv.org/abs/2312.09244, section 2.
    """

    use_margin: bool = False
    center: float = 0.0

    name: ClassVar[str] = "reward"
    metrics: ClassVar[tuple[str, ...]] = (
        "loss", "chosen_rewards", "rejected_rewards", "preference_accuracy", "reward_margin",
    )  # fmt: skip

    @property
    def needs_reference(self) -> bool:
        """Whether pairs are compared with something: their margins."""
        return self.use_margin

    def __call__(
        self, scores: PairScores, reference: PairScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics.

        Raises:
            ValueError: margins are needed and not given.
        """
        chosen, rejected = scores.chosen_sum, scores.rejected_sum
        margin = ahead = chosen - rejected
        if self.use_margin:
            if reference is None:
                raise ValueError("a reward model with margins needs those of the same pairs")
            ahead = margin - (reference.chosen_sum - reference.rejected_sum)
        terms = -nn.log_sigmoid(ahead)
        if self.center:
            terms = terms + self.center * mx.square(chosen + rejected)
        columns = [terms, chosen, rejected, (margin > 0).astype(mx.float32), margin]
        means = masked_sum(mx.stack(columns), scores.nll_tokens > 0) / totals.pairs
        return means[0], means
