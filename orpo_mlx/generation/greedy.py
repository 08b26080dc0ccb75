"""Answer held-out prompts, so that a reader sees what training changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orpo_mlx.generation.sampling import Sampling, stream_tokens
from orpo_mlx.models.modes import evaluating


def answer(
    model: Any,
    tokenizer: Any,
    prompt: list[int],
    max_tokens: int,
    between: Callable[[], None] | None = None,
) -> str:
    """Continue a tokenized prompt greedily until the end-of-turn token.

    Args:
        model: an mlx-lm model, on the thread that loaded it.
        tokenizer: mlx-lm's wrapper, which knows the end-of-turn tokens.
        prompt: token ids, at least one.
        max_tokens: longest answer.
        between: called after each token.
    """
    tokens: list[int] = []
    with evaluating(model):
        for token in stream_tokens(model, tokenizer, prompt, Sampling(max_tokens=max_tokens)):
            if token.is_end:
                break
            tokens.append(token.id)
            if between is not None:
                between()
    return tokenizer.decode(tokens).strip()
