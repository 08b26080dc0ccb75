"""How far two models are apart on three prompts: log-probs and their KL divergence, in nats."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

PROMPTS = ("The capital of France is", "Explain in one sentence why the sky is blue.", "1, 2, 3,")


def logprobs(model: Any, tokenizer: Any) -> list[mx.array]:
    """Return the log-probs [T, V] of the three prompts in float32."""
    found = [logprobs_of(model, tokenizer.encode(prompt)) for prompt in PROMPTS]
    mx.eval(found)
    return found


def logprobs_of(model: Any, ids: list[int], start: int = 0) -> mx.array:
    """Return the log-probs [T, V] that a model gives to what follows each token, float32.

    Args:
        model: mlx-lm's.
        ids: the tokens.
        start: leave out those before this one.
    """
    logits = model(mx.array(ids)[None])[0, start:].astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def largest_difference(one: list[mx.array], other: list[mx.array]) -> float:
    """Return the largest difference of any log-prob, in nats."""
    return max(float(mx.abs(a - b).max().item()) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]


def mean_divergence(one: list[mx.array], other: list[mx.array]) -> float:
    """Return the mean KL divergence of `other` from `one` over all positions, in nats."""
    sums = [divergences(a, b) for a, b in zip(one, other, strict=True)]
    return float(mx.concatenate(sums).mean().item())  # type: ignore[arg-type]


def divergences(one: mx.array, other: mx.array) -> mx.array:
    """Return the KL divergence [T] of `other` from `one` at each position, in nats.

    Args:
        one, other: [T, V] log-probs, float32.

    Example:
        One says 1/2 and 1/2, the other 1/4 and 3/4: log 2 / 2 + log(2/3) / 2 = 0.1438.
    """
    return (mx.exp(one) * (one - other)).sum(axis=-1)
