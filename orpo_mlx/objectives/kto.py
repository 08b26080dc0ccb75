"""Kahneman-Tversky optimisation: answers that carry a label each, instead of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import mlx.core as mx

from orpo_mlx.objectives.base import PairScores, ReferenceScores, StepTotals
from orpo_mlx.objectives.numerics import masked_sum

KtoLoss = Literal["kto", "apo_zero_unpaired"]


def kto_loss(
    log_ratio: mx.array, is_desirable: mx.array, kl: mx.array | float, beta: float
) -> mx.array:
    """Return 1 - sigmoid(beta (x - kl)) [B] for good answers, 1 - sigmoid(beta (kl - x)) for bad.

    Args:
        log_ratio: x [B], by how much the policy's summed log-prob is above the reference's, nats.
        is_desirable: [B] the labels.
        kl: what x is measured from, nats; at 0 it is the unpaired form of APO-zero.
        beta: how strongly log-ratios count.

    Example:
        x = kl: 1/2 for both labels.

    Source:
        KTO, Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, equation 8; APO,
        https://arxiv.org/abs/2408.06266, equation 5.
    """
    z = beta * (log_ratio - kl)
    # sigmoid(-z), for 1 - sigmoid(z) would lose its digits.
    return _sigmoid(mx.where(is_desirable, -z, z))


def _sigmoid(x: mx.array) -> mx.array:
    """Return sigmoid(x), with a gradient that keeps its digits where it is near 1, too."""
    return mx.where(x > 0, 1 - mx.sigmoid(-x), mx.sigmoid(x))


@dataclass(frozen=True)
class Kto:
    """Mean of the weighted `kto_loss` over all answers.

    Its fields are settings of the same names. The KL is max(0, mean log-ratio of answers to other
    prompts) over the whole step, without a gradient. The means of a label are NaN in a step that
    has no such answer.

    Source:
        KTO; its KL is that of section 4.1.
    """

    kto_loss: KtoLoss = "kto"
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    name: ClassVar[str] = "kto"
    needs_reference: ClassVar[bool] = True
    measured: ClassVar[tuple[str, ...]] = (
        "loss", "chosen_logps", "rejected_logps", "chosen_rewards", "rejected_rewards",
        "reward_margin",
    )  # fmt: skip

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured; chosen and rejected are the good and the bad answers."""
        return (*self.measured, *(("kl",) if self.needs_kl else ()))

    @property
    def needs_kl(self) -> bool:
        """Whether answers are measured from the KL, not from 0."""
        return self.kto_loss == "kto"

    def kl_share(
        self, scores: PairScores, reference: ReferenceScores, totals: StepTotals
    ) -> mx.array:
        """Return a micro-batch's share of the KL before it is clamped; the clamp is on the mean."""
        ratios = scores.rejected_sum - reference.rejected_sum
        return masked_sum(ratios, scores.nll_tokens > 0) / totals.pairs

    def __call__(
        self, scores: PairScores, reference: ReferenceScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics.

        Raises:
            ValueError: no reference, or no label, is given.
        """
        if reference is None or reference.is_desirable is None or totals.desirable is None:
            raise ValueError("KTO needs the reference's log-probs and the labels of the answers")
        is_good, is_real = reference.is_desirable, scores.nll_tokens > 0
        ratios = scores.chosen_sum - reference.chosen_sum
        kl = self._kl(scores, reference, totals)
        terms = kto_loss(ratios, is_good, kl, self.beta)
        weights = mx.where(is_good, self.desirable_weight, self.undesirable_weight)
        loss = masked_sum(weights * terms, is_real) / totals.pairs

        columns = mx.stack([scores.chosen_sum, self.beta * ratios])
        good = masked_sum(columns, is_real & is_good) / totals.desirable
        bad = masked_sum(columns, is_real & ~is_good) / (totals.pairs - totals.desirable)
        logps, rewards = mx.stack([good, bad], axis=1)
        found = [loss[None], logps, rewards, (rewards[0] - rewards[1])[None]]
        if self.needs_kl:
            found.append((kl * is_real.sum() / totals.pairs)[None])
        return loss, mx.concatenate(found)

    def _kl(self, scores: PairScores, reference: ReferenceScores, totals: StepTotals) -> mx.array:
        if not self.needs_kl:
            return mx.zeros(())
        found = self.kl_share(scores, reference, totals) if totals.kl is None else totals.kl
        return mx.maximum(mx.stop_gradient(found), 0.0)
