"""The usual language-model loss of the chosen side, alone or beside a preference term."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx

from orpo_mlx.objectives.base import PairScores, StepTotals

Reduction = Literal["token", "pair"]
PARTS = ("response_nll", "prompt_nll")
"""Metrics of `nll_parts`."""


def nll_share(scores: PairScores, totals: StepTotals, reduction: Reduction) -> mx.array:
    """Return a micro-batch's share of the NLL, nats per token, float32.

    Args:
        scores: [B] arrays; `nll_tokens` counts the prompt, too, where the setting says so.
        totals: of the whole step.
        reduction: "token": over all counted tokens of the step; "pair": the mean of each pair's.
    """
    if reduction == "token":
        return scores.nll_sum.sum() / totals.nll_tokens
    return (scores.nll_sum / mx.maximum(scores.nll_tokens, 1)).sum() / totals.pairs


def nll_parts(scores: PairScores, totals: StepTotals) -> mx.array:
    """Return [2]: the shares of the NLL of responses and of prompts, each over its own tokens."""
    response = -scores.chosen_sum.sum()
    prompt_tokens = mx.maximum(totals.nll_tokens - totals.response_tokens, 1)
    prompt = (scores.nll_sum.sum() - response) / prompt_tokens
    return mx.stack([response / totals.response_tokens, prompt])
