"""Direct preference optimisation and its forms: how far a pair has moved from a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from orpo_mlx.objectives import rewards
from orpo_mlx.objectives.base import PairScores, ReferenceScores, StepTotals
from orpo_mlx.objectives.nll import Reduction

DpoLoss = Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "apo_down"]


class Moved(NamedTuple):
    """By what a policy has come away from its reference; nats [B], of summed log-probs.

    Attributes:
        chosen, rejected: log-ratios, c - c' and r - r'.
    """

    chosen: mx.array
    rejected: mx.array

    def margin(self, beta: float) -> mx.array:
        """Return the reward margin z = beta ((c - c') - (r - r')).

        The difference comes first: of two large rewards the margin would lose its digits.
        """
        return beta * (self.chosen - self.rejected)


def sigmoid_loss(z: mx.array, smoothing: float) -> mx.array:
    """Return (1 - eps) s(z) + eps s(-z) [B] with s(x) = -log sigmoid(x).

    With eps above 0 it is the "conservative" DPO: labels are wrong with that probability. The
    gradient is 0 where sigmoid(z) = 1 - eps, so margins stay finite.

    Example:
        z = 0: log 2 = 0.6931, for every eps.

    Source:
        DPO, Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, equation 7; the label noise of
        Mitchell 2023, "A note on DPO with noisy preferences".
    """
    return -(1 - smoothing) * nn.log_sigmoid(z) - smoothing * nn.log_sigmoid(-z)


def robust_loss(z: mx.array, smoothing: float) -> mx.array:
    """Return ((1 - eps) s(z) - eps s(-z)) / (1 - 2 eps) [B]; unbiased under flipped labels.

    It may be below 0.

    Source:
        Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409, equation 12.
    """
    found = -(1 - smoothing) * nn.log_sigmoid(z) + smoothing * nn.log_sigmoid(-z)
    return found / (1 - 2 * smoothing)


def hinge_loss(z: mx.array) -> mx.array:
    """Return max(0, 1 - z) [B].

    Source:
        SLiC, Zhao et al. 2023, https://arxiv.org/abs/2305.10425, with DPO's margin.
    """
    return mx.maximum(1 - z, 0.0)


def ipo_loss(difference: mx.array, beta: float) -> mx.array:
    """Return (h - 1 / (2 beta))^2 [B].

    Args:
        difference: h, the log-ratio of chosen less that of rejected: sums, as in the paper, or
            means over tokens, as in TRL.
        beta: the paper's tau; it sets the difference that is wanted, 1 / (2 beta) nats.

    Source:
        Azar et al. 2023, https://arxiv.org/abs/2310.12036, equation 17.
    """
    return mx.square(difference - 1 / (2 * beta))


def apo_zero_loss(moved: Moved, beta: float) -> mx.array:
    """Return sigmoid(-beta (c - c')) + sigmoid(beta (r - r')) [B]: chosen up, rejected down.

    For answers that are better than what the model writes.

    Source:
        APO, D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266, equation 5.
    """
    return mx.sigmoid(-beta * moved.chosen) + mx.sigmoid(beta * moved.rejected)


def apo_down_loss(moved: Moved, beta: float) -> mx.array:
    """Return sigmoid(beta (c - c')) + sigmoid(-z) [B]: both down, rejected more.

    For answers that are worse than what the model writes.

    Source:
        APO, equation 6.
    """
    return mx.sigmoid(beta * moved.chosen) + mx.sigmoid(-moved.margin(beta))


@dataclass(frozen=True)
class Dpo:
    """Mean loss of the pairs in one of DPO's forms, + nll_weight * NLL (RPO).

    Its fields are settings of the same names. At the start from a fresh adapter policy and
    reference are one model: rewards are 0 and the sigmoid loss is log 2.

    Source:
        DPO, Rafailov et al. 2023; the NLL term: Pang et al. 2024, https://arxiv.org/abs/2404.19733,
        equation 1 ("pair" is the paper's reduction, "token" TRL's).
    """

    dpo_loss: DpoLoss = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    ipo_length: Literal["averaged", "summed"] = "averaged"
    nll_weight: float = 0.0
    nll_reduction: Reduction = "token"

    name: ClassVar[str] = "dpo"
    needs_reference: ClassVar[bool] = True

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured."""
        return rewards.METRICS

    def __call__(
        self, scores: PairScores, reference: ReferenceScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics.

        Raises:
            ValueError: no reference is given.
        """
        if reference is None:
            raise ValueError("DPO needs the reference's log-probs of the same pairs")
        moved = Moved(
            scores.chosen_sum - reference.chosen_sum, scores.rejected_sum - reference.rejected_sum
        )
        return rewards.loss_and_metrics(
            self._terms(scores, moved),
            (scores.chosen_sum, scores.rejected_sum),
            (self.beta * moved.chosen, self.beta * moved.rejected),
            scores, totals, self.nll_weight, self.nll_reduction,
        )  # fmt: skip

    def _terms(self, scores: PairScores, moved: Moved) -> mx.array:
        z = moved.margin(self.beta)
        match self.dpo_loss:
            case "sigmoid":
                return sigmoid_loss(z, self.label_smoothing)
            case "robust":
                return robust_loss(z, self.label_smoothing)
            case "hinge":
                return hinge_loss(z)
            case "ipo":
                return ipo_loss(self._difference(scores, moved), self.beta)
            case "apo_zero":
                return apo_zero_loss(moved, self.beta)
            case "apo_down":
                return apo_down_loss(moved, self.beta)

    def _difference(self, scores: PairScores, moved: Moved) -> mx.array:
        if self.ipo_length == "summed":
            return moved.chosen - moved.rejected
        chosen = moved.chosen / mx.maximum(scores.chosen_count, 1)
        return chosen - moved.rejected / mx.maximum(scores.rejected_count, 1)
