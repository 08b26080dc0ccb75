"""Answer held-out prompts, so that a reader sees what training changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from orpo_mlx.step import evaluating


def answer(
    model: Any,
    tokenizer: Any,
    prompt: list[int],
    max_tokens: int,
    between: Callable[[], None] | None = None,
) -> str:
    """Continue a tokenized prompt greedily until the end-of-turn token.

    mlx-lm's `stream_generate` would raise the wired-memory limit around this call; its inner
    `generate_step` does not (reports tie that limit to kernel panics while training).

    Args:
        model: an mlx-lm model, on the thread that loaded it.
        tokenizer: mlx-lm's wrapper, which knows the end-of-turn tokens.
        prompt: token ids, at least one.
        max_tokens: longest answer.
        between: called after each token.
    """
    from mlx_lm.generate import generate_step

    ends = set(tokenizer.eos_token_ids)
    tokens: list[int] = []
    with evaluating(model):
        for token, _ in generate_step(mx.array(prompt), model, max_tokens=max_tokens):
            if token in ends:
                break
            tokens.append(int(token))
            if between is not None:
                between()
    return tokenizer.decode(tokens).strip()
