"""What every objective is given, and what it answers.

Shares add up: summed over the micro-batches of a step they are the loss and the metrics of the
whole step, whatever its division, because each is divided by the step's totals and not by its own.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import mlx.core as mx


class PairScores(NamedTuple):
    """What the objective needs to know of a micro-batch; all [B].

    A pair that only fills a bucket up counts no token at all.
    """

    chosen_sum: mx.array
    """Log-probs, nats, summed over the tokens of the response; under a reward model its reward."""
    chosen_count: mx.array
    """How many tokens these are."""
    rejected_sum: mx.array
    rejected_count: mx.array
    nll_sum: mx.array
    """Nats, summed over the counted tokens of the chosen row."""
    nll_tokens: mx.array
    """How many tokens `nll_sum` counts."""

    @property
    def chosen_logps(self) -> mx.array:
        """Mean nats per token of the chosen response, 0 where it has none."""
        return self.chosen_sum / mx.maximum(self.chosen_count, 1)

    @property
    def rejected_logps(self) -> mx.array:
        """Mean nats per token of the rejected response, 0 where it has none."""
        return self.rejected_sum / mx.maximum(self.rejected_count, 1)


class StepTotals(NamedTuple):
    """Sizes of the whole optimizer step (or evaluation) a micro-batch belongs to."""

    pairs: mx.array
    nll_tokens: mx.array
    response_tokens: mx.array
    """Of the chosen responses alone."""


class Objective(Protocol):
    """What is minimised, and what is measured beside it.

    Attributes:
        name: as in the setting `objective`.
        metrics: what the vector of a call holds, in order; "loss" comes first. How each is named
            and written stands in `runs/metrics.py`.
        needs_reference: whether a call needs what the scores are compared with, such as those of
            the model before training.
    """

    name: ClassVar[str]

    needs_reference: ClassVar[bool]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names, "loss" first."""
        ...

    def __call__(
        self, scores: PairScores, reference: PairScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics.

        Args:
            scores: [B] arrays of the micro-batch.
            reference: what the same pairs are compared with; None if not needed.
            totals: pairs and tokens of the whole step.

        Returns:
            (share of the loss, shares of `metrics` in their order), float32.
        """
        ...
