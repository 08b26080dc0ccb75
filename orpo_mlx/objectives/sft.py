"""Supervised fine-tuning: the chosen side is learned, the rejected one only measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import mlx.core as mx

from orpo_mlx.objectives.base import PairScores, ReferenceScores, StepTotals
from orpo_mlx.objectives.nll import PARTS, Reduction, nll_parts, nll_share
from orpo_mlx.objectives.numerics import masked_sum


@dataclass(frozen=True)
class Sft:
    """The NLL of the chosen side.

    What a preference objective is to be compared with: it sees the same texts, and not which of two
    is better. The rejected rows cost their forward pass, for the metrics.

    Example:
        two response tokens of probability 1/2 and 1/4: (0.6931 + 1.3863) / 2 = 1.0397.
    """

    nll_scope: Literal["full", "response"] = "response"
    nll_reduction: Reduction = "token"

    name: ClassVar[str] = "sft"
    needs_reference: ClassVar[bool] = False
    measured: ClassVar[tuple[str, ...]] = (
        "loss", "nll_loss", "chosen_logps", "rejected_logps", "preference_accuracy", "logps_margin",
    )  # fmt: skip

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured; where the NLL counts prompts, its two parts are told apart."""
        return (*self.measured, *(PARTS if self.nll_scope == "full" else ()))

    def __call__(
        self, scores: PairScores, reference: ReferenceScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics."""
        loss = nll_share(scores, totals, self.nll_reduction)
        chosen, rejected = scores.chosen_logps, scores.rejected_logps
        margin = chosen - rejected
        per_pair = mx.stack([chosen, rejected, (margin > 0).astype(mx.float32), margin])
        means = masked_sum(per_pair, scores.nll_tokens > 0) / totals.pairs
        parts = [nll_parts(scores, totals)] if self.nll_scope == "full" else []
        return loss, mx.concatenate([mx.stack([loss, loss]), means, *parts])
