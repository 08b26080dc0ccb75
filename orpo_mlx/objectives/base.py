"""What every objective is given, and what it answers.

Shares add up: summed over the micro-batches of a step they are the loss and the metrics of the
whole step, whatever its division, because each is divided by the step's totals and not by its own.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

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


class ReferenceScores(NamedTuple):
    """What is known of the pairs of a micro-batch beforehand; all [B].

    Labelled answers are pairs, too: the answer is the chosen side, and on the rejected side is the
    answer to another prompt, from which KTO's KL is estimated.
    """

    chosen_sum: mx.array
    """Log-probs of the reference, nats, summed over the tokens of the response."""
    rejected_sum: mx.array
    is_desirable: mx.array | None = None
    """Labels of labelled answers."""


class StepTotals(NamedTuple):
    """Sizes of the whole optimizer step (or evaluation) a micro-batch belongs to."""

    pairs: mx.array
    nll_tokens: mx.array
    response_tokens: mx.array
    """Of the chosen responses alone."""
    desirable: mx.array | None = None
    """How many of the pairs are answers that are labelled as good."""
    kl: mx.array | None = None
    """Nats; what a `KlObjective` has found in all micro-batches, where there are several."""


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
        self, scores: PairScores, reference: ReferenceScores | None, totals: StepTotals
    ) -> tuple[mx.array, mx.array]:
        """Return a micro-batch's share of the step's loss, and of its metrics.

        Args:
            scores: [B] arrays of the micro-batch.
            reference: what the same pairs are compared with; None if not needed.
            totals: pairs and tokens of the whole step.

        Returns:
            (share of the loss, shares of `metrics` in their order), float32. A metric of which the
            step has nothing to measure is NaN; the loss never is.
        """
        ...


@runtime_checkable
class KlObjective(Protocol):
    """An objective whose loss of a pair depends on a mean over the whole step.

    It has no gradient, so it is found before the gradient of the first micro-batch is.
    """

    @property
    def needs_kl(self) -> bool:
        """Whether `StepTotals.kl` is looked at."""
        ...

    def kl_share(
        self, scores: PairScores, reference: ReferenceScores, totals: StepTotals
    ) -> mx.array:
        """Return a micro-batch's share of the step's KL, nats."""
        ...
