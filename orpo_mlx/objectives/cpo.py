"""Contrastive preference optimisation and SimPO: DPO's comparison without a reference model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.objectives import rewards
from orpo_mlx.objectives.base import PairScores, ReferenceScores, StepTotals
from orpo_mlx.objectives.nll import Reduction


@dataclass(frozen=True)
class Cpo:
    """-log sigmoid(beta (c - r)) + nll_weight * NLL; c, r: summed log-probs of the responses.

    Its fields are settings of the same names.

    Example:
        c = -2, r = -5, beta 0.1: -log sigmoid(0.3) = 0.5544, and the NLL on top.

    Source:
        CPO, Xu et al. 2024, https://arxiv.org/abs/2401.08417, section 3. There the NLL is summed
        over a response; here, as in TRL, it is a mean over tokens ("pair": over each response's).
    """

    beta: float = 0.1
    nll_weight: float = 1.0
    nll_reduction: Reduction = "token"

    name: ClassVar[str] = "cpo"
    needs_reference: ClassVar[bool] = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured."""
        return rewards.METRICS

    def __call__(
        self, scores: PairScores, reference: ReferenceScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics."""
        chosen, rejected = scores.chosen_sum, scores.rejected_sum
        terms = -nn.log_sigmoid(self.beta * (chosen - rejected))
        return rewards.loss_and_metrics(
            terms, (chosen, rejected), (self.beta * chosen, self.beta * rejected), scores, totals,
            self.nll_weight, self.nll_reduction,
        )  # fmt: skip


@dataclass(frozen=True)
class Simpo:
    """-log sigmoid(beta (c / n_c - r / n_r) - gamma) + nll_weight * NLL; means over n tokens.

    `gamma` is the margin itself, not the paper's ratio of it to beta. Fields are settings of the
    same names.

    Example:
        means of -1 and -1.5, beta 2, gamma 0.5: -log sigmoid(1 - 0.5) = 0.4741.

    Source:
        SimPO, Meng et al. 2024, https://arxiv.org/abs/2405.14734, equation 6.
    """

    beta: float = 2.0
    gamma: float = 0.5
    nll_weight: float = 0.0
    nll_reduction: Reduction = "token"

    name: ClassVar[str] = "simpo"
    needs_reference: ClassVar[bool] = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured."""
        return rewards.METRICS

    def __call__(
        self, scores: PairScores, reference: ReferenceScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics."""
        chosen, rejected = scores.chosen_logps, scores.rejected_logps
        terms = -nn.log_sigmoid(self.beta * (chosen - rejected) - self.gamma)
        return rewards.loss_and_metrics(
            terms, (chosen, rejected), (self.beta * chosen, self.beta * rejected), scores, totals,
            self.nll_weight, self.nll_reduction,
        )  # fmt: skip
