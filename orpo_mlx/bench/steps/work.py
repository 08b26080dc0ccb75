"""Operations that a step cannot do without: every prompt once, causal attention, scored logits.

Products only: 2 a multiply-add; the backward pass through a frozen layer costs as much as its
forward pass, through an adapter twice as much; attention is counted once forward, twice backward.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orpo_mlx.models.shape import ModelShape


@dataclass(frozen=True)
class UsefulWork:
    """Operations of a step by what computes them.

    Attributes:
        frozen: of the model's own weights, in their format.
        attention: in the format of activations.
        adapter: in float32.
    """

    frozen: float
    attention: float
    adapter: float

    def floor_seconds(
        self, frozen_rate: float, attention_rate: float, adapter_rate: float
    ) -> float:
        """Return the least time it takes at these rates, in operations a second."""
        of_attention = self.attention / attention_rate
        return self.frozen / frozen_rate + of_attention + self.adapter / adapter_rate


def useful_work(
    shape: ModelShape, lengths: Iterable[tuple[int, int, int]], rank: int
) -> UsefulWork:
    """Return the operations of a step over pairs of these lengths.

    Args:
        shape: of a model with an adapter on every linear layer of every block.
        lengths: tokens of prompt, chosen and rejected.
        rank: of the adapter.
    """
    linears = [x for block in shape.blocks for x in block]
    weights = sum(x.inputs * x.outputs * x.per_token for x in linears)
    widths = sum((x.inputs + x.outputs) * x.per_token for x in linears)
    tokens = scored = looks = 0.0
    for prompt, *answers in lengths:
        # The prompt's last token is the first input of each answer.
        before = prompt - 1
        tokens += before + sum(answers)
        scored += sum(answers)
        looks += before * (before + 1) / 2
        looks += sum(n * before + n * (n + 1) / 2 for n in answers)
    return UsefulWork(
        frozen=4 * weights * tokens + 4 * shape.hidden * shape.vocab * scored,
        attention=12 * len(shape.blocks) * shape.head_width * looks,
        adapter=6 * rank * widths * tokens,
    )
